//! `pinpipe batch --engine spark`: the same definitions, run by Spark on this machine or on
//! Databricks, now or when Airflow says so.

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

/// What Spark is to run, wherever it does.
#[derive(Clone, Copy)]
pub struct SparkBatch<'a> {
    pub config: &'a Config,
    pub lake_url: &'a str,
    /// First folder of the topics in the lake.
    pub topics_dir: &'a str,
    pub questions: &'a [Question],
    pub median: Median,
    pub printer: &'a Printer,
}

/// Runs the whole job; answers and counts as the embedded engine gives them.
///
/// # Errors
/// Spark cannot be started, the job failed, the user stopped it.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    match batch.config.spark.place {
        SparkPlace::SparkSubmit => submit::run(batch).await,
        SparkPlace::Databricks => databricks::run::run(batch).await,
    }
}
