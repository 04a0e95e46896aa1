//! One kind of record from the lake: what is new, each row once, into its clean table or
//! into memory.
//!
//! As many workers as cores read, decode, clean and write groups of objects; all their
//! files become visible in one commit, which also says which objects have been taken.

use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::kernel::Add;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::clean::Cleaner;
use super::distinct::{KeyMaker, RowKeys};
use super::engine::Engine;
use super::fresh::{FreshRows, Giver};
use super::keep::{Keep, KeptRows};
use super::limits::Limits;
use super::quality::{self, ColumnQuality};
use super::rejects::{KindRejects, Rejects};
use crate::error::{Error, OrFail, Result};
use crate::lake::{Change, Decoder, DeltaLocation, Lake, RawObject, Reject, Replaces, TableWriter, Taken, read_objects, unpack};
use crate::output::Progress;
use crate::record::Kind;

/// Property of a table that says which objects it holds.
const TAKEN: &str = "pinpipe.batch.taken";
/// Objects in one group at most.
const GROUP_OBJECTS: usize = 2_048;

/// Where the rows of a kind go besides memory.
pub struct Tables<'a> {
    pub location: &'a DeltaLocation,
    pub rejects: &'a Rejects,
    /// Everything is read again, and the table written anew.
    pub full: bool,
}

/// What is taken, and how.
pub struct Ingest<'a> {
    pub lake: &'a Lake,
    pub kind: Kind,
    /// `None`: into memory only.
    pub tables: Option<Tables<'a>>,
    pub limits: &'a Limits,
    pub progress: &'a Progress,
}

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
    /// All rows of the kind, where all were read and there was room for them.
    pub kept: Option<KeptRows>,
    /// The table's version afterwards.
    pub version: u64,
}

/// What the property says.
#[derive(Serialize, Deserialize)]
struct TakenFrom {
    lake: String,
    objects: Taken,
}

/// Groups of objects with what is in them.
type Contents = BoxStream<'static, Result<(Vec<RawObject>, Vec<Bytes>)>>;

/// The table that is written.
struct Open {
    location: DeltaLocation,
    table: DeltaTable,
    rejects: KindRejects,
    row_group_rows: usize,
}

/// What the workers share.
struct Shared {
    kind: Kind,
    lake: Lake,
    cleaner: Cleaner,
    keys: KeyMaker,
    groups: tokio::sync::Mutex<Contents>,
    open: Option<Open>,
    state: Mutex<State>,
}

/// What they add up.
struct State {
    fresh: FreshRows,
    keep: Option<Keep>,
    ingested: Ingested,
    /// Bytes of all objects.
    bytes: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn writer(&self) -> Result<Option<TableWriter>> {
        self.open.as_ref().map(|open| TableWriter::new(&open.location, &open.table, open.row_group_rows)).transpose()
    }
}

/// A group of objects, cleaned.
struct Cleaned {
    bytes: u64,
    records: u64,
    batches: Vec<(RecordBatch, RowKeys)>,
    quality: Vec<ColumnQuality>,
    rejects: Vec<Reject>,
}

/// Takes what is new in the lake, or all of it. Rows are kept for the questions where all are read.
///
/// # Errors
/// The lake cannot be read; the table cannot be written, or was changed by another writer
/// meanwhile (a transient error). Records that do not fit are set aside instead.
pub async fn ingest(what: &Ingest<'_>, objects: Vec<RawObject>, keep: Keep) -> Result<Ingested> {
    let kind = what.kind;
    let mut ingested = Ingested {
        objects: 0,
        records: 0,
        rejected: 0,
        duplicates: 0,
        new_rows: 0,
        quality: quality::columns(kind),
        rejects: Vec::new(),
        kept: None,
        version: 0,
    };
    let Some(Tables { location, rejects, full }) = &what.tables else {
        ingested.objects = objects.len() as u64;
        let (ingested, _, _) = read_all(what, objects, None, RoaringBitmap::new(), Some(keep), ingested).await?;
        return Ok(ingested);
    };
    let table = location.ensure(&kind.clean_schema()).await?;
    // A property of another form is another version's: all is read anew.
    let taken: Option<TakenFrom> = DeltaLocation::property(&table, TAKEN).and_then(|text| serde_json::from_str(&text).ok());
    let taken = taken.filter(|taken| taken.lake == what.lake.identity()).map(|taken| taken.objects);
    // A table that was written without noting what it took, or from another lake, is no start to go on from.
    let replaces = *full || taken.is_none();
    let (objects, after) = taken.filter(|_| !full).unwrap_or_default().plan(objects);
    let mut known_numbers = RoaringBitmap::new();
    if !replaces && !objects.is_empty() {
        known_numbers = numbers(location, &table).await?;
    }
    ingested.objects = objects.len() as u64;
    if objects.is_empty() && !replaces {
        ingested.version = table.version().unwrap_or_default();
        return Ok(ingested);
    }
    let open = Open {
        location: (*location).clone(),
        table,
        rejects: rejects.begin(kind, replaces).await?,
        row_group_rows: what.limits.row_group_rows(),
    };
    let keep = Some(keep).filter(|_| replaces);
    let (mut ingested, adds, open) = read_all(what, objects, Some(open), known_numbers, keep, ingested).await?;
    let open = open.ok_or_else(interrupted)?;
    // Before the rows: what is set aside twice is told apart, what is lost is not found again.
    open.rejects.commit().await?;
    let taken = TakenFrom { lake: what.lake.identity(), objects: after };
    let property = serde_json::to_string(&taken).or_fail(|| "cannot note which objects were taken")?;
    let replaces = if replaces { Replaces::Everything } else { Replaces::Nothing };
    let version = location.commit(&open.table, Change { adds, replaces, property: Some((TAKEN, property)) }).await?;
    tracing::info!(table = location.name, version, objects = ingested.objects, rows = ingested.new_rows, "wrote the table");
    ingested.version = version;
    Ok(ingested)
}

fn interrupted() -> Error {
    Error::failed("reading the lake was interrupted")
}

/// Lets the workers at the objects; what came of them, and the files they wrote.
async fn read_all(
    what: &Ingest<'_>,
    objects: Vec<RawObject>,
    open: Option<Open>,
    known_numbers: RoaringBitmap,
    keep: Option<Keep>,
    ingested: Ingested,
) -> Result<(Ingested, Vec<Add>, Option<Open>)> {
    let fresh = FreshRows::new(what.kind.clean_schema(), what.limits.clone(), known_numbers);
    let bytes = objects.iter().map(|object| object.size_bytes).sum();
    let shared = Arc::new(Shared {
        kind: what.kind,
        lake: what.lake.clone(),
        cleaner: Cleaner::new(what.kind).await?,
        keys: fresh.key_maker(),
        groups: tokio::sync::Mutex::new(read_ahead(what.lake, groups(objects, what.limits.group_bytes()))),
        open,
        state: Mutex::new(State { fresh, keep, ingested, bytes }),
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..what.limits.workers() {
        workers.spawn(work(shared.clone(), what.progress.clone()));
    }
    let mut adds = Vec::new();
    while let Some(done) = workers.join_next().await {
        adds.extend(done.or_fail(|| "reading the lake was interrupted")??);
    }
    let shared = Arc::into_inner(shared).ok_or_else(interrupted)?;
    let mut writer = shared.writer()?;
    let State { mut fresh, mut keep, mut ingested, .. } = shared.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut kept = |batch: &RecordBatch| keep.as_mut().map_or(Ok(()), |keep| keep.add(batch));
    let mut give = Giver { writer: writer.as_mut(), kept: &mut kept };
    fresh.settle(shared.open.as_ref().map(|open| (&open.location, &open.table)), &mut give).await?;
    if let Some(writer) = writer {
        adds.extend(writer.finish().await?);
    }
    ingested.new_rows = fresh.new_rows;
    ingested.duplicates = fresh.duplicates;
    ingested.kept = keep.and_then(Keep::rows);
    Ok((ingested, adds, shared.open))
}

fn groups(objects: Vec<RawObject>, group_bytes: u64) -> Vec<Vec<RawObject>> {
    let mut groups: Vec<Vec<RawObject>> = Vec::new();
    let mut bytes = 0;
    for object in objects {
        let size = object.size_bytes;
        match groups.last_mut() {
            Some(group) if bytes + size <= group_bytes && group.len() < GROUP_OBJECTS => group.push(object),
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
async fn work(shared: Arc<Shared>, progress: Progress) -> Result<Vec<Add>> {
    let mut writer = shared.writer()?;
    loop {
        let next = shared.groups.lock().await.try_next().await?;
        let Some((group, contents)) = next else { break };
        let count = group.len() as u64;
        let own = shared.clone();
        let cleaned = tokio::task::spawn_blocking(move || clean(&own, &group, contents));
        let cleaned = cleaned.await.or_fail(|| "reading the lake was interrupted")??;
        if let Some(open) = &shared.open {
            open.rejects.add(&cleaned.rejects).await?;
        }
        let new = take(&mut shared.state(), cleaned)?;
        if let Some(writer) = &mut writer {
            for batch in new {
                writer.write(batch).await?;
            }
        }
        progress.add(count);
    }
    match writer {
        Some(writer) => writer.finish().await,
        None => Ok(Vec::new()),
    }
}

/// Decodes and cleans a group: the work that takes a core.
fn clean(shared: &Shared, group: &[RawObject], contents: Vec<Bytes>) -> Result<Cleaned> {
    let mut decoder = Decoder::new(shared.kind);
    let bytes = group.iter().map(|object| object.size_bytes).sum();
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
    Ok(Cleaned { bytes, records: decoder.records, batches, quality, rejects: decoder.rejects })
}

/// Counts a group and tells new rows, which it returns, from repeated ones.
fn take(state: &mut State, cleaned: Cleaned) -> Result<Vec<RecordBatch>> {
    if state.ingested.records == 0 && cleaned.bytes > 0 {
        // The first objects tell how many rows there will be.
        state.fresh.expect(cleaned.records * (state.bytes / cleaned.bytes + 1));
    }
    state.ingested.records += cleaned.records;
    state.ingested.rejected += cleaned.rejects.len() as u64;
    for (count, more) in state.ingested.quality.iter_mut().zip(&cleaned.quality) {
        count.add(more);
    }
    let room = crate::lake::KEPT_REJECTS.saturating_sub(state.ingested.rejects.len());
    state.ingested.rejects.extend(cleaned.rejects.into_iter().take(room));
    let mut new = Vec::new();
    for (batch, keys) in cleaned.batches {
        let batch = state.fresh.take(batch, &keys)?;
        if batch.num_rows() > 0 {
            if let Some(keep) = &mut state.keep {
                keep.add(&batch)?;
            }
            new.push(batch);
        }
    }
    Ok(new)
}

/// The row numbers of a table.
async fn numbers(location: &DeltaLocation, table: &DeltaTable) -> Result<RoaringBitmap> {
    let engine = Engine::new();
    engine.register_provider("existing", location.provider_of(table).await?)?;
    let mut batches = engine.stream("the row numbers there are", "SELECT ind FROM existing").await?;
    let mut found = RoaringBitmap::new();
    while let Some(batch) = batches.try_next().await.or_fail(|| "cannot read the row numbers there are")? {
        found.extend(batch.column(0).as_primitive::<Int32Type>().iter().flatten().map(i32::cast_unsigned));
    }
    Ok(found)
}
