//! `pinpipe batch --engine spark`: the same definitions, run by Spark on this machine or on
//! Databricks, now or when Airflow says so.

mod airflow;
mod databricks;
mod job;
mod results;
mod submit;

pub use airflow::{CONNECTION, Connection, DAG_BEGINS, ScheduleArguments, dag_key, rendered_dag, schedule, unschedule};
pub use databricks::{Databricks, job_differences, remove_job, scheduled_folder, upload_job};
pub use job::Parameters;

use crate::batch::BatchReport;
use crate::config::{Config, Median, SparkPlace};
use crate::error::Result;
use crate::output::Printer;
use crate::sql::Question;

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
        SparkPlace::Databricks => databricks::run(batch).await,
    }
}
