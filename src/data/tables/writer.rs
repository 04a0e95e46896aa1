//! Incremental writes to a Delta table: data files first, one commit at the end.

use arrow::array::RecordBatch;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, MetadataExt, Remove, Transaction, Version};
use deltalake::parquet::basic::Compression;
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties};
use deltalake::parquet::schema::types::ColumnPath;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;

use crate::base::error::{Error, ErrorContext, Result, io_error_kind};
use crate::data::tables::clean_table::{RowGroupSize, TableCheckpoint};
use crate::data::tables::delta::DeltaLocation;

/// Maximum size of a data file, in bytes. Several files let readers work in parallel.
const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Columns with few distinct values, which are dictionary-encoded. For other columns a dictionary
/// costs time without saving space.
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

/// Writes data files of a table. Readers do not see them before the commit.
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
            // Queries use these statistics to skip files and row groups. Statistics per page would
            // cost a comparison of every value and skip little, because pages are small.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_dictionary_enabled(false);
        for column in REPEATING_COLUMNS {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
        }
        let properties = properties.build();
        let writer =
            RecordBatchWriter::for_table(table).context(|| location.error_context("write"))?;
        let writer = writer.with_writer_properties(properties).with_target_file_size(FILE_BYTES);
        Ok(Self { writer, name: location.name.clone() })
    }

    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.writer.write(batch).await.map_err(|error| cannot_write(&self.name, error))
    }

    /// Closes the files and returns them for the commit.
    pub async fn finish(mut self) -> Result<Vec<Add>> {
        self.writer.flush().await.map_err(|error| cannot_write(&self.name, error))
    }
}

/// Error of a failed write. The files are not part of the table, because no commit refers to them.
fn cannot_write(name: &str, error: DeltaTableError) -> Error {
    let is_full = io_error_kind(&error) == Some(std::io::ErrorKind::StorageFull);
    let failure =
        Error::failed(format!("cannot write the Delta table `{name}`")).with_source(error);
    if is_full {
        return failure.hint("the disk is full: free some space, or set another location with `--data-dir` or `tables.url`, then re-run the command; nothing was committed");
    }
    failure
        .hint("check access with `pinpipe doctor`, then re-run the command; nothing was committed")
}

/// Existing files that a commit removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverwriteScope {
    Nothing,
    Everything,
    /// Files of the partition with this value of a column.
    Partition(&'static str, &'static str),
}

impl OverwriteScope {
    fn applies_to(self, file: &Remove) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Partition(column, value) => {
                let values = file.partition_values.as_ref().and_then(|values| values.get(column));
                values.is_some_and(|found| found.as_deref() == Some(value))
            }
        }
    }
}

/// Changes of one commit.
pub struct CommitRequest {
    pub adds: Vec<Add>,
    pub replaces: OverwriteScope,
    /// Stored in the same commit: a number as the Delta transaction of the writer, a text as a
    /// table property.
    pub checkpoint: Option<TableCheckpoint>,
}

impl DeltaLocation {
    /// Commits a change on top of the loaded version of `table` and returns the new version. A
    /// change without actions commits nothing and returns the loaded version.
    ///
    /// # Errors
    /// Another writer changed the table since it was loaded: nothing is committed, and the error
    /// is retryable. The number of the checkpoint is already committed. The table cannot be
    /// written.
    pub async fn commit(&self, table: &DeltaTable, change: CommitRequest) -> Result<Version> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let mut actions = self.removes(table, change.replaces).await?;
        actions.extend(change.adds.into_iter().map(Action::Add));
        let mut transaction = None;
        match change.checkpoint {
            Some(TableCheckpoint::Number { writer, number }) => {
                self.check_number(table, &writer, number).await?;
                transaction = Some(Transaction::new(writer, number));
            }
            Some(TableCheckpoint::Text { name, text }) => {
                let metadata = snapshot.metadata().clone().add_config_key(name.to_string(), text);
                actions.push(Action::Metadata(metadata.context(|| self.error_context("write"))?));
            }
            None => {}
        }
        if actions.is_empty() && transaction.is_none() {
            return Ok(snapshot.version());
        }
        let mode = if change.replaces == OverwriteScope::Nothing {
            SaveMode::Append
        } else {
            SaveMode::Overwrite
        };
        let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
        let properties = CommitProperties::default()
            .with_application_transactions(transaction.into_iter().collect());
        let commit = CommitBuilder::from(properties).with_actions(actions);
        match commit.build(Some(snapshot), table.log_store(), operation).await {
            Ok(committed) => Ok(committed.version()),
            Err(DeltaTableError::Transaction {
                source:
                    source @ (TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)),
            }) => Err(Error::failed(format!(
                "cannot commit to the Delta table `{}`: another writer changed it at the same time",
                self.name
            ))
            .with_source(source)
            .hint("re-run the command; run only one `pinpipe batch` or `pinpipe stream` per table at a time")
            .retryable(true)),
            Err(error) => Err(Error::failed(self.error_context("write")).with_source(error)),
        }
    }

    /// Returns the actions that remove the files of a scope.
    async fn removes(&self, table: &DeltaTable, scope: OverwriteScope) -> Result<Vec<Action>> {
        let mut actions = Vec::new();
        if scope == OverwriteScope::Nothing {
            return Ok(actions);
        }
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let log_store = table.log_store();
        let mut views = snapshot.snapshot().file_views(log_store.as_ref(), None);
        while let Some(view) = views.try_next().await.context(|| self.error_context("read"))? {
            let remove = view.remove_action(true);
            if scope.applies_to(&remove) {
                actions.push(Action::Remove(remove));
            }
        }
        Ok(actions)
    }

    /// Returns an error if the loaded version already contains this commit number of the
    /// application.
    async fn check_number(&self, table: &DeltaTable, application: &str, number: i64) -> Result<()> {
        let last = self.last_transaction(table, application).await?;
        if last.is_none_or(|last| last < number) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "cannot write the Delta table `{}`: another process has written commit {number} of \
             `{application}`",
            self.name
        ))
        .hint("run only one `pinpipe stream` per table; re-run the command to resume after that commit"))
    }

    /// Returns a table property that an earlier commit set.
    pub fn property(table: &DeltaTable, key: &str) -> Option<String> {
        table.snapshot().ok()?.metadata().configuration().get(key).cloned()
    }
}
