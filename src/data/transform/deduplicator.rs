//! Which rows of a run are new: told from repeated ones of the run and from those of the table.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::not;
use arrow::datatypes::{Int32Type, SchemaRef};
use roaring::RoaringBitmap;

use crate::base::error::{OrFail, Result};
use crate::data::engine::memory_budget::Limits;
use crate::data::engine::spill::{PartedSpill, Spill};
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::writer::TableWriter;
use crate::data::transform::keys::{Distinct, KeyMaker, Known, RowKeys, kept, numbers};
use deltalake::DeltaTable;

/// What a run has seen so far.
pub struct FreshRows {
    schema: SchemaRef,
    limits: Limits,
    key_maker: KeyMaker,
    distinct: Distinct,
    /// Row numbers that the table had before, once they matter.
    known_numbers: RoaringBitmap,
    /// Rows that may be in the table already.
    suspects: Option<Spill>,
    suspected_numbers: RoaringBitmap,
    /// Rows that came when the set of those seen was full.
    unsure: Option<PartedSpill>,
    pub new_rows: u64,
    pub duplicates: u64,
}

impl FreshRows {
    pub fn new(schema: SchemaRef, limits: Limits) -> Self {
        let key_maker = Distinct::new().key_maker();
        Self {
            schema,
            distinct: Distinct::within(key_maker.clone(), limits.keys_bytes()),
            limits,
            key_maker,
            known_numbers: RoaringBitmap::new(),
            suspects: None,
            suspected_numbers: RoaringBitmap::new(),
            unsure: None,
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

    /// The rows that are new for sure; others are set aside until [`Self::settle`].
    ///
    /// # Errors
    /// There is no room to set rows aside.
    pub fn take(&mut self, batch: RecordBatch, keys: &RowKeys) -> Result<RecordBatch> {
        let before = batch.num_rows() as u64;
        let fresh = self.distinct.take(keys);
        let unsure = fresh.unsure.true_count() as u64;
        if unsure > 0 {
            let set_aside = match &mut self.unsure {
                Some(set_aside) => set_aside,
                None => self.unsure.insert(PartedSpill::create(
                    &self.limits.spill_folder,
                    &self.schema,
                )?),
            };
            set_aside.push(
                &kept(batch.clone(), &fresh.unsure)?,
                &keys.kept(&fresh.unsure),
            )?;
        }
        let new = kept(batch, &fresh.new)?;
        self.duplicates += before - unsure - new.num_rows() as u64;
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
            let suspects = kept(left.clone(), &is_known)?;
            if suspects.num_rows() > 0 {
                self.suspected_numbers |= numbers([&suspects]);
                let set_aside = match &mut self.suspects {
                    Some(set_aside) => set_aside,
                    None => self
                        .suspects
                        .insert(Spill::create(&self.limits.spill_folder, &self.schema)?),
                };
                set_aside.push(&suspects)?;
            }
            left = kept(left, &not(&is_known).or_fail(|| "cannot tell rows apart")?)?;
        }
        self.new_rows += left.num_rows() as u64;
        Ok(left)
    }

    /// Finds out about the rows that were set aside, and hands those that are new to `give`.
    ///
    /// # Errors
    /// The table or what was set aside cannot be read; `give` fails.
    pub async fn settle(
        &mut self,
        location: Option<(&DeltaLocation, &DeltaTable)>,
        give: &mut Giver<'_>,
    ) -> Result<()> {
        if let Some(unsure) = self.unsure.take() {
            // What it knows has been looked at; the parts need the room.
            self.distinct = Distinct::within(self.key_maker.clone(), 0);
            for part in unsure.into_parts() {
                let mut distinct = Distinct::within(self.key_maker.clone(), usize::MAX);
                for batch in part.read()? {
                    let batch = batch?;
                    let before = batch.num_rows() as u64;
                    let keys = self.key_maker.keys(&batch)?;
                    let new = kept(batch, &distinct.take(&keys).new)?;
                    self.duplicates += before - new.num_rows() as u64;
                    let new = self.set_suspects_aside(new)?;
                    give.give(new).await?;
                }
            }
        }
        let (Some(mut suspects), Some((location, table))) = (self.suspects.take(), location) else {
            return Ok(());
        };
        let all = std::mem::take(&mut self.suspected_numbers);
        let mut open = all.iter().peekable();
        // Mostly one round: a lake that is read anew, over a large table, takes more.
        while open.peek().is_some() {
            let round: RoaringBitmap = open.by_ref().take(self.limits.numbers_at_once()).collect();
            let known = Known::read(
                &self.schema,
                &round,
                location.provider_of(table).await?,
                &self.key_maker,
            )
            .await?;
            let mut later = open
                .peek()
                .map(|_| Spill::create(&self.limits.spill_folder, &self.schema))
                .transpose()?;
            for batch in suspects.read()? {
                let mut batch = batch?;
                if let Some(later) = &mut later {
                    let found = batch.column(0).as_primitive::<Int32Type>();
                    let is_now: BooleanArray = found
                        .iter()
                        .map(|number| number.map(|number| round.contains(number.cast_unsigned())))
                        .collect();
                    later.push(&kept(
                        batch.clone(),
                        &not(&is_now).or_fail(|| "cannot tell rows apart")?,
                    )?)?;
                    batch = kept(batch, &is_now)?;
                }
                let before = batch.num_rows() as u64;
                let keys = self.key_maker.keys(&batch)?;
                let new = known.missing(batch, &keys)?;
                self.new_rows += new.num_rows() as u64;
                self.duplicates += before - new.num_rows() as u64;
                give.give(new).await?;
            }
            match later {
                Some(later) => suspects = later,
                None => break,
            }
        }
        Ok(())
    }
}

/// Where new rows go: into the table, into memory for the questions, or both.
pub struct Giver<'a> {
    pub writer: Option<&'a mut TableWriter>,
    pub kept: &'a mut dyn FnMut(&RecordBatch) -> Result<()>,
}

impl Giver<'_> {
    /// # Errors
    /// The table cannot be written.
    pub async fn give(&mut self, batch: RecordBatch) -> Result<()> {
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
        let limits = Limits::least(folder.path());
        let mut fresh = FreshRows::new(Kind::User.clean_schema(), limits);
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
        assert!(fresh.unsure.is_some(), "the set was full");
        fresh
            .settle(
                None,
                &mut Giver {
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
