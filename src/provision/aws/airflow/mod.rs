//! Managed Airflow: environment, requirements, DAG and connection.

pub mod connection;
pub mod dag;
pub mod environment;
pub mod requirements;
