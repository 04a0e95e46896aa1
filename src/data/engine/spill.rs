//! Batches for which there is no room in memory, in files that are gone with the process.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::FileLock;
use crate::data::transform::keys::RowKeys;

/// A folder for this run's files, gone when it ends; those of runs that were killed go too.
pub struct SpillFolder {
    path: PathBuf,
    _lock: Option<FileLock>,
}

impl SpillFolder {
    /// Below the data folder, with a lock that says that this run goes on.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(data_dir: &Path) -> Result<Self> {
        let all = data_dir.join("spill");
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let is_held = FileLock::is_held(&entry.path().join(LOCK));
            if !is_held && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, "a killed run's files stay in {}", all.display());
            }
        }
        let path = all.join(uuid::Uuid::new_v4().simple().to_string());
        std::fs::create_dir_all(&path).map_err(|error| io_error("make", &path, error))?;
        let lock = FileLock::try_lock(&path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        // What stays goes with the next run.
        let _ = std::fs::remove_dir_all(&self.path);
        if let Some(all) = self.path.parent() {
            let _ = std::fs::remove_dir(all);
        }
    }
}

/// Its file that is locked while the run goes on.
const LOCK: &str = "lock";

/// Parts that rows are spread over by their keys: equal rows meet in one, each is small.
const PARTS: usize = 64;

/// Batches of one schema, written one after another and read back in that order.
pub struct Spill {
    writer: StreamWriter<BufWriter<File>>,
    pub rows: u64,
}

impl Spill {
    /// In a file that has no name: it takes no more room once the process ends, however it ends.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("make", folder, error))?;
        let file =
            tempfile::tempfile_in(folder).map_err(|error| io_error("write to", folder, error))?;
        let writer = StreamWriter::try_new(BufWriter::new(file), schema)
            .context(|| "cannot set rows aside on disk")?;
        Ok(Self { writer, rows: 0 })
    }

    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(cannot_write)
    }

    /// What was written, batch by batch.
    ///
    /// # Errors
    /// The disk is full, or cannot be read.
    pub fn read(mut self) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        self.writer.finish().map_err(cannot_write)?;
        let buffered = self.writer.into_inner().map_err(cannot_write)?;
        let mut file = buffered
            .into_inner()
            .map_err(|error| cannot_write(error.into_error()))?;
        file.rewind()
            .context(|| "cannot read rows back from disk")?;
        let reader = StreamReader::try_new(BufReader::new(file), None)
            .context(|| "cannot read rows back from disk")?;
        Ok(reader.map(|batch| batch.context(|| "cannot read rows back from disk")))
    }
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("cannot set rows aside on disk")
        .with_source(error)
        .hint("is the disk full? give the run more memory with `--memory`, or another disk with `--data-dir`")
}

/// Rows spread over several files by their keys.
pub struct PartedSpill {
    parts: Vec<Spill>,
}

impl PartedSpill {
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, schema: &SchemaRef) -> Result<Self> {
        let parts = (0..PARTS).map(|_| Spill::create(folder, schema));
        Ok(Self {
            parts: parts.collect::<Result<_>>()?,
        })
    }

    /// Puts each row into the part of its key.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, batch: &RecordBatch, keys: &RowKeys) -> Result<()> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); PARTS];
        for (row, part) in keys.parts(PARTS).enumerate() {
            rows[part].push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        for (part, rows) in self
            .parts
            .iter_mut()
            .zip(rows)
            .filter(|(_, rows)| !rows.is_empty())
        {
            part.push(
                &take_record_batch(batch, &UInt32Array::from(rows))
                    .context(|| "cannot set rows aside on disk")?,
            )?;
        }
        Ok(())
    }

    /// The parts, one after another.
    pub fn into_parts(self) -> impl Iterator<Item = Spill> {
        self.parts.into_iter().filter(|part| part.rows > 0)
    }
}
