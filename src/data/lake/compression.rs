//! Compression of objects: names, extensions, encoders and decoders, for sink and batch.

use std::io::{Error, Write};

use flate2::write::{GzDecoder, GzEncoder};

/// Compression of an object of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

impl Compression {
    pub const ALL: [Compression; 2] = [Self::None, Self::Gzip];

    /// The value of the sink connector's property `s3.compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }

    /// The extension that is appended to the name of an object.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
        }
    }

    /// Splits an object's name into the name without the extension, whose case is ignored, and the
    /// compression that it indicates. The content can differ, see [`Self::of_content`].
    pub fn of_object(name: &str) -> (&str, Self) {
        let is_compressed = |compression: &Self| !compression.extension().is_empty();
        let split = |compression: Self| {
            let stem = strip_extension(name, compression.extension())?;
            Some((stem, compression))
        };
        Self::ALL.into_iter().filter(is_compressed).find_map(split).unwrap_or((name, Self::None))
    }

    /// Returns the compression of an object by the first two bytes of its content, or `None` if
    /// more bytes are needed.
    pub fn of_content(start: &[u8]) -> Option<Self> {
        match start {
            [] | [0x1f] => None,
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            _ => Some(Self::None),
        }
    }

    /// Typical compression ratio: the size of a text divided by its compressed size.
    pub fn typical_ratio(self) -> u64 {
        match self {
            Self::None => 1,
            Self::Gzip => 8,
        }
    }

    /// Returns an encoder for an object.
    pub fn encoder(self) -> Encoder {
        match self {
            Self::None => Encoder::None(Vec::new()),
            Self::Gzip => {
                let level = flate2::Compression::default();
                Encoder::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
        }
    }

    /// Returns a decoder for an object, or `None` if its bytes are its text.
    pub fn decoder(self) -> Option<GzipDecoder> {
        match self {
            Self::None => None,
            Self::Gzip => Some(GzipDecoder::default()),
        }
    }
}

/// Removes an extension, ignoring its case. Returns `None` if the name has another one.
pub fn strip_extension<'n>(name: &'n str, extension: &str) -> Option<&'n str> {
    let (stem, last) = name.split_at_checked(name.len().checked_sub(extension.len())?)?;
    last.eq_ignore_ascii_case(extension).then_some(stem)
}

/// Compresses an object piece by piece.
pub enum Encoder {
    None(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Encoder {
    /// Appends bytes of the text.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::None(buffer) => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// The bytes that are ready to be stored. The caller may take them.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        match self {
            Self::None(buffer) => buffer,
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    /// Ends the text and returns the remaining bytes.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::None(buffer) => Ok(buffer),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Decompresses an object of gzip members piece by piece. White space and zero bytes after a member
/// are skipped: some writers pad objects, or end each member with a line break.
#[derive(Default)]
pub struct GzipDecoder {
    /// The current member. `None` between two members.
    member: Option<Box<GzDecoder<Vec<u8>>>>,
    text: Vec<u8>,
}

impl GzipDecoder {
    /// Appends bytes of the object. After an error, [`Self::text`] returns the text before the
    /// damage.
    ///
    /// # Errors
    /// The data is damaged.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while let [first, after_first @ ..] = rest {
            let Some(member) = &mut self.member else {
                match first {
                    0 | b' ' | b'\t'..=b'\r' => rest = after_first,
                    0x1f => self.member = Some(Box::new(GzDecoder::new(Vec::new()))),
                    _ => {
                        return Err(Error::other("the data after the compressed data is not gzip"));
                    }
                }
                continue;
            };
            match member.write(rest) {
                Ok(0) => self.end_member()?,
                Ok(written) => rest = &rest[written..],
                Err(error) => {
                    // Flushes the text before the damage. The member cannot end, so this error is
                    // ignored.
                    let _ = member.try_finish();
                    self.take_text();
                    return Err(error);
                }
            }
        }
        self.take_text();
        Ok(())
    }

    /// Ends the object. Afterwards, [`Self::text`] returns the remaining text, even after an error.
    ///
    /// # Errors
    /// The data is damaged or incomplete.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some(member) = &mut self.member else {
            return Ok(());
        };
        // Takes the text first, because the byte that is written below may be decoded. If the flush
        // fails, that write fails, too.
        let _ = member.flush();
        self.text.append(member.get_mut());
        // Finishing a member does not show whether it is truncated, but a complete member accepts
        // no further byte.
        if matches!(member.write(&[0]), Ok(0)) {
            return self.end_member();
        }
        Err(Error::other("the object ends before its compressed data does"))
    }

    /// The decompressed text so far. The caller may take it.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    fn end_member(&mut self) -> Result<(), Error> {
        let Some(mut member) = self.member.take() else {
            return Ok(());
        };
        let ended = member.try_finish();
        self.text.append(member.get_mut());
        // All bytes of the member were decoded, so only its checksum or length can be wrong.
        ended.map_err(|_| Error::other("the checksum does not match"))
    }

    fn take_text(&mut self) {
        if let Some(member) = &mut self.member {
            self.text.append(member.get_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut encoder = Compression::Gzip.encoder();
        encoder.write(text).expect("encodes");
        encoder.finish().expect("encodes")
    }

    /// Decompresses data that comes in pieces. Returns the text and the error.
    fn decompressed(data: &[u8], piece_bytes: usize) -> (Vec<u8>, Option<String>) {
        let mut decoder = Compression::Gzip.decoder().expect("a decoder");
        let written = data.chunks(piece_bytes).try_for_each(|piece| decoder.write(piece));
        let ended = written.and_then(|()| decoder.finish());
        (std::mem::take(decoder.text()), ended.err().map(|error| error.to_string()))
    }

    #[test]
    fn every_compression_restores_the_text() {
        for compression in Compression::ALL {
            let mut encoder = compression.encoder();
            encoder.write(b"one\n").expect("encodes");
            encoder.write(b"two\n").expect("encodes");
            let bytes = encoder.finish().expect("encodes");
            assert_eq!(Compression::of_content(&bytes), Some(compression));
            let text = match compression.decoder() {
                None => bytes,
                Some(_) => decompressed(&bytes, usize::MAX).0,
            };
            assert_eq!(text, b"one\ntwo\n", "{}", compression.name());
        }
    }

    #[test]
    fn members_may_be_padded_and_separated() {
        let (one, two) = (compressed(b"one\ntw"), compressed(b"o"));
        let empty = compressed(b"");
        for data in [
            [&one[..], &two].concat(),
            [&one[..], b"\n", &two, b"\r\n"].concat(),
            [&one[..], &[0; 600], &two, &[0; 600]].concat(),
            [&empty[..], &one, &empty, &two, &empty].concat(),
        ] {
            for piece_bytes in [1, 7, data.len()] {
                assert_eq!(decompressed(&data, piece_bytes), (b"one\ntwo".to_vec(), None));
            }
        }
        assert_eq!(decompressed(&empty, 3), (Vec::new(), None));
    }

    #[test]
    fn damage_leaves_the_text_before_it_and_has_a_reason() {
        let whole = compressed(b"one\ntwo\n");
        let reason = |data: &[u8]| {
            let found = decompressed(data, 5);
            assert_eq!(found, decompressed(data, data.len()));
            (String::from_utf8(found.0).expect("UTF-8"), found.1.expect("damaged"))
        };
        let cut = "the object ends before its compressed data does";
        for missing in 1..=8 {
            let (text, error) = reason(&whole[..whole.len() - missing]);
            assert_eq!((text.as_str(), error.as_str()), ("one\ntwo\n", cut), "{missing}");
        }
        assert_eq!(reason(&whole[..5]), (String::new(), cut.into()));
        let mut other_checksum = whole.clone();
        other_checksum[whole.len() - 6] ^= 1;
        let expected = ("one\ntwo\n".to_string(), "the checksum does not match".to_string());
        assert_eq!(reason(&other_checksum), expected);
        let (text, error) = reason(&[&whole[..], b"\n{}"].concat());
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(error, "the data after the compressed data is not gzip");
    }

    #[test]
    fn the_extension_tells_the_compression() {
        assert_eq!(Compression::of_object("a.json"), ("a.json", Compression::None));
        assert_eq!(Compression::of_object("a.json.gz"), ("a.json", Compression::Gzip));
        assert_eq!(Compression::of_object("a.JSON.GZ"), ("a.JSON", Compression::Gzip));
    }
}
