//! Results of a Spark run: answers and counts, in a folder or in the bucket.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::sql::Question;
use crate::data::storage::Lake;
use crate::stages::batch::answer::Answer;
use crate::stages::batch::report::{BatchReport, KindCounts};

/// Reads the results in `out` and returns the same report as the embedded engine.
///
/// # Errors
/// An answer is missing or cannot be read.
pub async fn fetch(
    config: &Config,
    out: &str,
    lake_url: &str,
    questions: &[Question],
) -> Result<BatchReport> {
    let lake = Lake::open(config, out, false).await?;
    let (_, counts) = read(&lake, "counts").await?;
    let mut report = BatchReport::new(lake_url.to_string());
    for kind in Kind::ALL {
        let count = |column: usize| count_of(&counts, kind, column);
        report.inputs.push(KindCounts {
            records: count(1),
            rejects: count(2),
            duplicates: count(3),
            new_rows: count(4),
            ..KindCounts::of_table(kind, count(4), "(in Spark)".into(), 0)
        });
    }
    for question in questions {
        let (schema, batches) = read(&lake, &question.name).await?;
        report.answers.push(Answer::new(question, schema, batches)?);
    }
    Ok(report)
}

/// Deletes the results of a run in `out`.
///
/// # Errors
/// An object cannot be deleted.
pub async fn discard(config: &Config, out: &str) -> Result<()> {
    let lake = Lake::open(config, out, false).await?;
    let cannot = || format!("cannot delete the results of Spark in `{out}`");
    let objects: Vec<_> = lake.store.list(Some(&lake.root)).try_collect().await.context(cannot)?;
    for object in objects {
        lake.store.delete(&object.location).await.context(cannot)?;
    }
    Ok(())
}

/// Reads a table that Spark wrote as Parquet files.
async fn read(lake: &Lake, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let cannot = || {
        format!("cannot read the results of Spark in `{}/{table}`", lake.url.trim_end_matches('/'))
    };
    let objects: Vec<_> =
        lake.store.list(Some(&lake.path(table))).try_collect().await.context(cannot)?;
    let mut paths: Vec<_> = objects
        .into_iter()
        .map(|object| object.location)
        .filter(|path| path.filename().is_some_and(|name| name.ends_with(".parquet")))
        .collect();
    paths.sort();
    let mut first_schema: Option<SchemaRef> = None;
    let mut batches = Vec::new();
    for path in paths {
        let content = lake.store.get(&path).await.context(cannot)?.bytes().await.context(cannot)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(content)
            .context(cannot)?
            .build()
            .context(cannot)?;
        first_schema.get_or_insert(arrow::array::RecordBatchReader::schema(&reader));
        batches.extend(reader.collect::<Result<Vec<_>, _>>().context(cannot)?);
    }
    let schema = first_schema.ok_or_else(|| {
        Error::failed(format!("{}: it contains no Parquet files", cannot()))
            .hint("re-run the command with `-vv` for the full log of Spark")
    })?;
    Ok((schema, batches))
}

/// Returns a count of a kind from the `counts` table.
fn count_of(counts: &[RecordBatch], kind: Kind, column: usize) -> u64 {
    let values = counts.iter().flat_map(|batch| {
        let kinds = batch.column(0).as_string::<i32>().iter();
        kinds.zip(batch.column(column).as_primitive::<Int64Type>().values().iter().copied())
    });
    values
        .filter(|(name, _)| *name == Some(kind.name()))
        .map(|(_, count)| count.unsigned_abs())
        .sum()
}
