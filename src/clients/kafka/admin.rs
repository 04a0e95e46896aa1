//! Creates, lists, describes and deletes topics, and reads the lag of consumer groups.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::clients::kafka::auth::{authenticate, refresh_tokens_in_background};
use crate::clients::kafka::context::Context;
use crate::clients::kafka::{client_config, consumer, failure, pinned};

/// A topic and its partitions.
#[derive(Debug, Clone, Serialize)]
pub struct TopicDescription {
    pub name: String,
    pub partitions: Vec<PartitionOffsets>,
    pub replication_factor: usize,
}

/// A partition and its offsets; the end offset is exclusive.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionOffsets {
    pub partition: i32,
    pub leader: i32,
    pub start_offset: i64,
    pub end_offset: i64,
}

/// An admin client for topics and consumer groups.
pub struct Admin {
    config: Config,
    admin: AdminClient<Context>,
    consumer: Arc<BaseConsumer<Context>>,
    timeout: Duration,
}

impl Admin {
    pub fn new(config: &Config) -> Result<Self> {
        let config = pinned(config)?;
        let admin = client_config(&config)?.create_with_context(Context::new(&config)).map_err(
            |error: rdkafka::error::KafkaError| {
                failure("cannot create an admin client", &config, &error)
            },
        )?;
        let consumer = Arc::new(consumer(&config, "pinpipe-admin")?);
        refresh_tokens_in_background(&config, &consumer);
        let timeout = Duration::from_millis(config.kafka.timeout_ms);
        Ok(Self { config, admin, consumer, timeout })
    }

    /// Creates a topic. Returns `false` if it already exists.
    pub async fn create(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: i32,
    ) -> Result<bool> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication_factor));
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        let action = format!("cannot create topic `{name}`");
        // An admin client is never polled, so its token is renewed before each operation.
        authenticate(&self.config, self.admin.inner())?;
        let results = self
            .admin
            .create_topics([&topic], &options)
            .await
            .map_err(|error| failure(&action, &self.config, &error))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(Error::failed(action).with_source(code.to_string()).hint(
                "lower `topics.replication_factor` to at most the number of brokers, or correct \
                 `topics.partitions`",
            )),
            _ => Ok(true),
        }
    }

    /// Deletes a topic. Returns `false` if it does not exist.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        let action = format!("cannot delete topic `{name}`");
        authenticate(&self.config, self.admin.inner())?;
        let results = self
            .admin
            .delete_topics(&[name], &options)
            .await
            .map_err(|error| failure(&action, &self.config, &error))?;
        match results.into_iter().next() {
            Some(Err((
                _,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ))) => Ok(false),
            Some(Err((_, code))) => Err(Error::failed(action).with_source(code.to_string())),
            _ => Ok(true),
        }
    }

    /// Returns the names of all topics, sorted.
    pub async fn list(&self) -> Result<Vec<String>> {
        self.query("cannot list topics", |consumer, timeout| {
            let metadata = consumer.fetch_metadata(None, timeout)?;
            let mut names: Vec<String> =
                metadata.topics().iter().map(|topic| topic.name().to_string()).collect();
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Returns a topic with the offsets of its partitions, or `None` if it does not exist.
    pub async fn describe(&self, name: &str) -> Result<Option<TopicDescription>> {
        // A metadata request for one name may create the topic; a request for all topics does not.
        let name = name.to_string();
        self.query(&format!("cannot describe topic `{name}`"), move |consumer, timeout| {
            describe(consumer, &name, timeout)
        })
        .await
    }

    /// Returns the lag of the group: the number of records of these topics after its committed
    /// offsets.
    pub async fn lag(&self, group: &str, topics: &[String]) -> Result<u64> {
        let (config, group, topics, timeout) =
            (self.config.clone(), group.to_string(), topics.to_vec(), self.timeout);
        let lag = tokio::task::spawn_blocking(move || {
            let consumer = consumer(&config, &group)?;
            group_lag(&consumer, &topics, timeout).map_err(|error| {
                failure(&format!("cannot read the offsets of group `{group}`"), &config, &error)
            })
        });
        lag.await.context(|| "the Kafka request was aborted")?
    }

    async fn query<T: Send + 'static>(
        &self,
        action: &str,
        request: impl FnOnce(&BaseConsumer<Context>, Duration) -> Result<T, rdkafka::error::KafkaError>
        + Send
        + 'static,
    ) -> Result<T> {
        let (consumer, timeout) = (self.consumer.clone(), self.timeout);
        let response = tokio::task::spawn_blocking(move || request(&consumer, timeout))
            .await
            .context(|| "the Kafka request was aborted")?;
        response.map_err(|error| failure(action, &self.config, &error))
    }
}

fn describe(
    consumer: &BaseConsumer<Context>,
    name: &str,
    timeout: Duration,
) -> Result<Option<TopicDescription>, rdkafka::error::KafkaError> {
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    let mut partitions = Vec::new();
    for partition in topic.partitions() {
        let (start_offset, end_offset) =
            consumer.fetch_watermarks(name, partition.id(), timeout)?;
        partitions.push(PartitionOffsets {
            partition: partition.id(),
            leader: partition.leader(),
            start_offset,
            end_offset,
        });
    }
    partitions.sort_by_key(|partition| partition.partition);
    let replication_factor =
        topic.partitions().first().map_or(0, |partition| partition.replicas().len());
    Ok(Some(TopicDescription { name: name.to_string(), partitions, replication_factor }))
}

fn group_lag(
    consumer: &BaseConsumer<Context>,
    topics: &[String],
    timeout: Duration,
) -> Result<u64, rdkafka::error::KafkaError> {
    let mut topic_partitions = TopicPartitionList::new();
    let mut ends = Vec::new();
    for topic in topics {
        let Some(topic) = describe(consumer, topic, timeout)? else {
            continue;
        };
        for partition in topic.partitions {
            topic_partitions.add_partition(&topic.name, partition.partition);
            ends.push((topic.name.clone(), partition));
        }
    }
    let committed = consumer.committed_offsets(topic_partitions, timeout)?;
    let lag = ends.iter().map(|(topic, partition)| {
        let position = match committed
            .find_partition(topic, partition.partition)
            .map(|element| element.offset())
        {
            Some(Offset::Offset(offset)) => offset.max(partition.start_offset),
            _ => partition.start_offset,
        };
        u64::try_from(partition.end_offset - position).unwrap_or(0)
    });
    Ok(lag.sum())
}
