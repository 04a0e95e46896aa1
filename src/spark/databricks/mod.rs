//! Spark on Databricks, through the workspace's REST API.

pub mod cluster;
pub mod job;
pub mod run;
