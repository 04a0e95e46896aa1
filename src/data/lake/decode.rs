//! Decodes JSON records into columns and collects rejected records, by the rules of
//! `docs/records.md`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
pub use crate::data::lake::boundary::MAX_RECORD_BYTES;
use crate::data::lake::boundary::{Next, line_after, next_record};
use crate::data::lake::row::{Attempt, ColumnBuilder, append, try_append};

/// Maximum number of rejects that a report lists. All are counted.
pub const MAX_LISTED_REJECTS: usize = 1_000;
/// Maximum rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of one decoded piece of a text.
const PIECE_BYTES: usize = 64 * 1024;
/// Reason for rejecting a record that exceeds [`MAX_RECORD_BYTES`].
pub const TOO_LONG: &str = "longer than 16 MiB";
/// Maximum bytes of a rejected record that are stored.
const MAX_RAW_BYTES: usize = 64 * 1024;

/// A rejected record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Source of the record: the object, or stream and shard.
    pub origin: String,
    /// Line in the object, from 1; 0 if the source has no lines.
    pub line: u64,
    pub reason: String,
    /// Raw record, truncated to 64 KiB.
    pub raw: String,
}

/// Position of the decoder in a text.
struct Position {
    at: usize,
    /// Number of the line.
    line: u64,
    /// Whether the position is the beginning of a line.
    is_line_start: bool,
}

impl Position {
    fn advance(&mut self, bytes: &[u8], to: usize) {
        self.line += memchr::memchr_iter(b'\n', &bytes[self.at..to]).count() as u64;
        self.at = to;
    }
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
    /// Number of tombstones so far: `null` in a lake, no value in a stream.
    pub tombstones: u64,
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
            tombstones: 0,
            rejects: Vec::new(),
        }
    }

    /// Decodes the records of an object, or of a part of it that begins with `first_line`. Calls
    /// `after_piece` with the number of decoded bytes after each piece of the text, so that the
    /// caller can take the rows: they take more memory than the bytes of their records.
    ///
    /// # Errors
    /// The records cannot be converted; `after_piece` fails. Invalid records are rejected instead.
    pub fn text(
        &mut self,
        origin: &str,
        first_line: u64,
        bytes: &[u8],
        after_piece: &mut dyn FnMut(&mut Self, u64) -> Result<()>,
    ) -> Result<()> {
        let mut position = Position { at: 0, line: first_line, is_line_start: true };
        while position.at < bytes.len() {
            let start = position.at;
            if position.is_line_start {
                self.lines(origin, bytes, &mut position)?;
            } else {
                self.records(origin, bytes, &mut position)?;
            }
            after_piece(self, (position.at - start) as u64)?;
        }
        Ok(())
    }

    /// Decodes the value of one record of a stream: usually one JSON object, but anything that an
    /// object of the lake may contain is decoded. No value, or only white space, is a tombstone.
    ///
    /// # Errors
    /// The records cannot be converted. Invalid records are rejected instead.
    pub fn record(&mut self, origin: &str, line: u64, value: &[u8]) -> Result<()> {
        if value.trim_ascii().is_empty() {
            self.tombstones += 1;
            return Ok(());
        }
        if let Ok(text) = std::str::from_utf8(value)
            && self.line(origin, line, text)?
        {
            return Ok(());
        }
        let mut at = 0;
        while let Next::Record(record) = next_record(value, at, true) {
            at = record.end;
            self.item(origin, line, &value[record])?;
        }
        Ok(())
    }

    /// Decodes one piece of a text whose lines are usually one record each.
    fn lines(&mut self, origin: &str, bytes: &[u8], position: &mut Position) -> Result<()> {
        let start = position.at;
        let min_end = bytes.len().min(start + PIECE_BYTES);
        let end = memchr::memchr(b'\n', &bytes[min_end..])
            .map_or(bytes.len(), |length| min_end + length + 1);
        // UTF-8 is validated once for all lines, which is much faster than for each string.
        let text = simdutf8::basic::from_utf8(&bytes[start..end]).ok();
        while position.is_line_start && position.at < end {
            let at = position.at;
            let line_end = memchr::memchr(b'\n', &bytes[at..end]).map_or(end, |length| at + length);
            let line = text.map_or_else(
                || std::str::from_utf8(&bytes[at..line_end]).ok(),
                |text| text.get(at - start..line_end - start),
            );
            match line {
                Some(line) if self.line(origin, position.line, line)? => {
                    position.at = bytes.len().min(line_end + 1);
                    position.line += 1;
                }
                _ => self.records(origin, bytes, position)?,
            }
        }
        Ok(())
    }

    /// Decodes a line that is blank or one JSON object. Returns `false` for any other line, and for
    /// a record with a value whose JSON text has to be kept.
    fn line(&mut self, origin: &str, number: u64, line: &str) -> Result<bool> {
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() {
            return Ok(true);
        }
        if !trimmed.starts_with('{') || line.len() > MAX_RECORD_BYTES {
            return Ok(false);
        }
        match try_append(self.kind, line, &mut self.builders) {
            Attempt::Appended => self.count_row()?,
            Attempt::Rejected(reason) => {
                self.refuse(origin, number, reason, trimmed.as_bytes());
            }
            Attempt::Unclear => return Ok(false),
        }
        Ok(true)
    }

    /// Decodes record by record, until the position is the beginning of a line, or a piece is
    /// decoded. Slower than [`Self::lines`], because it first finds the end of each record.
    fn records(&mut self, origin: &str, bytes: &[u8], position: &mut Position) -> Result<()> {
        let start = position.at;
        position.is_line_start = false;
        while position.at - start < PIECE_BYTES {
            let Next::Record(record) = next_record(bytes, position.at, true) else {
                position.advance(bytes, bytes.len());
                return Ok(());
            };
            position.advance(bytes, record.start);
            self.item(origin, position.line, &bytes[record.clone()])?;
            position.advance(bytes, record.end);
            if let Some(line) = line_after(bytes, record.end) {
                position.advance(bytes, line);
                position.is_line_start = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Decodes what [`next_record`] found.
    fn item(&mut self, origin: &str, line: u64, item: &[u8]) -> Result<()> {
        let bytes = item.trim_ascii();
        if bytes == b"null" {
            self.tombstones += 1;
            return Ok(());
        }
        let appended = if item.len() > MAX_RECORD_BYTES {
            Err(TOO_LONG.into())
        } else {
            match std::str::from_utf8(bytes) {
                Ok(text) => self.append(text),
                Err(_) => Err("broken JSON: not UTF-8".into()),
            }
        };
        match appended {
            Ok(()) => self.count_row(),
            Err(reason) => {
                self.refuse(origin, line, reason, bytes);
                Ok(())
            }
        }
    }

    /// Appends a record to the columns, or returns the reason for its rejection.
    fn append(&mut self, text: &str) -> Result<(), String> {
        if !text.starts_with('{') {
            return append(self.kind, text, &mut self.builders);
        }
        match try_append(self.kind, text, &mut self.builders) {
            Attempt::Appended => Ok(()),
            Attempt::Rejected(reason) => Err(reason),
            Attempt::Unclear => append(self.kind, text, &mut self.builders),
        }
    }

    fn count_row(&mut self) -> Result<()> {
        self.records += 1;
        self.rows += 1;
        if self.rows == BATCH_ROWS { self.flush() } else { Ok(()) }
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

    fn decoded(text: &[u8]) -> (Decoder, usize) {
        let mut decoder = Decoder::new(Kind::Geo);
        decoder.text("a.json", 1, text, &mut |_, _| Ok(())).expect("decodes");
        let rows = decoder.finish().expect("finishes").iter().map(RecordBatch::num_rows).sum();
        (decoder, rows)
    }

    #[test]
    fn rejects_broken_lines_and_decodes_the_others() {
        let (decoder, rows) = decoded(b"{\"ind\":1,\"timestamp\":\"2022-05-27 11:30:59\",\"latitude\":1.5,\"longitude\":-2,\"country\":\"Peru\"}\n\
            {\"ind\":2,\"timest\n\n[1]\n{\"country\":\"Chad\"}\n{\"ind\":3000000000}\n{\"ind\":3,\"timestamp\":\"yesterday\"}\n{\"ind\":\"4\",\"country\":null}\n");
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
        assert_eq!(decoder.rejects[0].raw, "{\"ind\":2,\"timest");
        assert_eq!(decoder.rejects[1].raw, "[1]");
    }

    #[test]
    fn rejects_only_the_line_that_is_not_utf8() {
        let (decoder, rows) = decoded(
            b"{\"ind\":1}\n{\"ind\":2,\"country\":\"\xff\"}\n{\"ind\":3,\"country\":\"\xc3\x85land\"}",
        );
        assert_eq!((rows, decoder.rejects.len(), decoder.rejects[0].line), (2, 1, 2));
        assert_eq!(decoder.rejects[0].reason, "broken JSON: not UTF-8");
    }

    #[test]
    fn decodes_records_that_share_a_line_or_have_several() {
        for (text, records) in [
            ("{\"ind\":1}{\"ind\":2}{\"ind\":3}", 3),
            ("[{\"ind\":1},{\"ind\":2}]\n{\"ind\":3}\n", 3),
            ("\u{feff}[\n  {\n    \"ind\": 1\n  },\n  {\n    \"ind\": 2\n  }\n]\n", 2),
            ("{\"ind\":1}\r{\"ind\":2}\x0b{\"ind\":3}\x0c\n", 3),
            ("\u{feff}{\"ind\":1}\r\n\u{feff}{\"ind\":2}\r\n", 2),
            ("[]\n[\n]", 0),
        ] {
            let (decoder, rows) = decoded(text.as_bytes());
            assert_eq!((decoder.records, rows), (records, records as usize), "{text:?}");
            assert_eq!(decoder.rejects, [], "{text:?}");
        }
    }

    #[test]
    fn numbers_the_lines_of_records_with_several_lines() {
        let (decoder, rows) = decoded(
            b"{\n\"ind\": 1\n}\n\n{\n\"ind\": \"x\"\n}\n{\"ind\":2} {\"ind\":\"y\"} nonsense\n{\"ind\":\"z\"}",
        );
        let lines: Vec<u64> = decoder.rejects.iter().map(|reject| reject.line).collect();
        assert_eq!((rows, lines), (2, vec![5, 8, 8, 9]));
        assert_eq!(decoder.rejects[0].raw, "{\n\"ind\": \"x\"\n}");
    }

    #[test]
    fn counts_tombstones() {
        let (decoder, rows) = decoded(b"null\n{\"ind\":1}\n null \n[null,null]\n\n");
        assert_eq!((decoder.tombstones, decoder.records, rows), (4, 1, 1));
        let mut decoder = Decoder::new(Kind::Geo);
        for value in [&b""[..], b" \n", b"null", b"{\"ind\":1}", b"[{\"ind\":2},{\"ind\":3}]", b"{"]
        {
            decoder.record("stream", 0, value).expect("decodes");
        }
        assert_eq!((decoder.tombstones, decoder.records, decoder.rejects.len()), (3, 4, 1));
        assert_eq!(decoder.rejects[0].line, 0);
    }

    #[test]
    fn keeps_a_record_in_which_a_surrogate_is_alone() {
        let (decoder, rows) = decoded(b"{\"ind\":1,\"country\":\"\\ud83d\"}\n{\"ind\":2}\n");
        assert_eq!((decoder.rejects.len(), rows), (0, 2));
    }
}
