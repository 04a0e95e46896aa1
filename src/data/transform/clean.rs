//! Cleaning: the portable SQL of a kind, planned once and evaluated for each batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::engine::session::Engine;
use crate::data::sql;

/// Expressions over the output columns of the previous step.
struct Step {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    output: SchemaRef,
}

/// Converts raw batches of a kind to clean ones, row by row. Used by batch and stream.
pub struct Cleaner {
    kind: Kind,
    /// Raw columns that the plan reads.
    input: SchemaRef,
    steps: Vec<Step>,
    schema: SchemaRef,
}

impl Cleaner {
    pub async fn new(kind: Kind) -> Result<Self> {
        let engine = Engine::new();
        engine.register(&format!("raw_{}", kind.name()), kind.raw_schema(), Vec::new())?;
        let mut plan =
            engine.plan(&format!("clean {} records", kind.name()), sql::clean(kind)).await?;
        let mut steps = Vec::new();
        while let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let input = projection.input().clone();
            let expressions =
                projection.expr().iter().map(|projected| projected.expr.clone()).collect();
            steps.push(Step { expressions, output: plan.schema() });
            plan = input;
        }
        if !plan.children().is_empty() {
            return Err(Error::failed(format!("cannot plan the cleaning of {} records: the query is not a list of expressions", kind.name()))
                .hint("use only expressions over one row in `src/data/sql/clean`, no DISTINCT, JOIN or GROUP BY"));
        }
        steps.reverse();
        Ok(Self { kind, input: plan.schema(), steps, schema: kind.clean_schema() })
    }

    /// Returns one clean row for each raw row.
    pub fn clean(&self, raw: &RecordBatch) -> Result<RecordBatch> {
        let failed = || format!("cannot clean {} records", self.kind.name());
        let columns =
            self.input.fields().iter().map(|field| raw.schema_ref().index_of(field.name()));
        let mut batch = raw
            .project(&columns.collect::<Result<Vec<_>, _>>().context(failed)?)
            .context(failed)?;
        for step in &self.steps {
            let columns = step
                .expressions
                .iter()
                .map(|expression| expression.evaluate(&batch)?.into_array(batch.num_rows()));
            let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().context(failed)?;
            batch = RecordBatch::try_new(step.output.clone(), columns).context(failed)?;
        }
        // An engine may choose other types: cast to those of the clean table.
        let columns = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| as_type(column, field.data_type()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().context(failed)?;
        RecordBatch::try_new(self.schema.clone(), columns).context(failed)
    }
}

/// Casts a column. A time without a zone is in UTC, so only its type changes, which needs no
/// calendar arithmetic.
fn as_type(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), data_type) {
        (
            DataType::Timestamp(_, None),
            DataType::Timestamp(unit @ TimeUnit::Microsecond, Some(_)),
        ) => {
            let times = cast(column, &DataType::Timestamp(*unit, None))?;
            Ok(Arc::new(
                times
                    .as_primitive::<TimestampMicrosecondType>()
                    .clone()
                    .with_data_type(data_type.clone()),
            ))
        }
        _ => cast(column, data_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::lake::decode::Decoder;
    use arrow::util::display::array_value_to_string;
    use arrow::util::pretty::pretty_format_batches;

    async fn cleaned(kind: Kind, record: &str) -> RecordBatch {
        let mut decoder = Decoder::new(kind);
        decoder.record("test", 0, record.as_bytes()).expect("decodes");
        assert_eq!(decoder.rejects, []);
        let raw = decoder.finish().expect("finishes");
        Cleaner::new(kind).await.expect("plans").clean(&raw[0]).expect("cleans")
    }

    fn rendered(batch: RecordBatch) -> String {
        pretty_format_batches(&[batch]).expect("prints").to_string()
    }

    #[tokio::test]
    async fn converts_follower_counts_to_numbers_or_null() {
        for (raw, clean) in [
            ("46k", "46000"),
            ("2M", "2000000"),
            ("305", "305"),
            ("3K", "3000"),
            ("1m", "1000000"),
            ("0", "0"),
            ("User Info Error", ""),
            ("1.5M", ""),
            ("k", ""),
            ("12k3", ""),
            ("-5", ""),
            ("99999999999999999999", ""),
            ("46000.0", "46000"),
            ("46.000", "46"),
            ("46.5", ""),
            ("46.", ""),
            (".0", ""),
            ("1.0.0", ""),
            ("4.0k", ""),
        ] {
            let batch = cleaned(
                Kind::Pin,
                &format!("{{\"index\":1,\"follower_count\":\"{raw}\",\"category\":\"art\"}}"),
            )
            .await;
            assert_eq!(
                array_value_to_string(batch.column(4), 0).expect("prints"),
                clean,
                "`{raw}`"
            );
        }
        let batch = cleaned(Kind::Pin, r#"{"index":1,"follower_count":46000.0}"#).await;
        assert_eq!(array_value_to_string(batch.column(4), 0).expect("prints"), "46000");
    }

    #[tokio::test]
    async fn reads_the_columns_that_a_table_has() {
        for kind in Kind::ALL {
            let cleaner = Cleaner::new(kind).await.expect("plans");
            for (name, _) in kind.columns() {
                let is_read = cleaner.input.column_with_name(name).is_some();
                assert_eq!(is_read, kind.is_cleaned(name), "`{name}`");
            }
        }
    }

    #[tokio::test]
    async fn reads_both_formats_of_a_time_as_the_same_time() {
        let record = |separator: &str| {
            format!(
                r#"{{"ind":7,"timestamp":"2022-05-27{separator}11:30:59","latitude":1.5,"longitude":-2.5,"country":"Peru"}}"#
            )
        };
        let batch = cleaned(Kind::Geo, &record(" ")).await;
        assert_eq!(batch, cleaned(Kind::Geo, &record("T")).await);
        let table = rendered(batch);
        assert!(table.contains("[1.5, -2.5]") && table.contains("2022-05-27T11:30:59Z"), "{table}");
    }

    #[tokio::test]
    async fn keeps_times_that_nanoseconds_cannot_hold() {
        for (raw, clean) in [
            ("9999-12-31 23:59:59", "9999-12-31T23:59:59Z"),
            ("0001-01-01", "0001-01-01T00:00:00Z"),
            ("1600-01-01T00:00:00+01:00", "1599-12-31T23:00:00Z"),
        ] {
            let batch = cleaned(Kind::User, &format!(r#"{{"ind":1,"date_joined":"{raw}"}}"#)).await;
            assert_eq!(array_value_to_string(batch.column(3), 0).expect("prints"), clean);
        }
    }

    #[tokio::test]
    async fn joins_the_names_with_one_space() {
        let record = r#"{"ind":1,"first_name":"Ada","last_name":"Byron","age":36,"date_joined":"2016-01-02 03:04:05"}"#;
        let table = rendered(cleaned(Kind::User, record).await);
        assert!(table.contains("| Ada Byron |"), "{table}");
        for (names, joined) in [
            (r#""first_name":"Ada","last_name":null"#, "Ada"),
            (r#""first_name":"Ada","last_name":"""#, "Ada"),
            (r#""last_name":"Byron""#, "Byron"),
            (r#""first_name":"","last_name":" Byron ""#, "Byron"),
        ] {
            let batch = cleaned(Kind::User, &format!(r#"{{"ind":1,{names}}}"#)).await;
            assert_eq!(array_value_to_string(batch.column(1), 0).expect("prints"), joined);
        }
        for names in ["", r#","first_name":"","last_name":"""#] {
            let batch = cleaned(Kind::User, &format!(r#"{{"ind":1{names}}}"#)).await;
            assert!(batch.column(1).is_null(0), "{names}");
        }
    }
}
