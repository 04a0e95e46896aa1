//! The table of records that did not fit: where they stand, why, and what they say.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use deltalake::DeltaTable;
use futures::TryStreamExt;
use tokio::sync::Mutex;

use super::HALF;
use super::engine::{Engine, as_schema};
use crate::config::Config;
use crate::error::{OrFail, Result};
use crate::lake::{Change, DeltaLocation, Reject, Replaces, TableWriter};
use crate::record::Kind;

/// Each kind's rejects lie in a partition of their own, so that a kind can be started over.
const PARTITION: &str = "kind";

/// Rejects that are held in memory before they go to the file: each may have 64 KiB.
const ROW_GROUP_ROWS: usize = 1024;

/// The table; clones share it.
#[derive(Clone)]
pub struct Rejects {
    location: DeltaLocation,
    /// One commit at a time: the kinds are taken side by side.
    committing: Arc<Mutex<()>>,
}

/// The rejects of a kind that is being taken; clones share them.
#[derive(Clone)]
pub struct KindRejects {
    kind: Kind,
    /// None that were there stay.
    replaces: bool,
    rejects: Rejects,
    open: Arc<Mutex<Open>>,
}

struct Open {
    writer: Option<TableWriter>,
    /// What the table holds already. `None`: it holds none, and each object is read once.
    known: Option<Places>,
}

/// Objects and lines, 16 bytes each however long their names are: two of them would have to
/// share 128 bits, under seeds that each run draws anew.
struct Places {
    seeds: [RandomState; 2],
    known: HashSet<(u64, u64)>,
}

impl Places {
    fn new() -> Self {
        Self { seeds: [RandomState::new(), RandomState::new()], known: HashSet::new() }
    }

    /// Notes a place; whether it was not known before.
    fn insert(&mut self, object: &str, line: i64) -> bool {
        let [first, second] = &self.seeds;
        self.known.insert((first.hash_one((object, line)), second.hash_one((object, line))))
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
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

impl Rejects {
    /// `<id>_rejects_table` among the tables of batch.
    pub async fn open(config: &Config) -> Result<Self> {
        let location = DeltaLocation::open(config, HALF, &table(config)).await?;
        location.reach().await?;
        Ok(Self { location, committing: Arc::default() })
    }

    /// Where the table lies, as people know it.
    pub fn name(&self) -> &str {
        &self.location.name
    }

    /// Makes ready for the rejects of a kind; `replaces`: none that are there stay.
    pub async fn begin(&self, kind: Kind, replaces: bool) -> Result<KindRejects> {
        let table = {
            let _one = self.committing.lock().await;
            self.location.ensure_partitioned(&schema(), &[PARTITION]).await?
        };
        let known = if replaces { None } else { Some(known(&self.location, &table, kind).await?) };
        let writer = Some(TableWriter::new(&self.location, &table, ROW_GROUP_ROWS)?);
        Ok(KindRejects { kind, replaces, rejects: self.clone(), open: Arc::new(Mutex::new(Open { writer, known })) })
    }
}

impl KindRejects {
    /// Writes rejects that the table does not hold yet.
    pub async fn add(&self, rejects: &[Reject]) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let mut open = self.open.lock().await;
        let new: Vec<&Reject> = match &mut open.known {
            Some(known) => rejects.iter().filter(|reject| known.insert(&reject.origin, reject.line.cast_signed())).collect(),
            None => rejects.iter().collect(),
        };
        let Some(writer) = open.writer.as_mut().filter(|_| !new.is_empty()) else { return Ok(()) };
        let texts =
            |text: fn(&Reject) -> &str| -> ArrayRef { Arc::new(new.iter().map(|reject| Some(text(reject))).collect::<StringArray>()) };
        let now_us = chrono::Utc::now().timestamp_micros();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.kind.name(); new.len()])),
            texts(|reject| &reject.origin),
            Arc::new(new.iter().map(|reject| reject.line.cast_signed()).collect::<Int64Array>()),
            texts(|reject| &reject.reason),
            texts(|reject| &reject.raw),
            Arc::new(TimestampMicrosecondArray::from(vec![now_us; new.len()]).with_timezone("UTC")),
        ];
        let batch = RecordBatch::try_new(schema(), columns).or_fail(|| "cannot write down the rejects")?;
        writer.write(batch).await
    }

    /// Makes the rejects visible.
    pub async fn commit(&self) -> Result<()> {
        let Some(writer) = self.open.lock().await.writer.take() else { return Ok(()) };
        let adds = writer.finish().await?;
        let replaces = if self.replaces { Replaces::Partition(PARTITION, self.kind.name()) } else { Replaces::Nothing };
        let location = &self.rejects.location;
        let _one = self.rejects.committing.lock().await;
        // The newest state: another kind may have been committed meanwhile.
        let table = location.ensure_partitioned(&schema(), &[PARTITION]).await?;
        location.commit(&table, Change { adds, replaces, property: None }).await.map(|_| ())
    }
}

async fn known(location: &DeltaLocation, table: &DeltaTable, kind: Kind) -> Result<Places> {
    let failed = || "cannot read the rejects there are";
    if location.range(table, "line").await?.is_none() {
        return Ok(Places::new());
    }
    let engine = Engine::new();
    engine.register_provider("rejects", location.provider_of(table).await?)?;
    let query = format!("SELECT object, line FROM rejects WHERE kind = '{}'", kind.name());
    let mut batches = engine.stream("the rejects there are", &query).await?;
    let columns = Arc::new(schema().project(&[1, 2]).or_fail(failed)?);
    let mut places = Places::new();
    while let Some(batch) = batches.try_next().await.or_fail(failed)? {
        for batch in as_schema(vec![batch], &columns)? {
            let lines = batch.column(1).as_primitive::<Int64Type>();
            for (object, line) in batch.column(0).as_string::<i32>().iter().flatten().zip(lines.iter().flatten()) {
                places.insert(object, line);
            }
        }
    }
    Ok(places)
}
