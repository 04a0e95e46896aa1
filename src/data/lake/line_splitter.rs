//! Splits a long text, plain or compressed, into chunks of complete records.

use bytes::Bytes;

use crate::data::lake::boundary::{
    MAX_RECORD_BYTES, Next, last_line_boundary, next_record, next_record_line,
};
use crate::data::lake::compression::{Compression, GzipDecoder};
use crate::data::lake::decode::TOO_LONG;

/// Compressed bytes per decompression step. They may expand a thousandfold.
pub const COMPRESSED_PIECE_BYTES: usize = 4 * 1024;
/// Bytes kept of a record that exceeds [`MAX_RECORD_BYTES`].
const MAX_RAW_BYTES: usize = 64 * 1024;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum LineChunk {
    /// Complete records; `first_line` is the number of the line in which the text begins, from 1.
    Lines { first_line: u64, text: Bytes },
    /// A record that is too long, or damaged compressed data.
    Refused { line: u64, reason: String, raw: Bytes },
}

/// The content of an object, by its first bytes.
enum Content {
    /// Too few bytes to decide.
    Unknown(Vec<u8>),
    Text,
    Compressed(GzipDecoder),
}

/// Splits a text incrementally. Memory use is little more than one chunk, or twice a record that is
/// longer than a chunk; for a compressed text also the output of the last decompression step.
pub struct LineSplitter {
    content: Content,
    slice_bytes: usize,
    /// Text that has not been returned yet. Begins between two records.
    buffer: Vec<u8>,
    /// Number of the first line in `buffer`.
    line: u64,
    /// Length that `buffer` must reach before it is searched again for a complete record.
    retry_bytes: usize,
    /// Skips the rest of a record that is too long.
    is_skipping: bool,
    is_damaged: bool,
}

impl LineSplitter {
    /// Creates a splitter. Chunks have about `slice_bytes` bytes, or more if a record is longer.
    /// The first bytes of the text decide whether it is compressed.
    pub fn new(slice_bytes: usize) -> Self {
        Self {
            content: Content::Unknown(Vec::new()),
            slice_bytes,
            buffer: Vec::new(),
            line: 1,
            retry_bytes: 0,
            is_skipping: false,
            is_damaged: false,
        }
    }

    /// Adds text and returns the chunks that are complete. Ignores text after damaged data.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        if let Content::Unknown(start) = &mut self.content {
            start.extend_from_slice(bytes);
            let Some(compression) = Compression::of_content(start) else {
                return Vec::new();
            };
            let start = std::mem::take(start);
            self.content = compression.decoder().map_or(Content::Text, Content::Compressed);
            return self.append(&start);
        }
        self.append(bytes)
    }

    /// Ends the text and returns the remaining chunks.
    pub fn finish(mut self) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        let mut slices = Vec::new();
        match &mut self.content {
            Content::Unknown(start) => self.buffer.append(start),
            Content::Text => {}
            Content::Compressed(decoder) => {
                let ended = decoder.finish();
                self.buffer.append(decoder.text());
                slices = self.cut();
                if let Err(error) = ended {
                    slices.extend(self.damaged(&error));
                    return slices;
                }
            }
        }
        if !self.buffer.is_empty() && !self.is_skipping {
            slices.push(LineChunk::Lines { first_line: self.line, text: self.buffer.into() });
        }
        slices
    }

    fn append(&mut self, bytes: &[u8]) -> Vec<LineChunk> {
        let Content::Compressed(decoder) = &mut self.content else {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(self.slice_bytes + bytes.len());
            }
            self.buffer.extend_from_slice(bytes);
            return self.cut();
        };
        let decompressed = decoder.write(bytes);
        self.buffer.append(decoder.text());
        let mut slices = self.cut();
        if let Err(error) = decompressed {
            slices.extend(self.damaged(&error));
        }
        slices
    }

    /// Returns the complete records before the damage, and a chunk that rejects the rest of the
    /// text.
    fn damaged(&mut self, error: &std::io::Error) -> Vec<LineChunk> {
        self.is_damaged = true;
        let mut slices = Vec::new();
        if self.is_skipping {
            // The record that is too long has already been rejected.
            self.buffer.clear();
        }
        let complete = self.complete_records(last_line_boundary(&self.buffer).unwrap_or(0));
        if complete > 0 {
            slices.push(self.take(complete));
        }
        let cut = match next_record(&self.buffer, 0, false) {
            Next::Incomplete(start) => start,
            Next::Record(_) | Next::End => self.buffer.len(),
        };
        self.take(cut);
        slices.push(self.refused(format!("broken gzip: {error}")));
        slices
    }

    /// Removes the complete chunks from `buffer` and returns them.
    fn cut(&mut self) -> Vec<LineChunk> {
        let mut slices = Vec::new();
        loop {
            if self.is_skipping {
                self.skip();
            }
            if self.is_skipping || self.buffer.len() < self.slice_bytes.max(self.retry_bytes) {
                return slices;
            }
            // Usually every line is a record, so that its end is found without reading the records.
            let complete =
                last_line_boundary(&self.buffer).unwrap_or_else(|| self.complete_records(0));
            if complete > 0 {
                slices.push(self.take(complete));
            } else if self.buffer.len() > MAX_RECORD_BYTES {
                slices.extend(self.refuse_long());
            } else {
                // Doubling the length keeps the number of searches small.
                self.retry_bytes = (2 * self.buffer.len()).min(MAX_RECORD_BYTES + 1);
            }
        }
    }

    /// Returns the end of the last complete record in `buffer`. The records before `from` are
    /// complete.
    fn complete_records(&self, from: usize) -> usize {
        let mut end = from;
        while let Next::Record(record) = next_record(&self.buffer, end, false) {
            end = record.end;
        }
        end
    }

    /// Removes the known part of a record that is too long, and returns the chunk that rejects it.
    fn refuse_long(&mut self) -> Option<LineChunk> {
        let Next::Incomplete(start) = next_record(&self.buffer, 0, false) else {
            // Only separators.
            self.take(self.buffer.len());
            return None;
        };
        if self.buffer.len() - start <= MAX_RECORD_BYTES {
            self.retry_bytes = start + MAX_RECORD_BYTES + 1;
            return None;
        }
        self.take(start);
        self.is_skipping = true;
        Some(self.refused(TOO_LONG.into()))
    }

    /// Returns the chunk that rejects the record at the beginning of `buffer`.
    fn refused(&self, reason: String) -> LineChunk {
        let raw = &self.buffer[..self.buffer.len().min(MAX_RAW_BYTES)];
        LineChunk::Refused { line: self.line, reason, raw: Bytes::copy_from_slice(raw) }
    }

    /// Removes the text before the next line that begins with a record, or all complete lines.
    fn skip(&mut self) {
        let line = next_record_line(&self.buffer, 0);
        self.is_skipping = line.is_none();
        // The beginning of the last line may be incomplete, so its line feed is kept.
        let end =
            line.or_else(|| memchr::memrchr(b'\n', &self.buffer)).unwrap_or(self.buffer.len());
        self.line += count_lines(&self.buffer[..end]);
        self.buffer.drain(..end);
    }

    /// Removes the first `bytes` bytes of `buffer`, which end between two records, and returns
    /// them.
    fn take(&mut self, bytes: usize) -> LineChunk {
        let mut rest = Vec::with_capacity(self.buffer.len());
        rest.extend_from_slice(&self.buffer[bytes..]);
        let mut text = std::mem::replace(&mut self.buffer, rest);
        text.truncate(bytes);
        let first_line = self.line;
        self.line += count_lines(&text);
        self.retry_bytes = 0;
        LineChunk::Lines { first_line, text: text.into() }
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Decompresses a small text chunk by chunk, because it may expand a thousandfold.
pub fn decompress(compressed: Bytes, slice_bytes: usize) -> impl Iterator<Item = LineChunk> {
    let mut line_splitter = Some(LineSplitter::new(slice_bytes));
    let mut at = 0;
    let parts = std::iter::from_fn(move || {
        if at == compressed.len() {
            return line_splitter.take().map(LineSplitter::finish);
        }
        let piece = compressed.slice(at..compressed.len().min(at + COMPRESSED_PIECE_BYTES));
        at += piece.len();
        line_splitter.as_mut().map(|line_splitter| line_splitter.push(&piece))
    });
    parts.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::model::Kind;
    use crate::data::lake::decode::Decoder;
    use arrow::util::pretty::pretty_format_batches;
    use proptest::prelude::*;

    /// Parts of texts whose combinations are records, arrays, and damage of every kind.
    const PARTS: [&[u8]; 30] = [
        b"{\"ind\":1}",
        b"{\"ind\":2,\"country\":\"Peru\"}",
        b"{\"ind\":3,",
        b"\"country\":\"x\"}",
        b"{\"ind\":",
        b"{\"ind\":4,\"x\":{\"a\":1}}",
        b"{\n\"ind\":5\n}",
        b"{\"ind\":6,\"country\":\"\xc3\xa9\\\"\"}",
        b"{\"ind\":7,\"country\":1.50}",
        b"[",
        b"]",
        b",",
        b"\n",
        b"\n",
        b"\n",
        b"\n{",
        b"}\n",
        b"},\n{",
        b" ",
        b"\r",
        b"\x0b",
        b"null",
        b"null\n",
        b"nonsense",
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"\xef\xbb\xbf",
        b"\xc3",
    ];

    fn compressed(text: &[u8]) -> Vec<u8> {
        use std::io::Write;
        // The tests cut and damage the data at positions that depend on the compression level.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compress");
        encoder.finish().expect("compress")
    }

    fn split(slice_bytes: usize, chunks: &[&[u8]]) -> Vec<LineChunk> {
        let mut line_splitter = LineSplitter::new(slice_bytes);
        let mut slices: Vec<LineChunk> =
            chunks.iter().flat_map(|chunk| line_splitter.push(chunk)).collect();
        slices.extend(line_splitter.finish());
        slices
    }

    fn lines(first_line: u64, text: &str) -> LineChunk {
        LineChunk::Lines { first_line, text: text.to_string().into() }
    }

    /// Decodes chunks to rows, rejects and counts, as one text.
    fn decoded(chunks: Vec<LineChunk>) -> String {
        let mut decoder = Decoder::new(Kind::Geo);
        for chunk in chunks {
            match chunk {
                LineChunk::Lines { first_line, text } => {
                    let decoded = decoder.text("a", first_line, &text, &mut |_, _| Ok(()));
                    decoded.expect("decodes");
                }
                LineChunk::Refused { line, reason, raw } => decoder.refuse("a", line, reason, &raw),
            }
        }
        let rows = pretty_format_batches(&decoder.finish().expect("finishes")).expect("prints");
        let (records, tombstones) = (decoder.records, decoder.tombstones);
        format!("{rows}\n{records} {tombstones} {:#?}", decoder.rejects)
    }

    proptest! {
        #[test]
        fn the_records_do_not_depend_on_where_a_text_is_split(
            parts in proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..25),
            slice_bytes in 1..64usize,
            chunk_bytes in 1..64usize,
            is_compressed: bool,
        ) {
            let text = parts.concat();
            let whole = LineChunk::Lines { first_line: 1, text: text.clone().into() };
            let bytes = if is_compressed { compressed(&text) } else { text };
            let chunks: Vec<&[u8]> = bytes.chunks(chunk_bytes).collect();
            prop_assert_eq!(decoded(split(slice_bytes, &chunks)), decoded(vec![whole]));
        }

        #[test]
        fn every_record_before_a_cut_is_kept(records in 1..40usize, missing in 1..400usize, chunk_bytes in 1..64usize, separator in "[\n,]") {
            let record = |number| format!("{{\"ind\":{number}}}");
            let text: String = (1..=records).map(|number| record(number) + &separator).collect();
            let data = compressed(text.as_bytes());
            let data = &data[..data.len().saturating_sub(missing).max(2)];
            let chunks: Vec<&[u8]> = data.chunks(chunk_bytes).collect();
            let mut slices = split(16, &chunks);
            let Some(LineChunk::Refused { reason, raw, .. }) = slices.pop() else { panic!("{slices:?}") };
            prop_assert_eq!(reason, "broken gzip: the object ends before its compressed data does");
            let mut kept = Vec::new();
            for slice in slices {
                let LineChunk::Lines { text, .. } = slice else { panic!("{slice:?}") };
                kept.extend_from_slice(&text);
            }
            prop_assert!(text.as_bytes().starts_with(&kept));
            prop_assert!(raw.len() < record(records).len(), "{raw:?}");
        }
    }

    #[test]
    fn cuts_lines_without_a_search_and_arrays_between_their_records() {
        let text = "{\"ind\":1}\n{\"ind\":2}\n{\"ind\":3}\n";
        let slices = split(25, &[text.as_bytes()]);
        assert_eq!(slices, [lines(1, &text[..20]), lines(3, &text[20..])]);
        let text = "[\n {\"ind\":1},\n {\"ind\":2},{\"ind";
        let slices = split(20, &[text.as_bytes()]);
        assert_eq!(slices, [lines(1, &text[..24]), lines(3, &text[24..])]);
    }

    #[test]
    fn an_array_of_any_size_is_split() {
        let record =
            format!("  {{\n    \"ind\": 1,\n    \"country\": \"{}\"\n  }}", "x".repeat(900));
        let text = format!("[\n{}\n]\n", vec![record; 1000].join(",\n"));
        let one_line = text.replace('\n', "");
        for text in [text, one_line] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(4096).collect();
            let slices = split(10_000, &chunks);
            assert!(slices.len() > 60, "{}", slices.len());
            let mut decoder = Decoder::new(Kind::Geo);
            for slice in slices {
                let LineChunk::Lines { first_line, text } = slice else { panic!("{slice:?}") };
                assert!(text.len() < 20_000, "{}", text.len());
                decoder.text("a", first_line, &text, &mut |_, _| Ok(())).expect("decodes");
            }
            assert_eq!((decoder.records, decoder.rejects.len()), (1000, 0));
        }
    }

    #[test]
    fn rejects_a_record_that_is_too_long_and_reads_the_next_one() {
        let long = "x".repeat(MAX_RECORD_BYTES + 2);
        for (begin, end) in [("", ""), ("{\"ind\":2,\"country\":\"", "\"}"), ("[", "]")] {
            let text = format!("{{\"ind\":1}}\n{begin}{long}{long}{end}\n{{\"ind\":3}}\n");
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(1 << 20).collect();
            let slices = split(1000, &chunks);
            let text: Vec<u8> = slices
                .iter()
                .flat_map(|slice| match slice {
                    LineChunk::Lines { text, .. } => text.trim_ascii().to_vec(),
                    LineChunk::Refused { line, reason, raw } => {
                        assert_eq!(
                            (*line, reason.as_str(), raw.len()),
                            (2, TOO_LONG, MAX_RAW_BYTES)
                        );
                        b"|".to_vec()
                    }
                })
                .collect();
            assert_eq!(String::from_utf8_lossy(&text), "{\"ind\":1}|{\"ind\":3}");
            assert!(matches!(slices.last(), Some(LineChunk::Lines { first_line: 3, .. })));
        }
    }

    #[test]
    fn reads_the_lines_before_damaged_gzip_data() {
        let whole = compressed(&b"{\"ind\":1}\n{\"ind\":2}\n{\"ind\":33}\n".repeat(1000));
        let slices = split(1 << 20, &[&whole[..whole.len() - 20]]);
        let LineChunk::Lines { first_line: 1, text } = &slices[0] else { panic!("{slices:?}") };
        let record_count = memchr::memchr_iter(b'}', text).count() as u64;
        assert!(record_count > 100 && text.trim_ascii_end().ends_with(b"}"), "{record_count}");
        assert!(
            matches!(&slices[1], LineChunk::Refused { line, reason, .. } if *line == record_count + 1 && reason.starts_with("broken gzip")),
            "{slices:?}"
        );
        // Damage in the middle, when the data before it has not been returned yet.
        let mut broken = compressed(
            (0..300)
                .map(|number: u32| format!("{{\"ind\":{}}}\n", number.wrapping_mul(2_654_435_761)))
                .collect::<String>()
                .as_bytes(),
        );
        let at = broken.len() * 3 / 4;
        broken[at..at + 8].fill(0xff);
        let slices: Vec<LineChunk> = decompress(broken.into(), 1 << 20).collect();
        let LineChunk::Lines { first_line: 1, text } = &slices[0] else { panic!("{slices:?}") };
        assert!(memchr::memchr_iter(b'\n', text).count() > 100 && slices.len() == 2, "{slices:?}");
    }

    #[test]
    fn the_content_tells_the_compression() {
        assert_eq!(split(100, &[b"{}\n", b"{}\n"]), [lines(1, "{}\n{}\n")]);
        assert_eq!(split(100, &[b"\x1f"]), [lines(1, "\x1f")]);
        assert_eq!(split(100, &[]), []);
        assert_eq!(split(100, &[&compressed(b"")]), []);
        let data = compressed(b"{}");
        let padded = [&data[..], &[0; 512]].concat();
        assert_eq!(split(100, &[&padded[..1], &padded[1..]]), [lines(1, "{}")]);
    }
}
