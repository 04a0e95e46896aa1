//! Dead letters: records that could not be delivered, stored in a file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Result, io_error};
use crate::stages::emulate::request::{DeliveryTarget, OutboundRecord};

/// File of dead letters, one JSON object per line. It is created with its first record.
pub struct DeadLetters {
    path: PathBuf,
    file: Option<File>,
}

impl DeadLetters {
    pub fn new(data_dir: &Path) -> Self {
        let name = format!(
            "emulate-{}-{}.jsonl",
            chrono::Utc::now().format("%Y%m%dT%H%M%SZ"),
            std::process::id()
        );
        Self { path: DataEntry::DeadLetters.path(data_dir).join(name), file: None }
    }

    /// Appends a record with the reason for its failed delivery.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn append(
        &mut self,
        target: &DeliveryTarget,
        record: &OutboundRecord,
        reason: &str,
    ) -> Result<()> {
        let value: Value = serde_json::from_str(&record.json)
            .unwrap_or_else(|_| Value::String(record.json.clone()));
        let line = json!({ "service": target.service.name(), "name": target.name, "kind": target.kind, "row": record.row, "reason": reason, "record": value });
        let write_error = |error| io_error("write", &self.path, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder).map_err(write_error)?;
                }
                self.file.insert(File::create(&self.path).map_err(write_error)?)
            }
        };
        file.write_all(format!("{line}\n").as_bytes()).map_err(write_error)
    }

    /// Returns the path of the file, or `None` if there are no dead letters.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|_| self.path.as_path())
    }
}
