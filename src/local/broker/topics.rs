//! Which topics there are, and their partitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};

use crate::base::error::{Result, io_error};
use crate::base::fs::{load_json, write_atomic};
use crate::local::broker::log::Log;

/// Records are kept for seven days, as Kafka does unless told otherwise, in milliseconds.
const RETENTION_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// File in a topic's folder that says it is whole.
const DESCRIPTION: &str = "topic.json";

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    id: uuid::Uuid,
    partitions: i32,
    /// Where the offsets begin: after those of an earlier topic of this name, so that what
    /// the sink named after them is never written over.
    #[serde(default)]
    first_offset: i64,
}

/// A topic; the logs are locked one by one.
pub struct Topic {
    pub name: String,
    pub id: uuid::Uuid,
    pub logs: Vec<Mutex<Log>>,
}

impl Topic {
    /// The log of a partition.
    pub fn log(&self, partition: i32) -> Option<std::sync::MutexGuard<'_, Log>> {
        let log = self.logs.get(usize::try_from(partition).ok()?)?;
        Some(log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// All topics below one folder.
pub struct Topics {
    folder: PathBuf,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
}

impl Topics {
    pub fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        let mut topics = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(|error| io_error("read", folder, error))? {
            let path = entry
                .map_err(|error| io_error("read", folder, error))?
                .path();
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .map(String::from)
            else {
                continue;
            };
            if !path.is_dir() {
                continue; // A stray file is not ours.
            }
            match load_json::<Description>(&path.join(DESCRIPTION))? {
                Some(description) => {
                    let topic = open_topic(&name, &path, &description)
                        .map_err(|error| io_error("open", &path, error))?;
                    topics.insert(name, Arc::new(topic));
                }
                // A kill came between two steps of making or deleting it: it was never acknowledged.
                None => std::fs::remove_dir_all(&path)
                    .map_err(|error| io_error("remove", &path, error))?,
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            topics: RwLock::new(topics),
        })
    }

    fn lock(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Topic>>> {
        self.topics
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// In the order of their names.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.lock().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.lock().get(name).cloned()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// As CreateTopics gives them.
    pub fn create(&self, name: &str, partitions: i32) -> Result<Arc<Topic>, ResponseError> {
        if !crate::clients::kafka::is_topic_name(name) {
            return Err(ResponseError::InvalidTopicException);
        }
        if !(1..=10_000).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        let mut topics = self
            .topics
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if topics.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let path = self.folder.join(name);
        let first_offset = self.ended().get(name).copied().unwrap_or(0);
        let description = Description {
            id: uuid::Uuid::new_v4(),
            partitions,
            first_offset,
        };
        let made = open_topic(name, &path, &description).and_then(|topic| {
            write_atomic(&path.join(DESCRIPTION), serde_json::to_vec(&description)?)?;
            Ok(topic)
        });
        let topic = Arc::new(made.map_err(|error| {
            tracing::error!(topic = name, %error, "cannot create the topic");
            let _ = std::fs::remove_dir_all(&path);
            ResponseError::KafkaStorageError
        })?);
        topics.insert(name.to_string(), topic.clone());
        Ok(topic)
    }

    /// Deletes a topic and its records.
    pub fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let mut topics = self
            .topics
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let topic = topics
            .get(name)
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        let end = (0..topic.logs.len() as i32)
            .filter_map(|partition| topic.log(partition).map(|log| log.end_offset()))
            .max()
            .unwrap_or(0);
        self.note_end(name, end).map_err(|error| {
            tracing::error!(topic = name, %error, "cannot delete the topic");
            ResponseError::KafkaStorageError
        })?;
        topics.remove(name);
        let path = self.folder.join(name);
        // The description goes first: without it the rest is swept up at the next start.
        std::fs::remove_file(path.join(DESCRIPTION))
            .and_then(|()| std::fs::remove_dir_all(&path))
            .map_err(|error| {
                tracing::error!(topic = name, %error, "cannot delete the topic");
                ResponseError::KafkaStorageError
            })
    }

    fn ended_path(&self) -> PathBuf {
        self.folder.with_file_name("ended.json")
    }

    /// Greatest end offsets of topics that were deleted, by name.
    fn ended(&self) -> BTreeMap<String, i64> {
        std::fs::read(self.ended_path())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn note_end(&self, name: &str, end: i64) -> std::io::Result<()> {
        let mut ended = self.ended();
        ended.insert(name.to_string(), end);
        write_atomic(&self.ended_path(), serde_json::to_vec(&ended)?)
    }

    /// Drops what is older than the retention time.
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
