//! Addresses of a running local stack, in a file of its data folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Error, Result, io_error};
use crate::base::fs::{FileLock, save_json};

/// Addresses of the local servers, each as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub kafka: String,
    pub gateway: String,
    pub kinesis: String,
    pub control: String,
}

/// Content of `local.json`: the process and the addresses of the local stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub pid: u32,
    pub addresses: Addresses,
}

impl Runtime {
    fn path(data_dir: &Path) -> PathBuf {
        DataEntry::LocalAddresses.path(data_dir)
    }

    /// Returns the path of the file that a running local stack keeps locked.
    pub fn lock_path(data_dir: &Path) -> PathBuf {
        DataEntry::LocalLock.path(data_dir)
    }

    /// Writes the file for other commands; replaces that of an earlier run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        save_json(&Self::path(data_dir), self)
    }

    /// Reads the file of the local stack that runs in this data folder.
    ///
    /// # Errors
    /// The local stack is not running; the file cannot be read.
    pub fn read(data_dir: &Path) -> Result<Self> {
        let not_running = || {
            Error::failed(format!(
                "the local stack is not running in `{}`",
                data_dir.display()
            ))
            .hint(
                "run `pinpipe local` in another terminal, or set the address in the configuration",
            )
        };
        // A killed stack leaves its file behind, and another stack may use its ports by now.
        if !FileLock::is_held(&Self::lock_path(data_dir))? {
            return Err(not_running());
        }
        let path = Self::path(data_dir);
        match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| not_running().with_source(error))
            }
            // The stack is about to write the file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_running()),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Deletes the file when the stack stops.
    pub fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(Self::path(data_dir));
    }
}
