//! Compression of objects: names, extensions, encoders and decoders, for sink and batch.

use std::io::{Error, Write};

use flate2::write::{GzEncoder, MultiGzDecoder};

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

    /// What is appended to the name of an object.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
        }
    }

    /// Splits an object's name into the name without the extension and the compression.
    pub fn of_object(name: &str) -> (&str, Self) {
        let is_compressed = |compression: &Self| !compression.extension().is_empty();
        let split =
            |compression: Self| Some((name.strip_suffix(compression.extension())?, compression));
        Self::ALL.into_iter().filter(is_compressed).find_map(split).unwrap_or((name, Self::None))
    }

    /// Typical size of a text before compression, as a multiple of its size after.
    pub fn typical_ratio(self) -> u64 {
        match self {
            Self::None => 1,
            Self::Gzip => 8,
        }
    }

    /// An encoder of an object.
    pub fn encoder(self) -> Encoder {
        match self {
            Self::None => Encoder::None(Vec::new()),
            Self::Gzip => {
                let level = flate2::Compression::default();
                Encoder::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
        }
    }

    /// A decoder of an object. `None`: its bytes are its text.
    pub fn decoder(self) -> Option<Decoder> {
        match self {
            Self::None => None,
            Self::Gzip => Some(Decoder::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
        }
    }
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

/// Decompresses an object piece by piece.
pub enum Decoder {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Decoder {
    /// Appends bytes of the object.
    ///
    /// # Errors
    /// The data is damaged.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(bytes),
        }
    }

    /// Decompresses what was appended so far.
    ///
    /// # Errors
    /// The data is damaged or incomplete.
    pub fn try_finish(&mut self) -> Result<(), Error> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
        }
    }

    /// The decompressed text so far. The caller may take it.
    pub fn text(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compression_restores_the_text() {
        for compression in Compression::ALL {
            let mut encoder = compression.encoder();
            encoder.write(b"one\n").expect("encodes");
            encoder.write(b"two\n").expect("encodes");
            let bytes = encoder.finish().expect("encodes");
            let text = match compression.decoder() {
                None => bytes,
                Some(mut decoder) => {
                    decoder.write(&bytes).expect("decodes");
                    decoder.try_finish().expect("decodes");
                    std::mem::take(decoder.text())
                }
            };
            assert_eq!(text, b"one\ntwo\n", "{}", compression.name());
        }
    }

    #[test]
    fn the_extension_tells_the_compression() {
        assert_eq!(Compression::of_object("a.json"), ("a.json", Compression::None));
        assert_eq!(Compression::of_object("a.json.gz"), ("a.json", Compression::Gzip));
    }
}
