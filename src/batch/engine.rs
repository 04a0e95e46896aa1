//! DataFusion, set up to run the portable SQL.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::functions_nested::make_array::make_array_udf;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::{OrFail, Result};
use crate::record::Kind;
use crate::sql;

/// One session.
pub struct Engine {
    context: SessionContext,
}

impl Engine {
    pub fn new() -> Self {
        let config = SessionConfig::new()
            // Spark's dialect: `array(…)` is a function there.
            .set_str("datafusion.sql_parser.dialect", "spark")
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
        let context = SessionContext::new_with_config(config);
        let array = make_array_udf().as_ref().clone().with_aliases(["array"]);
        context.register_udf(array);
        Self { context }
    }

    /// Makes batches a table; one of the same name is replaced.
    pub fn register(&self, name: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
        let table = MemTable::try_new(schema, vec![batches]).or_fail(|| format!("cannot register table `{name}`"))?;
        self.register_provider(name, Arc::new(table))
    }

    /// Makes any table known under a name.
    pub fn register_provider(&self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        self.context.deregister_table(name).or_fail(|| format!("cannot replace table `{name}`"))?;
        self.context.register_table(name, provider).map(|_| ()).or_fail(|| format!("cannot register table `{name}`"))
    }

    /// Runs a query; the schema stands also where there is no row.
    pub async fn query(&self, what: &str, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let failed = || format!("cannot run the query for {what}");
        let frame = self.context.sql(sql).await.or_fail(failed)?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.or_fail(failed)?;
        Ok((schema, batches))
    }

    /// Cleans raw batches of a kind: the same SQL for batch and stream.
    pub async fn clean(&self, kind: Kind, raw: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.register(&format!("raw_{}", kind.name()), kind.raw_schema(), raw)?;
        let (_, batches) = self.query(&format!("clean {} records", kind.name()), sql::clean(kind)).await?;
        as_schema(batches, &kind.clean_schema())
    }
}

/// Casts columns by position to a schema, where an engine chose other types.
pub fn as_schema(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let convert = |batch: &RecordBatch| {
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?)
    };
    batches.iter().map(convert).collect::<Result<Vec<_>, arrow::error::ArrowError>>().or_fail(|| "cannot convert the result of a query")
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
    let mut kept = Vec::with_capacity(fresh.len());
    for batch in fresh {
        let rows = converter.convert_columns(batch.columns()).or_fail(failed)?;
        let is_new: BooleanArray = rows.iter().map(|row| Some(!known.contains(row.as_ref()))).collect();
        let batch = filter_record_batch(&batch, &is_new).or_fail(failed)?;
        if batch.num_rows() > 0 {
            kept.push(batch);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::Decoder;
    use arrow::util::pretty::pretty_format_batches;

    async fn cleaned(kind: Kind, records: &[&str]) -> String {
        let mut decoder = Decoder::new(kind);
        for record in records {
            decoder.record("test", 0, record.as_bytes()).expect("decodes");
        }
        assert_eq!(decoder.rejects, []);
        let batches = Engine::new().clean(kind, decoder.finish().expect("finishes")).await.expect("cleans");
        pretty_format_batches(&batches).expect("prints").to_string()
    }

    #[tokio::test]
    async fn follower_counts_become_numbers_or_unknown() {
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
        ] {
            let record = format!("{{\"index\":1,\"follower_count\":\"{raw}\",\"category\":\"art\"}}");
            let mut decoder = Decoder::new(Kind::Pin);
            decoder.record("test", 0, record.as_bytes()).expect("decodes");
            let batches = Engine::new().clean(Kind::Pin, decoder.finish().expect("finishes")).await.expect("cleans");
            let text = arrow::util::display::array_value_to_string(batches[0].column(4), 0).expect("prints");
            assert_eq!(text, clean, "`{raw}`");
        }
    }

    #[tokio::test]
    async fn a_repeated_record_counts_once_however_its_time_is_written() {
        let table = cleaned(
            Kind::Geo,
            &[
                r#"{"ind":7,"timestamp":"2022-05-27 11:30:59","latitude":1.5,"longitude":-2.5,"country":"Peru"}"#,
                r#"{"ind":7,"timestamp":"2022-05-27T11:30:59","latitude":1.5,"longitude":-2.5,"country":"Peru"}"#,
            ],
        )
        .await;
        assert_eq!(table.matches("Peru").count(), 1, "{table}");
        assert!(table.contains("[1.5, -2.5]") && table.contains("2022-05-27T11:30:59Z"), "{table}");
    }

    #[tokio::test]
    async fn names_are_joined_by_one_blank() {
        let table =
            cleaned(Kind::User, &[r#"{"ind":1,"first_name":"Ada","last_name":"Byron","age":36,"date_joined":"2016-01-02 03:04:05"}"#])
                .await;
        assert!(table.contains("| Ada Byron |"), "{table}");
    }

    #[tokio::test]
    async fn rows_known_already_are_left_out_also_with_nulls_in_them() {
        let mut decoder = Decoder::new(Kind::User);
        decoder.record("test", 0, br#"{"ind":1,"first_name":"A","last_name":"B","age":null,"date_joined":null}"#).expect("decodes");
        decoder.record("test", 0, br#"{"ind":2,"first_name":"A","last_name":"B","age":null,"date_joined":null}"#).expect("decodes");
        let batches = Engine::new().clean(Kind::User, decoder.finish().expect("finishes")).await.expect("cleans");
        let all = arrow::compute::concat_batches(&Kind::User.clean_schema(), &batches).expect("joins");
        let kept = distinct_from(&Kind::User.clean_schema(), vec![all.clone()], &[all.slice(0, 1)]).expect("compares");
        assert_eq!(kept.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }
}
