//! One kind of record from the lake: what is new, each row once, into its clean table or
//! into memory.
//!
//! As many workers as cores decode, clean and write portions of the lake; all their
//! files become visible in one commit, which also says which objects have been taken.

use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use deltalake::DeltaTable;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::base::output::progress::Progress;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::Engine;
use crate::data::lake::checkpoint::{HighWaterMarks, LakeListing};
use crate::data::lake::decode::{KEPT_REJECTS, Reject};
use crate::data::lake::objects::{Layout, Objects, list_objects};
use crate::data::lake::scan::{ScanChunks, interrupted, read_objects};
use crate::data::storage::Lake;
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::rejects::{KindRejects, Rejects};
use crate::data::tables::writer::{CommitRequest, OverwriteScope, RowGroupSize, TableWriter};
use crate::data::transform::clean::Cleaner;
use crate::data::transform::deduplicator::{Deduplicator, RowSink};
use crate::data::transform::quality;
use crate::data::transform::quality::ColumnQuality;
use crate::stages::batch::chunk::{ChunkTransformer, TransformedChunk};
use crate::stages::batch::row_cache::{CachedRows, RowCache};

/// Property of a table that says which objects it holds.
const TAKEN: &str = "pinpipe.batch.taken";
/// Bytes of the rejects that a report names: one may have 64 KiB.
const KEPT_REJECT_BYTES: usize = 4 * 1024 * 1024;

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
    pub layout: &'a Layout,
    pub kind: Kind,
    /// `None`: into memory only.
    pub tables: Option<Tables<'a>>,
    pub budget: &'a MemoryBudget,
    pub progress: &'a Progress,
}

/// What came of one kind.
pub struct Ingested {
    /// Objects of the kind that the lake holds.
    pub objects_in_lake: u64,
    /// Those that were read.
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
    pub kept: Option<CachedRows>,
    /// The table's version afterwards.
    pub version: u64,
}

impl Ingested {
    fn nothing(kind: Kind, version: u64) -> Self {
        Self {
            objects_in_lake: 0,
            objects: 0,
            records: 0,
            rejected: 0,
            duplicates: 0,
            new_rows: 0,
            quality: quality::columns(kind),
            rejects: Vec::new(),
            kept: None,
            version,
        }
    }
}

/// What the property says.
#[derive(Serialize, Deserialize)]
struct LakeCheckpoint {
    lake: String,
    objects: HighWaterMarks,
}

/// The table that is written.
struct OutputTable {
    location: DeltaLocation,
    table: DeltaTable,
    /// `None`: it has no rows, or none that stay.
    numbers: Option<TableNumbers>,
    rejects: KindRejects,
    row_group_size: RowGroupSize,
}

/// The row numbers of a table: mostly it is enough to know that they are lower than the new ones.
struct TableNumbers {
    lowest: i64,
    highest: i64,
    /// All of them have been read.
    are_known: tokio::sync::OnceCell<()>,
}

impl TableNumbers {
    fn within((lowest, highest): (i64, i64)) -> Self {
        Self {
            lowest,
            highest,
            are_known: tokio::sync::OnceCell::new(),
        }
    }

    fn may_have(&self, batch: &RecordBatch) -> bool {
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        numbers.iter().any(|number| {
            number.is_none_or(|number| (self.lowest..=self.highest).contains(&number.into()))
        })
    }
}

/// What the workers share.
struct Shared {
    cleaner: ChunkTransformer,
    listing: LakeListing,
    chunks: tokio::sync::Mutex<ScanChunks>,
    open: Option<OutputTable>,
    state: Mutex<IngestState>,
}

/// What they add up.
struct IngestState {
    fresh: Deduplicator,
    row_cache: Option<RowCache>,
    ingested: Ingested,
    kept_reject_bytes: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, IngestState> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn writer(&self) -> Result<Option<TableWriter>> {
        self.open
            .as_ref()
            .map(|open| TableWriter::new(&open.location, &open.table, open.row_group_size))
            .transpose()
    }
}

/// Takes what is new in the lake, or all of it. Rows are kept for the questions where all are read.
///
/// # Errors
/// The lake cannot be read; the table cannot be written, or was changed by another writer
/// meanwhile (a transient error). Records that do not fit are set aside instead.
pub async fn ingest(what: &Ingest<'_>, row_cache: RowCache) -> Result<Ingested> {
    let kind = what.kind;
    let Some(Tables {
        location,
        rejects,
        full,
    }) = &what.tables
    else {
        let listing = LakeListing::after(HighWaterMarks::default());
        let objects = listing.fresh(what.lake, what.layout, kind);
        let (ingested, _, _) = read_all(what, listing, objects, None, Some(row_cache)).await?;
        return Ok(ingested);
    };
    let table = location.create_if_missing(&kind.clean_schema()).await?;
    // A property of another form is another version's: all is read anew.
    let taken: Option<LakeCheckpoint> =
        DeltaLocation::property(&table, TAKEN).and_then(|text| serde_json::from_str(&text).ok());
    let taken = taken
        .filter(|taken| taken.lake == what.lake.identity())
        .map(|taken| taken.objects);
    // A table that was written without noting what it took, or from another lake, is no start to go on from.
    let replaces = *full || taken.is_none();
    let listing = LakeListing::after(taken.filter(|_| !full).unwrap_or_default());
    let mut objects = Box::pin(listing.fresh(what.lake, what.layout, kind).peekable());
    let is_nothing_new = objects.as_mut().peek().await.is_none();
    if is_nothing_new && replaces && holds_nothing(what.lake, what.layout).await? {
        // A wrong folder or an emptied bucket: what the tables hold stays.
        return Err(empty_lake(what.lake, what.layout));
    }
    if is_nothing_new && !replaces {
        let mut ingested = Ingested::nothing(kind, table.version().unwrap_or_default());
        ingested.objects_in_lake = listing.objects();
        return Ok(ingested);
    }
    tracing::debug!(table = location.name, "opened");
    let open = OutputTable {
        location: (*location).clone(),
        numbers: if replaces {
            None
        } else {
            location
                .range(&table, "ind")
                .await?
                .map(TableNumbers::within)
        },
        table,
        rejects: rejects.begin(kind, replaces, what.budget).await?,
        row_group_size: what.budget.row_group_size(),
    };
    let row_cache = Some(row_cache).filter(|_| replaces);
    let (mut ingested, adds, open) = read_all(
        what,
        listing.clone(),
        objects.boxed(),
        Some(open),
        row_cache,
    )
    .await?;
    let open = open.ok_or_else(|| Error::failed(interrupted()))?;
    tracing::debug!(table = location.name, "read");
    // Before the rows: what is set aside twice is told apart, what is lost is not found again.
    open.rejects.commit().await?;
    tracing::debug!(table = location.name, "rejects are written");
    let taken = LakeCheckpoint {
        lake: what.lake.identity(),
        objects: listing.taken(),
    };
    let property =
        serde_json::to_string(&taken).context(|| "cannot note which objects were taken")?;
    let replaces = if replaces {
        OverwriteScope::Everything
    } else {
        OverwriteScope::Nothing
    };
    let version = location
        .commit(
            &open.table,
            CommitRequest {
                adds,
                replaces,
                property: Some((TAKEN, property)),
            },
        )
        .await?;
    tracing::info!(
        table = location.name,
        version,
        objects = ingested.objects,
        rows = ingested.new_rows,
        "wrote the table"
    );
    ingested.version = version;
    Ok(ingested)
}

/// Whether a lake has no object of any kind.
async fn holds_nothing(lake: &Lake, layout: &Layout) -> Result<bool> {
    for kind in Kind::ALL {
        if list_objects(lake, layout, kind).try_next().await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The error of a lake that has none.
pub fn empty_lake(lake: &Lake, layout: &Layout) -> Error {
    Error::failed(format!("the lake `{}` holds no records of `{}`", lake.url, layout.id)).hint(format!(
        "it was searched for {}/{}.pin and so on: `pinpipe emulate` posts records, `--user-id` names another id",
        layout.topics_dir, layout.id
    ))
}

/// Lets the workers at the objects; what came of them, and the files they wrote.
async fn read_all(
    what: &Ingest<'_>,
    listing: LakeListing,
    objects: Objects,
    open: Option<OutputTable>,
    row_cache: Option<RowCache>,
) -> Result<(Ingested, Vec<Add>, Option<OutputTable>)> {
    let fresh = Deduplicator::new(what.kind.clean_schema(), what.budget.clone());
    let shared = Arc::new(Shared {
        cleaner: ChunkTransformer {
            kind: what.kind,
            is_folder: what.lake.files.is_some(),
            cleaner: Cleaner::new(what.kind).await?,
            keys: fresh.key_maker(),
            max_text_bytes: what.budget.chunk_size().max_whole_bytes,
        },
        listing,
        chunks: tokio::sync::Mutex::new(read_objects(what.lake, objects, what.budget.chunk_size())),
        open,
        state: Mutex::new(IngestState {
            fresh,
            row_cache,
            ingested: Ingested::nothing(what.kind, 0),
            kept_reject_bytes: 0,
        }),
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..what.budget.workers() {
        workers.spawn(work(shared.clone(), what.progress.clone()));
    }
    let mut adds = Vec::new();
    while let Some(done) = workers.join_next().await {
        adds.extend(done.context(interrupted)??);
    }
    let shared = Arc::into_inner(shared).ok_or_else(|| Error::failed(interrupted()))?;
    let mut writer = shared.writer()?;
    let IngestState {
        mut fresh,
        mut row_cache,
        mut ingested,
        ..
    } = shared
        .state
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut kept = |batch: &RecordBatch| {
        row_cache
            .as_mut()
            .map_or(Ok(()), |row_cache| row_cache.add(batch))
    };
    let mut give = RowSink {
        writer: writer.as_mut(),
        kept: &mut kept,
    };
    fresh
        .resolve_deferred(
            shared
                .open
                .as_ref()
                .map(|open| (&open.location, &open.table)),
            &mut give,
        )
        .await?;
    if let Some(writer) = writer {
        adds.extend(writer.finish().await?);
    }
    ingested.objects_in_lake = shared.listing.objects();
    ingested.objects = shared.listing.fresh_objects().0;
    ingested.new_rows = fresh.new_rows;
    ingested.duplicates = fresh.duplicates;
    ingested.kept = row_cache.and_then(RowCache::rows);
    Ok((ingested, adds, shared.open))
}

/// Takes portion after portion; the files it wrote.
async fn work(shared: Arc<Shared>, progress: Progress) -> Result<Vec<Add>> {
    let mut writer = shared.writer()?;
    loop {
        let next = shared.chunks.lock().await.try_next().await?;
        let Some(chunk) = next else { break };
        let own = shared.clone();
        let (give, mut given) = mpsc::channel(1);
        let cleaning = tokio::task::spawn_blocking(move || own.cleaner.clean(chunk, &give));
        while let Some(cleaned) = given.recv().await {
            let objects = cleaned.objects;
            for batch in take(&shared, cleaned).await? {
                if let Some(writer) = &mut writer {
                    writer.write(batch).await?;
                }
            }
            progress.add(objects);
        }
        cleaning.await.context(interrupted)??;
    }
    match writer {
        Some(writer) => writer.finish().await,
        None => Ok(Vec::new()),
    }
}

/// Notes what came of a portion and tells new rows, which it returns, from repeated ones.
async fn take(shared: &Shared, cleaned: TransformedChunk) -> Result<Vec<RecordBatch>> {
    if let Some(open) = &shared.open {
        open.rejects.add(&cleaned.rejects).await?;
        if let Some(numbers) = &open.numbers
            && cleaned
                .batches
                .iter()
                .any(|(batch, _)| numbers.may_have(batch))
        {
            let read = async {
                let numbers = read_numbers(&open.location, &open.table).await?;
                shared.state().fresh.know(numbers);
                Ok::<_, Error>(())
            };
            numbers.are_known.get_or_try_init(|| read).await?;
        }
    }
    let state = &mut *shared.state();
    if state.ingested.records == 0 && cleaned.bytes > 0 {
        // The first portion tells how many rows there will be in what has been listed.
        let (_, bytes) = shared.listing.fresh_objects();
        state
            .fresh
            .expect(cleaned.records * (bytes / cleaned.bytes + 1));
    }
    state.ingested.records += cleaned.records;
    state.ingested.rejected += cleaned.rejects.len() as u64;
    for (count, more) in state.ingested.quality.iter_mut().zip(&cleaned.quality) {
        count.add(more);
    }
    for reject in cleaned.rejects {
        if state.ingested.rejects.len() == KEPT_REJECTS
            || state.kept_reject_bytes + reject.raw.len() > KEPT_REJECT_BYTES
        {
            break;
        }
        state.kept_reject_bytes += reject.raw.len();
        state.ingested.rejects.push(reject);
    }
    let mut new = Vec::new();
    for (batch, keys) in cleaned.batches {
        let batch = state.fresh.take(batch, &keys)?;
        if batch.num_rows() > 0 {
            if let Some(row_cache) = &mut state.row_cache {
                row_cache.add(&batch)?;
            }
            new.push(batch);
        }
    }
    Ok(new)
}

/// The row numbers of a table.
async fn read_numbers(location: &DeltaLocation, table: &DeltaTable) -> Result<RoaringBitmap> {
    let engine = Engine::new();
    engine.register_provider("existing", location.provider_of(table).await?)?;
    let mut batches = engine
        .stream("the row numbers there are", "SELECT ind FROM existing")
        .await?;
    let mut found = RoaringBitmap::new();
    while let Some(batch) = batches
        .try_next()
        .await
        .context(|| "cannot read the row numbers there are")?
    {
        found.extend(
            batch
                .column(0)
                .as_primitive::<Int32Type>()
                .iter()
                .flatten()
                .map(i32::cast_unsigned),
        );
    }
    Ok(found)
}
