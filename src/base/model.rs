//! Records: the three record kinds, their raw and clean columns, and the post of three records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// Record kind; a post consists of one record of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Pin,
    Geo,
    User,
}

/// Type of a raw column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    Integer,
    Float,
    Text,
    /// `2022-05-27 11:30:59`. Some clients send RFC 3339, or a date only.
    DateTime,
}

/// Name and type of a raw column.
pub type Column = (&'static str, ColumnType);

use ColumnType::{DateTime, Float, Integer, Text};

impl Kind {
    /// All record kinds, in the order in which `emulate` sends them.
    pub const ALL: [Kind; 3] = [Kind::Pin, Kind::Geo, Kind::User];

    /// Returns the name, which is the last part of topic names: `pin`, `geo`, `user`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pin => "pin",
            Kind::Geo => "geo",
            Kind::User => "user",
        }
    }

    /// Returns the source table.
    pub fn source_table(self) -> &'static str {
        match self {
            Kind::Pin => "pinterest_data",
            Kind::Geo => "geolocation_data",
            Kind::User => "user_data",
        }
    }

    /// Returns the column of the row number: `index` in pinterest_data, `ind` in the others.
    pub fn row_number_column(self) -> &'static str {
        self.columns()[0].0
    }

    /// Returns the columns of the source table, in the order of the table.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Kind::Pin => &[
                ("index", Integer),
                ("unique_id", Text),
                ("title", Text),
                ("description", Text),
                ("poster_name", Text),
                ("follower_count", Text),
                ("tag_list", Text),
                ("is_image_or_video", Text),
                ("image_src", Text),
                ("downloaded", Integer),
                ("save_location", Text),
                ("category", Text),
            ],
            Kind::Geo => &[
                ("ind", Integer),
                ("timestamp", DateTime),
                ("latitude", Float),
                ("longitude", Float),
                ("country", Text),
            ],
            Kind::User => &[
                ("ind", Integer),
                ("first_name", Text),
                ("last_name", Text),
                ("age", Integer),
                ("date_joined", DateTime),
            ],
        }
    }

    /// Whether the clean table contains the column of the source table, unchanged or converted.
    pub fn is_cleaned(self, column: &str) -> bool {
        (self, column) != (Kind::Pin, "downloaded")
    }

    /// Returns the schema of raw records. Times are microseconds, as in clean records.
    pub fn raw_schema(self) -> SchemaRef {
        let field = |&(name, column_type): &Column| {
            let data_type = match column_type {
                Integer => DataType::Int64,
                Float => DataType::Float64,
                Text => DataType::Utf8,
                DateTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            };
            Field::new(name, data_type, true)
        };
        Arc::new(Schema::new(self.columns().iter().map(field).collect::<Vec<_>>()))
    }
}

/// Row `number` of each source table, as JSON objects in the order of [`Kind::ALL`].
#[derive(Debug, Clone)]
pub struct Post {
    pub number: i64,
    pub records: [String; Kind::ALL.len()],
}

impl Kind {
    /// Returns the name of the clean table: `<id>_pin_table`.
    pub fn clean_table(self, id: &str) -> String {
        format!("{id}_{}_table", self.name())
    }

    /// Returns the schema of clean records, in Delta tables and in queries. Times are microseconds
    /// in UTC, which every reader of Delta supports.
    pub fn clean_schema(self) -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let numbers = DataType::List(Arc::new(Field::new("element", DataType::Float64, true)));
        let columns: Vec<(&str, DataType)> = match self {
            Kind::Pin => vec![
                ("ind", DataType::Int32),
                ("unique_id", DataType::Utf8),
                ("title", DataType::Utf8),
                ("description", DataType::Utf8),
                ("follower_count", DataType::Int64),
                ("poster_name", DataType::Utf8),
                ("tag_list", DataType::Utf8),
                ("is_image_or_video", DataType::Utf8),
                ("image_src", DataType::Utf8),
                ("save_location", DataType::Utf8),
                ("category", DataType::Utf8),
            ],
            Kind::Geo => vec![
                ("ind", DataType::Int32),
                ("country", DataType::Utf8),
                ("coordinates", numbers),
                ("timestamp", time),
            ],
            Kind::User => vec![
                ("ind", DataType::Int32),
                ("user_name", DataType::Utf8),
                ("age", DataType::Int32),
                ("date_joined", time),
            ],
        };
        Arc::new(Schema::new(
            columns
                .into_iter()
                .map(|(name, data_type)| Field::new(name, data_type, true))
                .collect::<Vec<_>>(),
        ))
    }
}
