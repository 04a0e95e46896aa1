//! Managed Airflow: the environment, its requirements, the DAG and the connection to Databricks.

pub mod connection;
pub mod dag;
pub mod environment;
pub mod requirements;
