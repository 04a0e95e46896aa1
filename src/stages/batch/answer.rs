//! An answer: a small table, written to the terminal, to JSON and to files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use serde_json::Value;

use crate::base::error::{ErrorContext, Result};
use crate::base::output::table::Table;
use crate::data::engine::session::as_schema;
use crate::data::sql::Question;

/// Maximum number of rows of an answer in the terminal.
const SHOWN_ROWS: usize = 15;

/// The rows that answer a question.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub name: String,
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    #[serde(skip)]
    pub schema: SchemaRef,
    #[serde(skip)]
    pub batches: Vec<RecordBatch>,
}

impl Answer {
    /// Converts the result of a question's query.
    ///
    /// # Errors
    /// A column cannot be cast or formatted.
    pub fn new(question: &Question, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        // The engine returns several types of strings; files and tables get plain `Utf8`.
        let fields = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => {
                Field::new(field.name(), DataType::Utf8, field.is_nullable())
            }
            _ => field.as_ref().clone(),
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batches = as_schema(batches, &schema)?;
        let failed = || format!("cannot read the answer `{}`", question.name);
        let mut rows = Vec::new();
        let options = FormatOptions::default();
        for batch in &batches {
            let columns = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<Vec<_>, _>>()
                .context(failed)?;
            for row in 0..batch.num_rows() {
                let cells = columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                    if column.is_null(row) {
                        return Value::Null;
                    }
                    let text = formatter.value(row).to_string();
                    // Numbers stay numbers in JSON; all other types become text.
                    if column.data_type().is_numeric() {
                        serde_json::from_str(&text).unwrap_or(Value::String(text))
                    } else {
                        Value::String(text)
                    }
                });
                rows.push(cells.collect());
            }
        }
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self {
            name: question.name.clone(),
            title: question.title.clone(),
            columns,
            rows,
            schema,
            batches,
        })
    }

    /// Renders the title and the first rows for the terminal.
    pub fn text(&self) -> String {
        let mut table = Table::new(self.columns.clone());
        for row in self.rows.iter().take(SHOWN_ROWS) {
            table.row(
                row.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), String::from)),
            );
        }
        let hidden_rows = self.rows.len().saturating_sub(SHOWN_ROWS);
        let footer = if hidden_rows > 0 {
            format!("\n… {hidden_rows} more rows; `pinpipe batch --out DIR` writes all of them")
        } else {
            String::new()
        };
        format!("{}\n{}{footer}", self.title, table.render())
    }
}
