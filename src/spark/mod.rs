//! `pinpipe batch --engine spark`: the same definitions, run by Spark on this machine or on
//! Databricks, now or when Airflow says so.

mod airflow;
mod databricks;
mod job;
mod results;
mod submit;

pub use airflow::{CONNECTION, Connection, ScheduleArguments, dag_key, rendered_dag, schedule, unschedule};
pub use databricks::{Databricks, job_differences, remove_job, scheduled_folder, upload_job};
pub use job::Parameters;

use crate::batch::BatchReport;
use crate::config::{Config, Median, SparkPlace};
use crate::error::Result;
use crate::output::Printer;
use crate::sql::Question;

/// Runs the whole job; answers and counts as the embedded engine gives them.
///
/// # Errors
/// Spark cannot be started, the job failed, the user stopped it.
pub async fn run(
    config: &Config,
    lake_url: &str,
    topics_dir: &str,
    questions: &[Question],
    median: Median,
    printer: &Printer,
) -> Result<BatchReport> {
    match config.spark.place {
        SparkPlace::SparkSubmit => submit::run(config, lake_url, topics_dir, questions, median, printer).await,
        SparkPlace::Databricks => databricks::run(config, lake_url, topics_dir, questions, median, printer).await,
    }
}
