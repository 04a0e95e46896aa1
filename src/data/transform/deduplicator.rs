//! Deduplication: selects rows that occurred neither earlier in the run nor in the table.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::not;
use arrow::datatypes::{Int32Type, SchemaRef};
use roaring::RoaringBitmap;

use crate::base::error::{ErrorContext, Result};
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::spill::{PartitionedSpill, Spill};
use crate::data::tables::clean_table::{RowWriter, TableTransaction};
use crate::data::transform::keys::{ExistingKeys, KeyMaker, KeySet, RowKeys, filter_rows, numbers};

/// Keys and deferred rows of a run.
pub struct Deduplicator {
    schema: SchemaRef,
    budget: MemoryBudget,
    key_maker: KeyMaker,
    seen_keys: KeySet,
    /// Row numbers in the table before the run. Empty until [`Self::set_existing_numbers`].
    existing_numbers: RoaringBitmap,
    /// Rows that may already be in the table.
    maybe_existing: Option<Spill>,
    maybe_existing_numbers: RoaringBitmap,
    /// Rows that arrived when the key set was full.
    undecided: Option<PartitionedSpill>,
    pub new_rows: u64,
    pub duplicates: u64,
}

impl Deduplicator {
    pub fn new(schema: SchemaRef, budget: MemoryBudget) -> Self {
        let key_maker = KeySet::new().key_maker();
        Self {
            schema,
            seen_keys: KeySet::within(key_maker.clone(), budget.keys_bytes()),
            budget,
            key_maker,
            existing_numbers: RoaringBitmap::new(),
            maybe_existing: None,
            maybe_existing_numbers: RoaringBitmap::new(),
            undecided: None,
            new_rows: 0,
            duplicates: 0,
        }
    }

    /// Returns the key maker for the keys that [`Self::select_new_rows`] requires.
    pub fn key_maker(&self) -> KeyMaker {
        self.key_maker.clone()
    }

    /// Sets the row numbers that the table contains before the run. Must be called before
    /// [`Self::select_new_rows`] receives rows with these numbers.
    pub fn set_existing_numbers(&mut self, numbers: RoaringBitmap) {
        self.existing_numbers = numbers;
    }

    /// Sets the approximate number of rows of the run, which limits the list in the key set.
    pub fn set_expected_rows(&mut self, rows: u64) {
        self.seen_keys.set_expected_rows(usize::try_from(rows).unwrap_or(0));
    }

    /// Inserts the keys of a batch and returns the rows that are certainly new. Spills undecided
    /// rows to disk until [`Self::resolve_deferred`].
    ///
    /// # Errors
    /// The disk is full.
    pub fn select_new_rows(&mut self, batch: RecordBatch, keys: &RowKeys) -> Result<RecordBatch> {
        let rows = batch.num_rows() as u64;
        let result = self.seen_keys.insert_all(keys);
        let undecided = result.undecided.true_count() as u64;
        if undecided > 0 {
            let spill = match &mut self.undecided {
                Some(spill) => spill,
                None => self
                    .undecided
                    .insert(PartitionedSpill::create(&self.budget.spill_folder, &self.schema)?),
            };
            spill.push(
                &filter_rows(batch.clone(), &result.undecided)?,
                &keys.filter(&result.undecided),
            )?;
        }
        let new = filter_rows(batch, &result.new)?;
        self.duplicates += rows - undecided - new.num_rows() as u64;
        self.defer_maybe_existing(new)
    }

    /// Returns the rows whose numbers are not in the table. Spills the others to disk.
    fn defer_maybe_existing(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut new = batch;
        if !self.existing_numbers.is_empty() {
            let row_numbers = new.column(0).as_primitive::<Int32Type>();
            let is_existing: BooleanArray = row_numbers
                .iter()
                .map(|number| {
                    Some(number.is_none_or(|number| {
                        self.existing_numbers.contains(number.cast_unsigned())
                    }))
                })
                .collect();
            let maybe_existing = filter_rows(new.clone(), &is_existing)?;
            if maybe_existing.num_rows() > 0 {
                self.maybe_existing_numbers |= numbers([&maybe_existing]);
                let spill = match &mut self.maybe_existing {
                    Some(spill) => spill,
                    None => self
                        .maybe_existing
                        .insert(Spill::create(&self.budget.spill_folder, &self.schema)?),
                };
                spill.push(&maybe_existing)?;
            }
            new = filter_rows(new, &not(&is_existing).context(|| "cannot deduplicate rows")?)?;
        }
        self.new_rows += new.num_rows() as u64;
        Ok(new)
    }

    /// Decides on the spilled rows and passes the new ones to `sink`.
    ///
    /// # Errors
    /// The table or the spilled rows cannot be read; `sink` fails.
    pub async fn resolve_deferred(
        &mut self,
        transaction: Option<&dyn TableTransaction>,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        if let Some(undecided) = self.undecided.take() {
            // The key set is no longer needed, and the partitions need its memory.
            self.seen_keys = KeySet::within(self.key_maker.clone(), 0);
            for part in undecided.into_parts() {
                let mut seen_keys = KeySet::within(self.key_maker.clone(), usize::MAX);
                for batch in part.read()? {
                    let batch = batch?;
                    let rows = batch.num_rows() as u64;
                    let keys = self.key_maker.keys(&batch)?;
                    let distinct = filter_rows(batch, &seen_keys.insert_all(&keys).new)?;
                    self.duplicates += rows - distinct.num_rows() as u64;
                    let new = self.defer_maybe_existing(distinct)?;
                    sink.emit(new).await?;
                }
            }
        }
        let (Some(mut maybe_existing), Some(transaction)) =
            (self.maybe_existing.take(), transaction)
        else {
            return Ok(());
        };
        let all_numbers = std::mem::take(&mut self.maybe_existing_numbers);
        let mut remaining = all_numbers.iter().peekable();
        // Usually one round. Re-reading the lake into a large table takes several.
        while remaining.peek().is_some() {
            let round: RoaringBitmap =
                remaining.by_ref().take(self.budget.key_lookup_batch()).collect();
            let existing = ExistingKeys::read(
                &self.schema,
                &round,
                transaction.provider().await?,
                &self.key_maker,
            )
            .await?;
            let mut later = remaining
                .peek()
                .map(|_| Spill::create(&self.budget.spill_folder, &self.schema))
                .transpose()?;
            for batch in maybe_existing.read()? {
                let mut batch = batch?;
                if let Some(later) = &mut later {
                    let row_numbers = batch.column(0).as_primitive::<Int32Type>();
                    let is_in_round: BooleanArray = row_numbers
                        .iter()
                        .map(|number| number.map(|number| round.contains(number.cast_unsigned())))
                        .collect();
                    later.push(&filter_rows(
                        batch.clone(),
                        &not(&is_in_round).context(|| "cannot deduplicate rows")?,
                    )?)?;
                    batch = filter_rows(batch, &is_in_round)?;
                }
                let rows = batch.num_rows() as u64;
                let keys = self.key_maker.keys(&batch)?;
                let new = existing.without_existing(batch, &keys)?;
                self.new_rows += new.num_rows() as u64;
                self.duplicates += rows - new.num_rows() as u64;
                sink.emit(new).await?;
            }
            match later {
                Some(later) => maybe_existing = later,
                None => break,
            }
        }
        Ok(())
    }
}

/// Destination of new rows: the table, the row cache for the questions, or both.
pub struct RowSink<'a> {
    pub writer: Option<&'a mut (dyn RowWriter + 'static)>,
    pub cache: &'a mut dyn FnMut(&RecordBatch) -> Result<()>,
}

impl RowSink<'_> {
    /// Passes rows to the cache and to the table.
    ///
    /// # Errors
    /// The table cannot be written.
    pub async fn emit(&mut self, batch: RecordBatch) -> Result<()> {
        // Lets the Ctrl-C handler run, even if no row is new.
        tokio::task::yield_now().await;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        (self.cache)(&batch)?;
        match &mut self.writer {
            Some(writer) => writer.write(batch).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::model::Kind;
    use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// Users with these numbers. The name of each is `salt` and its number.
    fn users(numbers: impl Iterator<Item = i32> + Clone, salt: &str) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(numbers.clone().collect::<Int32Array>()),
            Arc::new(
                numbers
                    .clone()
                    .map(|number| Some(format!("{salt}{number}")))
                    .collect::<StringArray>(),
            ),
            Arc::new(numbers.clone().map(Some).collect::<Int32Array>()),
            Arc::new(
                numbers.map(|_| None).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
            ),
        ];
        RecordBatch::try_new(Kind::User.clean_schema(), columns).expect("a batch")
    }

    #[tokio::test]
    async fn emits_each_row_once_even_if_most_are_spilled_to_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let budget = MemoryBudget::minimal(folder.path());
        let mut deduplicator = Deduplicator::new(Kind::User.clean_schema(), budget);
        let key_maker = deduplicator.key_maker();
        let mut emitted: BTreeMap<String, u32> = BTreeMap::new();
        let mut record = |batch: &RecordBatch| {
            for name in batch.column(1).as_string::<i32>().iter().flatten() {
                *emitted.entry(name.to_string()).or_default() += 1;
            }
            Ok(())
        };
        // Overlapping ranges, in and out of order, two rows per number.
        for start in [0, 500, 3000, 1000, 2500, 0] {
            for salt in ["a", "b"] {
                let batch = users(start..start + 1000, salt);
                let new = deduplicator
                    .select_new_rows(batch.clone(), &key_maker.keys(&batch).expect("keys"))
                    .expect("select new rows");
                record(&new).expect("record rows");
            }
        }
        assert!(deduplicator.undecided.is_some(), "the key set was full");
        deduplicator
            .resolve_deferred(None, &mut RowSink { writer: None, cache: &mut record })
            .await
            .expect("resolve deferred rows");
        // 0 to 1999 and 2500 to 3999, twice.
        assert_eq!(emitted.len(), 7000);
        assert!(emitted.values().all(|times| *times == 1));
        assert_eq!((deduplicator.new_rows, deduplicator.duplicates), (7000, 12_000 - 7000));
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("read folder").count(),
            0,
            "spilled files are unnamed"
        );
    }
}
