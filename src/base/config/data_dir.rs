//! The files and folders that pinpipe writes into the data folder, and their deletion.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::error::{Result, io_error};
use crate::base::fs::write_atomic;
use crate::base::model::Kind;

/// An entry of the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataEntry {
    /// Marks a folder as created by pinpipe: `destroy --data` deletes data only in such folders.
    Marker,
    /// The source database, unless the configuration names another one.
    SourceDatabase,
    /// Lock file of a running local stack.
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
    /// Submitted Databricks runs, which the next `pinpipe batch` resumes.
    Databricks,
    /// State, outputs and keys of a pipeline on AWS.
    Aws,
}

impl DataEntry {
    /// All entries.
    pub const ALL: [DataEntry; 17] = [
        Self::Marker,
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
            Self::Marker => ".pinpipe-data",
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

    /// Suffixes of the files next to the entry: those of SQLite, and the temporary file of an
    /// atomic write.
    fn companions(self) -> &'static [&'static str] {
        match self {
            Self::SourceDatabase | Self::Kinesis => &["-shm", "-wal"],
            Self::Marker | Self::LocalAddresses | Self::Routes | Self::Connectors => &[".new"],
            _ => &[],
        }
    }

    /// The entry's path in a data folder.
    pub fn path(self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.name())
    }

    /// The paths of the entry and of the files next to it.
    pub fn paths(self, data_dir: &Path) -> Vec<PathBuf> {
        let companions = self.companions().iter();
        let names = companions.map(|ending| format!("{}{ending}", self.name()));
        std::iter::once(self.name().to_string())
            .chain(names)
            .map(|name| data_dir.join(name))
            .collect()
    }

    /// Whether the entry belongs to the local pipeline, so that `destroy --data` deletes it. Lock
    /// and marker are deleted last; `aws` contains the state of billed resources.
    fn is_local_data(self) -> bool {
        !matches!(self, Self::Marker | Self::LocalLock | Self::Aws)
    }
}

const MARKER_TEXT: &str = "This folder contains data of pinpipe. `pinpipe destroy --data` deletes \
                           that data and no other files.\n";

/// Creates the data folder and marks it, before anything is written into it. Only the owner can
/// open a folder that is created here. A folder that
/// already contains files with names that pinpipe uses is not marked: they are files of the user,
/// and `destroy --data` must not delete them.
///
/// # Errors
/// The folder or the marker cannot be written.
pub fn create(folder: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(|error| io_error("create", folder, error))?;
    let marker = DataEntry::Marker.path(folder);
    // The state of a pipeline on AWS does not count, because `destroy --data` never deletes it.
    let mut entries = DataEntry::ALL.into_iter().filter(|entry| *entry != DataEntry::Aws);
    let mut has_entries = || entries.any(|entry| entry.path(folder).exists());
    if marker.exists() || has_entries() && !is_of_earlier_version(folder) {
        return Ok(());
    }
    write_atomic(&marker, MARKER_TEXT).map_err(|error| io_error("write", &marker, error))
}

/// Whether pinpipe created the folder.
pub fn is_data_dir(folder: &Path) -> bool {
    DataEntry::Marker.path(folder).is_file() || is_of_earlier_version(folder)
}

/// Whether a pinpipe version that wrote no marker created the folder. Such a folder contains the
/// tables of a source database, or the lock and the streams of a local stack.
fn is_of_earlier_version(folder: &Path) -> bool {
    let tables = |start: &[u8]| {
        Kind::ALL.iter().all(|kind| {
            let statement = format!("CREATE TABLE {} (", kind.source_table());
            memchr::memmem::find(start, statement.as_bytes()).is_some()
        })
    };
    let source = sqlite_start(&DataEntry::SourceDatabase.path(folder));
    source.is_some_and(|start| tables(&start))
        || DataEntry::LocalLock.path(folder).is_file()
            && sqlite_start(&DataEntry::Kinesis.path(folder)).is_some()
}

/// The first page of a SQLite file, which contains the statements that created the tables.
fn sqlite_start(path: &Path) -> Option<Vec<u8>> {
    const PAGE_BYTES: u64 = 4096;
    let mut start = Vec::new();
    File::open(path).ok()?.take(PAGE_BYTES).read_to_end(&mut start).ok()?;
    start.starts_with(b"SQLite format 3\0").then_some(start)
}

/// Deletes all local data; the lock and the marker last, so that the deletion can be resumed.
/// Returns the names of the remaining files; the folder is kept if there are any.
///
/// # Errors
/// A file cannot be deleted, or the folder cannot be read.
pub fn delete_local_data(folder: &Path) -> Result<Vec<String>> {
    let entries = DataEntry::ALL.into_iter().filter(|entry| entry.is_local_data());
    for path in entries
        .chain([DataEntry::LocalLock, DataEntry::Marker])
        .flat_map(|entry| entry.paths(folder))
    {
        let deleted = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match deleted {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("delete", &path, error));
            }
            _ => {}
        }
    }
    let read = |error| io_error("read", folder, error);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        kept.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    if kept.is_empty() {
        // A link or a mount point remains.
        let _ = std::fs::remove_dir(folder);
    }
    kept.sort();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn only_a_folder_that_pinpipe_created_is_marked() {
        let parent = tempfile::tempdir().expect("a folder");
        let (created, unmarked) = (parent.path().join("created"), parent.path().join("unmarked"));
        create(&created).expect("creates the folder");
        assert!(is_data_dir(&created));
        let mode = std::fs::metadata(&created).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "only the owner can open the folder");
        // The names are those that pinpipe uses, but the content is the user's.
        std::fs::create_dir_all(unmarked.join("tables")).expect("creates a folder");
        std::fs::write(unmarked.join("source.db"), "a list of sources").expect("writes");
        std::fs::write(unmarked.join("local.lock"), "").expect("writes");
        create(&unmarked).expect("the folder exists");
        assert!(!is_data_dir(&unmarked));
    }

    #[test]
    fn deletion_keeps_and_names_other_files() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("data");
        create(&folder).expect("creates the folder");
        std::fs::create_dir(folder.join("lake")).expect("creates a folder");
        std::fs::write(folder.join("thesis.txt"), "mine").expect("writes");
        assert_eq!(delete_local_data(&folder).expect("deletes"), ["thesis.txt"]);
        assert!(!folder.join("lake").exists() && !is_data_dir(&folder));
        std::fs::remove_file(folder.join("thesis.txt")).expect("deletes");
        assert!(delete_local_data(&folder).expect("deletes").is_empty());
        assert!(!folder.exists());
    }
}
