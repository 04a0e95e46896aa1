//! Newline-delimited JSON to columns, a broken line set aside and the rest kept.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use serde::Serialize;
use serde_json::Value;

use crate::error::{OrFail, Result};
use crate::record::{ColumnType, Kind};

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// Characters of a broken record that are shown.
const SHOWN_CHARACTERS: usize = 200;

/// Rejects that are kept with their text; all are counted.
pub const KEPT_REJECTS: usize = 1_000;

/// A record that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Object, or stream and shard, it came from.
    pub origin: String,
    /// Line in the object, from 1; 0 where there are no lines.
    pub line: u64,
    pub reason: String,
    /// The start of the record.
    pub raw: String,
}

/// Turns records of one kind into batches of the raw schema.
pub struct Decoder {
    kind: Kind,
    schema: SchemaRef,
    buffer: Vec<u8>,
    buffered: usize,
    batches: Vec<RecordBatch>,
    pub records: u64,
    /// How many were set aside.
    pub rejected: u64,
    /// The first of them.
    pub rejects: Vec<Reject>,
}

impl Decoder {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            schema: kind.raw_schema(),
            buffer: Vec::new(),
            buffered: 0,
            batches: Vec::new(),
            records: 0,
            rejected: 0,
            rejects: Vec::new(),
        }
    }

    /// Takes every line of an object; blank lines do not count.
    pub fn object(&mut self, origin: &str, bytes: &[u8]) -> Result<()> {
        let mut number = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            number += 1;
            if !line.trim_ascii().is_empty() {
                self.record(origin, number, line)?;
            }
        }
        Ok(())
    }

    /// Takes one record.
    pub fn record(&mut self, origin: &str, line: u64, json: &[u8]) -> Result<()> {
        self.records += 1;
        match check(self.kind, json) {
            Ok(()) => {
                self.buffer.extend_from_slice(json);
                self.buffer.push(b'\n');
                self.buffered += 1;
                if self.buffered == BATCH_ROWS { self.flush() } else { Ok(()) }
            }
            Err(reason) => {
                let raw = String::from_utf8_lossy(json).chars().take(SHOWN_CHARACTERS).collect();
                self.set_aside(Reject { origin: origin.to_string(), line, reason, raw });
                Ok(())
            }
        }
    }

    /// Sets a whole object aside that could not even be unpacked.
    pub fn refuse(&mut self, origin: &str, reason: String) {
        self.records += 1;
        self.set_aside(Reject { origin: origin.to_string(), line: 0, reason, raw: String::new() });
    }

    fn set_aside(&mut self, reject: Reject) {
        self.rejected += 1;
        if self.rejects.len() < KEPT_REJECTS {
            self.rejects.push(reject);
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffered == 0 {
            return Ok(());
        }
        let reader =
            ReaderBuilder::new(self.schema.clone()).with_batch_size(BATCH_ROWS).with_coerce_primitive(true).build(&self.buffer[..]);
        let batches = reader.and_then(|reader| reader.collect::<std::result::Result<Vec<_>, _>>());
        self.batches.extend(batches.or_fail(|| format!("cannot decode {} records", self.kind.name()))?);
        self.buffer.clear();
        self.buffered = 0;
        Ok(())
    }

    /// The batches so far; the decoder starts anew, its counts stay.
    pub fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        Ok(std::mem::take(&mut self.batches))
    }
}

/// Whether a record is a JSON object with a row number and values that fit their
/// columns: the reader would give up at one that is not, or bend it silently.
fn check(kind: Kind, json: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("broken JSON: {error}"))?;
    let Value::Object(object) = value else { return Err("not a JSON object".into()) };
    for (position, (name, column_type)) in kind.columns().iter().enumerate() {
        let fits = match (object.get(*name), column_type) {
            (None | Some(Value::Null), _) if position == 0 => return Err(format!("no row number `{name}`")),
            (None | Some(Value::Null), _) => true,
            // Clean tables hold 32 bits of these.
            (Some(Value::Number(number)), ColumnType::Integer) => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            (Some(Value::String(text)), ColumnType::Integer) => text.parse::<i32>().is_ok(),
            (Some(Value::Number(_)), ColumnType::Float) => true,
            (Some(Value::String(text)), ColumnType::Float) => text.parse::<f64>().is_ok(),
            (Some(Value::String(text)), ColumnType::DateTime) => is_time(text),
            (Some(value), ColumnType::Text) => !value.is_object() && !value.is_array(),
            _ => false,
        };
        if !fits {
            return Err(format!("`{name}` does not fit its column"));
        }
    }
    Ok(())
}

/// `2022-05-27 11:30:59`, with a `T` or a fraction too.
fn is_time(text: &str) -> bool {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"].iter().any(|format| chrono::NaiveDateTime::parse_from_str(text, format).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_named_and_the_rest_is_kept() {
        let mut decoder = Decoder::new(Kind::Geo);
        let object = b"{\"ind\":1,\"timestamp\":\"2022-05-27 11:30:59\",\"latitude\":1.5,\"longitude\":-2,\"country\":\"Peru\"}\n\
            {\"ind\":2,\"timest\n\n[1]\n{\"country\":\"Chad\"}\n{\"ind\":3000000000}\n{\"ind\":3,\"timestamp\":\"yesterday\"}\n{\"ind\":\"4\",\"country\":null}\n";
        decoder.object("a.json", object).expect("decodes");
        let rows: usize = decoder.finish().expect("finishes").iter().map(RecordBatch::num_rows).sum();
        assert_eq!((decoder.records, rows), (7, 2));
        let found: Vec<(u64, &str)> = decoder.rejects.iter().map(|reject| (reject.line, reject.reason.as_str())).collect();
        assert_eq!(
            found[1..],
            [
                (4, "not a JSON object"),
                (5, "no row number `ind`"),
                (6, "`ind` does not fit its column"),
                (7, "`timestamp` does not fit its column")
            ]
        );
        assert!(found[0].0 == 2 && found[0].1.starts_with("broken JSON"), "{found:?}");
    }
}
