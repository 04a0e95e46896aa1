//! Checkpoints of a stream: files with read positions, written before each commit of the table.
//!
//! The commit of the table contains the number of its checkpoint. After a kill, the number in the
//! table's last commit selects the valid checkpoint. A checkpoint that was written but not
//! committed is overwritten, so no record is lost and none is committed twice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Error, Result, io_error};
use crate::base::fs::{FileLock, load_json, save_json};
use crate::stages::stream::source::record_source::Positions;

/// Content of one file: the positions after commit `number`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub number: i64,
    /// Identity of the stream or topic to which the positions belong.
    pub identity: String,
    pub positions: Positions,
}

/// The checkpoints of one table.
pub struct Checkpoints {
    folder: PathBuf,
    /// Held during the run, because two concurrent runs would skip each other's records.
    _lock: FileLock,
}

impl Checkpoints {
    /// Creates the folder of a table's checkpoints and locks it.
    ///
    /// # Errors
    /// The folder cannot be written; another process holds the lock.
    pub fn open(data_dir: &Path, source: &str, table: &str) -> Result<Self> {
        let folder = DataEntry::Checkpoints.path(data_dir).join(source).join(table);
        std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
        let lock = FileLock::try_lock(&folder.join("lock"))?.ok_or_else(|| {
            Error::failed(format!(
                "cannot write table `{table}`: another `pinpipe stream` is writing it"
            ))
            .hint("stop the other process, or wait until it exits")
        })?;
        Ok(Self { folder, _lock: lock })
    }

    fn path(&self, number: i64) -> PathBuf {
        self.folder.join(format!("{number:012}.json"))
    }

    /// Returns the checkpoint of the table's last commit. If the table has no commit, or the stream
    /// was recreated, returns a checkpoint at the beginning of the stream.
    ///
    /// # Errors
    /// The checkpoint of the table's last commit does not exist or is damaged.
    pub fn resume(&self, committed: Option<i64>, identity: &str) -> Result<Checkpoint> {
        let Some(number) = committed else {
            return Ok(Checkpoint {
                number: -1,
                identity: identity.to_string(),
                positions: Positions::new(),
            });
        };
        let path = self.path(number);
        let hint = "restore the folder `checkpoints`, or delete the table and its checkpoints to \
                    start over";
        let checkpoint =
            load_json::<Checkpoint>(&path).map_err(|error| error.hint(hint))?.ok_or_else(|| {
                Error::failed(format!(
                    "cannot resume: checkpoint `{}` of the table's last commit does not exist",
                    path.display()
                ))
                .hint(hint)
            })?;
        if checkpoint.identity == identity {
            return Ok(checkpoint);
        }
        tracing::info!(
            was = checkpoint.identity,
            now = identity,
            "the stream was recreated; reading it from its start"
        );
        Ok(Checkpoint { number, identity: identity.to_string(), positions: Positions::new() })
    }

    /// Writes a checkpoint and deletes older ones, except the previous one: the last commit of the
    /// table may still refer to the previous one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        save_json(&self.path(checkpoint.number), checkpoint)?;
        if checkpoint.number >= 2 {
            let _ = std::fs::remove_file(self.path(checkpoint.number - 2));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_from_the_checkpoint_of_the_tables_last_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints =
            Checkpoints::open(folder.path(), "kinesis", "a_pin_table").expect("opens");
        assert!(
            Checkpoints::open(folder.path(), "kinesis", "a_pin_table").is_err(),
            "a second run is rejected"
        );
        let at = |number: i64| Checkpoint {
            number,
            identity: "s:1".into(),
            positions: [("shard".to_string(), number.to_string())].into(),
        };
        assert_eq!(checkpoints.resume(None, "s:1").expect("starts").number, -1);
        for number in 0..3 {
            checkpoints.write(&at(number)).expect("writes");
        }
        // A run that was killed between writing checkpoint 2 and commit 2 of the table.
        assert_eq!(checkpoints.resume(Some(1), "s:1").expect("resumes"), at(1));
        assert_eq!(checkpoints.resume(Some(2), "s:1").expect("resumes"), at(2));
        assert!(checkpoints.resume(Some(0), "s:1").is_err(), "older checkpoints are deleted");
        let restarted = checkpoints.resume(Some(2), "s:2").expect("restarts");
        assert_eq!((restarted.number, restarted.positions.len()), (2, 0));
    }
}
