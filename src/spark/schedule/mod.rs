//! Scheduled batch: a DAG in Managed Airflow that runs the job on Databricks.

pub mod connection;
pub mod dag;
pub mod runs;
