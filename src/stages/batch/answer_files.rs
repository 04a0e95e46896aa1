//! Answers as files and Delta tables for other programs.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use deltalake::parquet::arrow::ArrowWriter;

use crate::base::config::schema::{AnswerFormat as Format, Config, CsvFormulas};
use crate::base::error::{ErrorContext, Result, io_error};
use crate::base::fs::write_atomic;
use crate::data::tables::clean_table::{RowGroupSize, TableNamespace};
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::writer::{CommitRequest, OverwriteScope, TableWriter};
use crate::stages::batch::answer::Answer;
use crate::stages::batch::page;
use crate::stages::batch::report::BatchReport;

/// Maximum size of a Parquet row group, which is buffered in memory before it is written.
const ROW_GROUP_SIZE: RowGroupSize = RowGroupSize { rows: 8 * 1024, bytes: 8 * 1024 * 1024 };

/// Writes the answers and returns a description of each output. Files are written atomically,
/// and only after every answer was encoded in every format.
///
/// # Errors
/// An answer cannot be encoded; the folder or a table cannot be written.
pub async fn write(
    config: &Config,
    report: &BatchReport,
    folder: Option<&Path>,
    formats: &[Format],
) -> Result<Vec<String>> {
    let mut written = Vec::new();
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for format in formats {
        match (format, folder) {
            (Format::Delta, _) => {
                for answer in &report.answers {
                    write_delta(config, answer).await?;
                }
                written.push(format!(
                    "{} Delta tables in {}/{}",
                    report.answers.len(),
                    config.endpoints().tables_url(),
                    TableNamespace::Answers
                ));
            }
            (_, None) => {}
            (Format::Html, Some(folder)) => {
                files.push((folder.join("report.html"), page::render(report).into_bytes()));
                written.push(folder.join("report.html").display().to_string());
            }
            (Format::Csv | Format::Json | Format::Parquet, Some(folder)) => {
                let (extension, name) = match format {
                    Format::Json => ("jsonl", "JSON lines"),
                    Format::Parquet => ("parquet", "Parquet"),
                    _ => ("csv", "CSV"),
                };
                for answer in &report.answers {
                    let path = folder.join(format!("{}.{extension}", answer.name));
                    let bytes = encode(answer, *format, config.batch.csv_formulas)
                        .context(|| format!("cannot write `{}`", path.display()))?;
                    files.push((path, bytes));
                }
                written.push(format!(
                    "{} tables as {name} in {}",
                    report.answers.len(),
                    folder.display()
                ));
            }
        }
    }
    for (path, bytes) in files {
        write_atomic(&path, bytes).map_err(|error| io_error("write", &path, error))?;
    }
    Ok(written)
}

type EncodeResult = std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

fn encode(answer: &Answer, format: Format, formulas: CsvFormulas) -> EncodeResult {
    let mut bytes = Vec::new();
    match format {
        Format::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut bytes);
            for batch in batches(answer) {
                match formulas {
                    CsvFormulas::Keep => writer.write(&batch)?,
                    CsvFormulas::Escape => writer.write(&without_formulas(&batch)?)?,
                }
            }
        }
        Format::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(&mut bytes);
            for batch in &answer.batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        _ => {
            let mut writer = ArrowWriter::try_new(&mut bytes, answer.schema.clone(), None)?;
            for batch in batches(answer) {
                writer.write(&batch)?;
            }
            writer.close()?;
        }
    }
    Ok(bytes)
}

/// Returns the batch with an apostrophe before each string that a spreadsheet interprets as a
/// formula.
fn without_formulas(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>().iter().map(|text| text.map(without_formula));
            Arc::new(texts.collect::<StringArray>()) as ArrayRef
        }
        _ => column.clone(),
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}

/// Puts an apostrophe before a formula. The characters are those of OWASP, "CSV Injection". A
/// number is not a formula.
fn without_formula(text: &str) -> Cow<'_, str> {
    let is_formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && text.parse::<f64>().is_err();
    if is_formula { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Returns the batches of an answer. Without rows it returns one empty batch, so that the file
/// gets its header.
fn batches(answer: &Answer) -> Vec<RecordBatch> {
    if answer.batches.is_empty() {
        vec![RecordBatch::new_empty(answer.schema.clone())]
    } else {
        answer.batches.clone()
    }
}

async fn write_delta(config: &Config, answer: &Answer) -> Result<()> {
    let location = DeltaLocation::open(
        config,
        TableNamespace::Answers,
        &format!("{}_{}", config.id, answer.name),
    )
    .await?;
    let table = location.create_if_missing(&answer.schema).await?;
    let mut writer = TableWriter::new(&location, &table, ROW_GROUP_SIZE)?;
    for batch in &answer.batches {
        writer.write(batch.clone()).await?;
    }
    let adds = writer.finish().await?;
    location
        .commit(
            &table,
            CommitRequest { adds, replaces: OverwriteScope::Everything, checkpoint: None },
        )
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_text_and_numbers_stay() {
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            assert_eq!(without_formula(formula), format!("'{formula}"));
        }
        for text in ["", "art", "-5", "+1.5", "a=1", "'=1"] {
            assert_eq!(without_formula(text), text);
        }
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("=1"), None, Some("art")]));
        let batch = RecordBatch::try_from_iter([("category", texts)]).expect("one column");
        let escaped = without_formulas(&batch).expect("the same columns");
        let expected = StringArray::from(vec![Some("'=1"), None, Some("art")]);
        assert_eq!(escaped.column(0).as_string::<i32>(), &expected);
    }
}
