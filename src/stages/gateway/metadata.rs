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

/// Age up to which the cache decides that a topic does not exist. A topic that is missing from
/// an older cache is looked up in Kafka.
const MISSING_TOPIC_TTL: Duration = Duration::from_millis(200);

/// A partition as the REST Proxy describes it.
#[derive(Debug, Clone)]
pub struct Partition {
    id: i32,
    leader: i32,
    replicas: Vec<i32>,
}

/// Topics by name, fetched again when a topic is not found.
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
    pub async fn partitions(&self, topic: &str) -> Result<Vec<Partition>, RestError> {
        let (fetched_at, topics) =
            self.topics.snapshot.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        if let Some(partitions) = topics.get(topic) {
            return Ok(partitions.clone());
        }
        if fetched_at.is_some_and(|time| time.elapsed() < MISSING_TOPIC_TTL) {
            return Err(RestError::topic_not_found());
        }
        self.topics().await?.get(topic).cloned().ok_or_else(RestError::topic_not_found)
    }

    /// Clears the cache, because Kafka does not know a topic that the cache contains.
    pub fn clear_topic_cache(&self) {
        *self.topics.snapshot.write().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            (None, Arc::default());
    }

    /// Returns a partition of a topic.
    ///
    /// # Errors
    /// The topic or the partition does not exist; the brokers cannot be reached.
    pub async fn partition(&self, topic: &str, partition: &str) -> Result<Partition, RestError> {
        let partitions = self.partitions(topic).await?;
        let id: i32 = partition.parse().map_err(|_| RestError::partition_not_found())?;
        partitions
            .into_iter()
            .find(|partition| partition.id == id)
            .ok_or_else(RestError::partition_not_found)
    }
}

impl Partition {
    pub fn id(&self) -> i32 {
        self.id
    }

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
    gateway.topics().await?;
    Ok(response::kafka(&gateway.partition(&topic, &partition).await?.json()))
}

pub async fn partition_offsets(
    State(gateway): State<Arc<Gateway>>,
    Path((topic, partition)): Path<(String, String)>,
) -> RestResult {
    gateway.topics().await?;
    let partition = gateway.partition(&topic, &partition).await?.id;
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
