//! Batch on a schedule: a DAG in Managed Airflow that runs the job on Databricks.

mod connection;
mod dag;
mod rest;
mod schedule;

pub use connection::{CONNECTION, Connection};
pub use dag::{DAG_BEGINS, dag_key, rendered_dag};
pub use schedule::{ScheduleArguments, schedule, unschedule};
