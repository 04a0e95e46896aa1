//! Spark on Databricks, through the REST API of the workspace.

pub mod cluster;
pub mod job;
pub mod run;
