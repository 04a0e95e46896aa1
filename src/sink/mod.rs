//! Kafka topics to lake objects, by the Confluent S3 sink connector's own properties.

mod connectors;
mod partitioner;
mod properties;
mod task;
mod writer;

pub use connectors::{ConnectorStatus, Connectors, group};
pub use properties::SinkProperties;
