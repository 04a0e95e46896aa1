//! One stream into one table: read, clean, deduplicate, commit.

use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::data::lake::decode::{Decoder, MAX_LISTED_REJECTS, Reject};
use crate::data::tables::clean_table::{
    CleanTable, CommitMode, RowGroupSize, TableCheckpoint, TableNamespace,
};
use crate::data::tables::open_clean_table;
use crate::data::transform::clean::Cleaner;
use crate::data::transform::keys::{KeySet, anti_join_table, filter_rows};
use crate::stages::stream::checkpoint::{Checkpoint, Checkpoints};
use crate::stages::stream::source::OpenSource;
use crate::stages::stream::source::record_source::RecordSource;

/// Maximum size of the buffer of the table writer, which holds a copy of rows of the micro-batch.
const ROW_GROUP_SIZE: RowGroupSize = RowGroupSize { rows: 128 * 1024, bytes: 128 * 1024 * 1024 };

/// Counts of one table.
#[derive(Debug, Clone, Serialize)]
pub struct TableCounts {
    pub kind: Kind,
    pub source: String,
    pub records: u64,
    /// Records without a value, or with the value `null`. Not counted in `records`.
    pub tombstones: u64,
    pub rejects: u64,
    pub duplicates: u64,
    pub rows: u64,
    pub commits: u64,
    pub table: String,
}

/// A table that is filled from a stream.
pub struct StreamTable {
    kind: Kind,
    source: Box<dyn RecordSource>,
    table: Box<dyn CleanTable>,
    checkpoints: Checkpoints,
    last: Checkpoint,
    /// Name of this writer in the commits of the table.
    writer: String,
    cleaner: Cleaner,
    pub counts: TableCounts,
    pub rejects: Vec<Reject>,
}

impl StreamTable {
    /// Opens the table and loads the checkpoint of its last commit.
    ///
    /// # Errors
    /// The table or its checkpoint cannot be read; another process writes the table.
    pub async fn open(config: &Config, kind: Kind, source: OpenSource) -> Result<Self> {
        let OpenSource { service, name: stream, records: source } = source;
        let table_name = kind.clean_table(&config.id);
        let table = open_clean_table(config, TableNamespace::Stream, kind).await?;
        let checkpoints = Checkpoints::open(&config.data_dir, service, &table_name)?;
        let writer = format!("pinpipe-stream-{service}-{table_name}");
        // Positions are valid only for this stream and this table.
        let identity = format!("{} into {}", source.identity(), table.name());
        let last = checkpoints.resume(table.last_commit(&writer).await?, &identity)?;
        let counts = TableCounts {
            kind,
            source: stream,
            records: 0,
            tombstones: 0,
            rejects: 0,
            duplicates: 0,
            rows: 0,
            commits: 0,
            table: table.name().to_string(),
        };
        let cleaner = Cleaner::new(kind).await?;
        Ok(Self {
            kind,
            source,
            table,
            checkpoints,
            last,
            writer,
            cleaner,
            counts,
            rejects: Vec::new(),
        })
    }

    /// Reads one micro-batch and commits its new rows. Returns `true` if no more records are
    /// available.
    ///
    /// # Errors
    /// The source cannot be read; the checkpoint or the table cannot be written.
    pub async fn run_micro_batch(&mut self, max_records: usize) -> Result<bool> {
        let batch = self.source.read(&self.last.positions, max_records).await?;
        if batch.records.is_empty() {
            return Ok(batch.at_end);
        }
        let mut decoder = Decoder::new(self.kind);
        for record in &batch.records {
            decoder.record(&record.origin, 0, &record.data)?;
        }
        let mut distinct = KeySet::new();
        let keys = distinct.key_maker();
        let mut cleaned = Vec::new();
        for raw in decoder.finish()? {
            let clean = self.cleaner.clean(&raw)?;
            let row_keys = keys.keys(&clean)?;
            cleaned.push(filter_rows(clean, &distinct.insert_all(&row_keys).new)?);
        }
        let schema = self.kind.clean_schema();
        let transaction = self.table.begin().await?;
        let new_batches =
            anti_join_table(&schema, cleaned, transaction.provider().await?, &keys).await?;
        let rows: u64 = new_batches.iter().map(|rows| rows.num_rows() as u64).sum();
        let next = Checkpoint {
            number: self.last.number + 1,
            identity: self.last.identity.clone(),
            positions: batch.positions,
        };
        self.checkpoints.write(&next)?;
        let mut writer = transaction.writer(ROW_GROUP_SIZE).await?;
        for batch in new_batches {
            writer.write(batch).await?;
        }
        writer.finish().await?;
        let checkpoint =
            TableCheckpoint::Number { writer: self.writer.clone(), number: next.number };
        transaction.commit(CommitMode::Append, checkpoint).await?;
        tracing::info!(
            table = self.table.name(),
            commit = next.number,
            records = decoder.records,
            rows,
            "committed a micro-batch"
        );
        self.last = next;
        let rejected = decoder.rejects.len() as u64;
        self.counts.records += decoder.records;
        self.counts.tombstones += decoder.tombstones;
        self.counts.rejects += rejected;
        self.counts.duplicates += decoder.records - rejected - rows;
        self.counts.rows += rows;
        self.counts.commits += 1;
        let room = MAX_LISTED_REJECTS.saturating_sub(self.rejects.len());
        self.rejects.extend(decoder.rejects.into_iter().take(room));
        Ok(batch.at_end)
    }
}
