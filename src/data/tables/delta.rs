//! Delta tables, in a folder or on S3.

use std::sync::{Arc, LazyLock, Once};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::kernel::{StructType, Transaction};
use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use deltalake::protocol::SaveMode;
use deltalake::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::TryStreamExt;
use url::Url;

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::data::storage::Lake;
use crate::data::storage::failure;
use crate::data::tables::as_of::AsOf;

/// Delta's own commits on S3 rest on conditional puts, so its common log store serves.
struct S3LogStore;

impl LogStoreFactory for S3LogStore {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

fn register_s3() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(scheme) = Url::parse("s3://") {
            logstore_factories().insert(scheme, Arc::new(S3LogStore));
        }
    });
}

/// A group of tables: the folder below `tables.url` that holds them.
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

/// Where one Delta table lies.
#[derive(Debug, Clone)]
pub struct DeltaLocation {
    lake: Lake,
    url: Url,
    /// As people know it.
    pub name: String,
}

/// What goes into one commit.
pub struct Append {
    pub batches: Vec<RecordBatch>,
    /// Application and the number of this commit, which is written with the rows, so
    /// that a repeat is found.
    pub transaction: Option<(String, i64)>,
}

impl DeltaLocation {
    /// Opens `<tables>/<namespace>/<table>`; a missing folder is created.
    ///
    /// # Errors
    /// The location is not valid or cannot be created.
    pub async fn open(config: &Config, namespace: TableNamespace, table: &str) -> Result<Self> {
        let name = format!(
            "{}/{namespace}/{table}",
            config.endpoints().tables_url().trim_end_matches('/')
        );
        let lake = Lake::open(config, &name, true).await?;
        let url = if name.starts_with("s3://") {
            register_s3();
            Url::parse(&format!("{name}/"))
                .context(|| format!("`{name}` is not a valid address"))?
        } else {
            let folder = std::fs::canonicalize(&name).map_err(|error| {
                crate::base::error::io_error("open", std::path::Path::new(&name), error)
            })?;
            // The Delta library makes a host name of the path, and panics where it cannot.
            if let Some(odd) = folder
                .to_string_lossy()
                .chars()
                .find(|c| "[]^|\\:@".contains(*c))
            {
                return Err(Error::failed(format!(
                    "Delta tables cannot lie in `{}`: the library stumbles over `{odd}` in a path",
                    folder.display()
                ))
                .hint("work in a folder without it, or name another with `--data-dir` or `tables.url`"));
            }
            Url::from_directory_path(folder)
                .map_err(|()| Error::failed(format!("`{name}` is not a valid path")))?
        };
        Ok(Self { lake, url, name })
    }

    /// Whether its place can be reached: where the bucket is missing, the Delta library panics.
    ///
    /// # Errors
    /// There is no such bucket, or it cannot be asked.
    pub async fn check_access(&self) -> Result<()> {
        if self.lake.files.is_some() {
            return Ok(());
        }
        let listed = self.lake.store.list(Some(&self.lake.root)).try_next().await;
        listed
            .map(|_| ())
            .map_err(|error| failure(self.error_context("open"), error))
    }

    /// The table's newest state; `None`: there is no table yet.
    pub async fn load(&self) -> Result<Option<DeltaTable>> {
        self.load_with(self.builder("open")?).await
    }

    /// An earlier state of the table.
    ///
    /// # Errors
    /// There is no table, or it had no such state.
    pub async fn load_as_of(&self, as_of: AsOf) -> Result<DeltaTable> {
        let builder = self.builder("open")?;
        let builder = match as_of {
            AsOf::Version(version) => builder.with_version(version),
            AsOf::Time(time) => builder.with_timestamp(time),
        };
        let hint = "`pinpipe batch --output json` says the newest version of each table; files that `--optimize` swept up are gone";
        match self.load_with(builder).await {
            // The library takes the first state for any time before it.
            Ok(Some(table)) if as_of.is_before(committed_ms(&table)) => Err(Error::failed(
                format!("the table `{}` had no state as of {as_of}", self.name),
            )
            .hint(hint)),
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(Error::failed(format!(
                "there is no table `{}` as of {as_of}",
                self.name
            ))
            .hint(hint)),
            Err(error) => Err(Error::failed(format!(
                "the table `{}` had no state as of {as_of}",
                self.name
            ))
            .with_source(error)
            .hint(hint)),
        }
    }

    fn builder(&self, action: &str) -> Result<DeltaTableBuilder> {
        let builder =
            DeltaTableBuilder::from_url(self.url.clone()).context(|| self.error_context(action))?;
        let is_on_s3 = self.url.scheme() == "s3";
        Ok(if is_on_s3 {
            builder.with_storage_backend(self.lake.store.clone(), self.url.clone())
        } else {
            builder
        })
    }

    async fn load_with(&self, builder: DeltaTableBuilder) -> Result<Option<DeltaTable>> {
        match builder.load().await {
            Ok(table) => Ok(Some(table)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(error) => Err(Error::failed(self.error_context("read")).with_source(error).hint(
                "can its place be reached? `pinpipe doctor` tries; where its files are damaged, move it away: `pinpipe batch` makes its tables anew from the lake",
            )),
        }
    }

    /// The table, made empty with this schema where there is none.
    pub async fn create_if_missing(&self, schema: &SchemaRef) -> Result<DeltaTable> {
        self.create_partitioned_if_missing(schema, &[]).await
    }

    /// The same, its files kept apart by the values of these columns.
    pub async fn create_partitioned_if_missing(
        &self,
        schema: &SchemaRef,
        partition_columns: &[&str],
    ) -> Result<DeltaTable> {
        if let Some(table) = self.load().await? {
            return Ok(table);
        }
        let columns: StructType = schema
            .as_ref()
            .try_into_kernel()
            .context(|| self.error_context("create"))?;
        // Made in a commit of its own: a first write that makes the table checks for no conflict.
        let created = self
            .builder("create")?
            .build()
            .context(|| self.error_context("create"))?
            .create()
            .with_columns(columns.fields().cloned())
            .with_partition_columns(partition_columns.to_vec())
            .with_save_mode(SaveMode::Ignore);
        match created.await {
            Ok(table) => Ok(table),
            // Another run that makes it at the same moment was first.
            Err(error) => self
                .load()
                .await?
                .ok_or_else(|| Error::failed(self.error_context("create")).with_source(error)),
        }
    }

    /// Appends rows in one commit.
    ///
    /// # Errors
    /// The table cannot be written, or holds this transaction already.
    pub async fn append(&self, schema: &SchemaRef, append: Append) -> Result<()> {
        let table = self.create_if_missing(schema).await?;
        let mut properties = CommitProperties::default();
        if let Some((application, number)) = &append.transaction {
            if self
                .committed(&table, application)
                .await?
                .is_some_and(|last| last >= *number)
            {
                return Err(Error::failed(format!("another run has written commit {number} of `{application}` to `{}`", self.name))
                    .hint("only one `pinpipe stream` may write a table at a time; run it again, it goes on after that commit"));
            }
            properties = properties
                .with_application_transaction(Transaction::new(application.clone(), *number));
        }
        let mut batches = append.batches;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema.clone()));
        }
        let written = table
            .write(batches)
            .with_save_mode(SaveMode::Append)
            .with_commit_properties(properties)
            .await;
        written.map(|_| ()).context(|| self.error_context("write"))
    }

    async fn committed(&self, table: &DeltaTable, application: &str) -> Result<Option<i64>> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        snapshot
            .transaction_version(table.log_store().as_ref(), application)
            .await
            .context(|| self.error_context("read"))
    }

    /// Number of the last commit of this application; `None`: none yet.
    pub async fn last_transaction(&self, application: &str) -> Result<Option<i64>> {
        match self.load().await? {
            Some(table) => self.committed(&table, application).await,
            None => Ok(None),
        }
    }

    /// Lowest and highest value of a column of numbers, by what is known of each file. A file
    /// of which nothing is known may hold any; `None`: the table has no files.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn range(&self, table: &DeltaTable, column: &str) -> Result<Option<(i64, i64)>> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let log_store = table.log_store();
        let mut files = snapshot.snapshot().file_views(log_store.as_ref(), None);
        let mut range: Option<(i64, i64)> = None;
        while let Some(file) = files
            .try_next()
            .await
            .context(|| self.error_context("read"))?
        {
            let statistics = file
                .stats()
                .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
                .unwrap_or_default();
            let value = |name: &str| statistics[name][column].as_i64();
            let (lowest, highest) = (
                value("minValues").unwrap_or(i64::MIN),
                value("maxValues").unwrap_or(i64::MAX),
            );
            range = Some(range.map_or((lowest, highest), |range| {
                (range.0.min(lowest), range.1.max(highest))
            }));
        }
        Ok(range)
    }

    /// Whether a table has files of this value of a partition column.
    pub async fn has_files_of(
        &self,
        table: &DeltaTable,
        (column, value): (&str, &str),
    ) -> Result<bool> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let log_store = table.log_store();
        let mut files = snapshot.snapshot().file_views(log_store.as_ref(), None);
        while let Some(file) = files
            .try_next()
            .await
            .context(|| self.error_context("read"))?
        {
            if file
                .partition_values_map()
                .get(column)
                .is_some_and(|found| found.as_deref() == Some(value))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The table for queries; `None`: there is no table yet.
    pub async fn provider(&self) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.load().await? {
            Some(table) => self.provider_of(&table).await.map(Some),
            None => Ok(None),
        }
    }

    /// This state of the table, for queries.
    pub async fn provider_of(&self, table: &DeltaTable) -> Result<Arc<dyn TableProvider>> {
        // Texts as they are: views would keep every page of a large table alive, and lists
        // of all pages in every batch of a join.
        static SESSION: LazyLock<Arc<SessionState>> = LazyLock::new(|| {
            let config = SessionConfig::new().set_bool(
                "datafusion.execution.parquet.schema_force_view_types",
                false,
            );
            Arc::new(SessionContext::new_with_config(config).state())
        });
        table
            .table_provider()
            .with_session(SESSION.clone())
            .await
            .context(|| self.error_context("read"))
    }

    pub fn error_context(&self, action: &str) -> String {
        format!("cannot {action} the Delta table `{}`", self.name)
    }
}

/// When the state of a table that was loaded was committed, in milliseconds since 1970.
fn committed_ms(table: &DeltaTable) -> Option<i64> {
    table.snapshot().ok()?.version_timestamp(table.version()?)
}
