//! How far a stream has been read, written down before each commit of its table.
//!
//! The table's commit carries the number of its checkpoint. After a kill the number of
//! the table's last commit tells which checkpoint holds: one that was written but not
//! committed is simply written again, so nothing is lost and nothing comes twice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result, io_error};
use crate::base::fs::{FileLock, load_json, save_json};
use crate::stages::stream::source::record_source::Positions;

/// One file: positions after commit `number`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub number: i64,
    /// The stream or topic these positions belong to.
    pub identity: String,
    pub positions: Positions,
}

/// The checkpoints of one table.
pub struct Checkpoints {
    folder: PathBuf,
    /// Held as long as this run writes the table: two would skip each other's records.
    _lock: FileLock,
}

impl Checkpoints {
    /// # Errors
    /// The folder cannot be written, or another run holds it.
    pub fn open(data_dir: &Path, source: &str, table: &str) -> Result<Self> {
        let folder = data_dir.join("checkpoints").join(source).join(table);
        std::fs::create_dir_all(&folder).map_err(|error| io_error("create", &folder, error))?;
        let lock = FileLock::try_lock(&folder.join("lock"))?.ok_or_else(|| {
            Error::failed(format!("another `pinpipe stream` is writing `{table}`"))
                .hint("stop it first, or wait until it has ended")
        })?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    fn path(&self, number: i64) -> PathBuf {
        self.folder.join(format!("{number:012}.json"))
    }

    /// The checkpoint of the table's last commit; a start from the beginning where the
    /// table has none, or where the stream is another one than it was.
    ///
    /// # Errors
    /// The table has a commit whose checkpoint is missing or damaged.
    pub fn resume(&self, committed: Option<i64>, identity: &str) -> Result<Checkpoint> {
        let Some(number) = committed else {
            return Ok(Checkpoint {
                number: -1,
                identity: identity.to_string(),
                positions: Positions::new(),
            });
        };
        let path = self.path(number);
        let hint = "put the folder `checkpoints` back, or remove the table together with its checkpoints to start over";
        let checkpoint = load_json::<Checkpoint>(&path)
            .map_err(|error| error.hint(hint))?
            .ok_or_else(|| {
                Error::failed(format!(
                    "the checkpoint `{}` of the table's last commit is missing",
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
            "the stream was made anew: reading it from its start"
        );
        Ok(Checkpoint {
            number,
            identity: identity.to_string(),
            positions: Positions::new(),
        })
    }

    /// Writes a checkpoint; older ones than the one before it go.
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
    fn the_tables_last_commit_decides_where_to_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints =
            Checkpoints::open(folder.path(), "kinesis", "a_pin_table").expect("opens");
        assert!(
            Checkpoints::open(folder.path(), "kinesis", "a_pin_table").is_err(),
            "a second run is refused"
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
        // Killed after checkpoint 2 was written and before the table's commit 2.
        assert_eq!(checkpoints.resume(Some(1), "s:1").expect("resumes"), at(1));
        assert_eq!(checkpoints.resume(Some(2), "s:1").expect("resumes"), at(2));
        assert!(
            checkpoints.resume(Some(0), "s:1").is_err(),
            "what is long past is gone"
        );
        let anew = checkpoints.resume(Some(2), "s:2").expect("starts anew");
        assert_eq!((anew.number, anew.positions.len()), (2, 0));
    }
}
