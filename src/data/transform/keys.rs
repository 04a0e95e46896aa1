//! Leaving out repeated rows: those of which every column is equal after cleaning.

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

/// Stands for a row: its number, and 64 bits of all its columns. Two different rows would
/// have to share their number and those bits, under a seed that each run draws anew.
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

/// The keys are hashes already.
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

/// Bytes of a place in the set.
const PLACE_BYTES: usize = size_of::<Key>() + 1;

/// Places that row numbers may have in the list, for each row that is seen or expected: most
/// lakes number their posts from 0 on, and the list is then much quicker than the set.
const LISTED_NUMBERS_PER_ROW: usize = 4;
/// Numbers below this are always listed.
const LISTED_NUMBERS: usize = 64 * 1024;

/// The rows seen so far, some tens of bytes each however wide they are.
pub struct KeySet {
    key_maker: KeyMaker,
    /// The first hash that was seen of each low row number; 0: none yet.
    first: Vec<u64>,
    /// What else was seen: other rows of such numbers, and rows of high ones.
    keys: Keys,
    /// Rows that were seen.
    seen: usize,
    expected: usize,
    /// What the set may take; where it would grow beyond, it takes no more.
    max_bytes: usize,
    is_full: bool,
}

/// Which rows of a batch are new, and of which the set cannot say, since it was full.
pub struct DedupResult {
    pub new: BooleanArray,
    pub undecided: BooleanArray,
}

/// The keys of a batch's rows; made without holding up who else looks for repeats.
pub struct RowKeys(Vec<Key>);

/// Makes keys, in as many threads as one likes.
#[derive(Clone)]
pub struct KeyMaker(QualityRandomState);

impl KeyMaker {
    /// The keys of the rows of a clean batch.
    pub fn keys(&self, batch: &RecordBatch) -> Result<RowKeys> {
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(batch.columns(), &self.0, &mut hashes).context(|| "cannot compare rows")?;
        // The hash passes over nulls: without this, a value would do in the place of its neighbour's.
        for (number, column) in batch
            .columns()
            .iter()
            .enumerate()
            .filter(|(_, column)| column.null_count() > 0)
        {
            let mark = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(number as u64 + 1);
            for (_, hash) in hashes
                .iter_mut()
                .enumerate()
                .filter(|(row, _)| column.is_null(*row))
            {
                *hash = (*hash ^ mark)
                    .wrapping_mul(0xff51_afd7_ed55_8ccd)
                    .rotate_left(31);
            }
        }
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let keys = hashes.into_iter().enumerate().map(|(row, hash)| Key {
            hash,
            ind: if numbers.is_null(row) {
                -1
            } else {
                numbers.value(row)
            },
        });
        Ok(RowKeys(keys.collect()))
    }
}

impl RowKeys {
    /// The keys of the rows that the mask names.
    pub fn kept(&self, mask: &BooleanArray) -> Self {
        Self(mask.values().set_indices().map(|row| self.0[row]).collect())
    }

    /// For each row which of so many parts it belongs to: the same for equal rows.
    pub fn parts(&self, parts: usize) -> impl Iterator<Item = usize> {
        // Other bits than the set looks at first.
        self.0
            .iter()
            .map(move |key| (key.hash >> 40) as usize % parts)
    }
}

impl KeySet {
    /// Takes as many rows as there are.
    pub fn new() -> Self {
        Self::within(
            KeyMaker(QualityRandomState::with_seed(rand::random())),
            usize::MAX,
        )
    }

    /// Of keys that this maker makes, within so many bytes.
    pub fn within(key_maker: KeyMaker, max_bytes: usize) -> Self {
        Self {
            key_maker,
            first: Vec::new(),
            keys: Keys::default(),
            seen: 0,
            expected: 0,
            max_bytes,
            is_full: false,
        }
    }

    /// What makes keys for this set.
    pub fn key_maker(&self) -> KeyMaker {
        self.key_maker.clone()
    }

    /// About so many rows will come.
    pub fn expect(&mut self, rows: usize) {
        self.expected = self.expected.max(rows);
    }

    /// Where the list says what was seen first of a number; `None`: it has no place for it.
    fn place(&mut self, ind: i32) -> Option<&mut u64> {
        let place = usize::try_from(ind).ok()?;
        if place >= self.first.len() {
            let most = self
                .expected
                .max(self.seen)
                .saturating_mul(LISTED_NUMBERS_PER_ROW)
                .max(LISTED_NUMBERS);
            let places = (place + 1).next_power_of_two().max(LISTED_NUMBERS);
            // What the full set was not sure of must not be new later on.
            if self.is_full
                || place >= most
                || places.saturating_mul(2 * size_of::<u64>()) > self.max_bytes / 2
            {
                return None;
            }
            // Fresh from the system, where no page is taken before it is used.
            let mut grown = vec![0; places];
            grown[..self.first.len()].copy_from_slice(&self.first);
            self.first = grown;
        }
        self.first.get_mut(place)
    }

    /// Notes a row; `None`: the set is full, and it is not in there.
    fn note(&mut self, key: Key) -> Option<bool> {
        // 0 stands for an empty place.
        let key = Key {
            hash: key.hash.max(1),
            ..key
        };
        // A number may have been too high for the list when it first came.
        let is_in_set = !self.keys.is_empty() && self.keys.contains(&key);
        if is_in_set {
            return Some(false);
        }
        if let Some(first) = self.place(key.ind) {
            if *first == 0 {
                *first = key.hash;
                return Some(true);
            }
            if *first == key.hash {
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

    /// Which rows are new; they are known from then on, unless the set is full.
    pub fn take(&mut self, keys: &RowKeys) -> DedupResult {
        let rows = keys.0.len();
        let (mut new, mut undecided) = (
            BooleanBufferBuilder::new(rows),
            BooleanBufferBuilder::new(rows),
        );
        for key in &keys.0 {
            let noted = self.note(*key);
            new.append(noted == Some(true));
            undecided.append(noted.is_none());
        }
        self.seen += rows;
        DedupResult {
            new: BooleanArray::new(new.finish(), None),
            undecided: BooleanArray::new(undecided.finish(), None),
        }
    }

    /// Growing doubles the places, and the old ones are there meanwhile.
    fn would_be_too_large(&self) -> bool {
        let places = self.keys.capacity() / 7 * 8;
        places.saturating_mul(3 * PLACE_BYTES)
            > self.max_bytes - (self.first.len() * size_of::<u64>()).min(self.max_bytes)
    }
}

/// Keys of the rows that a table holds under some numbers.
pub struct ExistingKeys {
    keys: Keys,
}

impl ExistingKeys {
    /// Reads the rows of the table that have these numbers; only their keys stay in memory.
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
        // Files and row groups that hold none of them are left out by what is known of each.
        let query = format!("SELECT * FROM existing WHERE ind BETWEEN {first} AND {last}");
        let mut existing = engine.stream("rows that are there already", &query).await?;
        while let Some(batch) = existing
            .try_next()
            .await
            .context(|| "cannot read rows that are there already")?
        {
            let found = batch.column(0).as_primitive::<Int32Type>();
            let is_wanted: BooleanArray = found
                .iter()
                .map(|number| {
                    Some(number.is_some_and(|number| numbers.contains(number.cast_unsigned())))
                })
                .collect();
            for batch in as_schema(vec![kept(batch, &is_wanted)?], schema)? {
                keys.extend(key_maker.keys(&batch)?.0);
            }
        }
        Ok(Self { keys })
    }

    /// Those rows of a batch that the table does not hold.
    pub fn without_existing(&self, batch: RecordBatch, keys: &RowKeys) -> Result<RecordBatch> {
        let is_missing: BooleanArray = keys
            .0
            .iter()
            .map(|key| Some(!self.keys.contains(key)))
            .collect();
        kept(batch, &is_missing)
    }
}

/// The row numbers of clean batches.
pub fn numbers<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> RoaringBitmap {
    let numbers = batches
        .into_iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().iter().flatten());
    numbers.map(i32::cast_unsigned).collect()
}

/// The rows of a batch that the mask names.
pub fn kept(batch: RecordBatch, mask: &BooleanArray) -> Result<RecordBatch> {
    if mask.true_count() == batch.num_rows() {
        return Ok(batch);
    }
    filter_record_batch(&batch, mask).context(|| "cannot leave out repeated rows")
}

/// The rows of `fresh`, none of them twice, that a table does not hold.
///
/// # Errors
/// The table cannot be read.
pub async fn anti_join_table(
    schema: &SchemaRef,
    fresh: Vec<RecordBatch>,
    table: Arc<dyn TableProvider>,
    key_maker: &KeyMaker,
) -> Result<Vec<RecordBatch>> {
    let known = ExistingKeys::read(schema, &numbers(&fresh), table, key_maker).await?;
    let mut left = Vec::with_capacity(fresh.len());
    for batch in fresh {
        let keys = key_maker.keys(&batch)?;
        let batch = known.without_existing(batch, &keys)?;
        if batch.num_rows() > 0 {
            left.push(batch);
        }
    }
    Ok(left)
}

/// The rows of `fresh` that `existing` does not hold, compared in every column.
pub fn anti_join(
    schema: &SchemaRef,
    fresh: Vec<RecordBatch>,
    existing: &[RecordBatch],
) -> Result<Vec<RecordBatch>> {
    let failed = || "cannot compare rows";
    let fields = schema
        .fields()
        .iter()
        .map(|field| SortField::new(field.data_type().clone()))
        .collect();
    let converter = RowConverter::new(fields).context(failed)?;
    let mut known = HashSet::new();
    for batch in existing {
        let rows = converter.convert_columns(batch.columns()).context(failed)?;
        known.extend(rows.iter().map(|row| row.as_ref().to_vec()));
    }
    let mut left = Vec::with_capacity(fresh.len());
    for batch in fresh {
        let rows = converter.convert_columns(batch.columns()).context(failed)?;
        let is_new: BooleanArray = rows
            .iter()
            .map(|row| Some(!known.contains(row.as_ref())))
            .collect();
        let batch = kept(batch, &is_new)?;
        if batch.num_rows() > 0 {
            left.push(batch);
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::model::Kind;
    use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};

    /// Users that have a number, and a name or an age.
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

    fn new_rows(distinct: &mut KeySet, batch: &RecordBatch) -> Vec<bool> {
        let keys = distinct.key_maker().keys(batch).expect("keys");
        distinct
            .take(&keys)
            .new
            .iter()
            .map(|is_new| is_new == Some(true))
            .collect()
    }

    #[test]
    fn a_repeated_row_counts_once_and_every_column_tells_rows_apart() {
        let mut distinct = KeySet::new();
        let rows = [
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(21)),
            (2, Some("A"), Some(20)),
            (1, Some("B"), Some(20)),
        ];
        assert_eq!(
            new_rows(&mut distinct, &users(&rows)),
            [true, false, true, true, true]
        );
        assert_eq!(
            new_rows(&mut distinct, &users(&rows)),
            [false; 5],
            "known over batches"
        );
    }

    #[test]
    fn nothing_and_a_value_are_told_apart_wherever_they_stand() {
        let mut distinct = KeySet::new();
        let rows = [
            (1, None, None),
            (1, Some(""), None),
            (1, None, Some(0)),
            (1, Some(""), Some(0)),
            (1, None, None),
        ];
        assert_eq!(
            new_rows(&mut distinct, &users(&rows)),
            [true, true, true, true, false]
        );
    }

    #[test]
    fn a_full_set_says_of_which_rows_it_cannot_tell() {
        let rows: Vec<_> = (0..2_000).map(|ind| (ind, None, None)).collect();
        let mut distinct = KeySet::within(KeySet::new().key_maker(), 20_000);
        let keys = distinct.key_maker().keys(&users(&rows)).expect("keys");
        let fresh = distinct.take(&keys);
        let (new, undecided) = (fresh.new.true_count(), fresh.undecided.true_count());
        assert!(
            new > 200 && undecided > 200 && new + undecided == 2_000,
            "{new} and {undecided}"
        );
        assert!(distinct.keys.capacity() * PLACE_BYTES < 20_000);
        let again = distinct.take(&keys);
        assert_eq!(
            (again.new.true_count(), again.undecided.true_count()),
            (0, undecided),
            "what it took it still knows"
        );
        assert_eq!(
            keys.parts(64).collect::<Vec<_>>(),
            distinct
                .key_maker()
                .keys(&users(&rows))
                .expect("keys")
                .parts(64)
                .collect::<Vec<_>>()
        );
    }

    proptest::proptest! {
        /// Whatever numbers come in whatever order, and wherever the set is full.
        #[test]
        fn each_row_is_new_once_or_never_sure(
            rows in proptest::collection::vec((0..6usize, 0..40i32, 0..3u64), 1..400),
            max_bytes in proptest::sample::select(vec![0, 3_000, 2_200_000, usize::MAX]),
            batch_rows in 1..50usize,
        ) {
            // Low numbers, some around where the list grows, high ones, and negative ones.
            const BASES: [i32; 6] = [0, 65_520, 131_060, 262_130, 2_000_000_000, -20];
            let keys: Vec<Key> = rows.iter().map(|(base, ind, hash)| Key { ind: BASES[*base] + ind, hash: *hash }).collect();
            let mut distinct = KeySet::within(KeySet::new().key_maker(), max_bytes);
            distinct.expect(50_000);
            let mut was_new = std::collections::HashMap::new();
            for batch in keys.chunks(batch_rows) {
                let fresh = distinct.take(&RowKeys(batch.to_vec()));
                for (row, key) in batch.iter().enumerate() {
                    // An empty place is told from hash 0 by taking that for 1.
                    let same = (key.ind, key.hash.max(1));
                    match was_new.get(&same) {
                        None => {
                            proptest::prop_assert!(fresh.new.value(row) != fresh.undecided.value(row));
                            was_new.insert(same, fresh.new.value(row));
                        }
                        Some(true) => proptest::prop_assert!(!fresh.new.value(row) && !fresh.undecided.value(row)),
                        Some(false) => proptest::prop_assert!(!fresh.new.value(row) && fresh.undecided.value(row)),
                    }
                }
            }
        }
    }

    #[test]
    fn rows_known_already_are_left_out_also_with_nulls_in_them() {
        let all = users(&[(1, Some("A B"), None), (2, Some("A B"), None)]);
        let left = anti_join(
            &Kind::User.clean_schema(),
            vec![all.clone()],
            &[all.slice(0, 1)],
        )
        .expect("compares");
        assert_eq!(left, [all.slice(1, 1)]);
    }
}
