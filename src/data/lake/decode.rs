//! Decodes JSON records into columns and collects rejected records.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::lake::row::{ColumnBuilder, append};

/// Maximum number of rejects that a report lists. All are counted.
pub const MAX_LISTED_REJECTS: usize = 1_000;
/// Maximum rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// Maximum size of a record, in bytes: 16 times Kafka's default `message.max.bytes`, about 1 MiB.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// Reason of a reject that exceeds [`MAX_RECORD_BYTES`].
pub const TOO_LONG: &str = "longer than 16 MiB";
/// Maximum bytes of a rejected record that are stored.
const MAX_RAW_BYTES: usize = 64 * 1024;

/// A rejected record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Source of the record: the object, or stream and shard.
    pub origin: String,
    /// Line in the object, from 1. 0 if the source has no lines.
    pub line: u64,
    pub reason: String,
    /// Raw record, truncated to 64 KiB.
    pub raw: String,
}

/// Decodes records of one kind into batches of the raw schema.
pub struct Decoder {
    kind: Kind,
    schema: SchemaRef,
    builders: Vec<ColumnBuilder>,
    rows: usize,
    batches: Vec<RecordBatch>,
    /// Number of records so far, rejected ones included.
    pub records: u64,
    /// Rejected records so far.
    pub rejects: Vec<Reject>,
}

impl Decoder {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            schema: kind.raw_schema(),
            builders: kind
                .columns()
                .iter()
                .map(|(_, column_type)| ColumnBuilder::new(*column_type, 0))
                .collect(),
            rows: 0,
            batches: Vec::new(),
            records: 0,
            rejects: Vec::new(),
        }
    }

    /// Decodes every line of an object, or of a part of it that begins with `first_line`. Skips
    /// blank lines. Returns the number of the next line.
    pub fn lines(&mut self, origin: &str, first_line: u64, bytes: &[u8]) -> Result<u64> {
        // UTF-8 is validated once for all lines, which is much faster than for each string.
        let text = simdutf8::basic::from_utf8(bytes).ok();
        let mut start = 0;
        let mut number = first_line;
        while start < bytes.len() {
            let end =
                memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |length| start + length);
            let line = &bytes[start..end];
            if !line.trim_ascii().is_empty() {
                match text
                    .map_or_else(|| std::str::from_utf8(line).ok(), |text| text.get(start..end))
                {
                    Some(line) => self.decode(origin, number, line)?,
                    None => self.refuse(origin, number, "broken JSON: not UTF-8".into(), line),
                }
            }
            start = end + 1;
            number += 1;
        }
        Ok(number)
    }

    /// Decodes one record, which may have several lines.
    pub fn record(&mut self, origin: &str, line: u64, json: &[u8]) -> Result<()> {
        match std::str::from_utf8(json) {
            Ok(text) => self.decode(origin, line, text),
            Err(_) => {
                self.refuse(origin, line, "broken JSON: not UTF-8".into(), json);
                Ok(())
            }
        }
    }

    fn decode(&mut self, origin: &str, line: u64, text: &str) -> Result<()> {
        let appended = if text.len() > MAX_RECORD_BYTES {
            Err(TOO_LONG.into())
        } else {
            append(self.kind, text, &mut self.builders)
        };
        match appended {
            Ok(()) => {
                self.records += 1;
                self.rows += 1;
                if self.rows == BATCH_ROWS { self.flush() } else { Ok(()) }
            }
            Err(reason) => {
                self.refuse(origin, line, reason, text.as_bytes());
                Ok(())
            }
        }
    }

    /// Adds a rejected record, or data that could not be decompressed. Keeps its first 64 KiB.
    pub fn refuse(&mut self, origin: &str, line: u64, reason: String, raw: &[u8]) {
        self.records += 1;
        let raw = String::from_utf8_lossy(&raw[..raw.len().min(MAX_RAW_BYTES)]).into_owned();
        self.rejects.push(Reject { origin: origin.to_string(), line, reason, raw });
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows > 0 {
            let columns = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
            let batch = RecordBatch::try_new(self.schema.clone(), columns);
            self.batches
                .push(batch.context(|| format!("cannot decode {} records", self.kind.name()))?);
            self.rows = 0;
        }
        Ok(())
    }

    /// Number of rows that [`Self::finish`] will return.
    pub fn held_rows(&self) -> usize {
        self.batches.len() * BATCH_ROWS + self.rows
    }

    /// Returns the batches so far. The decoder can be used again and keeps its counts and rejects.
    pub fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        Ok(std::mem::take(&mut self.batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_broken_lines_and_decodes_the_others() {
        let mut decoder = Decoder::new(Kind::Geo);
        let object = b"{\"ind\":1,\"timestamp\":\"2022-05-27 11:30:59\",\"latitude\":1.5,\"longitude\":-2,\"country\":\"Peru\"}\n\
            {\"ind\":2,\"timest\n\n[1]\n{\"country\":\"Chad\"}\n{\"ind\":3000000000}\n{\"ind\":3,\"timestamp\":\"yesterday\"}\n{\"ind\":\"4\",\"country\":null}\n";
        decoder.lines("a.json", 1, object).expect("decodes");
        let rows: usize =
            decoder.finish().expect("finishes").iter().map(RecordBatch::num_rows).sum();
        assert_eq!((decoder.records, rows), (7, 2));
        let rejects: Vec<(u64, &str)> =
            decoder.rejects.iter().map(|reject| (reject.line, reject.reason.as_str())).collect();
        assert_eq!(
            rejects[1..],
            [
                (4, "not a JSON object"),
                (5, "no row number `ind`"),
                (6, "`ind` does not fit its column"),
                (7, "`timestamp` does not fit its column")
            ]
        );
        assert!(rejects[0].0 == 2 && rejects[0].1.starts_with("broken JSON"), "{rejects:?}");
    }

    #[test]
    fn rejects_only_the_line_that_is_not_utf8() {
        let mut decoder = Decoder::new(Kind::Geo);
        decoder
            .lines("a.json", 1, b"{\"ind\":1}\n{\"ind\":2,\"country\":\"\xff\"}\n{\"ind\":3,\"country\":\"\xc3\x85land\"}")
            .expect("decodes");
        let rows: usize =
            decoder.finish().expect("finishes").iter().map(RecordBatch::num_rows).sum();
        assert_eq!((rows, decoder.rejects.len(), decoder.rejects[0].line), (2, 1, 2));
    }
}
