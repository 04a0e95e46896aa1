//! What a source of records does, whichever service it reads.

use std::collections::BTreeMap;

use super::kafka_source::KafkaSource;
use super::kinesis_source::KinesisSource;
use crate::error::Result;

/// How far each shard or partition has been read: by its name, the last sequence
/// number or the next offset.
pub type Positions = BTreeMap<String, String>;

/// A record as it came.
pub struct Incoming {
    /// Shard or partition, for people.
    pub origin: String,
    pub data: Vec<u8>,
}

/// Records read in one go, and how far that goes.
pub struct Read {
    pub records: Vec<Incoming>,
    pub positions: Positions,
    /// Nothing more was there at the end of this read.
    pub at_end: bool,
}

/// A stream or a topic.
pub enum RecordSource {
    Kinesis(KinesisSource),
    Kafka(Box<KafkaSource>),
}

impl RecordSource {
    /// What tells this stream or topic from a later one of the same name.
    pub fn identity(&self) -> &str {
        match self {
            Self::Kinesis(source) => &source.identity,
            Self::Kafka(source) => &source.identity,
        }
    }

    /// Reads on from these positions, at most about so many records.
    pub async fn read(&mut self, from: &Positions, most_records: usize) -> Result<Read> {
        match self {
            Self::Kinesis(source) => source.read(from, most_records).await,
            Self::Kafka(source) => source.read(from, most_records).await,
        }
    }
}
