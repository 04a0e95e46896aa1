//! Data quality: the number of values in each column that are null, marked as unknown, or changed
//! by cleaning.

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::neq;
use arrow::datatypes::DataType;
use serde::Serialize;

use crate::base::error::{ErrorContext, Result};
use crate::base::model::{ColumnType, Kind};

/// Counts of one raw column, duplicates included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnQuality {
    pub kind: Kind,
    pub column: &'static str,
    pub values: u64,
    /// Values that are absent or null in the record. In a column that no table has, also values of
    /// another type.
    pub nulls: u64,
    /// Markers such as `User Info Error`, which cleaning replaces with null.
    pub marked: u64,
    /// Values that cleaning changed, such as `46k` to 46000.
    pub changed: u64,
}

impl ColumnQuality {
    /// Adds the counts of another part of the same column.
    pub fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.nulls += other.nulls;
        self.marked += other.marked;
        self.changed += other.changed;
    }
}

/// Returns zero counts for each column of a kind.
pub fn columns(kind: Kind) -> Vec<ColumnQuality> {
    let column = |(column, _): &crate::base::model::Column| ColumnQuality {
        kind,
        column,
        values: 0,
        nulls: 0,
        marked: 0,
        changed: 0,
    };
    kind.columns().iter().map(column).collect()
}

/// Adds the counts of a raw batch and its clean batch, which have the same rows.
pub fn count(
    kind: Kind,
    counts: &mut [ColumnQuality],
    raw: &RecordBatch,
    clean: &RecordBatch,
) -> Result<()> {
    for ((count, (name, column_type)), before) in
        counts.iter_mut().zip(kind.columns()).zip(raw.columns())
    {
        count.values += before.len() as u64;
        count.nulls += before.null_count() as u64;
        let Some(after) = clean.column_by_name(name) else {
            continue;
        };
        count.marked += after.null_count().saturating_sub(before.null_count()) as u64;
        count.changed += match column_type {
            ColumnType::Integer | ColumnType::Float | ColumnType::DateTime => 0,
            ColumnType::Text => {
                let failed = || format!("cannot compare column `{name}`");
                let after = if after.data_type() == &DataType::Utf8 {
                    after.clone()
                } else {
                    cast(after, &DataType::Utf8).context(failed)?
                };
                neq(before, &after).context(failed)?.true_count()
            }
        } as u64;
    }
    Ok(())
}
