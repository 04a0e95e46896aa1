//! Reading posts: row n of all three tables.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, Row};

use crate::base::error::{Error, Result};
use crate::base::model::{ColumnType, Kind, Post};
use crate::clients::database::connect::{Database, explain, is_missing_table, on_pool};

impl Database {
    /// The row numbers that all three tables have, in order.
    ///
    /// # Errors
    /// A missing table or column is named, with what to do.
    pub async fn row_numbers(&self) -> Result<Vec<i64>> {
        for kind in Kind::ALL {
            // Asked for one by one, so that the error names the table that is missing.
            let columns: Vec<String> = kind
                .columns()
                .iter()
                .map(|column| self.selected(column, ""))
                .collect();
            let probe = format!(
                "SELECT {} FROM {} WHERE 1 = 0",
                columns.join(", "),
                kind.source_table()
            );
            on_pool!(self, pool => sqlx::query(AssertSqlSafe(probe)).fetch_all(pool).await.map(|_| ()))
                .map_err(|error| explain(&format!("cannot read table `{}`", kind.source_table()), &error))?;
        }
        let [pin, geo, user] = Kind::ALL.map(|kind| self.quoted(kind.row_number_column()));
        let number = self.selected(&Kind::Pin.columns()[0], "p.");
        let statement = format!(
            "SELECT DISTINCT {number} AS n FROM pinterest_data p JOIN geolocation_data g ON g.{geo} = p.{pin} JOIN user_data u ON u.{user} = p.{pin} ORDER BY n"
        );
        on_pool!(self, pool => sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement)).fetch_all(pool).await)
            .map_err(|error| explain("cannot read the row numbers", &error))
    }

    /// These posts, in the order asked for.
    ///
    /// # Errors
    /// Names the row numbers that some table does not have.
    pub async fn posts(&self, numbers: &[i64]) -> Result<Vec<Post>> {
        let mut tables = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            tables.push(self.records(kind, numbers).await?);
        }
        let missing: Vec<String> = numbers
            .iter()
            .filter(|number| tables.iter().any(|table| !table.contains_key(number)))
            .map(i64::to_string)
            .collect();
        if !missing.is_empty() {
            let shown = missing
                .iter()
                .take(10)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::failed(format!(
                "the database has no whole post at row number {shown}{}",
                if missing.len() > 10 { ", …" } else { "" }
            ))
            .hint("a post is a row number that all three tables have; `pinpipe doctor` shows how many there are"));
        }
        let post = |number: &i64| Post {
            number: *number,
            records: [0, 1, 2]
                .map(|table: usize| tables[table].get(number).cloned().unwrap_or_default()),
        };
        Ok(numbers.iter().map(post).collect())
    }

    /// Records of one table as JSON objects, by row number.
    async fn records(&self, kind: Kind, numbers: &[i64]) -> Result<HashMap<i64, String>> {
        let columns: Vec<String> = kind
            .columns()
            .iter()
            .map(|column| self.selected(column, ""))
            .collect();
        // The numbers are integers, so they may stand in the statement as they are.
        let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let statement = format!(
            "SELECT {} FROM {} WHERE {} IN ({})",
            columns.join(", "),
            kind.source_table(),
            self.quoted(kind.row_number_column()),
            list.join(", ")
        );
        let read = on_pool!(self, pool => {
            match sqlx::query(AssertSqlSafe(statement)).persistent(false).fetch_all(pool).await {
                Ok(rows) => rows.iter().map(|row| {
                    let mut object = Map::new();
                    for (position, (name, column_type)) in kind.columns().iter().enumerate() {
                        let value = match column_type {
                            ColumnType::Integer => row.try_get::<Option<i64>, _>(position)?.map_or(Value::Null, Value::from),
                            ColumnType::Float => row.try_get::<Option<f64>, _>(position)?.map_or(Value::Null, Value::from),
                            ColumnType::Text | ColumnType::DateTime => row.try_get::<Option<String>, _>(position)?.map_or(Value::Null, Value::String),
                        };
                        object.insert((*name).to_string(), value);
                    }
                    let number: i64 = row.try_get(0)?;
                    Ok((number, Value::Object(object).to_string()))
                }).collect::<Result<HashMap<i64, String>, sqlx::Error>>(),
                Err(error) => Err(error),
            }
        });
        read.map_err(|error| {
            explain(
                &format!("cannot read table `{}`", kind.source_table()),
                &error,
            )
        })
    }

    /// How many rows a table has; `None`: there is no such table.
    ///
    /// # Errors
    /// Everything else that keeps it from being counted: it must not pass for empty.
    pub async fn row_count(&self, kind: Kind) -> Result<Option<i64>> {
        let statement = format!("SELECT COUNT(*) FROM {}", kind.source_table());
        let counted = on_pool!(self, pool => sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement)).fetch_one(pool).await);
        match counted {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_missing_table(&error) => Ok(None),
            Err(error) => Err(explain(
                &format!("cannot count table `{}`", kind.source_table()),
                &error,
            )),
        }
    }
}
