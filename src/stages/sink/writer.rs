//! Objects under way: one for each folder that records of a Kafka partition go to.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use crate::stages::sink::properties::SinkProperties;

/// Bytes gathered before they go to the object's writer.
const CHUNK_BYTES: usize = 256 * 1024;

/// Plain or packed, on the way to the store.
enum Chunk {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

/// An object that is being written.
struct OpenObject {
    writer: BufWriter,
    chunk: Chunk,
    records: u64,
}

/// The objects of one Kafka partition. Rotation closes all of them at once, so that
/// the committed offset says exactly what lies in the lake.
pub struct PartitionWriter {
    topic: String,
    partition: i32,
    /// Where in the store the bucket's own paths begin.
    root: Path,
    objects: BTreeMap<String, OpenObject>,
    /// Offset after the last record taken.
    pub next_offset: i64,
    has_skipped: bool,
    /// Time of the first record in the open objects, in milliseconds.
    pub first_ms: Option<i64>,
}

impl PartitionWriter {
    pub fn new(topic: &str, partition: i32, root: Path) -> Self {
        Self {
            topic: topic.into(),
            partition,
            root,
            objects: BTreeMap::new(),
            next_offset: 0,
            has_skipped: false,
            first_ms: None,
        }
    }

    /// Whether something waits for the next rotation: records, or the place after some left out.
    pub fn is_open(&self) -> bool {
        !self.objects.is_empty() || self.has_skipped
    }

    /// A record was left out: reading goes on after it.
    pub fn skip(&mut self, offset: i64) {
        self.next_offset = offset + 1;
        self.has_skipped = true;
    }

    /// Whether one of the objects has all the records it may hold.
    pub fn is_full(&self, properties: &SinkProperties) -> bool {
        self.objects
            .values()
            .any(|object| object.records >= properties.flush_size)
    }

    /// Appends a record to the object of its folder, as one line.
    ///
    /// The object is named after its first record's offset: writing it again after a
    /// kill replaces it.
    pub async fn append(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        properties: &SinkProperties,
        folder: String,
        offset: i64,
        value: &[u8],
    ) -> std::io::Result<()> {
        let object = self.objects.entry(folder).or_insert_with_key(|folder| {
            let name = format!(
                "{}/{}/{folder}/{}{d}{}{d}{offset:0width$}.json{}",
                properties.topics_dir,
                self.topic,
                self.topic,
                self.partition,
                if properties.gzip { ".gz" } else { "" },
                d = properties.file_delimiter,
                width = properties.offset_digits,
            );
            // Each part of the path is taken as it is; characters S3 minds are encoded.
            let path = name
                .split('/')
                .filter(|part| !part.is_empty())
                .fold(self.root.clone(), |path, part| path.join(part));
            let chunk = if properties.gzip {
                Chunk::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::default())))
            } else {
                Chunk::Plain(Vec::new())
            };
            OpenObject {
                writer: BufWriter::with_capacity(store.clone(), path, properties.part_bytes),
                chunk,
                records: 0,
            }
        });
        match &mut object.chunk {
            Chunk::Plain(chunk) => {
                chunk.extend_from_slice(value);
                chunk.push(b'\n');
                if chunk.len() >= CHUNK_BYTES {
                    object.writer.write_all(chunk).await?;
                    chunk.clear();
                }
            }
            Chunk::Gzip(encoder) => {
                encoder.write_all(value)?;
                encoder.write_all(b"\n")?;
                if encoder.get_ref().len() >= CHUNK_BYTES {
                    let packed = std::mem::take(encoder.get_mut());
                    object.writer.write_all(&packed).await?;
                }
            }
        }
        object.records += 1;
        self.next_offset = offset + 1;
        Ok(())
    }

    /// Closes all objects; returns how many. What fails is still there and may be tried again
    /// only by reading the records again.
    pub async fn close(&mut self) -> std::io::Result<u64> {
        let mut closed = 0;
        while let Some((_, mut object)) = self.objects.pop_first() {
            let last = match object.chunk {
                Chunk::Plain(chunk) => chunk,
                Chunk::Gzip(encoder) => encoder.finish()?,
            };
            object.writer.write_all(&last).await?;
            object.writer.shutdown().await?;
            closed += 1;
        }
        self.first_ms = None;
        self.has_skipped = false;
        Ok(closed)
    }
}
