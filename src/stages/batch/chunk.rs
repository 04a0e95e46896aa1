//! Decoding and cleaning of one chunk of the lake: the CPU-bound part of the ingest.

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::lake::compression::Compression;
use crate::data::lake::decode::{Decoder, Reject};
use crate::data::lake::format::object_format::ObjectPart;
use crate::data::lake::line_splitter::{LineChunk, decompress};
use crate::data::lake::objects::RawObject;
use crate::data::lake::scan::{ScanChunk, interrupted};
use crate::data::transform::clean::Cleaner;
use crate::data::transform::keys::{KeyMaker, RowKeys};
use crate::data::transform::quality;
use crate::data::transform::quality::ColumnQuality;

/// Size of the line chunks of a decompressed object, in bytes.
const DECOMPRESSED_BYTES: usize = 1024 * 1024;
/// Decoded rows that cause a flush before the chunk ends: a chunk of short lines has many rows.
const MAX_ROWS: usize = 128 * 1024;
/// Rejected records that cause a flush before the chunk ends.
const MAX_REJECTS: usize = 1_000;

/// Cleaned rows of one chunk of the lake, or of a part of a chunk that exceeds a flush limit.
pub struct TransformedChunk {
    /// Objects read to their end.
    pub objects: u64,
    /// Bytes read: the stored size of a whole object, or the decompressed size of a part of an
    /// object.
    pub bytes: u64,
    pub records: u64,
    pub tombstones: u64,
    pub batches: Vec<(RecordBatch, RowKeys)>,
    pub quality: Vec<ColumnQuality>,
    pub rejects: Vec<Reject>,
}

/// Decodes and cleans chunks of one record kind.
pub struct ChunkTransformer {
    pub kind: Kind,
    /// The lake is a folder, so objects are reported with their absolute paths.
    pub is_folder: bool,
    pub cleaner: Cleaner,
    pub keys: KeyMaker,
    /// Bytes of text that cause a flush before the chunk ends: a compressed object can expand to a
    /// long text.
    pub max_text_bytes: u64,
}

/// The transformation of one chunk.
struct ChunkTransformation<'a> {
    transformer: &'a ChunkTransformer,
    output: &'a mpsc::Sender<TransformedChunk>,
    objects: u64,
    bytes: u64,
    text_bytes: u64,
}

impl ChunkTransformer {
    /// Sends the cleaned rows of a chunk to `output`. Blocks while the channel is full, so it must
    /// not run on an async worker thread.
    ///
    /// # Errors
    /// The records cannot be converted or cleaned; the receiver was dropped. Invalid records are
    /// rejected instead.
    pub fn clean(&self, chunk: ScanChunk, output: &mpsc::Sender<TransformedChunk>) -> Result<()> {
        let mut transformation =
            ChunkTransformation { transformer: self, output, objects: 0, bytes: 0, text_bytes: 0 };
        let mut decoder = Decoder::new(self.kind);
        match chunk {
            ScanChunk::Objects(objects) => {
                for (object, contents) in objects {
                    transformation.objects += 1;
                    transformation.bytes += object.size_bytes;
                    // The compression can differ from the extension of the object's name.
                    if Compression::of_content(&contents) == Some(Compression::Gzip) {
                        for lines in decompress(contents, DECOMPRESSED_BYTES) {
                            transformation.transform(&object, lines, &mut decoder)?;
                        }
                    } else {
                        let lines = LineChunk::Lines { first_line: 1, text: contents };
                        transformation.transform(&object, lines, &mut decoder)?;
                    }
                }
            }
            ScanChunk::LineChunk { object, slice } => {
                if let LineChunk::Lines { text, .. } = &slice {
                    transformation.bytes += text.len() as u64;
                }
                transformation.transform(&object, slice, &mut decoder)?;
            }
            ScanChunk::End => transformation.objects += 1,
        }
        transformation.flush(&mut decoder)
    }

    /// Returns the path of an object as reports show it.
    fn origin(&self, object: &RawObject) -> String {
        if self.is_folder { format!("/{}", object.path) } else { object.path.to_string() }
    }
}

impl ChunkTransformation<'_> {
    fn transform(
        &mut self,
        object: &RawObject,
        lines: LineChunk,
        decoder: &mut Decoder,
    ) -> Result<()> {
        let origin = self.transformer.origin(object);
        match lines {
            LineChunk::Lines { first_line, text } => {
                let part = ObjectPart { origin: &origin, first_line, bytes: &text };
                object.format.decode(&part, decoder, &mut |decoder, bytes| {
                    self.text_bytes += bytes;
                    self.flush_if_full(decoder)
                })
            }
            LineChunk::Refused { line, reason, raw } => {
                decoder.refuse(&origin, line, reason, &raw);
                self.flush_if_full(decoder)
            }
        }
    }

    fn flush_if_full(&mut self, decoder: &mut Decoder) -> Result<()> {
        let has_many_records =
            decoder.held_rows() >= MAX_ROWS || decoder.rejects.len() >= MAX_REJECTS;
        if has_many_records || self.text_bytes >= self.transformer.max_text_bytes {
            self.flush(decoder)
        } else {
            Ok(())
        }
    }

    /// Cleans the decoded rows and sends them to the output.
    fn flush(&mut self, decoder: &mut Decoder) -> Result<()> {
        let transformer = self.transformer;
        let mut quality = quality::columns(transformer.kind);
        let mut batches = Vec::new();
        for raw in decoder.finish()? {
            let clean = transformer.cleaner.clean(&raw)?;
            quality::count(transformer.kind, &mut quality, &raw, &clean)?;
            let keys = transformer.keys.keys(&clean)?;
            batches.push((clean, keys));
        }
        let rejects = std::mem::take(&mut decoder.rejects);
        let records = std::mem::take(&mut decoder.records);
        let tombstones = std::mem::take(&mut decoder.tombstones);
        let (objects, bytes) = (std::mem::take(&mut self.objects), std::mem::take(&mut self.bytes));
        self.text_bytes = 0;
        let transformed =
            TransformedChunk { objects, bytes, records, tombstones, batches, quality, rejects };
        // A dropped receiver means an error or an interruption, which is reported instead.
        self.output.blocking_send(transformed).map_err(|_| Error::failed(interrupted()))
    }
}
