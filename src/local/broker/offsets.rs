//! Committed offsets of consumer groups: a file with one JSON line for each commit,
//! compacted at every start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};

use crate::base::error::{Result, io_error};
use crate::base::fs::write_atomic;

/// File size above which the file is compacted.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub offset: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// Topic and partition.
pub type Partition = (String, i32);

/// A line of the file. A line without an offset deletes the previous one.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    group: String,
    topic: String,
    partition: i32,
    #[serde(flatten)]
    committed: Option<Committed>,
}

type ByGroup = BTreeMap<String, BTreeMap<Partition, Committed>>;

struct State {
    file: File,
    groups: ByGroup,
}

/// All committed offsets.
pub struct Offsets {
    path: PathBuf,
    state: Mutex<State>,
}

impl Offsets {
    pub fn open(path: &Path) -> Result<Self> {
        let mut groups = ByGroup::new();
        match std::fs::read(path) {
            // An incomplete last line after a crash was never acknowledged, so it is ignored.
            Ok(text) => text
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice(line).ok())
                .for_each(|line| apply(&mut groups, line)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", path, error)),
        }
        let file = compact(path, &groups).map_err(|error| io_error("write", path, error))?;
        Ok(Self { path: path.to_path_buf(), state: Mutex::new(State { file, groups }) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Commits offsets.
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` if the file cannot be written; then nothing is committed.
    pub fn commit(
        &self,
        group: &str,
        commits: Vec<(Partition, Committed)>,
    ) -> Result<(), ResponseError> {
        let lines = commits.into_iter().map(|((topic, partition), committed)| Line {
            group: group.to_string(),
            topic,
            partition,
            committed: Some(committed),
        });
        self.write(lines.collect())
    }

    /// Deletes the offsets of a group. Returns `false` if there are none.
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` if the file cannot be written; then nothing is deleted.
    pub fn delete_group(&self, group: &str) -> Result<bool, ResponseError> {
        let Some(partitions) = self.of_group(group) else {
            return Ok(false);
        };
        let lines = partitions.into_keys().map(|(topic, partition)| Line {
            group: group.to_string(),
            topic,
            partition,
            committed: None,
        });
        self.write(lines.collect()).map(|()| true)
    }

    /// Deletes the offsets of a deleted topic, so that a new topic of the same name has none.
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` if the file cannot be written; then nothing is deleted.
    pub fn delete_topic(&self, name: &str) -> Result<(), ResponseError> {
        let mut lines = Vec::new();
        for (group, partitions) in &self.lock().groups {
            let deleted = partitions.keys().filter(|(topic, _)| topic == name);
            lines.extend(deleted.map(|(topic, partition)| Line {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                committed: None,
            }));
        }
        self.write(lines)
    }

    fn write(&self, lines: Vec<Line>) -> Result<(), ResponseError> {
        let failed = |error: std::io::Error| {
            tracing::error!(path = %self.path.display(), %error, "cannot write committed offsets");
            ResponseError::KafkaStorageError
        };
        let mut text = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut text, line).map_err(|error| failed(error.into()))?;
            text.push(b'\n');
        }
        let mut state = self.lock();
        let length = state.file.metadata().map(|metadata| metadata.len());
        if let Err(error) = state.file.write_all(&text) {
            // A full disk may leave a partial line, which the next commit must not follow.
            let _ = length.and_then(|length| state.file.set_len(length));
            return Err(failed(error));
        }
        lines.into_iter().for_each(|line| apply(&mut state.groups, line));
        if length.is_ok_and(|length| length > MAX_FILE_BYTES) {
            match compact(&self.path, &state.groups) {
                Ok(file) => state.file = file,
                Err(error) => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot compact the committed offsets");
                }
            }
        }
        Ok(())
    }

    pub fn get(&self, group: &str, partition: &Partition) -> Option<Committed> {
        self.lock().groups.get(group)?.get(partition).cloned()
    }

    pub fn of_group(&self, group: &str) -> Option<BTreeMap<Partition, Committed>> {
        self.lock().groups.get(group).cloned()
    }

    pub fn groups(&self) -> Vec<String> {
        self.lock().groups.keys().cloned().collect()
    }
}

/// Replaces the file atomically with one that contains only the current offsets, and opens it.
fn compact(path: &Path, groups: &ByGroup) -> std::io::Result<File> {
    let mut text = Vec::new();
    for (group, partitions) in groups {
        for ((topic, partition), committed) in partitions {
            let line = Line {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                committed: Some(committed.clone()),
            };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
    }
    write_atomic(path, text)?;
    OpenOptions::new().append(true).open(path)
}

fn apply(groups: &mut ByGroup, line: Line) {
    let key = (line.topic, line.partition);
    match line.committed {
        Some(committed) => {
            groups.entry(line.group).or_default().insert(key, committed);
        }
        None => {
            if let Some(partitions) = groups.get_mut(&line.group) {
                partitions.remove(&key);
                if partitions.is_empty() {
                    groups.remove(&line.group);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_commits_after_a_restart_with_an_incomplete_last_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("offsets.jsonl");
        let pin = ("a.pin".to_string(), 0);
        let offsets = Offsets::open(&path).expect("opens");
        let at = |offset| Committed { offset, metadata: String::new() };
        offsets
            .commit("g", vec![(pin.clone(), at(3)), (("a.geo".into(), 1), at(9))])
            .expect("commits");
        offsets.commit("g", vec![(pin.clone(), at(5))]).expect("commits");
        drop(offsets);
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(b"{\"group\":\"g\",\"topic\":\"a.pin\",\"parti")
            .expect("writes an incomplete line");
        let offsets = Offsets::open(&path).expect("opens again");
        assert_eq!(offsets.get("g", &pin), Some(at(5)));
        offsets.delete_topic("a.pin").expect("deletes");
        let offsets = Offsets::open(&path).expect("opens again");
        assert_eq!(offsets.get("g", &pin), None);
        assert_eq!(offsets.groups(), ["g"]);
    }
    #[test]
    fn keeps_offsets_that_it_cannot_delete_and_reports_the_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("offsets.jsonl");
        let pin = ("a.pin".to_string(), 0);
        let offsets = Offsets::open(&path).expect("opens");
        let committed = Committed { offset: 3, metadata: String::new() };
        offsets.commit("g", vec![(pin.clone(), committed.clone())]).expect("commits");
        offsets.lock().file = File::open(&path).expect("a file that cannot be written");
        assert_eq!(offsets.delete_group("g"), Err(ResponseError::KafkaStorageError));
        assert_eq!(offsets.delete_topic("a.pin"), Err(ResponseError::KafkaStorageError));
        assert_eq!(offsets.delete_group("unknown"), Ok(false));
        assert_eq!(offsets.get("g", &pin), Some(committed));
    }
}
