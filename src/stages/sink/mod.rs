//! The local sink connector. It writes Kafka topics to lake objects and is configured with the
//! properties of the Confluent S3 sink connector.

pub mod connectors;
pub mod partitioner;
pub mod properties;
pub mod task;
pub mod writer;
