//! Splits a long text, plain or compressed, into chunks of complete lines.

use bytes::Bytes;

use crate::data::lake::compression::{Compression, Decoder};
use crate::data::lake::decode::{MAX_RECORD_BYTES, TOO_LONG};

/// Compressed bytes per decompression step. They may expand a thousandfold.
pub const COMPRESSED_PIECE_BYTES: usize = 4 * 1024;
/// Bytes kept of a record that exceeds [`MAX_RECORD_BYTES`].
const MAX_RAW_BYTES: usize = 64 * 1024;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum LineChunk {
    /// Complete lines; `first_line` is the number of the first one, from 1.
    Lines { first_line: u64, text: Bytes },
    /// A line that is too long, or damaged compressed data.
    Refused { line: u64, reason: String, raw: Bytes },
}

/// Splits a text incrementally. Memory use is little more than one chunk; for a compressed text,
/// one chunk plus the output of the last decompression step.
pub struct LineSplitter {
    compression: Compression,
    decoder: Option<Decoder>,
    slice_bytes: usize,
    /// Text that is not returned yet: complete lines and the beginning of the next one.
    buffer: Vec<u8>,
    /// Number of the first line in `buffer`.
    line: u64,
    /// Skips the rest of a line that is too long.
    is_skipping: bool,
    is_damaged: bool,
}

impl LineSplitter {
    /// Creates a splitter. Chunks have about `slice_bytes` bytes, or slightly more than the length
    /// of a line that is longer.
    pub fn new(compression: Compression, slice_bytes: usize) -> Self {
        Self {
            compression,
            decoder: compression.decoder(),
            slice_bytes,
            buffer: Vec::new(),
            line: 1,
            is_skipping: false,
            is_damaged: false,
        }
    }

    /// Adds text and returns the chunks that are complete. Ignores text after damaged data.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        let Some(decoder) = &mut self.decoder else {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(self.slice_bytes + bytes.len());
            }
            self.buffer.extend_from_slice(bytes);
            return self.cut();
        };
        let decompressed = decoder.write(bytes);
        if decompressed.is_err() {
            // Flushes the data before the damage. The decoder cannot finish, so its error is
            // ignored.
            let _ = decoder.try_finish();
        }
        self.buffer.append(decoder.text());
        let mut slices = self.cut();
        if let Err(error) = decompressed {
            slices.extend(self.damaged(&error));
        }
        slices
    }

    /// Ends the text and returns the remaining chunks.
    pub fn finish(mut self) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        let mut slices = Vec::new();
        if let Some(decoder) = &mut self.decoder {
            let ended = decoder.try_finish();
            self.buffer.append(decoder.text());
            slices = self.cut();
            if let Err(error) = ended {
                slices.extend(self.damaged(&error));
                return slices;
            }
        }
        if !self.buffer.is_empty() && !self.is_skipping {
            slices.push(LineChunk::Lines { first_line: self.line, text: self.buffer.into() });
        }
        slices
    }

    /// Returns the complete lines before the damage, and a reject for it.
    fn damaged(&mut self, error: &std::io::Error) -> Vec<LineChunk> {
        self.is_damaged = true;
        let mut slices = Vec::new();
        match memchr::memrchr(b'\n', &self.buffer) {
            Some(end) if !self.is_skipping => slices.push(self.lines(end + 1)),
            _ => {}
        }
        slices.push(LineChunk::Refused {
            line: self.line,
            reason: format!("broken {}: {error}", self.compression.name()),
            raw: Bytes::new(),
        });
        slices
    }

    fn cut(&mut self) -> Vec<LineChunk> {
        let mut slices = Vec::new();
        loop {
            if self.is_skipping {
                let Some(end) = memchr::memchr(b'\n', &self.buffer) else {
                    self.buffer.clear();
                    return slices;
                };
                self.buffer.drain(..=end);
                self.line += 1;
                self.is_skipping = false;
            }
            if self.buffer.len() < self.slice_bytes {
                return slices;
            }
            match memchr::memrchr(b'\n', &self.buffer) {
                Some(end) => slices.push(self.lines(end + 1)),
                None if self.buffer.len() > MAX_RECORD_BYTES => {
                    let raw = Bytes::copy_from_slice(&self.buffer[..MAX_RAW_BYTES]);
                    slices.push(LineChunk::Refused {
                        line: self.line,
                        reason: TOO_LONG.into(),
                        raw,
                    });
                    self.buffer.clear();
                    self.is_skipping = true;
                }
                None => return slices,
            }
        }
    }

    /// Removes the first `bytes` bytes of `buffer`, which end with a line, and returns them.
    fn lines(&mut self, bytes: usize) -> LineChunk {
        let mut rest = Vec::with_capacity(self.buffer.len());
        rest.extend_from_slice(&self.buffer[bytes..]);
        let mut text = std::mem::replace(&mut self.buffer, rest);
        text.truncate(bytes);
        let first_line = self.line;
        self.line += memchr::memchr_iter(b'\n', &text).count() as u64;
        LineChunk::Lines { first_line, text: text.into() }
    }
}

/// Decompresses a small text chunk by chunk, because it may expand a thousandfold.
pub fn decompress(
    compressed: Bytes,
    compression: Compression,
    slice_bytes: usize,
) -> impl Iterator<Item = LineChunk> {
    let mut line_splitter = Some(LineSplitter::new(compression, slice_bytes));
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

/// Decompresses a text that is one record, which is accepted or rejected as a whole.
pub fn decompress_record(compressed: Bytes, compression: Compression) -> LineChunk {
    let mut slices = decompress(compressed, compression, MAX_RECORD_BYTES + 1);
    match (slices.next(), slices.next()) {
        (Some(refused @ LineChunk::Refused { .. }), _)
        | (_, Some(refused @ LineChunk::Refused { .. })) => refused,
        (_, Some(LineChunk::Lines { .. })) => {
            LineChunk::Refused { line: 1, reason: TOO_LONG.into(), raw: Bytes::new() }
        }
        (Some(all), None) => all,
        (None, None) => LineChunk::Lines { first_line: 1, text: Bytes::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        use std::io::Write;
        // At the fast level: the tests cut and damage the data at places that depend on it.
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compress");
        encoder.finish().expect("compress")
    }

    fn split(is_compressed: bool, slice_bytes: usize, chunks: &[&[u8]]) -> Vec<LineChunk> {
        let compression = if is_compressed { Compression::Gzip } else { Compression::None };
        let mut line_splitter = LineSplitter::new(compression, slice_bytes);
        let mut slices: Vec<LineChunk> =
            chunks.iter().flat_map(|chunk| line_splitter.push(chunk)).collect();
        slices.extend(line_splitter.finish());
        slices
    }

    fn lines(first_line: u64, text: &str) -> LineChunk {
        LineChunk::Lines { first_line, text: text.to_string().into() }
    }

    proptest! {
        #[test]
        fn chunks_add_up_to_the_text_and_have_line_numbers(text in "([a-c]{0,12}\n){0,40}[a-c]{0,5}", slice_bytes in 1..64usize, chunk_bytes in 1..64usize, is_compressed: bool) {
            let bytes = if is_compressed { compressed(text.as_bytes()) } else { text.clone().into_bytes() };
            let mut joined = Vec::new();
            for slice in split(is_compressed, slice_bytes, &bytes.chunks(chunk_bytes).collect::<Vec<_>>()) {
                let LineChunk::Lines { first_line, text } = slice else { panic!("refused: {slice:?}") };
                prop_assert_eq!(first_line, 1 + joined.iter().filter(|byte| **byte == b'\n').count() as u64);
                prop_assert!(joined.is_empty() || joined.ends_with(b"\n"));
                joined.extend_from_slice(&text);
            }
            prop_assert_eq!(joined, text.into_bytes());
        }
    }

    #[test]
    fn rejects_a_line_that_is_too_long_and_reads_the_next_one() {
        let long = "x".repeat(MAX_RECORD_BYTES + 2);
        let text = format!("one\n{long}{long}\nthree\n");
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(1 << 20).collect();
        let slices = split(false, 1000, &chunks);
        assert_eq!(
            (&slices[0], &slices[2]),
            (&lines(1, "one\n"), &lines(3, "three\n")),
            "{}",
            slices.len()
        );
        assert!(
            matches!(&slices[1], LineChunk::Refused { line: 2, reason, raw } if reason == TOO_LONG && raw.len() == MAX_RAW_BYTES)
        );
    }

    #[test]
    fn reads_the_lines_before_damaged_gzip_data() {
        let whole = compressed(&b"one\ntwo\nthree\n".repeat(1000));
        let slices = split(true, 1 << 20, &[&whole[..whole.len() - 20]]);
        let LineChunk::Lines { first_line: 1, text } = &slices[0] else { panic!("{slices:?}") };
        let line_count = memchr::memchr_iter(b'\n', text).count() as u64;
        assert!(line_count > 100 && text.ends_with(b"\n"), "{line_count}");
        assert!(
            matches!(&slices[1], LineChunk::Refused { line, reason, .. } if *line == line_count + 1 && reason.starts_with("broken gzip")),
            "{slices:?}"
        );
        // Damage in the middle: the data before it is not returned yet.
        let mut broken = compressed(
            (0..300)
                .map(|number: u32| format!("line {}\n", number.wrapping_mul(2_654_435_761)))
                .collect::<String>()
                .as_bytes(),
        );
        let at = broken.len() * 3 / 4;
        broken[at..at + 8].fill(0xff);
        let slices: Vec<LineChunk> =
            decompress(broken.into(), Compression::Gzip, 1 << 20).collect();
        let LineChunk::Lines { first_line: 1, text } = &slices[0] else { panic!("{slices:?}") };
        assert!(memchr::memchr_iter(b'\n', text).count() > 100 && slices.len() == 2, "{slices:?}");
        let not_compressed = split(true, 100, &[b"{}\n{}\n"]);
        assert!(
            matches!(&not_compressed[..], [LineChunk::Refused { line: 1, .. }]),
            "{not_compressed:?}"
        );
    }
}
