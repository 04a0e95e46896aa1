//! JSON lines: written with one record per line, and read by the rules of `docs/records.md`.

use std::borrow::Cow;
use std::io::Error as IoError;

use crate::base::error::Result;
use crate::data::lake::compression::{Compression, Encoder, strip_extension};
use crate::data::lake::decode::Decoder;
use crate::data::lake::format::object_format::{ObjectEncoder, ObjectFormat, ObjectPart};

/// Extensions of objects, whose case is ignored. The sink connector writes the first.
pub const EXTENSIONS: [&str; 3] = [".json", ".jsonl", ".ndjson"];

/// The format of Confluent's `JsonFormat`.
#[derive(Debug)]
pub struct JsonLines;

impl ObjectFormat for JsonLines {
    fn class(&self) -> &'static str {
        "JsonFormat"
    }

    fn extension(&self, compression: Compression) -> String {
        format!("json{}", compression.extension())
    }

    fn parse_name<'n>(&self, name: &'n str) -> Option<(&'n str, Compression)> {
        let (name, compression) = Compression::of_object(name);
        let stem = EXTENSIONS.iter().find_map(|extension| strip_extension(name, extension))?;
        Some((stem, compression))
    }

    fn typical_ratio(&self, compression: Compression) -> u64 {
        compression.typical_ratio()
    }

    fn has_lines(&self) -> bool {
        true
    }

    fn encoder(&self, compression: Compression) -> Box<dyn ObjectEncoder> {
        Box::new(LineEncoder(compression.encoder()))
    }

    fn decode(
        &self,
        part: &ObjectPart<'_>,
        decoder: &mut Decoder,
        after_piece: &mut dyn FnMut(&mut Decoder, u64) -> Result<()>,
    ) -> Result<()> {
        decoder.text(part.origin, part.first_line, part.bytes, after_piece)
    }
}

/// Writes each record as one line.
struct LineEncoder(Encoder);

impl ObjectEncoder for LineEncoder {
    fn append(&mut self, record: &[u8]) -> Result<(), IoError> {
        self.0.write(&single_line(record))?;
        self.0.write(b"\n")
    }

    fn ready(&mut self) -> &mut Vec<u8> {
        self.0.ready()
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, IoError> {
        self.0.finish()
    }
}

/// Replaces the line breaks of a JSON record with spaces, because a line is one record.
fn single_line(record: &[u8]) -> Cow<'_, [u8]> {
    if !record.contains(&b'\n') && !record.contains(&b'\r') {
        return record.into();
    }
    // In JSON, a line break occurs only between tokens; within a string it is escaped.
    record
        .iter()
        .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
        .collect::<Vec<u8>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::model::Kind;

    #[test]
    fn encodes_each_record_as_one_line() {
        let mut encoder = JsonLines.encoder(Compression::None);
        encoder.append(b"{\"ind\":1,\r\n\"country\":\"Peru\"}").expect("encode a record");
        encoder.append(b"{\"ind\":2}").expect("encode a record");
        let bytes = encoder.finish().expect("encode an object");
        assert_eq!(bytes, b"{\"ind\":1,  \"country\":\"Peru\"}\n{\"ind\":2}\n");
    }

    #[test]
    fn decodes_every_piece_with_its_line_numbers() {
        let mut text: Vec<u8> =
            (0..20_000).flat_map(|number| format!("{{\"ind\":{number}}}\n").into_bytes()).collect();
        text.extend_from_slice(b"[1]\n");
        let part = ObjectPart { origin: "a.json", first_line: 5, bytes: &text };
        let mut decoder = Decoder::new(Kind::Geo);
        let (mut pieces, mut rows, mut bytes) = (0, 0, 0);
        let mut after_piece = |decoder: &mut Decoder, piece_bytes: u64| -> Result<()> {
            pieces += 1;
            bytes += piece_bytes;
            rows += decoder.finish()?.iter().map(|batch| batch.num_rows()).sum::<usize>();
            Ok(())
        };
        JsonLines.decode(&part, &mut decoder, &mut after_piece).expect("decode a part");
        assert_eq!((rows, bytes), (20_000, text.len() as u64));
        assert!(pieces > 2, "{pieces}");
        let rejects: Vec<u64> = decoder.rejects.iter().map(|reject| reject.line).collect();
        assert_eq!(rejects, [20_005]);
    }
}
