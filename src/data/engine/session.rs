//! DataFusion, set up to run the portable SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::functions_nested::make_array::make_array_udf;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use crate::base::error::{ErrorContext, Result};

/// Cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// One session; clones share it.
#[derive(Clone)]
pub struct Engine {
    context: SessionContext,
}

impl Engine {
    /// A query uses every core.
    pub fn new() -> Self {
        Self::with_config(SessionConfig::new())
    }

    /// A query uses one core: for many queries side by side, which then need not
    /// exchange rows between cores.
    pub fn single() -> Self {
        Self::with_config(SessionConfig::new().with_target_partitions(1))
    }

    /// Joins, sorts and groups within so many bytes; what does not fit goes to the folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn within(bytes: usize, folder: &Path) -> Result<Self> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![folder.to_path_buf()]));
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(bytes)))
            .with_disk_manager_builder(disk);
        let runtime = runtime
            .build_arc()
            .context(|| format!("cannot set rows aside in `{}`", folder.display()))?;
        let config = SessionConfig::new()
            // Of the joins only the one that sorts can go without memory.
            .set_bool("datafusion.optimizer.prefer_hash_join", false)
            // Room that a sort holds back for the end, out of a share of the pool.
            .with_sort_spill_reservation_bytes((bytes / 32).min(10 * 1024 * 1024))
            // Each partition sorts by itself, with its share. With only one DataFusion would
            // choose the join that cannot go without memory.
            .with_target_partitions(2);
        Ok(Self::with_runtime(config, runtime))
    }

    fn with_config(config: SessionConfig) -> Self {
        Self::with_runtime(config, Arc::new(RuntimeEnv::default()))
    }

    fn with_runtime(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Self {
        let config = config
            // Spark's dialect: `array(…)` is a function there.
            .set_str("datafusion.sql_parser.dialect", "spark")
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool(
                "datafusion.execution.parquet.schema_force_view_types",
                false,
            );
        let context = SessionContext::new_with_config_rt(config, runtime);
        let array = make_array_udf().as_ref().clone().with_aliases(["array"]);
        context.register_udf(array);
        Self { context }
    }

    /// Makes batches a table; one of the same name is replaced.
    pub fn register(&self, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
        let table = MemTable::try_new(schema, vec![batches])
            .context(|| format!("cannot register table `{name}`"))?;
        self.register_provider(name, Arc::new(table))
    }

    /// Makes any table known under a name.
    pub fn register_provider(&self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        self.context
            .deregister_table(name)
            .context(|| format!("cannot replace table `{name}`"))?;
        self.context
            .register_table(name, provider)
            .map(|_| ())
            .context(|| format!("cannot register table `{name}`"))
    }

    /// A table of this session, made known to another as well.
    pub async fn share(&self, name: &str, other: &Engine) -> Result<()> {
        let provider = self
            .context
            .table_provider(name)
            .await
            .context(|| format!("cannot find table `{name}`"))?;
        other.register_provider(name, provider)
    }

    /// Runs a query; the schema stands also where there is no row.
    pub async fn query(&self, what: &str, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let failed = || format!("cannot run the query for {what}");
        let frame = self.context.sql(sql).await.context(failed)?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.context(failed)?;
        Ok((schema, batches))
    }

    /// Runs a query and hands its rows over as they come.
    pub async fn stream(&self, what: &str, sql: &str) -> Result<SendableRecordBatchStream> {
        let failed = || format!("cannot run the query for {what}");
        self.context
            .sql(sql)
            .await
            .context(failed)?
            .execute_stream()
            .await
            .context(failed)
    }

    /// Which columns of which tables a query reads.
    pub async fn columns_read(
        &self,
        what: &str,
        sql: &str,
    ) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let failed = || format!("cannot plan the query for {what}");
        let plan = self
            .context
            .sql(sql)
            .await
            .context(failed)?
            .into_optimized_plan()
            .context(failed)?;
        let mut read: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let visited = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let filtered = scan
                    .filters
                    .iter()
                    .flat_map(|filter| filter.column_refs())
                    .map(|column| column.name.clone());
                let columns = scan
                    .projected_schema
                    .fields()
                    .iter()
                    .map(|field| field.name().clone());
                read.entry(scan.table_name.table().to_string())
                    .or_default()
                    .extend(columns.chain(filtered));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        visited.context(failed)?;
        Ok(read)
    }

    /// Writes what a query finds to a file, and makes that a table of this name.
    pub async fn spill(&self, name: &str, sql: &str, path: &Path) -> Result<()> {
        let failed = || {
            format!(
                "cannot set the rows of `{name}` aside in `{}`",
                path.display()
            )
        };
        let frame = self.context.sql(sql).await.context(failed)?;
        let path = path.to_string_lossy();
        frame
            .write_parquet(
                &path,
                DataFrameWriteOptions::new().with_single_file_output(true),
                None,
            )
            .await
            .context(failed)?;
        self.context
            .register_parquet(name, path.as_ref(), ParquetReadOptions::default())
            .await
            .context(failed)
    }

    /// Rows of a table.
    pub async fn count(&self, table: &str) -> Result<u64> {
        let (_, batches) = self
            .query(
                &format!("the rows of {table}"),
                &format!("SELECT count(*) FROM {table}"),
            )
            .await?;
        let count = batches
            .first()
            .map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
        Ok(count.map_or(0, i64::unsigned_abs))
    }

    /// How a query would be run.
    pub async fn plan(&self, what: &str, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
        let failed = || format!("cannot plan the query to {what}");
        self.context
            .sql(sql)
            .await
            .context(failed)?
            .create_physical_plan()
            .await
            .context(failed)
    }
}

/// Casts columns by position to a schema, where an engine chose other types.
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
