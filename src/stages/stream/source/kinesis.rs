//! Reads the records of a Kinesis stream by shard.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::base::error::Result;
use crate::clients::aws::call::failure;
use crate::stages::stream::source::record_source::{
    Positions, ReadBatch, RecordSource, SourceRecord,
};

/// Maximum number of records in one GetRecords call; the service allows up to 10,000.
const READ_LIMIT: i32 = 10_000;

/// A Kinesis stream as a source of records.
pub struct KinesisSource {
    client: Client,
    stream: String,
    identity: String,
    /// For each shard, the position after the last read and the iterator at that position.
    iterators: HashMap<String, (Option<String>, String)>,
}

impl KinesisSource {
    /// Checks that the stream exists.
    ///
    /// # Errors
    /// The stream does not exist; the endpoint cannot be reached.
    pub async fn open(client: Client, stream: &str) -> Result<Self> {
        let summary = client
            .describe_stream_summary()
            .stream_name(stream)
            .send()
            .await
            .map_err(|error| failure(&format!("cannot read stream `{stream}`"), &error))?;
        let created = summary
            .stream_description_summary
            .map(|summary| summary.stream_creation_timestamp.to_millis().unwrap_or_default())
            .unwrap_or_default();
        Ok(Self {
            client,
            stream: stream.to_string(),
            identity: format!("kinesis:{stream}:{created}"),
            iterators: HashMap::new(),
        })
    }

    async fn shards(&self) -> Result<Vec<String>> {
        let failed =
            |error| failure(&format!("cannot list the shards of stream `{}`", self.stream), &error);
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // The service rejects a request that contains both the token and the stream name.
            let request = match token.take() {
                Some(token) => self.client.list_shards().next_token(token),
                None => self.client.list_shards().stream_name(&self.stream),
            };
            let page = request.send().await.map_err(failed)?;
            shards.extend(page.shards.unwrap_or_default().into_iter().map(|shard| shard.shard_id));
            match page.next_token {
                Some(next) => token = Some(next),
                None => return Ok(shards),
            }
        }
    }

    async fn iterator(&self, shard: &str, after: Option<&String>) -> Result<String> {
        let request = self.client.get_shard_iterator().stream_name(&self.stream).shard_id(shard);
        let request = match after {
            Some(number) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number),
            None => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
        };
        let output = request.send().await.map_err(|error| {
            failure(&format!("cannot read shard `{shard}` of stream `{}`", self.stream), &error)
        })?;
        Ok(output.shard_iterator.unwrap_or_default())
    }
}

#[async_trait]
impl RecordSource for KinesisSource {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn read(&mut self, from: &Positions, max_records: usize) -> Result<ReadBatch> {
        let mut batch = ReadBatch { records: Vec::new(), positions: from.clone(), at_end: true };
        for shard in self.shards().await? {
            loop {
                let position = batch.positions.get(&shard);
                // An iterator is reused only at its own position. It may have expired.
                let iterator = match self.iterators.remove(&shard) {
                    Some((at, iterator)) if at.as_ref() == position => iterator,
                    _ => self.iterator(&shard, position).await?,
                };
                let request = |iterator: String| {
                    self.client.get_records().shard_iterator(iterator).limit(READ_LIMIT).send()
                };
                let output = match request(iterator).await {
                    Err(error)
                        if error
                            .as_service_error()
                            .is_some_and(|service| service.is_expired_iterator_exception()) =>
                    {
                        request(self.iterator(&shard, position).await?).await
                    }
                    other => other,
                };
                let output = output.map_err(|error| {
                    failure(
                        &format!("cannot read shard `{shard}` of stream `{}`", self.stream),
                        &error,
                    )
                })?;
                if let Some(last) = output.records.last() {
                    batch.positions.insert(shard.clone(), last.sequence_number.clone());
                }
                batch.records.extend(output.records.into_iter().map(|record| SourceRecord {
                    origin: format!("{}/{shard}", self.stream),
                    data: record.data.into_inner(),
                }));
                let has_lag = output.millis_behind_latest.unwrap_or(0) > 0;
                match output.next_shard_iterator {
                    Some(next) => {
                        self.iterators
                            .insert(shard.clone(), (batch.positions.get(&shard).cloned(), next));
                    }
                    // The shard was closed by resharding, and all its records have been read.
                    None => break,
                }
                if batch.records.len() >= max_records {
                    batch.at_end = false;
                    return Ok(batch);
                }
                if !has_lag {
                    break;
                }
            }
        }
        Ok(batch)
    }
}
