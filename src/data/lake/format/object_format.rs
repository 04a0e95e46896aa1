//! The interface between sink, batch and the formats of objects.

use std::io::Error as IoError;

use crate::base::error::Result;
use crate::data::lake::compression::Compression;
use crate::data::lake::decode::Decoder;

/// Format of the objects of the lake: the sink connector encodes records with it, batch decodes
/// them.
pub trait ObjectFormat: std::fmt::Debug + Send + Sync {
    /// The value of the sink connector's property `format.class`, without the package.
    fn class(&self) -> &'static str;

    /// Extension of an object's name with this compression, without the dot before it.
    fn extension(&self, compression: Compression) -> String;

    /// Splits the name of an object into the name without its extension and the compression of the
    /// object as a whole, as the name indicates it. Returns `None` for the name of another format.
    fn parse_name<'n>(&self, name: &'n str) -> Option<(&'n str, Compression)>;

    /// Typical size of the decoded records, as a multiple of the size of the object.
    fn typical_ratio(&self, compression: Compression) -> u64;

    /// Returns whether an object can be split between records. Batch then reads large objects chunk
    /// by chunk; objects of other formats are read as a whole.
    fn has_lines(&self) -> bool;

    /// Opens an encoder for a new object.
    fn encoder(&self, compression: Compression) -> Box<dyn ObjectEncoder>;

    /// Decodes the records of a part of an object. Calls `after_piece` with the number of decoded
    /// bytes after each piece of the part, so that the caller can take the rows from the decoder.
    /// Pieces are small, because rows take more memory than the bytes of their records.
    ///
    /// # Errors
    /// The records cannot be converted; `after_piece` fails. Invalid records are rejected instead.
    fn decode(
        &self,
        part: &ObjectPart<'_>,
        decoder: &mut Decoder,
        after_piece: &mut dyn FnMut(&mut Decoder, u64) -> Result<()>,
    ) -> Result<()>;
}

/// Encodes the records of one object piece by piece.
pub trait ObjectEncoder: Send {
    /// Appends a record, which is a JSON value.
    ///
    /// # Errors
    /// The record cannot be encoded or compressed.
    fn append(&mut self, record: &[u8]) -> Result<(), IoError>;

    /// The bytes that are ready to be stored. The caller may take them.
    fn ready(&mut self) -> &mut Vec<u8>;

    /// Ends the object and returns the remaining bytes.
    ///
    /// # Errors
    /// The records cannot be encoded or compressed.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, IoError>;
}

/// A decompressed part of an object that can be decoded alone: complete records.
pub struct ObjectPart<'a> {
    /// Source of the records in messages.
    pub origin: &'a str,
    /// Line in which the part begins, from 1.
    pub first_line: u64,
    pub bytes: &'a [u8],
}
