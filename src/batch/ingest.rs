//! One kind of record from the lake into its clean table: what is new, each row once.
//!
//! As many workers as cores read, decode, clean and write groups of objects; all their
//! files become visible in one commit, which also says which objects have been taken.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::not;
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use deltalake::DeltaTable;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::clean::Cleaner;
use super::distinct::{Distinct, KeyMaker, RowKeys, kept, not_in_table};
use super::engine::{Engine, cores};
use super::quality::{self, ColumnQuality};
use super::rejects::{KindRejects, Rejects};
use crate::error::{OrFail, Result};
use crate::lake::{Change, Decoder, DeltaLocation, Lake, RawObject, Reject, Replaces, TableWriter, Taken, read_objects, unpack};
use crate::output::Progress;
use crate::record::Kind;

/// Property of a table that says which objects it holds.
const TAKEN: &str = "pinpipe.batch.taken";
/// Objects are read and decoded together until they make so many bytes: small ones are many.
const GROUP_BYTES: u64 = 8 * 1024 * 1024;
/// Objects in one group at most.
const GROUP_OBJECTS: usize = 2_048;
/// Rows with numbers that the table has already, compared with it in one go.
const SUSPECT_ROWS: u64 = 200_000;

/// What came of one kind.
pub struct Ingested {
    pub objects: u64,
    pub records: u64,
    pub rejected: u64,
    pub duplicates: u64,
    /// Rows that were not there before.
    pub new_rows: u64,
    pub quality: Vec<ColumnQuality>,
    /// The first of the records that did not fit.
    pub rejects: Vec<Reject>,
}

/// What the property says.
#[derive(Serialize, Deserialize)]
struct TakenFrom {
    lake: String,
    objects: Taken,
}

/// Groups of objects with what is in them.
type Contents = BoxStream<'static, Result<(Vec<RawObject>, Vec<Bytes>)>>;

/// What the workers share.
struct Shared {
    kind: Kind,
    lake: Lake,
    cleaner: Cleaner,
    keys: KeyMaker,
    groups: tokio::sync::Mutex<Contents>,
    /// Row numbers that the table had before.
    known_numbers: HashSet<i32>,
    state: Mutex<State>,
}

/// What they add up.
struct State {
    distinct: Distinct,
    ingested: Ingested,
    /// Rows that may be in the table already.
    suspects: Vec<RecordBatch>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A group of objects, cleaned.
struct Cleaned {
    records: u64,
    batches: Vec<(RecordBatch, RowKeys)>,
    quality: Vec<ColumnQuality>,
    rejects: Vec<Reject>,
}

/// Takes what is new in the lake, or all of it, into the table.
///
/// # Errors
/// The lake cannot be read; the table cannot be written, or was changed by another writer
/// meanwhile (a transient error). Records that do not fit are set aside instead.
pub async fn ingest(
    lake: &Lake,
    objects: Vec<RawObject>,
    kind: Kind,
    location: &DeltaLocation,
    rejects: &Rejects,
    full: bool,
    progress: &Progress,
) -> Result<Ingested> {
    let table = location.ensure(&kind.clean_schema()).await?;
    // A property of another form is another version's: all is read anew.
    let taken: Option<TakenFrom> = DeltaLocation::property(&table, TAKEN).and_then(|text| serde_json::from_str(&text).ok());
    let taken = taken.filter(|taken| taken.lake == lake.identity()).map(|taken| taken.objects);
    // A table that was written without noting what it took, or from another lake, is no start to go on from.
    let replaces = full || taken.is_none();
    let (objects, after) = taken.filter(|_| !full).unwrap_or_default().plan(objects);
    let mut known_numbers = HashSet::new();
    if !replaces && !objects.is_empty() {
        known_numbers = numbers(location, &table).await?;
    }
    let ingested = Ingested {
        objects: objects.len() as u64,
        records: 0,
        rejected: 0,
        duplicates: 0,
        new_rows: 0,
        quality: quality::columns(kind),
        rejects: Vec::new(),
    };
    if objects.is_empty() && !replaces {
        return Ok(ingested);
    }
    let rejects = rejects.begin(kind, replaces).await?;
    let distinct = Distinct::new();
    let shared = Arc::new(Shared {
        kind,
        lake: lake.clone(),
        cleaner: Cleaner::new(kind).await?,
        keys: distinct.key_maker(),
        groups: tokio::sync::Mutex::new(read_ahead(lake, groups(objects))),
        known_numbers,
        state: Mutex::new(State { distinct, ingested, suspects: Vec::new() }),
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..cores() {
        workers.spawn(work(shared.clone(), location.clone(), table.clone(), rejects.clone(), progress.clone()));
    }
    let mut adds = Vec::new();
    while let Some(done) = workers.join_next().await {
        adds.extend(done.or_fail(|| "reading the lake was interrupted")??);
    }
    let shared = Arc::into_inner(shared).ok_or_else(|| crate::error::Error::failed("reading the lake was interrupted"))?;
    let mut state = shared.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let suspects = std::mem::take(&mut state.suspects);
    if !suspects.is_empty() {
        let mut writer = TableWriter::new(location, &table)?;
        state.count_suspects(write_unknown(suspects, kind, location, &table, &mut writer).await?);
        adds.extend(writer.finish().await?);
    }
    // Before the rows: what is set aside twice is told apart, what is lost is not found again.
    rejects.commit().await?;
    let property =
        serde_json::to_string(&TakenFrom { lake: lake.identity(), objects: after }).or_fail(|| "cannot note which objects were taken")?;
    let replaces = if replaces { Replaces::Everything } else { Replaces::Nothing };
    let version = location.commit(&table, Change { adds, replaces, property: Some((TAKEN, property)) }).await?;
    tracing::info!(table = location.name, version, objects = state.ingested.objects, rows = state.ingested.new_rows, "wrote the table");
    Ok(state.ingested)
}

fn groups(objects: Vec<RawObject>) -> Vec<Vec<RawObject>> {
    let mut groups: Vec<Vec<RawObject>> = Vec::new();
    let mut bytes = 0;
    for object in objects {
        let size = object.size_bytes;
        match groups.last_mut() {
            Some(group) if bytes + size <= GROUP_BYTES && group.len() < GROUP_OBJECTS => group.push(object),
            _ => {
                bytes = 0;
                groups.push(vec![object]);
            }
        }
        bytes += size;
    }
    groups
}

/// Groups with their contents, the next ones being read while one is decoded.
fn read_ahead(lake: &Lake, groups: Vec<Vec<RawObject>>) -> Contents {
    let lake = lake.clone();
    let ahead = if lake.files.is_some() { 2 } else { 6 };
    let read = move |group: Vec<RawObject>| {
        let lake = lake.clone();
        // A task of its own goes on while nobody asks.
        let reading = tokio::spawn(async move { read_objects(&lake, &group).await.map(|contents| (group, contents)) });
        async move { reading.await.or_fail(|| "reading the lake was interrupted")? }
    };
    futures::stream::iter(groups).map(read).buffered(ahead).boxed()
}

/// Takes group after group; the files it wrote.
async fn work(
    shared: Arc<Shared>,
    location: DeltaLocation,
    table: DeltaTable,
    rejects: KindRejects,
    progress: Progress,
) -> Result<Vec<deltalake::kernel::Add>> {
    let mut writer = TableWriter::new(&location, &table)?;
    loop {
        let next = shared.groups.lock().await.try_next().await?;
        let Some((group, contents)) = next else { break };
        let count = group.len() as u64;
        let own = shared.clone();
        let cleaned = tokio::task::spawn_blocking(move || clean(&own, &group, contents));
        let cleaned = cleaned.await.or_fail(|| "reading the lake was interrupted")??;
        rejects.add(&cleaned.rejects).await?;
        let (new, suspects) = {
            let mut state = shared.state();
            let new = take(&shared, &mut state, cleaned)?;
            let are_many = rows(&state.suspects) >= SUSPECT_ROWS;
            (new, if are_many { std::mem::take(&mut state.suspects) } else { Vec::new() })
        };
        for batch in new {
            writer.write(batch).await?;
        }
        if !suspects.is_empty() {
            let counts = write_unknown(suspects, shared.kind, &location, &table, &mut writer).await?;
            shared.state().count_suspects(counts);
        }
        progress.add(count);
    }
    writer.finish().await
}

impl State {
    /// Of so many rows that might have been known, so many were new.
    fn count_suspects(&mut self, (suspected, new): (u64, u64)) {
        self.ingested.new_rows += new;
        self.ingested.duplicates += suspected - new;
    }
}

/// Decodes and cleans a group: the work that takes a core.
fn clean(shared: &Shared, group: &[RawObject], contents: Vec<Bytes>) -> Result<Cleaned> {
    let mut decoder = Decoder::new(shared.kind);
    for (object, bytes) in group.iter().zip(contents) {
        let origin = object.path.as_ref();
        let origin = if shared.lake.files.is_some() { format!("/{origin}") } else { origin.to_string() };
        match unpack(&object.path, bytes) {
            Ok(records) if object.is_one_record => decoder.record(&origin, 1, &records)?,
            Ok(records) => decoder.object(&origin, &records)?,
            Err(error) => decoder.refuse(&origin, format!("broken gzip: {error}")),
        }
    }
    let mut quality = quality::columns(shared.kind);
    let mut batches = Vec::new();
    for raw in decoder.finish()? {
        let clean = shared.cleaner.clean(&raw)?;
        quality::count(shared.kind, &mut quality, &raw, &clean)?;
        let keys = shared.keys.keys(&clean)?;
        batches.push((clean, keys));
    }
    Ok(Cleaned { records: decoder.records, batches, quality, rejects: decoder.rejects })
}

/// Counts a group and tells new rows, which it returns, from repeated ones and from those
/// that may be known.
fn take(shared: &Shared, state: &mut State, cleaned: Cleaned) -> Result<Vec<RecordBatch>> {
    state.ingested.records += cleaned.records;
    state.ingested.rejected += cleaned.rejects.len() as u64;
    for (count, more) in state.ingested.quality.iter_mut().zip(&cleaned.quality) {
        count.add(more);
    }
    let room = crate::lake::KEPT_REJECTS.saturating_sub(state.ingested.rejects.len());
    state.ingested.rejects.extend(cleaned.rejects.into_iter().take(room));
    let mut new = Vec::new();
    for (batch, keys) in cleaned.batches {
        let before = batch.num_rows();
        let mask = state.distinct.take(&keys);
        let batch = kept(batch, &mask)?;
        state.ingested.duplicates += (before - batch.num_rows()) as u64;
        if shared.known_numbers.is_empty() {
            new.push(batch);
            continue;
        }
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let is_known: BooleanArray =
            numbers.iter().map(|number| Some(number.is_none_or(|number| shared.known_numbers.contains(&number)))).collect();
        let suspect = kept(batch.clone(), &is_known)?;
        if suspect.num_rows() > 0 {
            state.suspects.push(suspect);
        }
        new.push(kept(batch, &not(&is_known).or_fail(|| "cannot tell rows apart")?)?);
    }
    new.retain(|batch| batch.num_rows() > 0);
    state.ingested.new_rows += rows(&new);
    Ok(new)
}

/// The row numbers of a table.
async fn numbers(location: &DeltaLocation, table: &DeltaTable) -> Result<HashSet<i32>> {
    let engine = Engine::new();
    engine.register_provider("existing", location.provider_of(table).await?)?;
    let (_, batches) = engine.query("the row numbers there are", "SELECT ind FROM existing").await?;
    Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().iter().flatten()).collect())
}

/// Writes those of the suspects that the table does not hold; how many there are of both.
async fn write_unknown(
    suspects: Vec<RecordBatch>,
    kind: Kind,
    location: &DeltaLocation,
    table: &DeltaTable,
    writer: &mut TableWriter,
) -> Result<(u64, u64)> {
    let suspected = rows(&suspects);
    let new = not_in_table(&kind.clean_schema(), suspects, location.provider_of(table).await?).await?;
    let new_rows = rows(&new);
    for batch in new {
        writer.write(batch).await?;
    }
    Ok((suspected, new_rows))
}

fn rows(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}
