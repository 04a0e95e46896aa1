//! DataFusion sessions that run the portable SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::functions_nested::make_array::make_array_udf;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};

use crate::base::error::{ErrorContext, Result};

/// Number of cores of this machine, or 2 if it is unknown.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// Error of a query that cannot be planned.
#[derive(Debug)]
pub struct PlanError {
    /// Line and column, counted from 1, if known.
    pub place: Option<(u64, u64)>,
    pub message: String,
}

impl From<DataFusionError> for PlanError {
    fn from(error: DataFusionError) -> Self {
        let Some(diagnostic) = error.diagnostic() else {
            return Self { place: None, message: error.strip_backtrace() };
        };
        let notes = diagnostic.notes.iter().map(|note| note.message.as_str());
        let helps = diagnostic.helps.iter().map(|help| help.message.as_str());
        let mut message = diagnostic.message.replace('\'', "`");
        for remark in notes.chain(helps) {
            message.push_str(&format!("; {}", remark.replace('\'', "`")));
        }
        let place = diagnostic.span.map(|span| (span.start.line, span.start.column));
        Self { place, message }
    }
}

/// A DataFusion session; clones share it.
#[derive(Clone)]
pub struct Engine {
    context: SessionContext,
}

impl Engine {
    /// Session whose queries use all cores.
    pub fn new() -> Self {
        Self::with_config(SessionConfig::new())
    }

    /// Session whose queries use one core each. Intended for many concurrent queries, which then do
    /// not exchange rows between cores.
    pub fn single() -> Self {
        Self::with_config(SessionConfig::new().with_target_partitions(1))
    }

    /// Session with a memory limit of `bytes`. Joins, sorts and aggregations spill to `folder`.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn within(bytes: usize, folder: &Path) -> Result<Self> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![folder.to_path_buf()]));
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(bytes)))
            .with_disk_manager_builder(disk);
        let runtime =
            runtime.build_arc().context(|| format!("cannot spill to `{}`", folder.display()))?;
        let config = SessionConfig::new()
            // Only the sort-merge join can spill to disk.
            .set_bool("datafusion.optimizer.prefer_hash_join", false)
            // Memory that a sort reserves for its final merge, taken from its share of the pool.
            .with_sort_spill_reservation_bytes((bytes / 32).min(10 * 1024 * 1024))
            // Each partition sorts with its own share of the pool. With only one partition
            // DataFusion chooses the hash join, which cannot spill.
            .with_target_partitions(2);
        Ok(Self::with_runtime(config, runtime))
    }

    fn with_config(config: SessionConfig) -> Self {
        Self::with_runtime(config, Arc::new(RuntimeEnv::default()))
    }

    fn with_runtime(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Self {
        let config = config
            // In the dialect of Spark `array(…)` is a function.
            .set_str("datafusion.sql_parser.dialect", "spark")
            // Errors name line and column.
            .set_bool("datafusion.sql_parser.collect_spans", true)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
        let context = SessionContext::new_with_config_rt(config, runtime);
        let array = make_array_udf().as_ref().clone().with_aliases(["array"]);
        context.register_udf(array);
        Self { context }
    }

    /// Registers batches as a table. Replaces a table of the same name.
    pub fn register(&self, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
        let table = MemTable::try_new(schema, vec![batches])
            .context(|| format!("cannot register table `{name}`"))?;
        self.register_provider(name, Arc::new(table))
    }

    /// Registers a table provider. Replaces a table of the same name.
    pub fn register_provider(&self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        self.context.deregister_table(name).context(|| format!("cannot replace table `{name}`"))?;
        self.context
            .register_table(name, provider)
            .map(|_| ())
            .context(|| format!("cannot register table `{name}`"))
    }

    /// Registers a table of this session in another one.
    pub async fn share(&self, name: &str, other: &Engine) -> Result<()> {
        let provider = self
            .context
            .table_provider(name)
            .await
            .context(|| format!("cannot find table `{name}`"))?;
        other.register_provider(name, provider)
    }

    /// Plans a query. Statements that write or change the session are refused.
    async fn frame(&self, sql: &str) -> Result<DataFrame, DataFusionError> {
        let read_only = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        self.context.sql_with_options(sql, read_only).await
    }

    /// Runs a query and collects its rows. The schema is also returned if there are no rows. Errors
    /// read `cannot run the query for PURPOSE`.
    pub async fn query(&self, purpose: &str, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let failed = || format!("cannot run the query for {purpose}");
        let frame = self.frame(sql).await.context(failed)?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.context(failed)?;
        Ok((schema, batches))
    }

    /// Runs a query and streams its rows.
    pub async fn stream(&self, purpose: &str, sql: &str) -> Result<SendableRecordBatchStream> {
        let failed = || format!("cannot run the query for {purpose}");
        self.frame(sql).await.context(failed)?.execute_stream().await.context(failed)
    }

    /// Returns the columns that a query reads, by table.
    ///
    /// # Errors
    /// The query cannot be planned.
    pub async fn columns_read(
        &self,
        sql: &str,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, PlanError> {
        let plan = self.frame(sql).await?.into_optimized_plan()?;
        let mut read: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let traversal = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let filtered = scan
                    .filters
                    .iter()
                    .flat_map(|filter| filter.column_refs())
                    .map(|column| column.name.clone());
                let columns =
                    scan.projected_schema.fields().iter().map(|field| field.name().clone());
                read.entry(scan.table_name.table().to_string())
                    .or_default()
                    .extend(columns.chain(filtered));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        traversal?;
        Ok(read)
    }

    /// Writes the result of a query to a Parquet file and registers the file as a table.
    pub async fn spill(&self, name: &str, sql: &str, path: &Path) -> Result<()> {
        let failed = || format!("cannot spill the rows of `{name}` to `{}`", path.display());
        let frame = self.frame(sql).await.context(failed)?;
        let path = path.to_string_lossy();
        frame
            .write_parquet(&path, DataFrameWriteOptions::new().with_single_file_output(true), None)
            .await
            .context(failed)?;
        self.context
            .register_parquet(name, path.as_ref(), ParquetReadOptions::default())
            .await
            .context(failed)
    }

    /// Number of rows of a table.
    pub async fn count(&self, table: &str) -> Result<u64> {
        let (_, batches) = self
            .query(&format!("the rows of {table}"), &format!("SELECT count(*) FROM {table}"))
            .await?;
        let count =
            batches.first().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
        Ok(count.map_or(0, i64::unsigned_abs))
    }

    /// Returns the physical plan of a query. Errors read `cannot plan the query to PURPOSE`.
    pub async fn plan(&self, purpose: &str, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
        let failed = || format!("cannot plan the query to {purpose}");
        self.frame(sql).await.context(failed)?.create_physical_plan().await.context(failed)
    }
}

/// Casts columns by position to a schema, because an engine may choose other types.
pub fn as_schema(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let convert = |batch: &RecordBatch| {
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| cast(column, field.data_type()));
        RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?)
    };
    batches
        .iter()
        .map(convert)
        .collect::<Result<Vec<_>, arrow::error::ArrowError>>()
        .context(|| "cannot convert the result of a query")
}
