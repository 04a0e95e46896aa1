//! Clients of other services, one module for each service.

pub mod airflow;
pub mod aws;
pub mod control;
pub mod database;
pub mod databricks;
pub mod gateway;
pub mod http;
pub mod kafka;
pub mod loopback;
