//! Records of a Kafka topic, partition by partition.

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

/// How long a read waits for records that the brokers say are there.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct KafkaSource {
    config: Config,
    admin: Admin,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    identity: String,
}

impl KafkaSource {
    /// # Errors
    /// The topic is not there or the brokers cannot be reached.
    pub async fn open(config: &Config, topic: &str) -> Result<Self> {
        let config = crate::clients::kafka::pinned(config)?;
        let admin = Admin::new(&config)?;
        if admin.describe(topic).await?.is_none() {
            return Err(Error::failed(format!("there is no topic `{topic}`"))
                .hint("`pinpipe provision` or `pinpipe topics create` makes it"));
        }
        let consumer = Arc::new(crate::clients::kafka::consumer(&config, "pinpipe-stream")?);
        let identity = format!("kafka:{}/{topic}", config.kafka.bootstrap_servers);
        Ok(Self {
            config,
            admin,
            consumer,
            topic: topic.to_string(),
            identity,
        })
    }
}

#[async_trait]
impl RecordSource for KafkaSource {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn read(&mut self, from: &Positions, max_records: usize) -> Result<ReadBatch> {
        let description = self
            .admin
            .describe(&self.topic)
            .await?
            .ok_or_else(|| Error::failed(format!("topic `{}` is gone", self.topic)))?;
        let mut wanted = TopicPartitionList::new();
        let mut ends = Vec::new();
        let mut positions = from.clone();
        for partition in description.partitions {
            let name = partition.partition.to_string();
            let next = from
                .get(&name)
                .and_then(|offset| offset.parse::<i64>().ok())
                .unwrap_or(0);
            // A position past the end belongs to an earlier topic of this name.
            let next =
                if next > partition.end_offset { 0 } else { next }.max(partition.start_offset);
            positions.insert(name, next.to_string());
            if next < partition.end_offset {
                wanted
                    .add_partition_offset(&self.topic, partition.partition, Offset::Offset(next))
                    .context(|| "cannot name a partition")?;
                ends.push((partition.partition, next, partition.end_offset));
            }
        }
        if ends.is_empty() {
            return Ok(ReadBatch {
                records: Vec::new(),
                positions,
                at_end: true,
            });
        }
        let (consumer, topic, config) = (
            self.consumer.clone(),
            self.topic.clone(),
            self.config.clone(),
        );
        let polled = tokio::task::spawn_blocking(move || {
            poll(
                &consumer,
                &config,
                &topic,
                &wanted,
                ends,
                positions,
                max_records,
            )
        });
        polled.await.context(|| "reading Kafka was interrupted")?
    }
}

/// Polls until every partition is read to the end it had, or enough is there.
fn poll(
    consumer: &BaseConsumer<Context>,
    config: &Config,
    topic: &str,
    wanted: &TopicPartitionList,
    ends: Vec<(i32, i64, i64)>,
    mut positions: Positions,
    max_records: usize,
) -> Result<ReadBatch> {
    let failed = |error: rdkafka::error::KafkaError| {
        crate::clients::kafka::failure(&format!("cannot read topic `{topic}`"), config, &error)
    };
    consumer.assign(wanted).map_err(failed)?;
    let mut records = Vec::new();
    let mut left: HashMap<i32, i64> = ends
        .iter()
        .map(|(partition, _, end)| (*partition, *end))
        .collect();
    let mut last_progress = Instant::now();
    while !left.is_empty() && records.len() < max_records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last_progress = Instant::now();
                let Some(end) = left.get(&message.partition()).copied() else {
                    continue;
                };
                positions.insert(
                    message.partition().to_string(),
                    (message.offset() + 1).to_string(),
                );
                records.push(SourceRecord {
                    origin: format!("{topic}/{}", message.partition()),
                    data: message.payload().unwrap_or_default().to_vec(),
                });
                if message.offset() + 1 >= end {
                    left.remove(&message.partition());
                }
            }
            Some(Err(error)) if last_progress.elapsed() > PATIENCE => return Err(failed(error)),
            // The last offsets may be no records: transaction markers, or compacted away.
            None if pass_gaps(consumer, topic, &mut left, &mut positions) => {
                last_progress = Instant::now()
            }
            None if last_progress.elapsed() > PATIENCE => {
                return Err(Error::failed(format!(
                    "topic `{topic}` gives no records although it has some"
                ))
                .hint("`pinpipe doctor` tests every connection"));
            }
            _ => {}
        }
    }
    consumer.unassign().map_err(failed)?;
    Ok(ReadBatch {
        records,
        positions,
        at_end: left.is_empty(),
    })
}

/// Takes partitions that the consumer has passed the end of as read; whether there were any.
fn pass_gaps(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    left: &mut HashMap<i32, i64>,
    positions: &mut Positions,
) -> bool {
    let Ok(reached) = consumer.position() else {
        return false;
    };
    let before = left.len();
    left.retain(|partition, end| {
        match reached
            .find_partition(topic, *partition)
            .map(|found| found.offset())
        {
            Some(Offset::Offset(offset)) if offset >= *end => {
                positions.insert(partition.to_string(), offset.to_string());
                false
            }
            _ => true,
        }
    });
    left.len() < before
}
