//! `pinpipe batch --engine spark`: the same SQL, run by Spark on this machine or on Databricks, on
//! demand or scheduled by Airflow.

pub mod databricks;
pub mod job;
pub mod results;
pub mod schedule;
pub mod submit;

use crate::base::config::schema::{Config, Median, SparkPlace};
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::data::sql::Question;
use crate::stages::batch::report::BatchReport;

/// Parameters of a batch run on Spark, on this machine or on Databricks.
#[derive(Clone, Copy)]
pub struct SparkBatch<'a> {
    pub config: &'a Config,
    pub lake_url: &'a str,
    /// Top-level folder of the topics in the lake, `topics.dir` of the sink connector.
    pub topics_dir: &'a str,
    pub questions: &'a [Question],
    pub median: Median,
    pub printer: &'a Printer,
}

/// Runs the batch job on Spark. Returns the same answers and counts as the embedded engine.
///
/// # Errors
/// Spark cannot be started; the job fails; the user interrupts it.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    match batch.config.spark.place {
        SparkPlace::SparkSubmit => submit::run(batch).await,
        SparkPlace::Databricks => databricks::run::run(batch).await,
    }
}
