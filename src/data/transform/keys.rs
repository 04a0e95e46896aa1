//! Row keys for deduplication: duplicates are rows whose columns are all equal after cleaning.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use futures::TryStreamExt;
use roaring::RoaringBitmap;

use crate::base::error::{ErrorContext, Result};
use crate::data::engine::session::{Engine, as_schema};

/// Key of a row: its number, and a 64-bit hash of all columns. A collision needs two different rows
/// with the same number and hash, under a seed that is random in each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    hash: u64,
    ind: i32,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Hasher for keys, which are hashes already.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Keys = HashSet<Key, BuildHasherDefault<IdentityHasher>>;

/// Bytes per slot of the hash set.
const SLOT_BYTES: usize = size_of::<Key>() + 1;

/// Maximum length of the list of first hashes, per seen or expected row. Most lakes number their
/// posts from 0, and the list is then much faster than the hash set.
const MAX_LISTED_NUMBERS_PER_ROW: usize = 4;
/// Row numbers below this are always in the list.
const MIN_LISTED_NUMBERS: usize = 64 * 1024;

/// Set of the rows seen so far. Takes some tens of bytes per row, however wide the rows are.
pub struct KeySet {
    key_maker: KeyMaker,
    /// First hash of each low row number. 0 is an empty entry.
    first_hashes: Vec<u64>,
    /// Other keys: further rows of these numbers, and rows of high numbers.
    keys: Keys,
    /// Number of rows seen.
    seen: usize,
    expected: usize,
    /// Maximum memory. The set is full as soon as growth would exceed it.
    max_bytes: usize,
    is_full: bool,
}

/// Masks of a batch: new rows, and undecided rows, which arrived when the set was full.
pub struct DedupResult {
    pub new: BooleanArray,
    pub undecided: BooleanArray,
}

/// Keys of the rows of a batch, computed without locking the key set.
pub struct RowKeys(Vec<Key>);

/// Computes keys. Clones use the same seed in several threads.
#[derive(Clone)]
pub struct KeyMaker(QualityRandomState);

impl KeyMaker {
    /// Computes the keys of a clean batch.
    pub fn keys(&self, batch: &RecordBatch) -> Result<RowKeys> {
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(batch.columns(), &self.0, &mut hashes).context(|| "cannot compare rows")?;
        // `create_hashes` skips nulls, so (NULL, x) and (x, NULL) would have the same hash: mix in
        // the position of the column.
        for (number, column) in
            batch.columns().iter().enumerate().filter(|(_, column)| column.null_count() > 0)
        {
            let mark = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(number as u64 + 1);
            for (_, hash) in hashes.iter_mut().enumerate().filter(|(row, _)| column.is_null(*row)) {
                *hash = (*hash ^ mark).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
            }
        }
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let keys = hashes.into_iter().enumerate().map(|(row, hash)| Key {
            hash,
            ind: if numbers.is_null(row) { -1 } else { numbers.value(row) },
        });
        Ok(RowKeys(keys.collect()))
    }
}

impl RowKeys {
    /// Returns the keys of the rows that the mask selects.
    pub fn filter(&self, mask: &BooleanArray) -> Self {
        Self(mask.values().set_indices().map(|row| self.0[row]).collect())
    }

    /// Returns the partition of each row, below `parts`. Equal rows have the same partition.
    pub fn parts(&self, parts: usize) -> impl Iterator<Item = usize> {
        // The bits of the hash that the hash set does not use first.
        self.0.iter().map(move |key| (key.hash >> 40) as usize % parts)
    }
}

impl KeySet {
    /// Creates a set without a memory limit.
    pub fn new() -> Self {
        Self::within(KeyMaker(QualityRandomState::with_seed(rand::random())), usize::MAX)
    }

    /// Creates a set for the keys of this maker, with a memory limit of `max_bytes`.
    pub fn within(key_maker: KeyMaker, max_bytes: usize) -> Self {
        Self {
            key_maker,
            first_hashes: Vec::new(),
            keys: Keys::default(),
            seen: 0,
            expected: 0,
            max_bytes,
            is_full: false,
        }
    }

    /// Returns the key maker of this set.
    pub fn key_maker(&self) -> KeyMaker {
        self.key_maker.clone()
    }

    /// Sets the approximate number of rows, which limits the length of the list.
    pub fn set_expected_rows(&mut self, rows: usize) {
        self.expected = self.expected.max(rows);
    }

    /// Returns the list entry of a row number, and grows the list if necessary. Returns `None` for
    /// a number that is not listed.
    fn first_hash_mut(&mut self, ind: i32) -> Option<&mut u64> {
        let index = usize::try_from(ind).ok()?;
        if index >= self.first_hashes.len() {
            let max_length = self
                .expected
                .max(self.seen)
                .saturating_mul(MAX_LISTED_NUMBERS_PER_ROW)
                .max(MIN_LISTED_NUMBERS);
            let length = (index + 1).next_power_of_two().max(MIN_LISTED_NUMBERS);
            // The list of a full set may not grow: a key that was reported as undecided must not be
            // reported as new later.
            if self.is_full
                || index >= max_length
                || length.saturating_mul(2 * size_of::<u64>()) > self.max_bytes / 2
            {
                return None;
            }
            // Zeroed memory from the system, which allocates no page before it is used.
            let mut grown = vec![0; length];
            grown[..self.first_hashes.len()].copy_from_slice(&self.first_hashes);
            self.first_hashes = grown;
        }
        self.first_hashes.get_mut(index)
    }

    /// Inserts a key and returns whether it is new. Returns `None` if the set is full and does not
    /// contain the key.
    fn insert(&mut self, key: Key) -> Option<bool> {
        // 0 is an empty entry of the list.
        let key = Key { hash: key.hash.max(1), ..key };
        // The number may have been too high for the list when it first arrived.
        let is_in_set = !self.keys.is_empty() && self.keys.contains(&key);
        if is_in_set {
            return Some(false);
        }
        if let Some(first_hash) = self.first_hash_mut(key.ind) {
            if *first_hash == 0 {
                *first_hash = key.hash;
                return Some(true);
            }
            if *first_hash == key.hash {
                return Some(false);
            }
        }
        self.is_full =
            self.is_full || self.keys.len() == self.keys.capacity() && self.would_be_too_large();
        if self.is_full {
            return None;
        }
        Some(self.keys.insert(key))
    }

    /// Inserts keys and returns which rows are new. Rows that arrive when the set is full are
    /// undecided and not inserted.
    pub fn insert_all(&mut self, keys: &RowKeys) -> DedupResult {
        let rows = keys.0.len();
        let (mut new, mut undecided) =
            (BooleanBufferBuilder::new(rows), BooleanBufferBuilder::new(rows));
        for key in &keys.0 {
            let is_new = self.insert(*key);
            new.append(is_new == Some(true));
            undecided.append(is_new.is_none());
        }
        self.seen += rows;
        DedupResult {
            new: BooleanArray::new(new.finish(), None),
            undecided: BooleanArray::new(undecided.finish(), None),
        }
    }

    /// Returns whether the hash set would exceed the memory limit. Growing doubles its slots and
    /// keeps the old ones until they are copied.
    fn would_be_too_large(&self) -> bool {
        let slots = self.keys.capacity() / 7 * 8;
        slots.saturating_mul(3 * SLOT_BYTES)
            > self.max_bytes - (self.first_hashes.len() * size_of::<u64>()).min(self.max_bytes)
    }
}

/// Keys of the rows of a table with certain row numbers.
pub struct ExistingKeys {
    keys: Keys,
}

impl ExistingKeys {
    /// Reads the rows of the table with these numbers. Only their keys are held in memory.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn read(
        schema: &SchemaRef,
        numbers: &RoaringBitmap,
        table: Arc<dyn TableProvider>,
        key_maker: &KeyMaker,
    ) -> Result<Self> {
        let mut keys = Keys::default();
        let signed = || numbers.iter().map(u32::cast_signed);
        let (Some(first), Some(last)) = (signed().min(), signed().max()) else {
            return Ok(Self { keys });
        };
        let engine = Engine::new();
        engine.register_provider("existing", table)?;
        // Statistics skip the files and row groups outside the range.
        let query = format!("SELECT * FROM existing WHERE ind BETWEEN {first} AND {last}");
        let mut existing = engine.stream("existing rows", &query).await?;
        while let Some(batch) = existing.try_next().await.context(|| "cannot read existing rows")? {
            let row_numbers = batch.column(0).as_primitive::<Int32Type>();
            let is_requested: BooleanArray = row_numbers
                .iter()
                .map(|number| {
                    Some(number.is_some_and(|number| numbers.contains(number.cast_unsigned())))
                })
                .collect();
            for batch in as_schema(vec![filter_rows(batch, &is_requested)?], schema)? {
                keys.extend(key_maker.keys(&batch)?.0);
            }
        }
        Ok(Self { keys })
    }

    /// Returns the rows of a batch that are not in the table.
    pub fn without_existing(&self, batch: RecordBatch, keys: &RowKeys) -> Result<RecordBatch> {
        let is_missing: BooleanArray =
            keys.0.iter().map(|key| Some(!self.keys.contains(key))).collect();
        filter_rows(batch, &is_missing)
    }
}

/// Returns the row numbers of clean batches.
pub fn numbers<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> RoaringBitmap {
    let numbers = batches
        .into_iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().iter().flatten());
    numbers.map(i32::cast_unsigned).collect()
}

/// Returns the rows of a batch that the mask selects.
pub fn filter_rows(batch: RecordBatch, mask: &BooleanArray) -> Result<RecordBatch> {
    if mask.true_count() == batch.num_rows() {
        return Ok(batch);
    }
    filter_record_batch(&batch, mask).context(|| "cannot drop duplicates")
}

/// Returns the rows of `candidates` that are not in the table. `candidates` has no duplicates.
///
/// # Errors
/// The table cannot be read.
pub async fn anti_join_table(
    schema: &SchemaRef,
    candidates: Vec<RecordBatch>,
    table: Arc<dyn TableProvider>,
    key_maker: &KeyMaker,
) -> Result<Vec<RecordBatch>> {
    let existing = ExistingKeys::read(schema, &numbers(&candidates), table, key_maker).await?;
    let mut new = Vec::with_capacity(candidates.len());
    for batch in candidates {
        let keys = key_maker.keys(&batch)?;
        let new_rows = existing.without_existing(batch, &keys)?;
        if new_rows.num_rows() > 0 {
            new.push(new_rows);
        }
    }
    Ok(new)
}

/// Returns the rows of `candidates` that are not in `existing`. Compares all columns.
pub fn anti_join(
    schema: &SchemaRef,
    candidates: Vec<RecordBatch>,
    existing: &[RecordBatch],
) -> Result<Vec<RecordBatch>> {
    let failed = || "cannot compare rows";
    let fields =
        schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields).context(failed)?;
    let mut existing_rows = HashSet::new();
    for batch in existing {
        let rows = converter.convert_columns(batch.columns()).context(failed)?;
        existing_rows.extend(rows.iter().map(|row| row.as_ref().to_vec()));
    }
    let mut new = Vec::with_capacity(candidates.len());
    for batch in candidates {
        let rows = converter.convert_columns(batch.columns()).context(failed)?;
        let is_new: BooleanArray =
            rows.iter().map(|row| Some(!existing_rows.contains(row.as_ref()))).collect();
        let new_rows = filter_rows(batch, &is_new)?;
        if new_rows.num_rows() > 0 {
            new.push(new_rows);
        }
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::model::Kind;
    use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};

    /// Users with a number, an optional name and an optional age.
    fn users(rows: &[(i32, Option<&str>, Option<i32>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>()),
            Arc::new(
                rows.iter()
                    .map(|_| None)
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ];
        RecordBatch::try_new(Kind::User.clean_schema(), columns).expect("a batch")
    }

    fn new_rows(key_set: &mut KeySet, batch: &RecordBatch) -> Vec<bool> {
        let keys = key_set.key_maker().keys(batch).expect("keys");
        key_set.insert_all(&keys).new.iter().map(|is_new| is_new == Some(true)).collect()
    }

    #[test]
    fn drops_rows_that_are_equal_in_every_column() {
        let mut key_set = KeySet::new();
        let rows = [
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(21)),
            (2, Some("A"), Some(20)),
            (1, Some("B"), Some(20)),
        ];
        assert_eq!(new_rows(&mut key_set, &users(&rows)), [true, false, true, true, true]);
        assert_eq!(new_rows(&mut key_set, &users(&rows)), [false; 5], "duplicates across batches");
    }

    #[test]
    fn distinguishes_null_from_a_value_in_every_column() {
        let mut key_set = KeySet::new();
        let rows = [
            (1, None, None),
            (1, Some(""), None),
            (1, None, Some(0)),
            (1, Some(""), Some(0)),
            (1, None, None),
        ];
        assert_eq!(new_rows(&mut key_set, &users(&rows)), [true, true, true, true, false]);
    }

    #[test]
    fn full_set_reports_undecided_rows() {
        let rows: Vec<_> = (0..2_000).map(|ind| (ind, None, None)).collect();
        let mut key_set = KeySet::within(KeySet::new().key_maker(), 20_000);
        let keys = key_set.key_maker().keys(&users(&rows)).expect("keys");
        let result = key_set.insert_all(&keys);
        let (new, undecided) = (result.new.true_count(), result.undecided.true_count());
        assert!(new > 200 && undecided > 200 && new + undecided == 2_000, "{new} and {undecided}");
        assert!(key_set.keys.capacity() * SLOT_BYTES < 20_000);
        let second = key_set.insert_all(&keys);
        assert_eq!(
            (second.new.true_count(), second.undecided.true_count()),
            (0, undecided),
            "inserted keys are still known"
        );
        assert_eq!(
            keys.parts(64).collect::<Vec<_>>(),
            key_set.key_maker().keys(&users(&rows)).expect("keys").parts(64).collect::<Vec<_>>()
        );
    }

    proptest::proptest! {
        /// For any numbers in any order, and any memory limit.
        #[test]
        fn each_row_is_new_once_or_always_undecided(
            rows in proptest::collection::vec((0..6usize, 0..40i32, 0..3u64), 1..400),
            max_bytes in proptest::sample::select(vec![0, 3_000, 2_200_000, usize::MAX]),
            batch_rows in 1..50usize,
        ) {
            // Low numbers, some around where the list grows, high ones, and negative ones.
            const BASES: [i32; 6] = [0, 65_520, 131_060, 262_130, 2_000_000_000, -20];
            let keys: Vec<Key> = rows.iter().map(|(base, ind, hash)| Key { ind: BASES[*base] + ind, hash: *hash }).collect();
            let mut key_set = KeySet::within(KeySet::new().key_maker(), max_bytes);
            key_set.set_expected_rows(50_000);
            let mut was_new = std::collections::HashMap::new();
            for batch in keys.chunks(batch_rows) {
                let result = key_set.insert_all(&RowKeys(batch.to_vec()));
                for (row, key) in batch.iter().enumerate() {
                    // Hash 0 is stored as 1, because 0 is an empty entry.
                    let identity = (key.ind, key.hash.max(1));
                    match was_new.get(&identity) {
                        None => {
                            proptest::prop_assert!(result.new.value(row) != result.undecided.value(row));
                            was_new.insert(identity, result.new.value(row));
                        }
                        Some(true) => proptest::prop_assert!(!result.new.value(row) && !result.undecided.value(row)),
                        Some(false) => proptest::prop_assert!(!result.new.value(row) && result.undecided.value(row)),
                    }
                }
            }
        }
    }

    #[test]
    fn anti_join_drops_existing_rows_with_nulls() {
        let all = users(&[(1, Some("A B"), None), (2, Some("A B"), None)]);
        let new = anti_join(&Kind::User.clean_schema(), vec![all.clone()], &[all.slice(0, 1)])
            .expect("compare rows");
        assert_eq!(new, [all.slice(1, 1)]);
    }
}
