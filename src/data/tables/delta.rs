//! Delta tables, in a folder or on S3.

use std::sync::{Arc, LazyLock, Once};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
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
use crate::data::tables::clean_table::TableNamespace;

/// Log store for S3. Delta commits to S3 with conditional puts, so the default log store is enough.
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

/// Location of one Delta table.
#[derive(Debug, Clone)]
pub struct DeltaLocation {
    lake: Lake,
    url: Url,
    /// Path or URL of the table, for messages.
    pub name: String,
}

impl DeltaLocation {
    /// Opens `<tables>/<namespace>/<table>`; a missing folder is created.
    ///
    /// # Errors
    /// The location is invalid or cannot be created.
    pub async fn open(config: &Config, namespace: TableNamespace, table: &str) -> Result<Self> {
        let name = format!(
            "{}/{namespace}/{table}",
            config.endpoints().tables_url().trim_end_matches('/')
        );
        let lake = Lake::open(config, &name, true).await?;
        let url = if name.starts_with("s3://") {
            register_s3();
            Url::parse(&format!("{name}/")).context(|| format!("cannot parse `{name}` as a URL"))?
        } else {
            let folder = std::fs::canonicalize(&name).map_err(|error| {
                crate::base::error::io_error("open", std::path::Path::new(&name), error)
            })?;
            // The Delta library parses the path as a host name, and panics if the path is not a
            // valid host name.
            if let Some(unsupported) =
                folder.to_string_lossy().chars().find(|c| "[]^|\\:@".contains(*c))
            {
                return Err(Error::failed(format!(
                    "cannot store Delta tables in `{}`: the Delta library does not support `{unsupported}` in a path",
                    folder.display()
                ))
                .hint("use a folder without this character, or set another with `--data-dir` or `tables.url`"));
            }
            Url::from_directory_path(folder)
                .map_err(|()| Error::failed(format!("cannot convert the path `{name}` to a URL")))?
        };
        Ok(Self { lake, url, name })
    }

    /// Lists the bucket of the location, because the Delta library panics if the bucket does not
    /// exist. A local folder always passes.
    ///
    /// # Errors
    /// The bucket does not exist or cannot be listed.
    pub async fn check_access(&self) -> Result<()> {
        if self.lake.files.is_some() {
            return Ok(());
        }
        let listed = self.lake.store.list(Some(&self.lake.root)).try_next().await;
        listed.map(|_| ()).map_err(|error| failure(self.error_context("open"), error))
    }

    /// Loads the newest version of the table. Returns `None` if the table does not exist.
    pub async fn load(&self) -> Result<Option<DeltaTable>> {
        self.load_with(self.builder("open")?).await
    }

    /// Builder of a table at this location.
    pub(super) fn builder(&self, action: &str) -> Result<DeltaTableBuilder> {
        let builder =
            DeltaTableBuilder::from_url(self.url.clone()).context(|| self.error_context(action))?;
        let is_on_s3 = self.url.scheme() == "s3";
        Ok(if is_on_s3 {
            builder.with_storage_backend(self.lake.store.clone(), self.url.clone())
        } else {
            builder
        })
    }

    /// Loads the table of a builder. Returns `None` if the table does not exist.
    pub(super) async fn load_with(&self, builder: DeltaTableBuilder) -> Result<Option<DeltaTable>> {
        match builder.load().await {
            Ok(table) => Ok(Some(table)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(error) => Err(Error::failed(self.error_context("read")).with_source(error).hint(
                "check access with `pinpipe doctor`; if the table is damaged, move it away: `pinpipe batch` recreates its tables from the lake",
            )),
        }
    }

    /// Loads the table. Creates an empty one with this schema if it does not exist.
    pub async fn create_if_missing(&self, schema: &SchemaRef) -> Result<DeltaTable> {
        self.create_partitioned_if_missing(schema, &[]).await
    }

    /// Like [`Self::create_if_missing`], but the table is partitioned by these columns.
    pub async fn create_partitioned_if_missing(
        &self,
        schema: &SchemaRef,
        partition_columns: &[&str],
    ) -> Result<DeltaTable> {
        if let Some(table) = self.load().await? {
            return Ok(table);
        }
        let columns: StructType =
            schema.as_ref().try_into_kernel().context(|| self.error_context("create"))?;
        // Created in a separate commit: a write that also creates the table does not check for
        // conflicts.
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
            // Another process may have created the table in the meantime.
            Err(error) => self
                .load()
                .await?
                .ok_or_else(|| Error::failed(self.error_context("create")).with_source(error)),
        }
    }

    /// Returns the number of the last commit of this application in the loaded version, or `None`
    /// before the first one.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn last_transaction(
        &self,
        table: &DeltaTable,
        application: &str,
    ) -> Result<Option<i64>> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        snapshot
            .transaction_version(table.log_store().as_ref(), application)
            .await
            .context(|| self.error_context("read"))
    }

    /// Returns the minimum and maximum of an integer column from the file statistics. A file
    /// without statistics counts as the full range. Returns `None` if the table has no files.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn range(&self, table: &DeltaTable, column: &str) -> Result<Option<(i64, i64)>> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let log_store = table.log_store();
        let mut files = snapshot.snapshot().file_views(log_store.as_ref(), None);
        let mut range: Option<(i64, i64)> = None;
        while let Some(file) = files.try_next().await.context(|| self.error_context("read"))? {
            let statistics = file
                .stats()
                .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
                .unwrap_or_default();
            let value = |name: &str| statistics[name][column].as_i64();
            let (lowest, highest) =
                (value("minValues").unwrap_or(i64::MIN), value("maxValues").unwrap_or(i64::MAX));
            range =
                Some(range.map_or((lowest, highest), |range| {
                    (range.0.min(lowest), range.1.max(highest))
                }));
        }
        Ok(range)
    }

    /// Whether the table has files in the partition with this value of a column.
    pub async fn has_files_of(
        &self,
        table: &DeltaTable,
        (column, value): (&str, &str),
    ) -> Result<bool> {
        let snapshot = table.snapshot().context(|| self.error_context("read"))?;
        let log_store = table.log_store();
        let mut files = snapshot.snapshot().file_views(log_store.as_ref(), None);
        while let Some(file) = files.try_next().await.context(|| self.error_context("read"))? {
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

    /// Returns the loaded version of the table for queries.
    pub async fn provider_of(&self, table: &DeltaTable) -> Result<Arc<dyn TableProvider>> {
        // Plain strings instead of string views, because views would keep every page of a large
        // table in memory, and every batch of a join would contain a list of all pages.
        static SESSION: LazyLock<Arc<SessionState>> = LazyLock::new(|| {
            let config = SessionConfig::new()
                .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
            Arc::new(SessionContext::new_with_config(config).state())
        });
        table
            .table_provider()
            .with_session(SESSION.clone())
            .await
            .context(|| self.error_context("read"))
    }

    /// Returns `cannot ACTION the Delta table NAME`.
    pub fn error_context(&self, action: &str) -> String {
        format!("cannot {action} the Delta table `{}`", self.name)
    }
}
