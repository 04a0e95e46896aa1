//! The interface between batch, stream and the destination of clean rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

use crate::base::error::Result;

/// A group of tables, which is one folder below `tables.url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableNamespace {
    /// Clean tables of `pinpipe batch`.
    Batch,
    /// Clean tables of `pinpipe stream`.
    Stream,
    /// Answers to the questions.
    Answers,
}

impl std::fmt::Display for TableNamespace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Batch => "batch",
            Self::Stream => "stream",
            Self::Answers => "answers",
        })
    }
}

/// Maximum size of a row group, which is held in memory until it is written. The limit that is
/// reached first applies.
#[derive(Debug, Clone, Copy)]
pub struct RowGroupSize {
    pub rows: usize,
    pub bytes: usize,
}

/// Checkpoint of a writer. The table stores it in the same commit as the rows, so that the writer
/// resumes after exactly these rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableCheckpoint {
    /// Number of this commit of a writer. The numbers increase: a number that is not above the last
    /// one is rejected, so that a repeated commit writes nothing.
    Number { writer: String, number: i64 },
    /// A text, which replaces the previous text with this name.
    Text { name: &'static str, text: String },
}

/// What a commit does with the rows that the table already contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    Append,
    Overwrite,
}

/// A destination of the clean rows of one record kind.
#[async_trait]
pub trait CleanTable: Send + Sync {
    /// Path or URL of the table, for messages.
    fn name(&self) -> &str;

    /// Returns the number of the last commit of this writer, or `None` before the first one.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn last_commit(&self, writer: &str) -> Result<Option<i64>>;

    /// Returns the committed rows for queries, or `None` if the table does not exist.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn provider(&self) -> Result<Option<Arc<dyn TableProvider>>>;

    /// Begins a transaction on the newest committed rows. Creates the table if it does not exist.
    ///
    /// # Errors
    /// The table cannot be read or created.
    async fn begin(&self) -> Result<Box<dyn TableTransaction>>;
}

/// Rows that become visible with one commit. Dropping the transaction discards them.
#[async_trait]
pub trait TableTransaction: Send + Sync {
    /// Version of the table at the beginning of the transaction.
    fn version(&self) -> u64;

    /// Returns the checkpoint [`TableCheckpoint::Text`] of this name.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn checkpoint(&self, name: &str) -> Result<Option<String>>;

    /// Returns a lower and an upper bound of the row numbers at the beginning of the transaction,
    /// or `None` if the table is empty. The bounds need not be tight.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn row_number_bounds(&self) -> Result<Option<(i64, i64)>>;

    /// Returns the rows at the beginning of the transaction for queries.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn provider(&self) -> Result<Arc<dyn TableProvider>>;

    /// Opens a writer. Several writers of one transaction can write at the same time.
    ///
    /// # Errors
    /// The table cannot be written.
    async fn writer(&self, size: RowGroupSize) -> Result<Box<dyn RowWriter>>;

    /// Makes the rows of all finished writers visible, stores the checkpoint and returns the new
    /// version.
    ///
    /// # Errors
    /// Another writer changed the table since the beginning of the transaction (a retryable
    /// error); the number of the checkpoint is already committed; the table cannot be written.
    /// Nothing is committed then.
    async fn commit(self: Box<Self>, mode: CommitMode, checkpoint: TableCheckpoint) -> Result<u64>;
}

/// Writes rows of a transaction.
#[async_trait]
pub trait RowWriter: Send {
    /// Writes rows with the clean schema of the record kind.
    ///
    /// # Errors
    /// The table cannot be written.
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Writes the remaining rows. All rows become visible with the commit of the transaction.
    ///
    /// # Errors
    /// The table cannot be written.
    async fn finish(self: Box<Self>) -> Result<()>;
}
