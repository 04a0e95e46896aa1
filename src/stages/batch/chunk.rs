//! Decoding and cleaning a portion of the lake: the work that takes a core.

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::lake::decode::{Decoder, Reject};
use crate::data::lake::line_splitter::{LineChunk, decompress, decompress_record};
use crate::data::lake::objects::RawObject;
use crate::data::lake::scan::{ScanChunk, interrupted};
use crate::data::transform::clean::Cleaner;
use crate::data::transform::keys::{KeyMaker, RowKeys};
use crate::data::transform::quality;
use crate::data::transform::quality::ColumnQuality;

/// Text that is decoded before it is looked at how much came of it.
const PIECE_BYTES: usize = 64 * 1024;
/// What a packed object is unpacked to at a time.
const DECOMPRESSED_BYTES: usize = 1024 * 1024;
/// Rows and rejects that are handed over before a portion ends: short lines make many.
const MAX_ROWS: usize = 128 * 1024;
const MAX_REJECTS: usize = 1_000;

/// A portion of the lake, cleaned; where much came of it, a part of that.
pub struct TransformedChunk {
    /// Objects that are done with.
    pub objects: u64,
    /// Of whole objects as they are stored, of a part of one its text.
    pub bytes: u64,
    pub records: u64,
    pub batches: Vec<(RecordBatch, RowKeys)>,
    pub quality: Vec<ColumnQuality>,
    pub rejects: Vec<Reject>,
}

/// What cleans portions of one kind.
pub struct ChunkTransformer {
    pub kind: Kind,
    /// The lake is a folder: its objects are known by their paths.
    pub is_folder: bool,
    pub cleaner: Cleaner,
    pub keys: KeyMaker,
    /// Text of which the rows and rejects are handed over before a portion ends: packed objects may be long.
    pub max_text_bytes: u64,
}

/// A portion that is being cleaned.
struct ChunkTransformation<'a> {
    by: &'a ChunkTransformer,
    give: &'a mpsc::Sender<TransformedChunk>,
    decoder: Decoder,
    objects: u64,
    bytes: u64,
    text_bytes: u64,
}

impl ChunkTransformer {
    /// Hands over what comes of a portion, until nobody takes it. To be called where it may block.
    ///
    /// # Errors
    /// It cannot be decoded. Records that do not fit are rejects instead.
    pub fn clean(&self, chunk: ScanChunk, give: &mpsc::Sender<TransformedChunk>) -> Result<()> {
        let mut cleaning = ChunkTransformation {
            by: self,
            give,
            decoder: Decoder::new(self.kind),
            objects: 0,
            bytes: 0,
            text_bytes: 0,
        };
        match chunk {
            ScanChunk::Objects(whole) => {
                for (object, contents) in whole {
                    cleaning.objects += 1;
                    cleaning.bytes += object.size_bytes;
                    match (object.is_compressed(), object.is_one_record) {
                        (false, _) => cleaning.slice(
                            &object,
                            LineChunk::Lines {
                                first_line: 1,
                                text: contents,
                            },
                        )?,
                        (true, true) => cleaning.slice(&object, decompress_record(contents))?,
                        (true, false) => {
                            for slice in decompress(contents, DECOMPRESSED_BYTES) {
                                cleaning.slice(&object, slice)?;
                            }
                        }
                    }
                }
            }
            ScanChunk::LineChunk { object, slice } => {
                if let LineChunk::Lines { text, .. } = &slice {
                    cleaning.bytes += text.len() as u64;
                }
                cleaning.slice(&object, slice)?;
            }
            ScanChunk::End => cleaning.objects += 1,
        }
        cleaning.flush()
    }

    /// An object as people know it.
    fn origin(&self, object: &RawObject) -> String {
        if self.is_folder {
            format!("/{}", object.path)
        } else {
            object.path.to_string()
        }
    }
}

impl ChunkTransformation<'_> {
    fn slice(&mut self, object: &RawObject, slice: LineChunk) -> Result<()> {
        let origin = self.by.origin(object);
        match slice {
            LineChunk::Lines { first_line, text } if object.is_one_record => {
                self.text_bytes += text.len() as u64;
                self.decoder.record(&origin, first_line, &text)?;
            }
            LineChunk::Lines { first_line, text } => {
                let (mut line, mut rest) = (first_line, &text[..]);
                while !rest.is_empty() {
                    let from = PIECE_BYTES.min(rest.len());
                    let end = memchr::memchr(b'\n', &rest[from..])
                        .map_or(rest.len(), |length| from + length + 1);
                    line = self.decoder.lines(&origin, line, &rest[..end])?;
                    rest = &rest[end..];
                    self.text_bytes += end as u64;
                    self.flush_if_full()?;
                }
            }
            LineChunk::Refused { line, reason, raw } => {
                self.decoder.refuse(&origin, line, reason, &raw)
            }
        }
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Result<()> {
        let is_much =
            self.decoder.held_rows() >= MAX_ROWS || self.decoder.rejects.len() >= MAX_REJECTS;
        if is_much || self.text_bytes >= self.by.max_text_bytes {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Cleans what has been decoded, and gives it away.
    fn flush(&mut self) -> Result<()> {
        let by = self.by;
        let mut quality = quality::columns(by.kind);
        let mut batches = Vec::new();
        for raw in self.decoder.finish()? {
            let clean = by.cleaner.clean(&raw)?;
            quality::count(by.kind, &mut quality, &raw, &clean)?;
            let keys = by.keys.keys(&clean)?;
            batches.push((clean, keys));
        }
        let rejects = std::mem::take(&mut self.decoder.rejects);
        let records = std::mem::take(&mut self.decoder.records);
        let (objects, bytes) = (
            std::mem::take(&mut self.objects),
            std::mem::take(&mut self.bytes),
        );
        self.text_bytes = 0;
        // Whoever does not want it has failed, and says more.
        let cleaned = TransformedChunk {
            objects,
            bytes,
            records,
            batches,
            quality,
            rejects,
        };
        self.give
            .blocking_send(cleaned)
            .map_err(|_| Error::failed(interrupted()))
    }
}
