//! Spilling to disk: batches that exceed the memory limit, in files that are deleted when the
//! process exits.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::FileLock;
use crate::data::transform::keys::RowKeys;

/// Folder for the spilled files of this run. It is removed when the run ends; folders of killed
/// runs are removed by the next run.
pub struct SpillFolder {
    path: PathBuf,
    _lock: Option<FileLock>,
}

impl SpillFolder {
    /// Creates a folder below `data_dir`, with a lock that marks this run as active. Removes
    /// folders of killed runs.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(data_dir: &Path) -> Result<Self> {
        let spill_root = DataEntry::Spill.path(data_dir);
        for entry in std::fs::read_dir(&spill_root).into_iter().flatten().flatten() {
            let is_held = FileLock::is_held(&entry.path().join(LOCK)).unwrap_or(true);
            if !is_held && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(
                    %error,
                    "cannot remove the spilled files of a killed run in {}",
                    spill_root.display()
                );
            }
        }
        let path = spill_root.join(uuid::Uuid::new_v4().simple().to_string());
        std::fs::create_dir_all(&path).map_err(|error| io_error("create", &path, error))?;
        let lock = FileLock::try_lock(&path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // The next run removes files that cannot be removed now.
        let _ = std::fs::remove_dir_all(&self.path);
        if let Some(spill_root) = self.path.parent() {
            let _ = std::fs::remove_dir(spill_root);
        }
    }
}

/// File in the folder that is locked while the run is active.
const LOCK: &str = "lock";

/// Number of partitions, large enough that each partition is small. Equal rows have the same key and
/// are therefore in the same partition.
const PARTS: usize = 64;

/// Spilled batches of one schema, read back in the order in which they were written.
pub struct Spill {
    writer: StreamWriter<BufWriter<File>>,
    pub rows: u64,
}

impl Spill {
    /// Creates an unnamed file, whose disk space is freed even if the process is killed.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        let file =
            tempfile::tempfile_in(folder).map_err(|error| io_error("write to", folder, error))?;
        let writer = StreamWriter::try_new(BufWriter::new(file), schema)
            .context(|| "cannot spill rows to disk")?;
        Ok(Self { writer, rows: 0 })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(cannot_write)
    }

    /// Reads the spilled batches.
    ///
    /// # Errors
    /// The disk is full, or cannot be read.
    pub fn read(mut self) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        self.writer.finish().map_err(cannot_write)?;
        let buffered = self.writer.into_inner().map_err(cannot_write)?;
        let mut file = buffered.into_inner().map_err(|error| cannot_write(error.into_error()))?;
        file.rewind().context(|| "cannot read spilled rows")?;
        let reader = StreamReader::try_new(BufReader::new(file), None)
            .context(|| "cannot read spilled rows")?;
        Ok(reader.map(|batch| batch.context(|| "cannot read spilled rows")))
    }
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("cannot spill rows to disk")
        .with_source(error)
        .hint("free some disk space, raise the memory limit with `--memory`, or use another disk with `--data-dir`")
}

/// Spilled rows, partitioned by their keys into several files.
pub struct PartitionedSpill {
    parts: Vec<Spill>,
}

impl PartitionedSpill {
    /// Creates one file per partition.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        let parts = (0..PARTS).map(|_| Spill::create(folder, schema));
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }

    /// Appends each row to the partition of its key.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, batch: &RecordBatch, keys: &RowKeys) -> Result<()> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); PARTS];
        for (row, part) in keys.parts(PARTS).enumerate() {
            rows[part].push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        for (part, rows) in self.parts.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            part.push(
                &take_record_batch(batch, &UInt32Array::from(rows))
                    .context(|| "cannot spill rows to disk")?,
            )?;
        }
        Ok(())
    }

    /// Returns the partitions that have rows.
    pub fn into_parts(self) -> impl Iterator<Item = Spill> {
        self.parts.into_iter().filter(|part| part.rows > 0)
    }
}
