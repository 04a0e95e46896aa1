//! Table of rejected records, with object, line, reason and text. It is always a Delta table, even
//! if the clean tables are not.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use futures::TryStreamExt;
use tokio::sync::Mutex;

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::{Engine, as_schema};
use crate::data::engine::spill::Spill;
use crate::data::lake::decode::Reject;
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::writer::{CommitRequest, OverwriteScope, TableWriter};
use crate::data::transform::keys::filter_rows;

/// Partition column, so that the rejects of one kind can be replaced.
const PARTITION: &str = "kind";

/// The rejects table; clones share it.
#[derive(Clone)]
pub struct Rejects {
    location: DeltaLocation,
    /// Serialises commits, because the kinds are ingested in parallel.
    commit_lock: Arc<Mutex<()>>,
}

/// Rejects of a kind during ingestion.
pub struct KindRejects {
    kind: Kind,
    /// The commit removes existing rejects of the kind.
    replaces: bool,
    rejects: Rejects,
    budget: MemoryBudget,
    pending: Mutex<PendingRejects>,
}

struct PendingRejects {
    writer: TableWriter,
    /// Rejects that may already be in the table. `None` if the table has no rejects of the kind:
    /// all rejects are then new, because each object is read once.
    undecided: Option<Spill>,
}

/// Two hashes of object and line, so that the key has 16 bytes for object names of any length. A
/// collision requires two rejects with the same 128 bits.
type RejectKey = (u64, u64);

/// Computes reject keys with seeds that are random in each run.
struct RejectKeyMaker([RandomState; 2]);

impl RejectKeyMaker {
    /// Returns the key of each reject of a batch.
    fn keys<'a>(&'a self, batch: &'a RecordBatch) -> impl Iterator<Item = RejectKey> + 'a {
        let [first, second] = &self.0;
        let positions = batch
            .column(1)
            .as_string::<i32>()
            .iter()
            .zip(batch.column(2).as_primitive::<Int64Type>().iter());
        positions.map(|position| (first.hash_one(position), second.hash_one(position)))
    }
}

/// Returns the table name, `<id>_rejects_table`.
pub fn table(config: &Config) -> String {
    format!("{}_rejects_table", config.id)
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        (PARTITION, DataType::Utf8),
        ("object", DataType::Utf8),
        ("line", DataType::Int64),
        ("reason", DataType::Utf8),
        ("raw", DataType::Utf8),
        ("found_at", time),
    ];
    Arc::new(Schema::new(
        columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec(),
    ))
}

impl Rejects {
    /// Opens `<id>_rejects_table` among the tables of batch.
    ///
    /// # Errors
    /// The location is invalid, or its bucket cannot be listed.
    pub async fn open(config: &Config) -> Result<Self> {
        let location = DeltaLocation::open(config, TableNamespace::Batch, &table(config)).await?;
        location.check_access().await?;
        Ok(Self { location, commit_lock: Arc::default() })
    }

    /// Path or URL of the table, for messages.
    pub fn name(&self) -> &str {
        &self.location.name
    }

    /// Starts collecting the rejects of a kind. With `replaces` the commit removes existing ones.
    pub async fn begin(
        &self,
        kind: Kind,
        replaces: bool,
        budget: &MemoryBudget,
    ) -> Result<KindRejects> {
        let table = {
            let _guard = self.commit_lock.lock().await;
            self.location.create_partitioned_if_missing(&schema(), &[PARTITION]).await?
        };
        let has_existing =
            !replaces && self.location.has_files_of(&table, (PARTITION, kind.name())).await?;
        let undecided =
            has_existing.then(|| Spill::create(&budget.spill_folder, &schema())).transpose()?;
        let writer = TableWriter::new(&self.location, &table, budget.row_group_size())?;
        let pending = Mutex::new(PendingRejects { writer, undecided });
        Ok(KindRejects { kind, replaces, rejects: self.clone(), budget: budget.clone(), pending })
    }
}

impl KindRejects {
    /// Writes rejects to the data files; readers see them after [`Self::commit`].
    pub async fn add(&self, rejects: &[Reject]) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let texts = |text: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(rejects.iter().map(|reject| Some(text(reject))).collect::<StringArray>())
        };
        let now_us = chrono::Utc::now().timestamp_micros();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.kind.name(); rejects.len()])),
            texts(|reject| &reject.origin),
            Arc::new(
                rejects.iter().map(|reject| reject.line.cast_signed()).collect::<Int64Array>(),
            ),
            texts(|reject| &reject.reason),
            texts(|reject| &reject.raw),
            Arc::new(
                TimestampMicrosecondArray::from(vec![now_us; rejects.len()]).with_timezone("UTC"),
            ),
        ];
        let batch = RecordBatch::try_new(schema(), columns)
            .context(|| "cannot convert rejected records to rows")?;
        let pending = &mut *self.pending.lock().await;
        match &mut pending.undecided {
            Some(undecided) => undecided.push(&batch),
            None => pending.writer.write(batch).await,
        }
    }

    /// Commits the rejects that are not in the table yet.
    pub async fn commit(self) -> Result<()> {
        let Self { kind, replaces, rejects, budget, pending } = self;
        let PendingRejects { mut writer, undecided } = pending.into_inner();
        let location = &rejects.location;
        if let Some(undecided) = undecided.filter(|undecided| undecided.rows > 0) {
            write_new(location, kind, &mut writer, undecided, &budget).await?;
        }
        let adds = writer.finish().await?;
        let replaces = if replaces {
            OverwriteScope::Partition(PARTITION, kind.name())
        } else {
            OverwriteScope::Nothing
        };
        let _guard = rejects.commit_lock.lock().await;
        // Load the newest version: another kind may have been committed in the meantime.
        let table = location.create_partitioned_if_missing(&schema(), &[PARTITION]).await?;
        location
            .commit(&table, CommitRequest { adds, replaces, checkpoint: None })
            .await
            .map(|_| ())
    }
}

/// Writes the rejects that are not in the table. Looks up the rejects in several rounds, so that
/// the keys of one round fit in memory.
async fn write_new(
    location: &DeltaLocation,
    kind: Kind,
    writer: &mut TableWriter,
    undecided: Spill,
    budget: &MemoryBudget,
) -> Result<()> {
    let key_maker = RejectKeyMaker([RandomState::new(), RandomState::new()]);
    let mut undecided = undecided.read()?.peekable();
    while undecided.peek().is_some() {
        let mut keys = HashSet::new();
        let mut round = Spill::create(&budget.spill_folder, &schema())?;
        while keys.len() < budget.reject_lookup_batch()
            && let Some(batch) = undecided.next().transpose()?
        {
            keys.extend(key_maker.keys(&batch));
            round.push(&batch)?;
        }
        let existing = existing_keys(location, kind, &key_maker, &keys).await?;
        for batch in round.read()? {
            let batch = batch?;
            // Lets the Ctrl-C handler run, even if no reject is new.
            tokio::task::yield_now().await;
            let is_new: BooleanArray =
                key_maker.keys(&batch).map(|key| Some(!existing.contains(&key))).collect();
            let new = filter_rows(batch, &is_new)?;
            if new.num_rows() > 0 {
                writer.write(new).await?;
            }
        }
    }
    Ok(())
}

/// Returns those of `keys` that are in the table.
async fn existing_keys(
    location: &DeltaLocation,
    kind: Kind,
    key_maker: &RejectKeyMaker,
    keys: &HashSet<RejectKey>,
) -> Result<HashSet<RejectKey>> {
    let failed = || "cannot read existing rejected records";
    let Some(table) = location.load().await? else {
        return Ok(HashSet::new());
    };
    let engine = Engine::new();
    engine.register_provider("rejects", location.provider_of(&table).await?)?;
    let query = format!("SELECT kind, object, line FROM rejects WHERE kind = '{}'", kind.name());
    let mut batches = engine.stream("existing rejected records", &query).await?;
    let columns = Arc::new(schema().project(&[0, 1, 2]).context(failed)?);
    let mut existing = HashSet::new();
    while let Some(batch) = batches.try_next().await.context(failed)? {
        for batch in as_schema(vec![batch], &columns)? {
            existing.extend(key_maker.keys(&batch).filter(|key| keys.contains(key)));
        }
    }
    Ok(existing)
}
