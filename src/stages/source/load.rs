//! Loads the source tables from files: `<table>.csv` or `<table>.jsonl`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use serde_json::Value;

use crate::base::error::{Error, Result, io_error};
use crate::base::model::{Column, ColumnType, Kind};
use crate::clients::database::{Cell, Rows};

/// Reads one table from the folder. The CSV file is preferred.
///
/// # Errors
/// Neither file exists; a column is missing or a value is invalid, with file and line; a row
/// number is not unique.
pub fn load(folder: &Path, kind: Kind) -> Result<Rows> {
    let csv = folder.join(format!("{}.csv", kind.source_table()));
    let jsonl = folder.join(format!("{}.jsonl", kind.source_table()));
    let rows = if csv.is_file() {
        load_csv(&csv, kind)?
    } else if jsonl.is_file() {
        load_jsonl(&jsonl, kind)?
    } else {
        return Err(Error::failed(format!(
            "cannot load table `{}`: neither `{}` nor `{}` exists",
            kind.source_table(),
            csv.display(),
            jsonl.display()
        ))
        .hint(
            "use a folder that contains pinterest_data, geolocation_data and user_data as .csv or \
             .jsonl",
        ));
    };
    let mut seen = std::collections::HashSet::new();
    for row in &rows {
        if let Some(Cell::Integer(number)) = row.first()
            && !seen.insert(*number)
        {
            return Err(Error::failed(format!(
                "cannot load table `{}` from `{}`: duplicate row number {number}",
                kind.source_table(),
                folder.display()
            ))
            .hint("remove the duplicate: row numbers must be unique in each table"));
        }
    }
    Ok(Rows { kind, rows })
}

/// Returns the error for a line that cannot be read.
fn read_error(path: &Path, line: u64, reason: impl std::fmt::Display) -> Error {
    Error::failed(format!("cannot read `{}`, line {line}: {reason}", path.display()))
        .hint("correct the line; nothing was loaded")
}

/// Rewords an error of the CSV library.
fn csv_error(path: &Path, error: csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} columns, got {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "expected text in UTF-8".to_string(),
        _ => error.to_string(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(error) => io_error("read", path, error),
        _ => read_error(path, line, reason),
    }
}

fn load_csv(path: &PathBuf, kind: Kind) -> Result<Vec<Vec<Cell>>> {
    let mut reader = csv::Reader::from_path(path).map_err(|error| csv_error(path, error))?;
    let headers = reader.headers().map_err(|error| csv_error(path, error))?.clone();
    let mut positions = Vec::new();
    for (name, _) in kind.columns() {
        let position = headers
            .iter()
            .position(|header| header.trim() == *name)
            .ok_or_else(|| read_error(path, 1, format!("column `{name}` is missing")))?;
        positions.push(position);
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| csv_error(path, error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = positions.iter().zip(kind.columns()).map(|(position, column)| {
            let text = record.get(*position).unwrap_or_default();
            // An empty CSV field is null in a number or time column, and an empty string in a text
            // column.
            if text.is_empty() && column.1 != ColumnType::Text {
                Ok(Cell::Null)
            } else {
                parse_cell(text, column)
            }
        });
        rows.push(
            cells
                .collect::<Result<Vec<_>, String>>()
                .and_then(require_row_number)
                .map_err(|reason| read_error(path, line, reason))?,
        );
    }
    Ok(rows)
}

fn load_jsonl(path: &PathBuf, kind: Kind) -> Result<Vec<Vec<Cell>>> {
    let file = std::fs::File::open(path).map_err(|error| io_error("read", path, error))?;
    let mut rows = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| io_error("read", path, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let number = number as u64 + 1;
        let object: Value = serde_json::from_str(&line).map_err(|error| {
            let reason = format!("expected a JSON object, see column {}", error.column());
            read_error(path, number, reason)
        })?;
        let cells = kind.columns().iter().map(|column| match (object.get(column.0), column.1) {
            (None, _) => Err(format!("key `{}` is missing", column.0)),
            (Some(Value::Null), _) => Ok(Cell::Null),
            (Some(Value::String(text)), _) => parse_cell(text, column),
            (Some(Value::Number(number)), ColumnType::Integer) => number
                .as_i64()
                .map(Cell::Integer)
                .ok_or_else(|| format!("`{}`: expected an integer, got {number}", column.0)),
            (Some(Value::Number(number)), ColumnType::Float) => number
                .as_f64()
                .map(Cell::Float)
                .ok_or_else(|| format!("`{}`: expected a number, got {number}", column.0)),
            (Some(other), ColumnType::Text) => Ok(Cell::Text(other.to_string())),
            (Some(other), _) => Err(format!("`{}`: unexpected value {other}", column.0)),
        });
        rows.push(
            cells
                .collect::<Result<Vec<_>, String>>()
                .and_then(require_row_number)
                .map_err(|reason| read_error(path, number, reason))?,
        );
    }
    Ok(rows)
}

/// Returns the row unchanged if its first cell is a row number.
fn require_row_number(cells: Vec<Cell>) -> Result<Vec<Cell>, String> {
    if matches!(cells.first(), Some(Cell::Integer(_))) {
        Ok(cells)
    } else {
        Err("the row number is missing".into())
    }
}

/// Parses a value of a column from text.
fn parse_cell(text: &str, column: &Column) -> Result<Cell, String> {
    let (name, column_type) = column;
    match column_type {
        ColumnType::Text => Ok(Cell::Text(text.to_string())),
        ColumnType::Integer => text
            .trim()
            .parse()
            .map(Cell::Integer)
            .map_err(|_| format!("`{name}`: expected an integer, got `{text}`")),
        ColumnType::Float => text
            .trim()
            .parse()
            .map(Cell::Float)
            .map_err(|_| format!("`{name}`: expected a number, got `{text}`")),
        ColumnType::DateTime => {
            let parsed = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
                .iter()
                .find_map(|format| NaiveDateTime::parse_from_str(text.trim(), format).ok());
            parsed.map(Cell::DateTime).ok_or_else(|| {
                format!("`{name}`: expected a time such as 2022-05-27 11:30:59, got `{text}`")
            })
        }
    }
}
