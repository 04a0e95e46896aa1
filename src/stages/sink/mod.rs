//! Kafka topics to lake objects, by the Confluent S3 sink connector's own properties.

pub mod connectors;
pub mod partitioner;
pub mod properties;
pub mod task;
pub mod writer;
