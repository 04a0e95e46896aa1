//! Records that could not be delivered, kept in a file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::error::{Result, io_error};
use crate::stages::emulate::request::{OutboundRecord, Target};

/// The file is made with its first record.
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
        Self {
            path: data_dir.join("dead-letters").join(name),
            file: None,
        }
    }

    /// Keeps a record with the reason it was not delivered.
    pub fn keep(&mut self, target: &Target, record: &OutboundRecord, reason: &str) -> Result<()> {
        let value: Value = serde_json::from_str(&record.json)
            .unwrap_or_else(|_| Value::String(record.json.clone()));
        let line = json!({ "service": target.service.name(), "name": target.name, "kind": target.kind, "row": record.row, "reason": reason, "record": value });
        let failed = |error| io_error("write", &self.path, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder).map_err(failed)?;
                }
                self.file.insert(File::create(&self.path).map_err(failed)?)
            }
        };
        file.write_all(format!("{line}\n").as_bytes())
            .map_err(failed)
    }

    /// The file, if anything was kept.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|_| self.path.as_path())
    }
}
