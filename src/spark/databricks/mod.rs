//! Spark on Databricks, through the workspace's REST API.

mod client;
mod cluster;
mod job;
mod login;
mod run;

pub use client::Databricks;
pub use cluster::submission;
pub use job::{JobFiles, job_differences, remove_job, scheduled_folder, upload_job};
pub use login::Login;
pub use run::{failure_since, run};
