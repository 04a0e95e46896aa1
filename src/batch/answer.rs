//! An answer: a small table that goes to the terminal, to JSON and to CSV.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use serde_json::Value;

use crate::error::{OrFail, Result, on_path};
use crate::files::write_whole;
use crate::output::Table;
use crate::sql::Question;

/// Rows that the terminal shows of a long answer.
const SHOWN_ROWS: usize = 15;

/// The rows that answer a question.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub name: &'static str,
    #[serde(skip)]
    title: &'static str,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    #[serde(skip)]
    schema: SchemaRef,
    #[serde(skip)]
    batches: Vec<RecordBatch>,
}

impl Answer {
    /// Takes the result of a question's query.
    pub fn new(question: &Question, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let failed = || format!("cannot read the answer `{}`", question.name);
        let mut rows = Vec::new();
        let options = FormatOptions::default();
        for batch in &batches {
            let columns = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<Vec<_>, _>>()
                .or_fail(failed)?;
            for row in 0..batch.num_rows() {
                let cells = columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                    if column.is_null(row) {
                        return Value::Null;
                    }
                    let text = formatter.value(row).to_string();
                    // Numbers are numbers in JSON too; everything else is text.
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
        Ok(Self { name: question.name, title: question.title, columns, rows, schema, batches })
    }

    /// The table as the terminal shows it.
    pub fn text(&self) -> String {
        let mut table = Table::new(self.columns.clone());
        for row in self.rows.iter().take(SHOWN_ROWS) {
            table.row(row.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), String::from)));
        }
        let more = self.rows.len().saturating_sub(SHOWN_ROWS);
        let rest = if more > 0 { format!("\n… {more} more rows (the CSV has all: `batch --out DIR`)") } else { String::new() };
        format!("{}\n{}{rest}", self.title, table.render())
    }

    /// Writes `<folder>/<name>.csv`, whole or not at all.
    pub fn write_csv(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.csv", self.name));
        let mut text = Vec::new();
        {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut text);
            // Without a row the header still belongs there.
            let empty = [RecordBatch::new_empty(self.schema.clone())];
            let batches = if self.batches.is_empty() { &empty[..] } else { &self.batches[..] };
            for batch in batches {
                writer.write(batch).or_fail(|| format!("cannot write `{}`", path.display()))?;
            }
        }
        write_whole(&path, text).map_err(|error| on_path("write", &path, error))
    }
}
