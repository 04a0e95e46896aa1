//! Open objects: one for each folder to which records of a Kafka partition are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use crate::data::lake::format::object_format::ObjectEncoder;
use crate::stages::sink::properties::SinkProperties;

/// Bytes buffered before they are passed to the writer of the object.
const CHUNK_BYTES: usize = 256 * 1024;

/// An object that is being written.
struct OpenObject {
    writer: BufWriter,
    encoder: Box<dyn ObjectEncoder>,
    records: u64,
}

/// The open objects of one Kafka partition. Rotation closes all of them at once, so that the
/// committed offset states exactly which records are in the lake.
pub struct PartitionWriter {
    topic: String,
    partition: i32,
    /// Path in the store at which the paths of the bucket begin.
    root: Path,
    objects: BTreeMap<String, OpenObject>,
    /// Offset after the last record that was appended or skipped.
    pub next_offset: i64,
    /// Whether a record was skipped since the last rotation.
    has_skipped: bool,
    /// Time of the first record in the open objects, in milliseconds since the epoch.
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

    /// Returns whether the next rotation has objects to close or an offset after skipped records
    /// to commit.
    pub fn is_open(&self) -> bool {
        !self.objects.is_empty() || self.has_skipped
    }

    /// Skips the record at `offset`: the next commit includes it.
    pub fn skip(&mut self, offset: i64) {
        self.next_offset = offset + 1;
        self.has_skipped = true;
    }

    /// Returns whether one of the objects has `flush.size` records.
    pub fn is_full(&self, properties: &SinkProperties) -> bool {
        self.objects.values().any(|object| object.records >= properties.flush_size)
    }

    /// Appends a record to the object of its folder.
    ///
    /// The name of the object contains the offset of its first record, so writing it again after
    /// a crash replaces it.
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
                "{}/{}/{folder}/{}{d}{}{d}{offset:0width$}.{}",
                properties.topics_dir,
                self.topic,
                self.topic,
                self.partition,
                properties.format.extension(properties.compression),
                d = properties.file_delimiter,
                width = properties.offset_digits,
            );
            // Each part is one path segment; `join` encodes characters that S3 does not allow.
            let path = name
                .split('/')
                .filter(|part| !part.is_empty())
                .fold(self.root.clone(), |path, part| path.join(part));
            OpenObject {
                writer: BufWriter::with_capacity(store.clone(), path, properties.part_bytes),
                encoder: properties.format.encoder(properties.compression),
                records: 0,
            }
        });
        object.encoder.append(value)?;
        let ready = object.encoder.ready();
        if ready.len() >= CHUNK_BYTES {
            object.writer.write_all(ready).await?;
            ready.clear();
        }
        object.records += 1;
        self.next_offset = offset + 1;
        Ok(())
    }

    /// Closes all objects and returns their number.
    ///
    /// # Errors
    /// An object cannot be written. Its records can be written again only by reading them again
    /// from Kafka.
    pub async fn close(&mut self) -> std::io::Result<u64> {
        let mut closed = 0;
        while let Some((_, mut object)) = self.objects.pop_first() {
            let last = object.encoder.finish()?;
            object.writer.write_all(&last).await?;
            object.writer.shutdown().await?;
            closed += 1;
        }
        self.first_ms = None;
        self.has_skipped = false;
        Ok(closed)
    }
}
