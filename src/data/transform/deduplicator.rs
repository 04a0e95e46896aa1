//! Which rows of a run are new: told from repeated ones of the run and from those of the table.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::not;
use arrow::datatypes::{Int32Type, SchemaRef};
use deltalake::DeltaTable;
use roaring::RoaringBitmap;

use crate::base::error::{ErrorContext, Result};
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::spill::{PartedSpill, Spill};
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::writer::TableWriter;
use crate::data::transform::keys::{ExistingKeys, KeyMaker, KeySet, RowKeys, kept, numbers};

/// What a run has seen so far.
pub struct Deduplicator {
    schema: SchemaRef,
    budget: MemoryBudget,
    key_maker: KeyMaker,
    distinct: KeySet,
    /// Row numbers that the table had before, once they matter.
    known_numbers: RoaringBitmap,
    /// Rows that may be in the table already.
    maybe_existing: Option<Spill>,
    maybe_existing_numbers: RoaringBitmap,
    /// Rows that came when the set of those seen was full.
    undecided: Option<PartedSpill>,
    pub new_rows: u64,
    pub duplicates: u64,
}

impl Deduplicator {
    pub fn new(schema: SchemaRef, budget: MemoryBudget) -> Self {
        let key_maker = KeySet::new().key_maker();
        Self {
            schema,
            distinct: KeySet::within(key_maker.clone(), budget.keys_bytes()),
            budget,
            key_maker,
            known_numbers: RoaringBitmap::new(),
            maybe_existing: None,
            maybe_existing_numbers: RoaringBitmap::new(),
            undecided: None,
            new_rows: 0,
            duplicates: 0,
        }
    }

    /// What makes the keys that [`Self::take`] wants.
    pub fn key_maker(&self) -> KeyMaker {
        self.key_maker.clone()
    }

    /// The table had rows of these numbers before. To be said before rows of such numbers are taken.
    pub fn know(&mut self, numbers: RoaringBitmap) {
        self.known_numbers = numbers;
    }

    /// About so many rows will come.
    pub fn expect(&mut self, rows: u64) {
        self.distinct.expect(usize::try_from(rows).unwrap_or(0));
    }

    /// The rows that are new for sure; others are set aside until [`Self::resolve_deferred`].
    ///
    /// # Errors
    /// There is no room to set rows aside.
    pub fn take(&mut self, batch: RecordBatch, keys: &RowKeys) -> Result<RecordBatch> {
        let before = batch.num_rows() as u64;
        let fresh = self.distinct.take(keys);
        let undecided = fresh.undecided.true_count() as u64;
        if undecided > 0 {
            let set_aside = match &mut self.undecided {
                Some(set_aside) => set_aside,
                None => self.undecided.insert(PartedSpill::create(
                    &self.budget.spill_folder,
                    &self.schema,
                )?),
            };
            set_aside.push(
                &kept(batch.clone(), &fresh.undecided)?,
                &keys.kept(&fresh.undecided),
            )?;
        }
        let new = kept(batch, &fresh.new)?;
        self.duplicates += before - undecided - new.num_rows() as u64;
        self.set_suspects_aside(new)
    }

    /// The rows whose numbers the table does not have; the others wait.
    fn set_suspects_aside(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut left = batch;
        if !self.known_numbers.is_empty() {
            let found = left.column(0).as_primitive::<Int32Type>();
            let is_known: BooleanArray =
                found
                    .iter()
                    .map(|number| {
                        Some(number.is_none_or(|number| {
                            self.known_numbers.contains(number.cast_unsigned())
                        }))
                    })
                    .collect();
            let maybe_existing = kept(left.clone(), &is_known)?;
            if maybe_existing.num_rows() > 0 {
                self.maybe_existing_numbers |= numbers([&maybe_existing]);
                let set_aside = match &mut self.maybe_existing {
                    Some(set_aside) => set_aside,
                    None => self
                        .maybe_existing
                        .insert(Spill::create(&self.budget.spill_folder, &self.schema)?),
                };
                set_aside.push(&maybe_existing)?;
            }
            left = kept(left, &not(&is_known).context(|| "cannot tell rows apart")?)?;
        }
        self.new_rows += left.num_rows() as u64;
        Ok(left)
    }

    /// Finds out about the rows that were set aside, and hands those that are new to `emit`.
    ///
    /// # Errors
    /// The table or what was set aside cannot be read; `emit` fails.
    pub async fn resolve_deferred(
        &mut self,
        location: Option<(&DeltaLocation, &DeltaTable)>,
        give: &mut RowSink<'_>,
    ) -> Result<()> {
        if let Some(undecided) = self.undecided.take() {
            // What it knows has been looked at; the parts need the room.
            self.distinct = KeySet::within(self.key_maker.clone(), 0);
            for part in undecided.into_parts() {
                let mut distinct = KeySet::within(self.key_maker.clone(), usize::MAX);
                for batch in part.read()? {
                    let batch = batch?;
                    let before = batch.num_rows() as u64;
                    let keys = self.key_maker.keys(&batch)?;
                    let new = kept(batch, &distinct.take(&keys).new)?;
                    self.duplicates += before - new.num_rows() as u64;
                    let new = self.set_suspects_aside(new)?;
                    give.emit(new).await?;
                }
            }
        }
        let (Some(mut maybe_existing), Some((location, table))) =
            (self.maybe_existing.take(), location)
        else {
            return Ok(());
        };
        let all = std::mem::take(&mut self.maybe_existing_numbers);
        let mut open = all.iter().peekable();
        // Mostly one round: a lake that is read anew, over a large table, takes more.
        while open.peek().is_some() {
            let round: RoaringBitmap = open.by_ref().take(self.budget.key_lookup_batch()).collect();
            let known = ExistingKeys::read(
                &self.schema,
                &round,
                location.provider_of(table).await?,
                &self.key_maker,
            )
            .await?;
            let mut later = open
                .peek()
                .map(|_| Spill::create(&self.budget.spill_folder, &self.schema))
                .transpose()?;
            for batch in maybe_existing.read()? {
                let mut batch = batch?;
                if let Some(later) = &mut later {
                    let found = batch.column(0).as_primitive::<Int32Type>();
                    let is_now: BooleanArray = found
                        .iter()
                        .map(|number| number.map(|number| round.contains(number.cast_unsigned())))
                        .collect();
                    later.push(&kept(
                        batch.clone(),
                        &not(&is_now).context(|| "cannot tell rows apart")?,
                    )?)?;
                    batch = kept(batch, &is_now)?;
                }
                let before = batch.num_rows() as u64;
                let keys = self.key_maker.keys(&batch)?;
                let new = known.without_existing(batch, &keys)?;
                self.new_rows += new.num_rows() as u64;
                self.duplicates += before - new.num_rows() as u64;
                give.emit(new).await?;
            }
            match later {
                Some(later) => maybe_existing = later,
                None => break,
            }
        }
        Ok(())
    }
}

/// Where new rows go: into the table, into memory for the questions, or both.
pub struct RowSink<'a> {
    pub writer: Option<&'a mut TableWriter>,
    pub kept: &'a mut dyn FnMut(&RecordBatch) -> Result<()>,
}

impl RowSink<'_> {
    /// # Errors
    /// The table cannot be written.
    pub async fn emit(&mut self, batch: RecordBatch) -> Result<()> {
        // Whoever waits for Ctrl-C gets a turn, also where nothing is new.
        tokio::task::yield_now().await;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        (self.kept)(&batch)?;
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

    /// Users by number, each of the name that its number and `salt` make.
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
                numbers
                    .map(|_| None)
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ];
        RecordBatch::try_new(Kind::User.clean_schema(), columns).expect("a batch")
    }

    #[tokio::test]
    async fn each_row_comes_once_also_when_most_of_them_had_to_be_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let budget = MemoryBudget::least(folder.path());
        let mut fresh = Deduplicator::new(Kind::User.clean_schema(), budget);
        let keys = fresh.key_maker();
        let mut given: BTreeMap<String, u32> = BTreeMap::new();
        let mut note = |batch: &RecordBatch| {
            for name in batch.column(1).as_string::<i32>().iter().flatten() {
                *given.entry(name.to_string()).or_default() += 1;
            }
            Ok(())
        };
        // Overlapping pieces, in and out of order, two rows for each number.
        for start in [0, 500, 3000, 1000, 2500, 0] {
            for salt in ["a", "b"] {
                let batch = users(start..start + 1000, salt);
                let new = fresh
                    .take(batch.clone(), &keys.keys(&batch).expect("keys"))
                    .expect("takes");
                note(&new).expect("notes");
            }
        }
        assert!(fresh.undecided.is_some(), "the set was full");
        fresh
            .resolve_deferred(
                None,
                &mut RowSink {
                    writer: None,
                    kept: &mut note,
                },
            )
            .await
            .expect("settles");
        // 0 to 1999 and 2500 to 3999, twice.
        assert_eq!(given.len(), 7000);
        assert!(given.values().all(|times| *times == 1));
        assert_eq!((fresh.new_rows, fresh.duplicates), (7000, 12_000 - 7000));
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("reads").count(),
            0,
            "the files have no names"
        );
    }
}
