//! Where a running `pinpipe local` is found: the file it writes into its data folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::fs::{FileLock, save_json};

/// Addresses of the local servers, `host:port` each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    pub kafka: String,
    pub gateway: String,
    pub kinesis: String,
    pub control: String,
}

/// What `local.json` says: which process serves what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub pid: u32,
    pub addresses: Addresses,
}

impl Runtime {
    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("local.json")
    }

    /// The file whose lock a running stack holds.
    pub fn lock_path(data_dir: &Path) -> PathBuf {
        data_dir.join("local.lock")
    }

    /// Leaves word for other commands; replaces what an earlier run left.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        save_json(&Self::path(data_dir), self)
    }

    /// What a running `local` left in this data folder.
    ///
    /// # Errors
    /// There is none: says how to start it.
    pub fn read(data_dir: &Path) -> Result<Self> {
        let not_running = || {
            Error::failed(format!("the local stack is not running in `{}`", data_dir.display()))
                .hint("start it with `pinpipe local` in another terminal, or name an address in the configuration")
        };
        // The file outlives a killed stack, and its ports may be another stack's by now.
        if !FileLock::is_held(&Self::lock_path(data_dir)) {
            return Err(not_running());
        }
        let text = std::fs::read(Self::path(data_dir)).map_err(|_| not_running())?;
        serde_json::from_slice(&text).map_err(|error| not_running().with_source(error))
    }

    /// Takes the word back on a clean stop.
    pub fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(Self::path(data_dir));
    }
}
