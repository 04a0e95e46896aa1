//! Cutting a long text of lines, packed or not, into slices that end where a line does.

use std::io::Write;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use crate::data::lake::decode::{MAX_RECORD_BYTES, TOO_LONG};

/// Packed bytes that are unpacked at a time: they may become a thousand times as many.
pub const COMPRESSED_PIECE_BYTES: usize = 4 * 1024;
/// Of a record that is too long, so much is shown.
const SHOWN_BYTES: usize = 64 * 1024;

/// What a text is cut into.
#[derive(Debug, PartialEq, Eq)]
pub enum LineChunk {
    /// Whole lines, the first of which has this number.
    Lines { first_line: u64, text: Bytes },
    /// What cannot be taken.
    Refused {
        line: u64,
        reason: String,
        raw: Bytes,
    },
}

/// Takes the text as it comes, and holds little more than a slice of it: of a packed text, what
/// the last bytes that came unpacked to.
pub struct LineSplitter {
    unpacker: Option<MultiGzDecoder<Vec<u8>>>,
    slice_bytes: usize,
    /// What has not been handed out yet: the beginning of a line, after some whole ones.
    open: Vec<u8>,
    /// The number of the first line in it.
    line: u64,
    /// The rest of a line that is too long.
    is_skipping: bool,
    is_damaged: bool,
}

impl LineSplitter {
    /// Slices have this many bytes or, where a line is longer, few more than that line.
    pub fn new(is_compressed: bool, slice_bytes: usize) -> Self {
        let unpacker = is_compressed.then(|| MultiGzDecoder::new(Vec::new()));
        Self {
            unpacker,
            slice_bytes,
            open: Vec::new(),
            line: 1,
            is_skipping: false,
            is_damaged: false,
        }
    }

    /// Takes more of the text; the slices that are whole by now. What comes after damage is left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        let Some(unpacker) = &mut self.unpacker else {
            if self.open.capacity() == 0 {
                self.open.reserve(self.slice_bytes + bytes.len());
            }
            self.open.extend_from_slice(bytes);
            return self.cut();
        };
        let unpacked = unpacker.write_all(bytes);
        if unpacked.is_err() {
            // Hands out what it unpacked before the damage; that it cannot finish is known.
            let _ = unpacker.try_finish();
        }
        self.open.append(unpacker.get_mut());
        let mut slices = self.cut();
        if let Err(error) = unpacked {
            slices.extend(self.damaged(&error));
        }
        slices
    }

    /// The text has ended: the rest of it.
    pub fn finish(mut self) -> Vec<LineChunk> {
        if self.is_damaged {
            return Vec::new();
        }
        let mut slices = Vec::new();
        if let Some(unpacker) = &mut self.unpacker {
            let ended = unpacker.try_finish();
            self.open.append(unpacker.get_mut());
            slices = self.cut();
            if let Err(error) = ended {
                slices.extend(self.damaged(&error));
                return slices;
            }
        }
        if !self.open.is_empty() && !self.is_skipping {
            slices.push(LineChunk::Lines {
                first_line: self.line,
                text: self.open.into(),
            });
        }
        slices
    }

    /// The whole lines before the damage, and what is wrong after them.
    fn damaged(&mut self, error: &std::io::Error) -> Vec<LineChunk> {
        self.is_damaged = true;
        let mut slices = Vec::new();
        match memchr::memrchr(b'\n', &self.open) {
            Some(end) if !self.is_skipping => slices.push(self.lines(end + 1)),
            _ => {}
        }
        slices.push(LineChunk::Refused {
            line: self.line,
            reason: format!("broken gzip: {error}"),
            raw: Bytes::new(),
        });
        slices
    }

    fn cut(&mut self) -> Vec<LineChunk> {
        let mut slices = Vec::new();
        loop {
            if self.is_skipping {
                let Some(end) = memchr::memchr(b'\n', &self.open) else {
                    self.open.clear();
                    return slices;
                };
                self.open.drain(..=end);
                self.line += 1;
                self.is_skipping = false;
            }
            if self.open.len() < self.slice_bytes {
                return slices;
            }
            match memchr::memrchr(b'\n', &self.open) {
                Some(end) => slices.push(self.lines(end + 1)),
                None if self.open.len() > MAX_RECORD_BYTES => {
                    let raw = Bytes::copy_from_slice(&self.open[..SHOWN_BYTES]);
                    slices.push(LineChunk::Refused {
                        line: self.line,
                        reason: TOO_LONG.into(),
                        raw,
                    });
                    self.open.clear();
                    self.is_skipping = true;
                }
                None => return slices,
            }
        }
    }

    /// Hands out the first bytes that are open, which end with a line.
    fn lines(&mut self, bytes: usize) -> LineChunk {
        let mut rest = Vec::with_capacity(self.open.len());
        rest.extend_from_slice(&self.open[bytes..]);
        let mut text = std::mem::replace(&mut self.open, rest);
        text.truncate(bytes);
        let first_line = self.line;
        self.line += memchr::memchr_iter(b'\n', &text).count() as u64;
        LineChunk::Lines {
            first_line,
            text: text.into(),
        }
    }
}

/// A small packed text, which may be a thousand times as long, slice by slice.
pub fn decompress(packed: Bytes, slice_bytes: usize) -> impl Iterator<Item = LineChunk> {
    let mut line_splitter = Some(LineSplitter::new(true, slice_bytes));
    let mut at = 0;
    let parts = std::iter::from_fn(move || {
        if at == packed.len() {
            return line_splitter.take().map(LineSplitter::finish);
        }
        let piece = packed.slice(at..packed.len().min(at + COMPRESSED_PIECE_BYTES));
        at += piece.len();
        line_splitter
            .as_mut()
            .map(|line_splitter| line_splitter.push(&piece))
    });
    parts.flatten()
}

/// A packed text that is one record, of which no part can be taken.
pub fn decompress_record(packed: Bytes) -> LineChunk {
    let mut slices = decompress(packed, MAX_RECORD_BYTES + 1);
    match (slices.next(), slices.next()) {
        (Some(refused @ LineChunk::Refused { .. }), _)
        | (_, Some(refused @ LineChunk::Refused { .. })) => refused,
        (_, Some(LineChunk::Lines { .. })) => LineChunk::Refused {
            line: 1,
            reason: TOO_LONG.into(),
            raw: Bytes::new(),
        },
        (Some(all), None) => all,
        (None, None) => LineChunk::Lines {
            first_line: 1,
            text: Bytes::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).expect("packs");
        packer.finish().expect("packs")
    }

    fn sliced(is_compressed: bool, slice_bytes: usize, chunks: &[&[u8]]) -> Vec<LineChunk> {
        let mut line_splitter = LineSplitter::new(is_compressed, slice_bytes);
        let mut slices: Vec<LineChunk> = chunks
            .iter()
            .flat_map(|chunk| line_splitter.push(chunk))
            .collect();
        slices.extend(line_splitter.finish());
        slices
    }

    fn lines(first_line: u64, text: &str) -> LineChunk {
        LineChunk::Lines {
            first_line,
            text: text.to_string().into(),
        }
    }

    proptest! {
        #[test]
        fn slices_make_up_the_text_and_know_their_lines(text in "([a-c]{0,12}\n){0,40}[a-c]{0,5}", slice_bytes in 1..64usize, chunk_bytes in 1..64usize, is_compressed: bool) {
            let bytes = if is_compressed { packed(text.as_bytes()) } else { text.clone().into_bytes() };
            let mut again = Vec::new();
            for slice in sliced(is_compressed, slice_bytes, &bytes.chunks(chunk_bytes).collect::<Vec<_>>()) {
                let LineChunk::Lines { first_line, text } = slice else { panic!("refused: {slice:?}") };
                prop_assert_eq!(first_line, 1 + again.iter().filter(|byte| **byte == b'\n').count() as u64);
                prop_assert!(again.is_empty() || again.ends_with(b"\n"));
                again.extend_from_slice(&text);
            }
            prop_assert_eq!(again, text.into_bytes());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_one_taken() {
        let long = "x".repeat(MAX_RECORD_BYTES + 2);
        let text = format!("one\n{long}{long}\nthree\n");
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(1 << 20).collect();
        let slices = sliced(false, 1000, &chunks);
        assert_eq!(
            (&slices[0], &slices[2]),
            (&lines(1, "one\n"), &lines(3, "three\n")),
            "{}",
            slices.len()
        );
        assert!(
            matches!(&slices[1], LineChunk::Refused { line: 2, reason, raw } if reason == TOO_LONG && raw.len() == SHOWN_BYTES)
        );
    }

    #[test]
    fn what_comes_before_damage_is_taken() {
        let whole = packed(&b"one\ntwo\nthree\n".repeat(1000));
        let slices = sliced(true, 1 << 20, &[&whole[..whole.len() - 20]]);
        let LineChunk::Lines {
            first_line: 1,
            text,
        } = &slices[0]
        else {
            panic!("{slices:?}")
        };
        let taken = memchr::memchr_iter(b'\n', text).count() as u64;
        assert!(taken > 100 && text.ends_with(b"\n"), "{taken}");
        assert!(
            matches!(&slices[1], LineChunk::Refused { line, reason, .. } if *line == taken + 1 && reason.starts_with("broken gzip")),
            "{slices:?}"
        );
        // A byte in the middle: what was unpacked before it has not been handed out yet.
        let mut broken = packed(
            (0..300)
                .map(|number: u32| format!("line {}\n", number.wrapping_mul(2_654_435_761)))
                .collect::<String>()
                .as_bytes(),
        );
        let at = broken.len() * 3 / 4;
        broken[at..at + 8].fill(0xff);
        let slices: Vec<LineChunk> = decompress(broken.into(), 1 << 20).collect();
        let LineChunk::Lines {
            first_line: 1,
            text,
        } = &slices[0]
        else {
            panic!("{slices:?}")
        };
        assert!(
            memchr::memchr_iter(b'\n', text).count() > 100 && slices.len() == 2,
            "{slices:?}"
        );
        let not_packed = sliced(true, 100, &[b"{}\n{}\n"]);
        assert!(
            matches!(&not_packed[..], [LineChunk::Refused { line: 1, .. }]),
            "{not_packed:?}"
        );
    }
}
