//! Leaving out repeated rows: those of which every column is equal after cleaning.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};

use super::engine::{Engine, as_schema};
use crate::error::{OrFail, Result};

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
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// The rows seen so far, 16 bytes each however wide they are.
pub struct Distinct {
    key_maker: KeyMaker,
    keys: HashSet<Key, BuildHasherDefault<AsItIs>>,
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
        create_hashes(batch.columns(), &self.0, &mut hashes).or_fail(|| "cannot compare rows")?;
        // The hash passes over nulls: without this, a value would do in the place of its neighbour's.
        for (number, column) in batch.columns().iter().enumerate().filter(|(_, column)| column.null_count() > 0) {
            let mark = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(number as u64 + 1);
            for (_, hash) in hashes.iter_mut().enumerate().filter(|(row, _)| column.is_null(*row)) {
                *hash = (*hash ^ mark).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
            }
        }
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let keys =
            hashes.into_iter().enumerate().map(|(row, hash)| Key { hash, ind: if numbers.is_null(row) { -1 } else { numbers.value(row) } });
        Ok(RowKeys(keys.collect()))
    }
}

impl Distinct {
    pub fn new() -> Self {
        Self { key_maker: KeyMaker(QualityRandomState::with_seed(rand::random())), keys: HashSet::default() }
    }

    /// What makes keys for this set.
    pub fn key_maker(&self) -> KeyMaker {
        self.key_maker.clone()
    }

    /// Which rows are new; they are known from then on.
    pub fn take(&mut self, keys: &RowKeys) -> BooleanArray {
        keys.0.iter().map(|key| Some(self.keys.insert(*key))).collect()
    }
}

/// The rows of a batch that the mask names.
pub fn kept(batch: RecordBatch, mask: &BooleanArray) -> Result<RecordBatch> {
    if mask.true_count() == batch.num_rows() {
        return Ok(batch);
    }
    filter_record_batch(&batch, mask).or_fail(|| "cannot leave out repeated rows")
}

/// The rows of `fresh` that a table does not hold. Only rows of the same numbers are
/// compared, so only those are held in memory.
pub async fn not_in_table(schema: &SchemaRef, fresh: Vec<RecordBatch>, table: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
    let engine = Engine::new();
    engine.register("fresh", schema.clone(), fresh.clone())?;
    engine.register_provider("existing", table)?;
    let query = "SELECT e.* FROM existing e WHERE e.ind IN (SELECT f.ind FROM fresh f)";
    let (_, existing) = engine.query("rows that are there already", query).await?;
    distinct_from(schema, fresh, &as_schema(existing, schema)?)
}

/// The rows of `fresh` that `existing` does not hold, compared in every column.
pub fn distinct_from(schema: &SchemaRef, fresh: Vec<RecordBatch>, existing: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let failed = || "cannot compare rows";
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields).or_fail(failed)?;
    let mut known = HashSet::new();
    for batch in existing {
        let rows = converter.convert_columns(batch.columns()).or_fail(failed)?;
        known.extend(rows.iter().map(|row| row.as_ref().to_vec()));
    }
    let mut left = Vec::with_capacity(fresh.len());
    for batch in fresh {
        let rows = converter.convert_columns(batch.columns()).or_fail(failed)?;
        let is_new: BooleanArray = rows.iter().map(|row| Some(!known.contains(row.as_ref()))).collect();
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
    use crate::record::Kind;
    use arrow::array::{ArrayRef, Int32Array, StringArray, TimestampMicrosecondArray};

    /// Users that have a number, and a name or an age.
    fn users(rows: &[(i32, Option<&str>, Option<i32>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|_| None).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ];
        RecordBatch::try_new(Kind::User.clean_schema(), columns).expect("a batch")
    }

    fn new_rows(distinct: &mut Distinct, batch: &RecordBatch) -> Vec<bool> {
        let keys = distinct.key_maker().keys(batch).expect("keys");
        distinct.take(&keys).iter().map(|is_new| is_new == Some(true)).collect()
    }

    #[test]
    fn a_repeated_row_counts_once_and_every_column_tells_rows_apart() {
        let mut distinct = Distinct::new();
        let rows = [
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(20)),
            (1, Some("A"), Some(21)),
            (2, Some("A"), Some(20)),
            (1, Some("B"), Some(20)),
        ];
        assert_eq!(new_rows(&mut distinct, &users(&rows)), [true, false, true, true, true]);
        assert_eq!(new_rows(&mut distinct, &users(&rows)), [false; 5], "known over batches");
    }

    #[test]
    fn nothing_and_a_value_are_told_apart_wherever_they_stand() {
        let mut distinct = Distinct::new();
        let rows = [(1, None, None), (1, Some(""), None), (1, None, Some(0)), (1, Some(""), Some(0)), (1, None, None)];
        assert_eq!(new_rows(&mut distinct, &users(&rows)), [true, true, true, true, false]);
    }

    #[test]
    fn rows_known_already_are_left_out_also_with_nulls_in_them() {
        let all = users(&[(1, Some("A B"), None), (2, Some("A B"), None)]);
        let left = distinct_from(&Kind::User.clean_schema(), vec![all.clone()], &[all.slice(0, 1)]).expect("compares");
        assert_eq!(left, [all.slice(1, 1)]);
    }
}
