//! Comparison of the clean tables of the batch layer and the stream layer.

use arrow::array::RecordBatch;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::data::engine::session::{Engine, as_schema};
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::open_clean_table;
use crate::data::transform::keys::anti_join;

/// Counts of the rows of some posts in both layers.
#[derive(Debug, PartialEq, Eq)]
pub struct Agreement {
    pub batch_rows: u64,
    pub stream_rows: u64,
    /// Rows that exist in only one layer.
    pub differing: u64,
}

/// Compares the clean tables of a record kind, row by row, for the posts with these row numbers.
///
/// # Errors
/// A table does not exist or cannot be read.
pub async fn compare(config: &Config, kind: Kind, numbers: &[i64]) -> Result<Agreement> {
    let batch = rows(config, TableNamespace::Batch, kind, numbers).await?;
    let stream = rows(config, TableNamespace::Stream, kind, numbers).await?;
    let schema = kind.clean_schema();
    let only_batch = anti_join(&schema, batch.clone(), &stream)?;
    let only_stream = anti_join(&schema, stream.clone(), &batch)?;
    Ok(Agreement {
        batch_rows: count(&batch),
        stream_rows: count(&stream),
        differing: count(&only_batch) + count(&only_stream),
    })
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

async fn rows(
    config: &Config,
    namespace: TableNamespace,
    kind: Kind,
    numbers: &[i64],
) -> Result<Vec<RecordBatch>> {
    let table = open_clean_table(config, namespace, kind).await?;
    let provider = table
        .provider()
        .await?
        .ok_or_else(|| Error::failed(format!("table `{}` does not exist", table.name())))?;
    let engine = Engine::new();
    engine.register_provider("whole", provider)?;
    // The numbers are integers, so they need no quoting in the statement.
    let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
    let (_, batches) = engine
        .query(
            "the rows of the demo's posts",
            &format!("SELECT w.* FROM whole w WHERE w.ind IN ({})", list.join(", ")),
        )
        .await?;
    as_schema(batches, &kind.clean_schema())
}
