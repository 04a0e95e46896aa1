//! The topics and their partitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};

use crate::base::error::{Result, io_error};
use crate::base::fs::{load_json, write_atomic};
use crate::local::broker::log::Log;

/// Retention of records in milliseconds: seven days, the default of Kafka.
const RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Maximum number of partitions of a topic.
const MAX_PARTITIONS: i32 = 10_000;
/// Maximum number of partitions of all topics: each is a folder, and any client can create them.
/// The three topics of a pipeline may each have [`MAX_PARTITIONS`].
pub const MAX_TOTAL_PARTITIONS: usize = 50_000;
/// File in the folder of a topic that marks the topic as complete.
const DESCRIPTION: &str = "topic.json";

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    id: uuid::Uuid,
    partitions: i32,
    /// First offset of every partition. It is higher than all offsets of an earlier topic of the
    /// same name, so that the sink never overwrites objects named after those offsets.
    #[serde(default)]
    first_offset: i64,
}

/// A topic. Each log has its own lock.
pub struct Topic {
    pub name: String,
    pub id: uuid::Uuid,
    pub logs: Vec<Mutex<Log>>,
}

impl Topic {
    /// Locks the log of a partition. Returns `None` if the partition does not exist.
    pub fn log(&self, partition: i32) -> Option<std::sync::MutexGuard<'_, Log>> {
        let log = self.logs.get(usize::try_from(partition).ok()?)?;
        Some(log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// All topics below one folder.
pub struct Topics {
    folder: PathBuf,
    /// Held while a topic is created or deleted, so that `topics` is locked only briefly: creating
    /// thousands of files must not block requests for other topics.
    changes: Mutex<()>,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
}

impl Topics {
    pub fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        let mut topics = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(|error| io_error("read", folder, error))? {
            let path = entry.map_err(|error| io_error("read", folder, error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(String::from)
            else {
                continue;
            };
            if !path.is_dir() {
                continue; // Not a topic: the broker creates only folders here.
            }
            match load_json::<Description>(&path.join(DESCRIPTION))? {
                Some(description) => {
                    let topic = open_topic(&name, &path, &description)
                        .map_err(|error| io_error("open", &path, error))?;
                    topics.insert(name, Arc::new(topic));
                }
                // A crash interrupted the creation or deletion before it was acknowledged.
                None => std::fs::remove_dir_all(&path)
                    .map_err(|error| io_error("remove", &path, error))?,
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            changes: Mutex::default(),
            topics: RwLock::new(topics),
        })
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_to_write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn begin_change(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Returns all topics, sorted by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.lock().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.lock().get(name).cloned()
    }

    /// Returns the topic with this id. A recreated topic of the same name has a different id.
    pub fn with_id(&self, id: uuid::Uuid) -> Option<Arc<Topic>> {
        self.lock().values().find(|topic| topic.id == id).cloned()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// The error codes of CreateTopics: the topic already exists; the name is invalid or differs
    /// from an existing one only in dots and underscores, which metrics do not distinguish; the
    /// number of partitions is invalid; all topics together would have more than
    /// [`MAX_TOTAL_PARTITIONS`]; the files cannot be written.
    pub fn create(&self, name: &str, partitions: i32) -> Result<Arc<Topic>, ResponseError> {
        if !crate::clients::kafka::is_topic_name(name) {
            return Err(ResponseError::InvalidTopicException);
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        let _change = self.begin_change();
        if self.get(name).is_some() {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let collides = |other: &String| other.replace('.', "_") == name.replace('.', "_");
        if name.contains(['.', '_']) && self.lock().keys().any(collides) {
            return Err(ResponseError::InvalidTopicException);
        }
        let existing: usize = self.lock().values().map(|topic| topic.logs.len()).sum();
        if existing + partitions as usize > MAX_TOTAL_PARTITIONS {
            return Err(ResponseError::PolicyViolation);
        }
        let topic = Arc::new(self.create_files(name, partitions).map_err(|error| {
            tracing::error!(topic = name, %error, "cannot create the topic");
            ResponseError::KafkaStorageError
        })?);
        self.lock_to_write().insert(name.to_string(), topic.clone());
        Ok(topic)
    }

    fn create_files(&self, name: &str, partitions: i32) -> std::io::Result<Topic> {
        let path = self.folder.join(name);
        // A folder without a topic is left over from a failed creation or deletion. Its records
        // must not become records of the new topic.
        ignore_missing(std::fs::remove_dir_all(&path))?;
        let first_offset = self.deleted_end_offsets()?.get(name).copied().unwrap_or(0);
        let description = Description { id: uuid::Uuid::new_v4(), partitions, first_offset };
        let topic = open_topic(name, &path, &description)?;
        write_atomic(&path.join(DESCRIPTION), serde_json::to_vec(&description)?)?;
        Ok(topic)
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`; `KAFKA_STORAGE_ERROR` if a file cannot be written or removed.
    /// The topic then still exists, unless its description is already deleted: its remaining
    /// records are removed when the topic is created again or the broker starts.
    pub fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let _change = self.begin_change();
        let topic = self.get(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let end = (0..topic.logs.len() as i32)
            .filter_map(|partition| topic.log(partition).map(|log| log.end_offset()))
            .max()
            .unwrap_or(0);
        let path = self.folder.join(name);
        let failed = |error: std::io::Error| {
            tracing::error!(topic = name, %error, "cannot delete the topic");
            ResponseError::KafkaStorageError
        };
        // The description is deleted first: the next start removes a topic folder without one.
        self.record_end_offset(name, end)
            .and_then(|()| ignore_missing(std::fs::remove_file(path.join(DESCRIPTION))))
            .map_err(failed)?;
        self.lock_to_write().remove(name);
        ignore_missing(std::fs::remove_dir_all(&path)).map_err(failed)
    }

    fn deleted_end_offsets_path(&self) -> PathBuf {
        self.folder.with_file_name("ended.json")
    }

    /// Returns the maximum end offset of each deleted topic, by name.
    fn deleted_end_offsets(&self) -> std::io::Result<BTreeMap<String, i64>> {
        match std::fs::read(self.deleted_end_offsets_path()) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    fn record_end_offset(&self, name: &str, end: i64) -> std::io::Result<()> {
        let mut offsets = self.deleted_end_offsets()?;
        offsets.insert(name.to_string(), end);
        write_atomic(&self.deleted_end_offsets_path(), serde_json::to_vec(&offsets)?)
    }

    /// Deletes segments older than the retention time.
    pub fn drop_old_segments(&self) {
        let oldest_ms = chrono::Utc::now().timestamp_millis() - RETENTION_MS;
        for topic in self.all() {
            for log in &topic.logs {
                log.lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .drop_old_segments(oldest_ms);
            }
        }
    }
}

/// Ignores the error that a file or folder to remove does not exist.
fn ignore_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn open_topic(name: &str, path: &Path, description: &Description) -> std::io::Result<Topic> {
    let logs = (0..description.partitions).map(|partition| {
        Log::open(&path.join(partition.to_string()), description.first_offset).map(Mutex::new)
    });
    Ok(Topic {
        name: name.to_string(),
        id: description.id,
        logs: logs.collect::<std::io::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::broker::record_batch::tests::batch;

    #[test]
    fn keeps_a_topic_that_it_cannot_delete() {
        let folder = tempfile::tempdir().expect("a folder");
        let topics = Topics::open(&folder.path().join("topics")).expect("opens");
        topics.create("t", 1).expect("creates");
        let description = folder.path().join("topics/t").join(DESCRIPTION);
        std::fs::remove_file(&description).expect("removes");
        // A folder, which cannot be removed like a file.
        std::fs::create_dir(&description).expect("creates");
        assert_eq!(topics.delete("t"), Err(ResponseError::KafkaStorageError));
        assert!(topics.get("t").is_some(), "the topic still exists");
        std::fs::remove_dir(&description).expect("removes");
        assert_eq!(topics.delete("t"), Ok(()));
        assert!(topics.get("t").is_none() && !folder.path().join("topics/t").exists());
    }

    #[test]
    fn refuses_names_that_differ_only_in_dots_and_underscores() {
        let folder = tempfile::tempdir().expect("a folder");
        let topics = Topics::open(&folder.path().join("topics")).expect("opens");
        let create = |name: &str| topics.create(name, 1).map(|_| ());
        assert_eq!(create("a.b"), Ok(()));
        assert_eq!(create("a_b"), Err(ResponseError::InvalidTopicException));
        assert_eq!(create("a.b"), Err(ResponseError::TopicAlreadyExists));
        assert_eq!(create("a.c"), Ok(()));
    }

    #[test]
    fn creates_no_topic_over_offsets_that_it_cannot_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let topics = Topics::open(&folder.path().join("topics")).expect("opens");
        std::fs::write(topics.deleted_end_offsets_path(), "{damaged").expect("writes");
        let created = topics.create("t", 1).map(|topic| topic.name.clone());
        assert_eq!(created, Err(ResponseError::KafkaStorageError));
    }

    #[test]
    fn creates_a_topic_without_the_records_that_a_failed_deletion_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let topics = Topics::open(&folder.path().join("topics")).expect("opens");
        let path = folder.path().join("topics/t");
        Log::open(&path.join("0"), 0).expect("opens").append(&batch(3, 10, 1)).expect("appends");
        let topic = topics.create("t", 1).expect("creates");
        assert_eq!(topic.log(0).map(|log| log.end_offset()), Some(0));
    }
}
