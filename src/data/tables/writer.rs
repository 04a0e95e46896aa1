//! Writing a Delta table as records come: files first, one commit at the end.

use arrow::array::RecordBatch;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, MetadataExt, Remove, Version};
use deltalake::parquet::basic::Compression;
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use deltalake::parquet::schema::types::ColumnPath;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;

use crate::base::error::{Error, ErrorContext, Result};
use crate::data::tables::delta::DeltaLocation;

/// A file is closed at this size, so that readers can share the work, in bytes.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Columns of few values, which are written as a dictionary; of the others it is only work.
const REPEATING_COLUMNS: [&str; 8] = [
    "category",
    "country",
    "save_location",
    "is_image_or_video",
    "follower_count",
    "age",
    "kind",
    "reason",
];

/// How much is held in memory before it goes to the file: whichever is reached first.
#[derive(Debug, Clone, Copy)]
pub struct RowGroupSize {
    pub rows: usize,
    pub bytes: usize,
}

/// Writes files of a table that no reader sees before the commit.
pub struct TableWriter {
    writer: RecordBatchWriter,
    name: String,
}

impl TableWriter {
    pub fn new(location: &DeltaLocation, table: &DeltaTable, size: RowGroupSize) -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(size.rows))
            .set_max_row_group_bytes(Some(size.bytes))
            // Files are left out by these; pages are too small to be worth a comparison of every value.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_dictionary_enabled(false);
        for column in REPEATING_COLUMNS {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
        }
        let properties = properties.build();
        let writer =
            RecordBatchWriter::for_table(table).context(|| location.error_context("write"))?;
        let writer = writer
            .with_writer_properties(properties)
            .with_target_file_size(FILE_BYTES);
        Ok(Self {
            writer,
            name: location.name.clone(),
        })
    }

    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.writer
            .write(batch)
            .await
            .map_err(|error| cannot_write(&self.name, error))
    }

    /// Closes the files, ready for the commit.
    pub async fn finish(mut self) -> Result<Vec<Add>> {
        self.writer
            .flush()
            .await
            .map_err(|error| cannot_write(&self.name, error))
    }
}

/// Files that could not be written are in no table: no commit names them.
fn cannot_write(name: &str, error: DeltaTableError) -> Error {
    let failure =
        Error::failed(format!("cannot write the Delta table `{name}`")).with_source(error);
    if failure.to_string().contains("No space left") {
        return failure.hint("the disk is full: free some space, or name another place with `--data-dir` or `tables.url`, then run it again; nothing was committed");
    }
    failure.hint(
        "`pinpipe doctor` tests whether tables can be written; run it again, nothing was committed",
    )
}

/// Which files go when new ones come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverwriteScope {
    Nothing,
    Everything,
    /// Those of this value of a partition column.
    Partition(&'static str, &'static str),
}

impl OverwriteScope {
    fn applies_to(self, file: &Remove) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Partition(column, value) => {
                let values = file
                    .partition_values
                    .as_ref()
                    .and_then(|values| values.get(column));
                values.is_some_and(|found| found.as_deref() == Some(value))
            }
        }
    }
}

/// What a commit changes.
pub struct CommitRequest {
    pub adds: Vec<Add>,
    pub replaces: OverwriteScope,
    /// A property of the table that is set in the same commit.
    pub property: Option<(&'static str, String)>,
}

impl DeltaLocation {
    /// Commits a change to the state `table` was loaded in; the version it made.
    ///
    /// # Errors
    /// Another writer changed the table since: nothing was committed, and the error is
    /// transient. The table cannot be written.
    pub async fn commit(&self, table: &DeltaTable, change: CommitRequest) -> Result<Version> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let mut actions: Vec<Action> = Vec::with_capacity(change.adds.len() + 1);
        if change.replaces != OverwriteScope::Nothing {
            let log_store = table.log_store();
            let mut views = snapshot.snapshot().file_views(log_store.as_ref(), None);
            while let Some(view) = views
                .try_next()
                .await
                .context(|| self.error_context("read"))?
            {
                let remove = view.remove_action(true);
                if change.replaces.applies_to(&remove) {
                    actions.push(Action::Remove(remove));
                }
            }
        }
        actions.extend(change.adds.into_iter().map(Action::Add));
        if let Some((key, value)) = change.property {
            let metadata = snapshot
                .metadata()
                .clone()
                .add_config_key(key.to_string(), value);
            actions.push(Action::Metadata(
                metadata.context(|| self.error_context("write"))?,
            ));
        }
        if actions.is_empty() {
            return Ok(snapshot.version());
        }
        let mode = if change.replaces == OverwriteScope::Nothing {
            SaveMode::Append
        } else {
            SaveMode::Overwrite
        };
        let operation = DeltaOperation::Write {
            mode,
            partition_by: None,
            predicate: None,
        };
        let committing = CommitBuilder::from(CommitProperties::default()).with_actions(actions);
        match committing
            .build(Some(snapshot), table.log_store(), operation)
            .await
        {
            Ok(committed) => Ok(committed.version()),
            Err(DeltaTableError::Transaction {
                source:
                    source @ (TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)),
            }) => Err(Error::failed(format!(
                "another writer changed the Delta table `{}` at the same moment",
                self.name
            ))
            .with_source(source)
            .hint("run it again; only one `pinpipe batch` should write a table at a time")
            .retryable(true)),
            Err(error) => Err(Error::failed(self.error_context("write")).with_source(error)),
        }
    }

    /// A property of a table that an earlier commit set.
    pub fn property(table: &DeltaTable, key: &str) -> Option<String> {
        table
            .snapshot()
            .ok()?
            .metadata()
            .configuration()
            .get(key)
            .cloned()
    }
}
