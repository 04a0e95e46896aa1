//! Addresses of the resources that `provision` created on AWS: a file in the data folder, without
//! secrets.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::config::data_dir::DataEntry;
use crate::base::error::Result;
use crate::base::fs::{load_json, save_json};

/// Addresses of a pipeline on AWS; `None` until the address is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// `host:port,…` of the brokers, for IAM authentication.
    pub bootstrap_servers: Option<String>,
    /// Invoke URL of the API, including the stage.
    pub gateway_url: Option<String>,
    /// Id of the API key; commands read the key itself from AWS when they need it.
    pub api_key_id: Option<String>,
}

impl Outputs {
    fn path(data_dir: &Path) -> PathBuf {
        DataEntry::Aws.path(data_dir).join("outputs.json")
    }

    /// Reads the file; all addresses are `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn read(data_dir: &Path) -> Result<Self> {
        load_json(&Self::path(data_dir)).map(Option::unwrap_or_default)
    }

    /// Writes the file for other commands; deletes it if no address is known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let path = Self::path(data_dir);
        if *self == Self::read(data_dir).unwrap_or_default() {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| crate::base::error::io_error("create", folder, error))?;
        }
        if *self == Self::default() {
            let _ = std::fs::remove_file(&path);
            return Ok(());
        }
        save_json(&path, self)
    }
}
