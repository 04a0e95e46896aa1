//! Open objects: one for each folder to which records of a Kafka partition are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::{Path, PathPart};
use tokio::io::AsyncWriteExt;

use crate::data::lake::format::object_format::ObjectEncoder;
use crate::stages::sink::properties::SinkProperties;

/// Bytes buffered before they are passed to the writer of the object.
const CHUNK_BYTES: usize = 256 * 1024;
/// Maximum length of the path of an object in its bucket: the limit of S3 for keys.
pub const MAX_KEY_BYTES: usize = 1024;
/// Maximum number of open objects of one Kafka partition. Each takes memory, and a partitioner by
/// fields opens one for each value.
const MAX_OPEN_OBJECTS: usize = 500;

/// An object that is being written.
struct OpenObject {
    writer: BufWriter,
    encoder: Box<dyn ObjectEncoder>,
    records: u64,
}

/// Common beginning of the names of all objects of one Kafka partition.
struct Names {
    topic: String,
    partition: i32,
    /// Path in the store at which the paths of the bucket begin.
    root: Path,
}

impl Names {
    /// Returns the path of an object in `folder` that begins at `offset`.
    fn path(&self, properties: &SinkProperties, folder: &str, offset: i64) -> Path {
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
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.root.clone(), |path, part| path.join(part))
    }
}

/// The open objects of one Kafka partition. Rotation closes all of them at once, so that the
/// committed offset states exactly which records are in the lake.
pub struct PartitionWriter {
    names: Names,
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
            names: Names { topic: topic.into(), partition, root },
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

    /// Returns whether one of the objects has `flush.size` records, or too many are open.
    pub fn is_full(&self, properties: &SinkProperties) -> bool {
        self.objects.len() >= MAX_OPEN_OBJECTS
            || self.objects.values().any(|object| object.records >= properties.flush_size)
    }

    /// Returns whether `folder` has an open object, or the lake can store a new one that begins at
    /// `offset`: a path segment has at most `max_name_bytes`, a path at most [`MAX_KEY_BYTES`].
    pub fn can_hold(
        &self,
        properties: &SinkProperties,
        folder: &str,
        offset: i64,
        max_name_bytes: usize,
    ) -> bool {
        if self.objects.contains_key(folder) {
            return true;
        }
        let path = self.names.path(properties, folder, offset);
        // Lengths after the encoding, which is what the store sees.
        let key_bytes = str::len(path.as_ref()) - str::len(self.names.root.as_ref());
        let is_short = |name: &str| str::len(PathPart::from(name).as_ref()) <= max_name_bytes;
        key_bytes <= MAX_KEY_BYTES && folder.split('/').all(is_short)
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
            let path = self.names.path(properties, folder, offset);
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

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn properties() -> SinkProperties {
        let properties = [
            ("connector.class", "S3SinkConnector"),
            ("topics", "t"),
            ("s3.bucket.name", "b"),
            ("flush.size", "1000000"),
        ]
        .map(|(key, value)| (key.to_string(), value.to_string()));
        SinkProperties::parse(&properties.into()).expect("valid properties")
    }

    #[test]
    fn limits_names_and_paths_as_the_store_does() {
        let writer = PartitionWriter::new("t", 0, Path::from("home/lake/b"));
        let can_hold = |folder: &str, max_name_bytes| {
            writer.can_hold(&properties(), folder, 0, max_name_bytes)
        };
        assert!(can_hold(&"x".repeat(255), 255));
        assert!(!can_hold(&"x".repeat(256), 255));
        assert!(!can_hold(&format!("a=1/{}/c=2", "x".repeat(256)), 255), "one of several");
        assert!(can_hold(&"x".repeat(256), MAX_KEY_BYTES));
        // Each byte of a non-ASCII letter takes three when encoded.
        assert!(can_hold(&"é".repeat(42), 255));
        assert!(!can_hold(&"é".repeat(43), 255));
        assert!(!can_hold(&"a/".repeat(510), 255), "the whole path");
    }

    #[tokio::test]
    async fn is_full_before_too_many_objects_are_open() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut writer = PartitionWriter::new("t", 0, Path::default());
        for offset in 0..500 {
            assert!(!writer.is_full(&properties()), "{offset} open objects");
            let folder = format!("field={offset}");
            writer.append(&store, &properties(), folder, offset, b"{}").await.expect("appends");
        }
        assert!(writer.is_full(&properties()));
        assert_eq!(writer.close().await.expect("closes"), 500);
        assert!(!writer.is_full(&properties()));
    }
}
