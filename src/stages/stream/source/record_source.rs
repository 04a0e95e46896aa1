//! The interface between `stream` and the services that it reads.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::base::error::Result;

/// Read position per shard or partition: the last sequence number (Kinesis) or the next
/// offset (Kafka), as text.
pub type Positions = BTreeMap<String, String>;

/// A record as received from the service.
pub struct SourceRecord {
    /// Stream or topic with its shard or partition, for messages.
    pub origin: String,
    pub data: Vec<u8>,
}

/// Records of one read.
pub struct ReadBatch {
    pub records: Vec<SourceRecord>,
    /// Positions after these records.
    pub positions: Positions,
    /// No more records were available at the end of this read.
    pub at_end: bool,
}

/// One stream or topic, read in micro-batches.
#[async_trait]
pub trait RecordSource: Send + Sync {
    /// Identifies the stream or topic. A Kinesis stream that is recreated under the same name has
    /// another identity.
    fn identity(&self) -> &str;

    /// Reads records after these positions, up to about `max_records`.
    ///
    /// # Errors
    /// The service cannot be reached; the stream or topic was deleted.
    async fn read(&mut self, from: &Positions, max_records: usize) -> Result<ReadBatch>;
}
