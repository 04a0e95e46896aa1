//! Clean tables as Delta tables, with one or more data files per writer and one Delta commit per
//! transaction.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;
use deltalake::kernel::Add;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::data::tables::clean_table::{
    CleanTable, CommitMode, RowGroupSize, RowWriter, TableCheckpoint, TableNamespace,
    TableTransaction,
};
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::writer::{CommitRequest, OverwriteScope, TableWriter};

/// A clean table in a folder or bucket.
pub struct DeltaCleanTable {
    location: DeltaLocation,
    schema: SchemaRef,
}

impl DeltaCleanTable {
    /// Opens the location of the clean table of a record kind.
    ///
    /// # Errors
    /// The location is invalid, or its bucket cannot be listed.
    pub async fn open(config: &Config, namespace: TableNamespace, kind: Kind) -> Result<Self> {
        let location =
            DeltaLocation::open(config, namespace, &kind.clean_table(&config.id)).await?;
        location.check_access().await?;
        Ok(Self { location, schema: kind.clean_schema() })
    }
}

#[async_trait]
impl CleanTable for DeltaCleanTable {
    fn name(&self) -> &str {
        &self.location.name
    }

    async fn last_commit(&self, writer: &str) -> Result<Option<i64>> {
        match self.location.load().await? {
            Some(table) => self.location.last_transaction(&table, writer).await,
            None => Ok(None),
        }
    }

    async fn provider(&self) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.location.load().await? {
            Some(table) => self.location.provider_of(&table).await.map(Some),
            None => Ok(None),
        }
    }

    async fn begin(&self) -> Result<Box<dyn TableTransaction>> {
        let table = self.location.create_if_missing(&self.schema).await?;
        let location = self.location.clone();
        Ok(Box::new(DeltaTransaction { location, table, files: Files::default() }))
    }
}

/// Data files that the commit adds to the table. Clones share them.
type Files = Arc<Mutex<Vec<Add>>>;

/// A transaction on a loaded version of a Delta table.
struct DeltaTransaction {
    location: DeltaLocation,
    table: DeltaTable,
    files: Files,
}

#[async_trait]
impl TableTransaction for DeltaTransaction {
    fn version(&self) -> u64 {
        self.table.version().unwrap_or_default()
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<String>> {
        Ok(DeltaLocation::property(&self.table, name))
    }

    async fn row_number_bounds(&self) -> Result<Option<(i64, i64)>> {
        self.location.range(&self.table, "ind").await
    }

    async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        self.location.provider_of(&self.table).await
    }

    async fn writer(&self, size: RowGroupSize) -> Result<Box<dyn RowWriter>> {
        let writer = TableWriter::new(&self.location, &self.table, size)?;
        Ok(Box::new(DeltaRowWriter { writer, files: self.files.clone() }))
    }

    async fn commit(self: Box<Self>, mode: CommitMode, checkpoint: TableCheckpoint) -> Result<u64> {
        let adds = std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        let replaces = match mode {
            CommitMode::Append => OverwriteScope::Nothing,
            CommitMode::Overwrite => OverwriteScope::Everything,
        };
        let request = CommitRequest { adds, replaces, checkpoint: Some(checkpoint) };
        self.location.commit(&self.table, request).await
    }
}

/// Writes data files and registers them with the transaction.
struct DeltaRowWriter {
    writer: TableWriter,
    files: Files,
}

#[async_trait]
impl RowWriter for DeltaRowWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.writer.write(batch).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        let Self { writer, files } = *self;
        let adds = writer.finish().await?;
        files.lock().unwrap_or_else(PoisonError::into_inner).extend(adds);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::load::{Overrides, load};
    use crate::data::engine::session::Engine;
    use arrow::array::{ArrayRef, Int32Array, new_null_array};
    use std::path::Path;

    const ROW_GROUP_SIZE: RowGroupSize = RowGroupSize { rows: 1_000, bytes: 1024 * 1024 };

    async fn open(data_dir: &Path) -> DeltaCleanTable {
        let overrides = Overrides { file: None, data_dir: Some(data_dir.to_path_buf()) };
        let config = load(&overrides).expect("load the configuration");
        DeltaCleanTable::open(&config, TableNamespace::Stream, Kind::User)
            .await
            .expect("open the table")
    }

    async fn begin(table: &DeltaCleanTable) -> Box<dyn TableTransaction> {
        table.begin().await.expect("begin a transaction")
    }

    /// Writes users with these numbers and no other values.
    async fn write(transaction: &dyn TableTransaction, numbers: std::ops::Range<i32>) {
        let schema = Kind::User.clean_schema();
        let mut columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .map(|field| new_null_array(field.data_type(), numbers.len()))
            .collect();
        columns[0] = Arc::new(numbers.collect::<Int32Array>());
        let batch = RecordBatch::try_new(schema, columns).expect("a batch");
        let mut writer = transaction.writer(ROW_GROUP_SIZE).await.expect("open a writer");
        writer.write(batch).await.expect("write rows");
        writer.finish().await.expect("finish the writer");
    }

    async fn count(table: &DeltaCleanTable) -> u64 {
        let provider = table.provider().await.expect("read the table").expect("the table exists");
        let engine = Engine::new();
        engine.register_provider("whole", provider).expect("register the table");
        engine.count("whole").await.expect("count the rows")
    }

    #[tokio::test]
    async fn a_numbered_commit_makes_all_rows_visible_once() {
        let folder = tempfile::tempdir().expect("create a folder");
        let table = open(folder.path()).await;
        let number = |number| TableCheckpoint::Number { writer: "w".into(), number };
        assert_eq!(table.last_commit("w").await.expect("read the table"), None);
        let transaction = begin(&table).await;
        write(transaction.as_ref(), 0..10).await;
        write(transaction.as_ref(), 10..15).await;
        assert_eq!(count(&table).await, 0, "no row is visible before the commit");
        let version = transaction.commit(CommitMode::Append, number(0)).await.expect("commit");
        assert_eq!((count(&table).await, version), (15, 1));
        // Without rows, the commit stores only its number.
        begin(&table).await.commit(CommitMode::Append, number(1)).await.expect("commit");
        assert_eq!(table.last_commit("w").await.expect("read the table"), Some(1));
        assert_eq!(table.last_commit("other").await.expect("read the table"), None);
        let repeated = begin(&table).await;
        write(repeated.as_ref(), 15..20).await;
        let error = repeated.commit(CommitMode::Append, number(1)).await.expect_err("repeated");
        assert!(error.to_string().contains("has written commit 1 of `w`"), "{error}");
        // Both begin before either commits.
        let (first, second) = (begin(&table).await, begin(&table).await);
        first.commit(CommitMode::Append, number(2)).await.expect("commit");
        let error = second.commit(CommitMode::Append, number(2)).await.expect_err("a conflict");
        assert!(error.is_retryable(), "{error}");
        assert_eq!(count(&table).await, 15);
    }

    #[tokio::test]
    async fn an_overwrite_replaces_the_rows_and_the_text_of_the_checkpoint() {
        let folder = tempfile::tempdir().expect("create a folder");
        let table = open(folder.path()).await;
        let text = |text: &str| TableCheckpoint::Text { name: "pinpipe.test", text: text.into() };
        let transaction = begin(&table).await;
        assert_eq!(transaction.checkpoint("pinpipe.test").await.expect("read the table"), None);
        assert_eq!(transaction.row_number_bounds().await.expect("read the table"), None);
        write(transaction.as_ref(), 0..10).await;
        transaction.commit(CommitMode::Append, text("one")).await.expect("commit");
        let transaction = begin(&table).await;
        let stored = transaction.checkpoint("pinpipe.test").await.expect("read the table");
        assert_eq!(stored.as_deref(), Some("one"));
        write(transaction.as_ref(), 100..103).await;
        transaction.commit(CommitMode::Overwrite, text("two")).await.expect("commit");
        let transaction = begin(&table).await;
        let stored = transaction.checkpoint("pinpipe.test").await.expect("read the table");
        assert_eq!(stored.as_deref(), Some("two"));
        let bounds = transaction.row_number_bounds().await.expect("read the table");
        assert_eq!((count(&table).await, bounds), (3, Some((100, 102))));
    }
}
