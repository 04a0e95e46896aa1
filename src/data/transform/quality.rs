//! Data quality: how many values of each column were missing, marked as unknown, or changed by cleaning.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::compute::kernels::cmp::neq;
use arrow::datatypes::DataType;
use serde::Serialize;

use crate::base::error::{ErrorContext, Result};
use crate::base::model::{ColumnType, Kind};

/// Counts of one raw column, repeated records included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnQuality {
    pub kind: Kind,
    pub column: &'static str,
    pub values: u64,
    /// Not in the record, or null there.
    pub nulls: u64,
    /// A marker such as `User Info Error`, which cleaning made null.
    pub marked: u64,
    /// Written in another way after cleaning: `46k` as 46000.
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

/// The columns of a kind, nothing counted yet.
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

/// Counts a raw batch and what cleaning made of it, row for row.
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
            ColumnType::Integer | ColumnType::Float => 0,
            // A `T` between day and time is the one other form.
            ColumnType::DateTime => before
                .as_string::<i32>()
                .iter()
                .flatten()
                .filter(|text| text.as_bytes().get(10) == Some(&b'T'))
                .count(),
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
