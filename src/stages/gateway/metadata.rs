//! Routes that describe topics, partitions, offsets and brokers.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use serde_json::{Value, json};

use crate::stages::gateway::Gateway;
use crate::stages::gateway::response;
use crate::stages::gateway::response::RestError;

/// Maximum age of a topic in the cache. A recreated topic may have other partitions.
const TOPIC_TTL: Duration = Duration::from_secs(2);

/// A partition as the REST Proxy describes it.
#[derive(Debug, Clone)]
pub struct Partition {
    id: i32,
    leader: i32,
    replicas: Vec<i32>,
}

/// Topics by name, fetched again when they are old, or when a topic or a partition is not found.
#[derive(Default)]
pub struct TopicCache {
    /// Time of the last fetch and its topics.
    snapshot: RwLock<(Option<Instant>, Arc<Topics>)>,
}

type Topics = BTreeMap<String, Vec<Partition>>;

impl Gateway {
    /// Fetches the topics from Kafka and replaces the cache.
    async fn topics(&self) -> Result<Arc<Topics>, RestError> {
        let (consumer, timeout) =
            (self.consumer.clone(), Duration::from_millis(self.config.kafka.timeout_ms));
        let fetch = tokio::task::spawn_blocking(move || {
            use rdkafka::consumer::Consumer;
            consumer.fetch_metadata(None, timeout).map(|metadata| {
                let describe = |partition: &rdkafka::metadata::MetadataPartition| Partition {
                    id: partition.id(),
                    leader: partition.leader(),
                    replicas: partition.replicas().to_vec(),
                };
                metadata
                    .topics()
                    .iter()
                    .map(|topic| {
                        (
                            topic.name().to_string(),
                            topic.partitions().iter().map(describe).collect(),
                        )
                    })
                    .collect::<Topics>()
            })
        });
        let fetched = fetch
            .await
            .map_err(|error| RestError::kafka(error.to_string()))?
            .map_err(|error| RestError::kafka(error.to_string()))?;
        let topics = Arc::new(fetched);
        *self.topics.snapshot.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            (Some(Instant::now()), topics.clone());
        Ok(topics)
    }

    /// Returns the partitions of a topic, from the cache if it contains the topic.
    async fn partitions(&self, topic: &str) -> Result<Vec<Partition>, RestError> {
        let (fetched_at, topics) =
            self.topics.snapshot.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let known = topics.get(topic);
        if let Some(partitions) = known
            && fetched_at.is_some_and(|time| time.elapsed() < TOPIC_TTL)
        {
            return Ok(partitions.clone());
        }
        match (self.topics().await, known) {
            (Ok(topics), _) => topics.get(topic).cloned().ok_or_else(RestError::topic_not_found),
            // Uses the old entry, because the producer retries for longer than the request for
            // metadata.
            (Err(_), Some(partitions)) => Ok(partitions.clone()),
            (Err(error), None) => Err(error),
        }
    }

    /// Requires that the topic exists and has these partitions. Fetches the topics from Kafka
    /// before it reports an error.
    ///
    /// # Errors
    /// The topic or a partition does not exist; the brokers cannot be reached.
    pub async fn require_partitions(&self, topic: &str, ids: &[i32]) -> Result<(), RestError> {
        let has_all = |partitions: &[Partition]| {
            ids.iter().all(|id| partitions.iter().any(|partition| partition.id == *id))
        };
        if has_all(&self.partitions(topic).await?) {
            return Ok(());
        }
        let topics = self.topics().await?;
        let partitions = topics.get(topic).ok_or_else(RestError::topic_not_found)?;
        if has_all(partitions) { Ok(()) } else { Err(RestError::partition_not_found()) }
    }

    /// Clears the cache, because Kafka does not know a topic that the cache contains.
    pub fn clear_topic_cache(&self) {
        *self.topics.snapshot.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            (None, Arc::default());
    }
}

impl Partition {
    fn json(&self) -> Value {
        let replicas: Vec<Value> =
            self.replicas.iter().map(|broker| json!({ "broker": broker, "leader": *broker == self.leader, "in_sync": true })).collect();
        json!({ "partition": self.id, "leader": self.leader, "replicas": replicas })
    }
}

type RestResult = Result<Response<Body>, RestError>;

pub async fn list_topics(State(gateway): State<Arc<Gateway>>) -> RestResult {
    let topics = gateway.topics().await?;
    Ok(response::kafka(&json!(topics.keys().collect::<Vec<_>>())))
}

pub async fn describe_topic(
    State(gateway): State<Arc<Gateway>>,
    Path(topic): Path<String>,
) -> RestResult {
    let topics = gateway.topics().await?;
    let partitions: Vec<Value> = topics
        .get(&topic)
        .ok_or_else(RestError::topic_not_found)?
        .iter()
        .map(Partition::json)
        .collect();
    Ok(response::kafka(&json!({ "name": topic, "configs": {}, "partitions": partitions })))
}

pub async fn list_partitions(
    State(gateway): State<Arc<Gateway>>,
    Path(topic): Path<String>,
) -> RestResult {
    let topics = gateway.topics().await?;
    let partitions: Vec<Value> = topics
        .get(&topic)
        .ok_or_else(RestError::topic_not_found)?
        .iter()
        .map(Partition::json)
        .collect();
    Ok(response::kafka(&json!(partitions)))
}

pub async fn describe_partition(
    State(gateway): State<Arc<Gateway>>,
    Path((topic, partition)): Path<(String, String)>,
) -> RestResult {
    let topics = gateway.topics().await?;
    Ok(response::kafka(&find_partition(&topics, &topic, &partition)?.json()))
}

/// Returns the partition that a path names.
fn find_partition<'a>(
    topics: &'a Topics,
    topic: &str,
    partition: &str,
) -> Result<&'a Partition, RestError> {
    let partitions = topics.get(topic).ok_or_else(RestError::topic_not_found)?;
    let id = partition_id(partition)?;
    partitions
        .iter()
        .find(|partition| partition.id == id)
        .ok_or_else(RestError::partition_not_found)
}

/// Parses the id of a partition in a path.
pub fn partition_id(text: &str) -> Result<i32, RestError> {
    text.parse().map_err(|_| RestError::partition_not_found())
}

pub async fn partition_offsets(
    State(gateway): State<Arc<Gateway>>,
    Path((topic, partition)): Path<(String, String)>,
) -> RestResult {
    let topics = gateway.topics().await?;
    let partition = find_partition(&topics, &topic, &partition)?.id;
    let (consumer, timeout) =
        (gateway.consumer.clone(), Duration::from_millis(gateway.config.kafka.timeout_ms));
    let fetch = tokio::task::spawn_blocking(move || {
        use rdkafka::consumer::Consumer;
        consumer.fetch_watermarks(&topic, partition, timeout)
    });
    let (beginning, end) = fetch
        .await
        .map_err(|error| RestError::kafka(error.to_string()))?
        .map_err(|error| RestError::kafka(error.to_string()))?;
    Ok(response::kafka(&json!({ "beginning_offset": beginning, "end_offset": end })))
}

pub async fn list_brokers(State(gateway): State<Arc<Gateway>>) -> RestResult {
    let (consumer, timeout) =
        (gateway.consumer.clone(), Duration::from_millis(gateway.config.kafka.timeout_ms));
    let fetch = tokio::task::spawn_blocking(move || {
        use rdkafka::consumer::Consumer;
        consumer.fetch_metadata(None, timeout).map(|metadata| {
            metadata
                .brokers()
                .iter()
                .map(rdkafka::metadata::MetadataBroker::id)
                .collect::<Vec<i32>>()
        })
    });
    let brokers = fetch
        .await
        .map_err(|error| RestError::kafka(error.to_string()))?
        .map_err(|error| RestError::kafka(error.to_string()))?;
    Ok(response::kafka(&json!({ "brokers": brokers })))
}
