//! Ingest of one record kind: reads new objects of the lake, deduplicates their rows, and writes
//! them to the clean table or to memory.
//!
//! Workers decode, clean and write chunks of the lake: one for each core, if the memory budget
//! allows. One commit makes all their files visible and stores the checkpoint of the lake.

use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use tokio::sync::mpsc;

use crate::base::config::schema::OnUnreadable;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::base::output::progress::Progress;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::Engine;
use crate::data::lake::checkpoint::{LakeCheckpoint, LakeListing, ReadObjects, SkippedObjects};
use crate::data::lake::decode::{MAX_LISTED_REJECTS, Reject};
use crate::data::lake::objects::{Layout, Objects, list_objects};
use crate::data::lake::scan::{OnUnreadableObject, ScanChunks, interrupted, read_objects};
use crate::data::storage::Lake;
use crate::data::tables::clean_table::{
    CleanTable, CommitMode, RowGroupSize, RowWriter, TableCheckpoint, TableTransaction,
};
use crate::data::tables::rejects::{KindRejects, Rejects};
use crate::data::transform::clean::Cleaner;
use crate::data::transform::deduplicator::{Deduplicator, RowSink};
use crate::data::transform::quality;
use crate::data::transform::quality::ColumnQuality;
use crate::stages::batch::chunk::{ChunkTransformer, TransformedChunk};
use crate::stages::batch::row_cache::{CachedRows, RowCache};

/// Name of the table's checkpoint of the lake: the objects whose records the table contains.
const CHECKPOINT_NAME: &str = "pinpipe.batch.taken";
/// Maximum bytes of the rejected records in a report; one record can have 64 KiB.
const MAX_REPORTED_REJECT_BYTES: usize = 4 * 1024 * 1024;

/// The tables that an ingest writes.
pub struct Tables<'a> {
    pub clean: &'a dyn CleanTable,
    pub rejects: &'a Rejects,
    /// Reads the whole lake again and overwrites the table.
    pub full: bool,
}

/// Parameters of [`ingest`].
pub struct Ingest<'a> {
    pub lake: &'a Lake,
    pub layout: &'a Layout,
    pub kind: Kind,
    /// `None` keeps the rows in memory only.
    pub tables: Option<Tables<'a>>,
    pub on_unreadable: OnUnreadable,
    pub budget: &'a MemoryBudget,
    pub progress: &'a Progress,
}

/// Result of [`ingest`].
pub struct Ingested {
    /// Objects of the record kind in the lake.
    pub objects_in_lake: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Objects that were not read because of their names, or because they are unreadable.
    pub skipped: SkippedObjects,
    /// The table was written by another version of pinpipe, so that all objects were read again.
    pub has_former_checkpoint: bool,
    pub records: u64,
    pub tombstones: u64,
    pub rejected: u64,
    pub duplicates: u64,
    /// Rows that the table did not contain before.
    pub new_rows: u64,
    pub quality: Vec<ColumnQuality>,
    /// The first rejected records.
    pub rejects: Vec<Reject>,
    /// All rows of the record kind; `None` if only new objects were read or the rows exceeded the
    /// memory budget of the cache.
    pub cached_rows: Option<CachedRows>,
    /// Version of the table after the commit.
    pub version: u64,
}

impl Ingested {
    fn empty(kind: Kind, version: u64) -> Self {
        Self {
            objects_in_lake: 0,
            objects: 0,
            skipped: SkippedObjects::default(),
            has_former_checkpoint: false,
            records: 0,
            tombstones: 0,
            rejected: 0,
            duplicates: 0,
            new_rows: 0,
            quality: quality::columns(kind),
            rejects: Vec::new(),
            cached_rows: None,
            version,
        }
    }
}

/// The transaction on the clean table and the rejects of one record kind.
struct OutputTable {
    transaction: Box<dyn TableTransaction>,
    /// `None` if the table is empty or overwritten.
    existing_numbers: Option<RowNumberRange>,
    rejects: KindRejects,
    row_group_size: RowGroupSize,
}

/// Range of the row numbers in a table. New rows usually have higher numbers; the numbers in the
/// table are read only if those of new rows overlap the range.
struct RowNumberRange {
    lowest: i64,
    highest: i64,
    /// Set once all row numbers of the table have been read.
    is_loaded: tokio::sync::OnceCell<()>,
}

impl RowNumberRange {
    fn new((lowest, highest): (i64, i64)) -> Self {
        Self { lowest, highest, is_loaded: tokio::sync::OnceCell::new() }
    }

    fn may_contain(&self, batch: &RecordBatch) -> bool {
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        numbers.iter().any(|number| {
            number.is_none_or(|number| (self.lowest..=self.highest).contains(&number.into()))
        })
    }
}

/// State shared by the workers.
struct Shared {
    transformer: ChunkTransformer,
    listing: LakeListing,
    chunks: tokio::sync::Mutex<ScanChunks>,
    output: Option<OutputTable>,
    state: Mutex<IngestState>,
}

/// Deduplication and counts of all workers.
struct IngestState {
    deduplicator: Deduplicator,
    row_cache: Option<RowCache>,
    ingested: Ingested,
    reported_reject_bytes: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, IngestState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn writer(&self) -> Result<Option<Box<dyn RowWriter>>> {
        match &self.output {
            Some(output) => output.transaction.writer(output.row_group_size).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Ingests the new objects of the lake, or all of them. Fills the row cache if all are read.
///
/// # Errors
/// The lake is empty or cannot be read; the table cannot be written, or another writer changed it
/// during the run (a retryable error). Invalid records are rejected instead.
pub async fn ingest(request: &Ingest<'_>, row_cache: RowCache) -> Result<Ingested> {
    let kind = request.kind;
    let Some(Tables { clean, rejects, full }) = &request.tables else {
        let listing = LakeListing::after(ReadObjects::default());
        let objects = listing.fresh(request.lake, request.layout, kind);
        let (ingested, _) = read_all(request, listing, objects, None, Some(row_cache)).await?;
        return Ok(ingested);
    };
    let transaction = clean.begin().await?;
    let checkpoint = transaction
        .checkpoint(CHECKPOINT_NAME)
        .await?
        .and_then(|text| LakeCheckpoint::parse(&text))
        .filter(|checkpoint| checkpoint.lake == request.lake.identity());
    // Without a checkpoint of this lake the table cannot be extended, only overwritten.
    let overwrites = *full || checkpoint.is_none();
    // Rows of objects that are no longer in the lake are kept: the table is extended, although all
    // objects are read again.
    let has_former_checkpoint =
        !overwrites && checkpoint.as_ref().is_some_and(|it| it.objects.is_none());
    let previous = checkpoint.filter(|_| !full).and_then(|checkpoint| checkpoint.objects);
    let listing = LakeListing::after(previous.unwrap_or_default());
    let mut objects = Box::pin(listing.fresh(request.lake, request.layout, kind).peekable());
    let has_no_new_objects = objects.as_mut().peek().await.is_none();
    if has_no_new_objects && overwrites && is_empty(request.lake, request.layout).await? {
        // A wrong folder or an emptied bucket must not empty the tables.
        return Err(empty_lake(request.lake, request.layout));
    }
    if has_no_new_objects && !overwrites {
        let mut ingested = Ingested::empty(kind, transaction.version());
        ingested.objects_in_lake = listing.objects();
        ingested.skipped = listing.skipped();
        return Ok(ingested);
    }
    tracing::debug!(table = clean.name(), "opened the table");
    let output = OutputTable {
        existing_numbers: if overwrites {
            None
        } else {
            transaction.row_number_bounds().await?.map(RowNumberRange::new)
        },
        transaction,
        rejects: rejects.begin(kind, overwrites, request.budget).await?,
        row_group_size: request.budget.row_group_size(),
    };
    let row_cache = Some(row_cache).filter(|_| overwrites);
    let (mut ingested, output) =
        read_all(request, listing.clone(), objects.boxed(), Some(output), row_cache).await?;
    let output = output.ok_or_else(|| Error::failed(interrupted()))?;
    tracing::debug!(table = clean.name(), "read the objects");
    // Rejects are committed before the rows: a retry drops a reject that is already stored, but a
    // lost reject could not be recovered once the rows and the checkpoint are committed.
    output.rejects.commit().await?;
    tracing::debug!(table = clean.name(), "committed the rejects");
    let text = LakeCheckpoint::text(request.lake.identity(), &listing.read_objects())?;
    let mode = if overwrites { CommitMode::Overwrite } else { CommitMode::Append };
    let version = output
        .transaction
        .commit(mode, TableCheckpoint::Text { name: CHECKPOINT_NAME, text })
        .await?;
    tracing::info!(
        table = clean.name(),
        version,
        objects = ingested.objects,
        rows = ingested.new_rows,
        "committed the rows"
    );
    ingested.version = version;
    ingested.has_former_checkpoint = has_former_checkpoint;
    Ok(ingested)
}

/// Returns whether the lake has no objects of any record kind.
async fn is_empty(lake: &Lake, layout: &Layout) -> Result<bool> {
    for kind in Kind::ALL {
        if list_objects(lake, layout, kind).try_next().await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Error for a lake without records of the configured id.
pub fn empty_lake(lake: &Lake, layout: &Layout) -> Error {
    let folder = |kind: Kind| format!("`{}/{}.{}`", layout.topics_dir, layout.id, kind.name());
    Error::failed(format!(
        "the lake `{}` holds no records of `{}`: searched {}",
        lake.url,
        layout.id,
        Kind::ALL.map(folder).join(", ")
    ))
    .hint("post records with `pinpipe emulate`, or select another id with `--user-id`")
}

/// Reads the objects with several workers. Returns the result, and the output table, whose
/// transaction is still to be committed.
async fn read_all(
    request: &Ingest<'_>,
    listing: LakeListing,
    objects: Objects,
    output: Option<OutputTable>,
    row_cache: Option<RowCache>,
) -> Result<(Ingested, Option<OutputTable>)> {
    let deduplicator = Deduplicator::new(request.kind.clean_schema(), request.budget.clone());
    let on_unreadable = match request.on_unreadable {
        OnUnreadable::Fail => OnUnreadableObject::Fail,
        OnUnreadable::Skip => OnUnreadableObject::Skip(listing.clone()),
    };
    let shared = Arc::new(Shared {
        transformer: ChunkTransformer {
            kind: request.kind,
            is_folder: request.lake.files.is_some(),
            cleaner: Cleaner::new(request.kind).await?,
            keys: deduplicator.key_maker(),
            max_text_bytes: request.budget.chunk_size().max_whole_bytes,
        },
        listing,
        chunks: tokio::sync::Mutex::new(read_objects(
            request.lake,
            objects,
            request.budget.chunk_size(),
            &on_unreadable,
        )),
        output,
        state: Mutex::new(IngestState {
            deduplicator,
            row_cache,
            ingested: Ingested::empty(request.kind, 0),
            reported_reject_bytes: 0,
        }),
    });
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..request.budget.workers() {
        workers.spawn(ingest_chunks(shared.clone(), request.progress.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.context(interrupted)??;
    }
    let shared = Arc::into_inner(shared).ok_or_else(|| Error::failed(interrupted()))?;
    let mut writer = shared.writer().await?;
    let IngestState { mut deduplicator, mut row_cache, mut ingested, .. } =
        shared.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut cache =
        |batch: &RecordBatch| row_cache.as_mut().map_or(Ok(()), |row_cache| row_cache.add(batch));
    let mut sink = RowSink { writer: writer.as_deref_mut(), cache: &mut cache };
    deduplicator
        .resolve_deferred(
            shared.output.as_ref().map(|output| output.transaction.as_ref()),
            &mut sink,
        )
        .await?;
    if let Some(writer) = writer {
        writer.finish().await?;
    }
    ingested.objects_in_lake = shared.listing.objects();
    ingested.skipped = shared.listing.skipped();
    ingested.objects = shared.listing.read_count();
    ingested.new_rows = deduplicator.new_rows;
    ingested.duplicates = deduplicator.duplicates;
    ingested.cached_rows = row_cache.and_then(RowCache::rows);
    Ok((ingested, shared.output))
}

/// Transforms and writes chunks until none are left.
async fn ingest_chunks(shared: Arc<Shared>, progress: Progress) -> Result<()> {
    let mut writer = shared.writer().await?;
    loop {
        let next = shared.chunks.lock().await.try_next().await?;
        let Some(chunk) = next else { break };
        let task_state = shared.clone();
        let (sender, mut receiver) = mpsc::channel(1);
        let transformation =
            tokio::task::spawn_blocking(move || task_state.transformer.clean(chunk, &sender));
        while let Some(transformed) = receiver.recv().await {
            let objects = transformed.objects;
            for batch in dedup_chunk(&shared, transformed).await? {
                if let Some(writer) = &mut writer {
                    writer.write(batch).await?;
                }
            }
            progress.add(objects);
        }
        transformation.await.context(interrupted)??;
    }
    match writer {
        Some(writer) => writer.finish().await,
        None => Ok(()),
    }
}

/// Counts the records of a chunk, stores its rejects and returns its new rows.
async fn dedup_chunk(shared: &Shared, transformed: TransformedChunk) -> Result<Vec<RecordBatch>> {
    if let Some(output) = &shared.output {
        output.rejects.add(&transformed.rejects).await?;
        if let Some(existing_numbers) = &output.existing_numbers
            && transformed.batches.iter().any(|(batch, _)| existing_numbers.may_contain(batch))
        {
            let load = async {
                let numbers = read_numbers(output.transaction.as_ref()).await?;
                shared.state().deduplicator.set_existing_numbers(numbers);
                Ok::<_, Error>(())
            };
            existing_numbers.is_loaded.get_or_try_init(|| load).await?;
        }
    }
    let state = &mut *shared.state();
    if state.ingested.records == 0 && transformed.bytes > 0 {
        // Estimates the rows of all objects listed so far from the first chunk.
        let (_, bytes) = shared.listing.fresh_objects();
        state.deduplicator.set_expected_rows(transformed.records * (bytes / transformed.bytes + 1));
    }
    state.ingested.records += transformed.records;
    state.ingested.tombstones += transformed.tombstones;
    state.ingested.rejected += transformed.rejects.len() as u64;
    for (total, counts) in state.ingested.quality.iter_mut().zip(&transformed.quality) {
        total.add(counts);
    }
    for reject in transformed.rejects {
        if state.ingested.rejects.len() == MAX_LISTED_REJECTS
            || state.reported_reject_bytes + reject.raw.len() > MAX_REPORTED_REJECT_BYTES
        {
            break;
        }
        state.reported_reject_bytes += reject.raw.len();
        state.ingested.rejects.push(reject);
    }
    let mut new_batches = Vec::new();
    for (batch, keys) in transformed.batches {
        let new_rows = state.deduplicator.select_new_rows(batch, &keys)?;
        if new_rows.num_rows() > 0 {
            if let Some(row_cache) = &mut state.row_cache {
                row_cache.add(&new_rows)?;
            }
            new_batches.push(new_rows);
        }
    }
    Ok(new_batches)
}

/// Reads all row numbers of a table.
async fn read_numbers(transaction: &dyn TableTransaction) -> Result<RoaringBitmap> {
    let engine = Engine::new();
    engine.register_provider("existing", transaction.provider().await?)?;
    let mut batches =
        engine.stream("the row numbers of the table", "SELECT ind FROM existing").await?;
    let mut row_numbers = RoaringBitmap::new();
    while let Some(batch) =
        batches.try_next().await.context(|| "cannot read the row numbers of the table")?
    {
        row_numbers.extend(
            batch.column(0).as_primitive::<Int32Type>().iter().flatten().map(i32::cast_unsigned),
        );
    }
    Ok(row_numbers)
}
