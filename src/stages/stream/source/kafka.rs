//! Reads the records of a Kafka topic by partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::kafka::admin::Admin;
use crate::clients::kafka::context::Context;
use crate::stages::stream::source::record_source::{
    Positions, ReadBatch, RecordSource, SourceRecord,
};

/// Maximum time without a record while the end offsets are not reached.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// A Kafka topic as a source of records.
pub struct KafkaSource {
    config: Config,
    admin: Admin,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    identity: String,
}

impl KafkaSource {
    /// Connects to the brokers and checks that the topic exists.
    ///
    /// # Errors
    /// The topic does not exist; the brokers cannot be reached.
    pub async fn open(config: &Config, topic: &str) -> Result<Self> {
        let config = crate::clients::kafka::pinned(config)?;
        let admin = Admin::new(&config)?;
        if admin.describe(topic).await?.is_none() {
            return Err(Error::failed(format!("topic `{topic}` does not exist"))
                .hint("create it with `pinpipe provision` or `pinpipe topics create`"));
        }
        let consumer = Arc::new(crate::clients::kafka::consumer(&config, "pinpipe-stream")?);
        let identity = format!("kafka:{}/{topic}", config.kafka.bootstrap_servers);
        Ok(Self { config, admin, consumer, topic: topic.to_string(), identity })
    }
}

#[async_trait]
impl RecordSource for KafkaSource {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn read(&mut self, from: &Positions, max_records: usize) -> Result<ReadBatch> {
        let description = self.admin.describe(&self.topic).await?.ok_or_else(|| {
            Error::failed(format!("cannot read topic `{}`: it was deleted", self.topic))
        })?;
        let mut assignment = TopicPartitionList::new();
        let mut ends = Vec::new();
        let mut positions = from.clone();
        for partition in description.partitions {
            let name = partition.partition.to_string();
            let position =
                from.get(&name).and_then(|offset| offset.parse::<i64>().ok()).unwrap_or(0);
            // A position past the end offset belongs to a deleted topic with the same name.
            let next_offset = if position > partition.end_offset { 0 } else { position }
                .max(partition.start_offset);
            positions.insert(name, next_offset.to_string());
            if next_offset < partition.end_offset {
                assignment
                    .add_partition_offset(
                        &self.topic,
                        partition.partition,
                        Offset::Offset(next_offset),
                    )
                    .context(|| "cannot assign a partition")?;
                ends.push((partition.partition, next_offset, partition.end_offset));
            }
        }
        if ends.is_empty() {
            return Ok(ReadBatch { records: Vec::new(), positions, at_end: true });
        }
        let (consumer, topic, config) =
            (self.consumer.clone(), self.topic.clone(), self.config.clone());
        let batch = tokio::task::spawn_blocking(move || {
            poll(&consumer, &config, &topic, &assignment, ends, positions, max_records)
        });
        batch.await.context(|| "the Kafka request was aborted")?
    }
}

/// Polls until every partition is read to its end offset, or `max_records` are read.
fn poll(
    consumer: &BaseConsumer<Context>,
    config: &Config,
    topic: &str,
    assignment: &TopicPartitionList,
    ends: Vec<(i32, i64, i64)>,
    mut positions: Positions,
    max_records: usize,
) -> Result<ReadBatch> {
    let failed = |error: rdkafka::error::KafkaError| {
        crate::clients::kafka::failure(&format!("cannot read topic `{topic}`"), config, &error)
    };
    consumer.assign(assignment).map_err(failed)?;
    let mut records = Vec::new();
    let mut remaining: HashMap<i32, i64> =
        ends.iter().map(|(partition, _, end)| (*partition, *end)).collect();
    let mut last_progress = Instant::now();
    while !remaining.is_empty() && records.len() < max_records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last_progress = Instant::now();
                let Some(end) = remaining.get(&message.partition()).copied() else {
                    continue;
                };
                positions
                    .insert(message.partition().to_string(), (message.offset() + 1).to_string());
                records.push(SourceRecord {
                    origin: format!("{topic}/{}", message.partition()),
                    data: message.payload().unwrap_or_default().to_vec(),
                });
                if message.offset() + 1 >= end {
                    remaining.remove(&message.partition());
                }
            }
            Some(Err(error)) if last_progress.elapsed() > MAX_IDLE => return Err(failed(error)),
            // The last offsets may contain no record, after transaction markers or compaction.
            None if skip_gaps(consumer, topic, &mut remaining, &mut positions) => {
                last_progress = Instant::now()
            }
            None if last_progress.elapsed() > MAX_IDLE => {
                return Err(Error::failed(format!(
                    "cannot read topic `{topic}`: no records received for {} s before its end \
                     offset",
                    MAX_IDLE.as_secs()
                ))
                .hint("run `pinpipe doctor` to test every connection"));
            }
            _ => {}
        }
    }
    consumer.unassign().map_err(failed)?;
    Ok(ReadBatch { records, positions, at_end: remaining.is_empty() })
}

/// Marks partitions as read if the consumer has passed their end offset. Returns whether it marked
/// any.
fn skip_gaps(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    remaining: &mut HashMap<i32, i64>,
    positions: &mut Positions,
) -> bool {
    let Ok(consumed) = consumer.position() else {
        return false;
    };
    let before = remaining.len();
    remaining.retain(|partition, end| {
        match consumed.find_partition(topic, *partition).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) if offset >= *end => {
                positions.insert(partition.to_string(), offset.to_string());
                false
            }
            _ => true,
        }
    });
    remaining.len() < before
}
