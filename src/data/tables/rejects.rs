//! The table of records that did not fit: where they stand, why, and what they say.

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
use crate::data::tables::delta::{DeltaLocation, TableNamespace};
use crate::data::tables::writer::{CommitRequest, OverwriteScope, TableWriter};
use crate::data::transform::keys::kept;

/// Each kind's rejects lie in a partition of their own, so that a kind can be started over.
const PARTITION: &str = "kind";

/// The table; clones share it.
#[derive(Clone)]
pub struct Rejects {
    location: DeltaLocation,
    /// One commit at a time: the kinds are taken side by side.
    committing: Arc<Mutex<()>>,
}

/// The rejects of a kind that is being taken.
pub struct KindRejects {
    kind: Kind,
    /// None that were there stay.
    replaces: bool,
    rejects: Rejects,
    budget: MemoryBudget,
    open: Mutex<Open>,
}

struct Open {
    writer: TableWriter,
    /// Rejects that the table may hold already. `None`: it holds none of the kind, and each object is read once.
    undecided: Option<Spill>,
}

/// An object and a line, 16 bytes however long the name is: two would have to share 128 bits.
type RejectKey = (u64, u64);

/// What makes places, under seeds that each run draws anew.
struct RejectKeyMaker([RandomState; 2]);

impl RejectKeyMaker {
    /// Where each reject of a batch stands.
    fn places<'a>(&'a self, batch: &'a RecordBatch) -> impl Iterator<Item = RejectKey> + 'a {
        let [first, second] = &self.0;
        let places = batch
            .column(1)
            .as_string::<i32>()
            .iter()
            .zip(batch.column(2).as_primitive::<Int64Type>().iter());
        places.map(|place| (first.hash_one(place), second.hash_one(place)))
    }
}

/// The table's name.
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
        columns
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    ))
}

impl Rejects {
    /// `<id>_rejects_table` among the tables of batch.
    pub async fn open(config: &Config) -> Result<Self> {
        let location = DeltaLocation::open(config, TableNamespace::Batch, &table(config)).await?;
        location.check_access().await?;
        Ok(Self {
            location,
            committing: Arc::default(),
        })
    }

    /// Where the table lies, as people know it.
    pub fn name(&self) -> &str {
        &self.location.name
    }

    /// Makes ready for the rejects of a kind; `replaces`: none that are there stay.
    pub async fn begin(
        &self,
        kind: Kind,
        replaces: bool,
        budget: &MemoryBudget,
    ) -> Result<KindRejects> {
        let table = {
            let _one = self.committing.lock().await;
            self.location
                .create_partitioned_if_missing(&schema(), &[PARTITION])
                .await?
        };
        let may_know = !replaces
            && self
                .location
                .has_files_of(&table, (PARTITION, kind.name()))
                .await?;
        let undecided = may_know
            .then(|| Spill::create(&budget.spill_folder, &schema()))
            .transpose()?;
        let writer = TableWriter::new(&self.location, &table, budget.row_group_size())?;
        let open = Mutex::new(Open { writer, undecided });
        Ok(KindRejects {
            kind,
            replaces,
            rejects: self.clone(),
            budget: budget.clone(),
            open,
        })
    }
}

impl KindRejects {
    /// Writes rejects down.
    pub async fn add(&self, rejects: &[Reject]) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let texts = |text: fn(&Reject) -> &str| -> ArrayRef {
            Arc::new(
                rejects
                    .iter()
                    .map(|reject| Some(text(reject)))
                    .collect::<StringArray>(),
            )
        };
        let now_us = chrono::Utc::now().timestamp_micros();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.kind.name(); rejects.len()])),
            texts(|reject| &reject.origin),
            Arc::new(
                rejects
                    .iter()
                    .map(|reject| reject.line.cast_signed())
                    .collect::<Int64Array>(),
            ),
            texts(|reject| &reject.reason),
            texts(|reject| &reject.raw),
            Arc::new(
                TimestampMicrosecondArray::from(vec![now_us; rejects.len()]).with_timezone("UTC"),
            ),
        ];
        let batch =
            RecordBatch::try_new(schema(), columns).context(|| "cannot write down the rejects")?;
        let open = &mut *self.open.lock().await;
        match &mut open.undecided {
            Some(undecided) => undecided.push(&batch),
            None => open.writer.write(batch).await,
        }
    }

    /// Makes those visible that the table did not hold yet.
    pub async fn commit(self) -> Result<()> {
        let Self {
            kind,
            replaces,
            rejects,
            budget,
            open,
        } = self;
        let Open {
            mut writer,
            undecided,
        } = open.into_inner();
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
        let _one = rejects.committing.lock().await;
        // The newest state: another kind may have been committed meanwhile.
        let table = location
            .create_partitioned_if_missing(&schema(), &[PARTITION])
            .await?;
        location
            .commit(
                &table,
                CommitRequest {
                    adds,
                    replaces,
                    property: None,
                },
            )
            .await
            .map(|_| ())
    }
}

/// Writes those that the table does not hold: in as many rounds as it takes to look for
/// them without holding all of their places in memory.
async fn write_new(
    location: &DeltaLocation,
    kind: Kind,
    writer: &mut TableWriter,
    undecided: Spill,
    budget: &MemoryBudget,
) -> Result<()> {
    let maker = RejectKeyMaker([RandomState::new(), RandomState::new()]);
    let mut undecided = undecided.read()?.peekable();
    while undecided.peek().is_some() {
        let mut asked = HashSet::new();
        let mut round = Spill::create(&budget.spill_folder, &schema())?;
        while asked.len() < budget.reject_lookup_batch()
            && let Some(batch) = undecided.next().transpose()?
        {
            asked.extend(maker.places(&batch));
            round.push(&batch)?;
        }
        let known = known(location, kind, &maker, &asked).await?;
        for batch in round.read()? {
            let batch = batch?;
            // Whoever waits for Ctrl-C gets a turn, also where nothing is new.
            tokio::task::yield_now().await;
            let is_new: BooleanArray = maker
                .places(&batch)
                .map(|place| Some(!known.contains(&place)))
                .collect();
            let new = kept(batch, &is_new)?;
            if new.num_rows() > 0 {
                writer.write(new).await?;
            }
        }
    }
    Ok(())
}

/// Which of these places the table holds.
async fn known(
    location: &DeltaLocation,
    kind: Kind,
    maker: &RejectKeyMaker,
    asked: &HashSet<RejectKey>,
) -> Result<HashSet<RejectKey>> {
    let failed = || "cannot read the rejects there are";
    let Some(table) = location.load().await? else {
        return Ok(HashSet::new());
    };
    let engine = Engine::new();
    engine.register_provider("rejects", location.provider_of(&table).await?)?;
    let query = format!(
        "SELECT kind, object, line FROM rejects WHERE kind = '{}'",
        kind.name()
    );
    let mut batches = engine.stream("the rejects there are", &query).await?;
    let columns = Arc::new(schema().project(&[0, 1, 2]).context(failed)?);
    let mut known = HashSet::new();
    while let Some(batch) = batches.try_next().await.context(failed)? {
        for batch in as_schema(vec![batch], &columns)? {
            known.extend(maker.places(&batch).filter(|place| asked.contains(place)));
        }
    }
    Ok(known)
}
