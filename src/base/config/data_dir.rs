//! Every file and folder that pinpipe writes below the data folder.

use std::path::{Path, PathBuf};

/// An entry of the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataEntry {
    /// The source database, unless the configuration names another one.
    SourceDatabase,
    /// Held by a running local stack.
    LocalLock,
    /// Addresses of the running local stack.
    LocalAddresses,
    /// Topics and consumer groups of the local broker.
    Kafka,
    /// Streams of the local Kinesis endpoint.
    Kinesis,
    /// Deployed routes of the local gateway.
    Routes,
    /// Connectors of the local sink.
    Connectors,
    Lake,
    Tables,
    /// Answers that `pinpipe demo` writes.
    Answers,
    /// Checkpoints of `pinpipe stream`.
    Checkpoints,
    /// Records that `pinpipe emulate` could not deliver.
    DeadLetters,
    /// Data that `pinpipe batch` spills to disk while it runs.
    Spill,
    /// Job files and results of spark-submit.
    Spark,
    /// Submitted runs on Databricks, to resume them.
    Databricks,
    /// State, outputs and keys of a pipeline on AWS.
    Aws,
}

impl DataEntry {
    /// All entries.
    pub const ALL: [DataEntry; 16] = [
        Self::SourceDatabase,
        Self::LocalLock,
        Self::LocalAddresses,
        Self::Kafka,
        Self::Kinesis,
        Self::Routes,
        Self::Connectors,
        Self::Lake,
        Self::Tables,
        Self::Answers,
        Self::Checkpoints,
        Self::DeadLetters,
        Self::Spill,
        Self::Spark,
        Self::Databricks,
        Self::Aws,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::SourceDatabase => "source.db",
            Self::LocalLock => "local.lock",
            Self::LocalAddresses => "local.json",
            Self::Kafka => "kafka",
            Self::Kinesis => "kinesis.db",
            Self::Routes => "api.json",
            Self::Connectors => "connectors.json",
            Self::Lake => "lake",
            Self::Tables => "tables",
            Self::Answers => "answers",
            Self::Checkpoints => "checkpoints",
            Self::DeadLetters => "dead-letters",
            Self::Spill => "spill",
            Self::Spark => "spark",
            Self::Databricks => "databricks",
            Self::Aws => "aws",
        }
    }

    /// Endings of the files that are written beside the entry: those of SQLite, and the draft
    /// of a file that is replaced atomically.
    fn companions(self) -> &'static [&'static str] {
        match self {
            Self::SourceDatabase | Self::Kinesis => &["-shm", "-wal"],
            Self::LocalAddresses | Self::Routes | Self::Connectors => &[".new"],
            _ => &[],
        }
    }

    /// The entry's path in a data folder.
    pub fn path(self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.name())
    }

    /// The paths of the entry and of all files beside it.
    pub fn paths(self, data_dir: &Path) -> Vec<PathBuf> {
        let companions = self.companions().iter();
        let names = companions.map(|ending| format!("{}{ending}", self.name()));
        std::iter::once(self.name().to_string())
            .chain(names)
            .map(|name| data_dir.join(name))
            .collect()
    }

    /// Whether the entry belongs to the local pipeline: `destroy --data` deletes it. The lock is
    /// held meanwhile and deleted last; `aws` is the record of resources that cost money.
    pub fn is_local_data(self) -> bool {
        !matches!(self, Self::LocalLock | Self::Aws)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_include_the_files_of_sqlite_and_drafts() {
        let paths = DataEntry::Kinesis.paths(Path::new("d"));
        assert_eq!(
            paths,
            ["d/kinesis.db", "d/kinesis.db-shm", "d/kinesis.db-wal"].map(PathBuf::from)
        );
        assert_eq!(DataEntry::Routes.paths(Path::new("d"))[1], Path::new("d/api.json.new"));
    }
}
