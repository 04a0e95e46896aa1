//! Task of the sink connector: reads topics, writes objects, then commits their offsets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use object_store::ObjectStore;
use object_store::path::Path;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::clients::kafka::context::Context;
use crate::stages::sink::partitioner::{Partitioner, TimestampSource};
use crate::stages::sink::properties::SinkProperties;
use crate::stages::sink::writer::PartitionWriter;

/// Interval at which the task looks for new and deleted partitions.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// State of a task, shared with its connector.
#[derive(Default)]
pub struct TaskState {
    pub stop: AtomicBool,
    pub records: AtomicU64,
    pub objects: AtomicU64,
    /// Reason why the task failed.
    pub failure: Mutex<Option<String>>,
}

/// A task with its clients and properties.
pub struct Task {
    pub consumer: BaseConsumer<Context>,
    pub store: Arc<dyn ObjectStore>,
    /// Path in the store at which the paths of the bucket begin.
    pub root: Path,
    /// Maximum length of a path segment.
    pub max_name_bytes: usize,
    pub properties: SinkProperties,
    pub state: Arc<TaskState>,
    pub runtime: tokio::runtime::Handle,
}

type Partition = (String, i32);

impl Task {
    /// Runs until `state.stop` is set or the task fails. Blocks, so it requires its own thread.
    pub fn run(self) {
        if let Err(reason) = self.process_until_stopped() {
            tracing::error!(reason, "the sink task failed");
            *self.state.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                Some(reason);
        }
    }

    fn process_until_stopped(&self) -> Result<(), String> {
        let mut writers: HashMap<Partition, PartitionWriter> = HashMap::new();
        let mut refreshed: Option<Instant> = None;
        let mut next_rotation_ms = self.next_rotation_ms();
        while !self.state.stop.load(Ordering::Relaxed) {
            if refreshed.is_none_or(|last| last.elapsed() >= REFRESH_INTERVAL) {
                self.refresh(&mut writers);
                refreshed = Some(Instant::now());
            }
            match self.consumer.poll(Duration::from_millis(50)) {
                None => {}
                Some(Ok(message)) => self.process(&mut writers, &message)?,
                // Only denied access is fatal: lost connections recover, and the next refresh sees
                // deleted topics.
                Some(Err(error)) if is_access_denied(&error) => {
                    return Err(format!("access denied by Kafka: {error}"));
                }
                Some(Err(error)) => tracing::debug!(%error, "cannot read from Kafka"),
            }
            if next_rotation_ms.is_some_and(|at| Utc::now().timestamp_millis() >= at) {
                for writer in writers.iter_mut() {
                    self.close_if_open(writer)?;
                }
                next_rotation_ms = self.next_rotation_ms();
            }
        }
        // The offsets of open objects were not committed: the next start reads their records again.
        Ok(())
    }

    /// Returns the next rotation in milliseconds since the epoch: the next multiple of the
    /// schedule's interval in local time.
    fn next_rotation_ms(&self) -> Option<i64> {
        let step = i64::try_from(self.properties.rotate_schedule?.as_millis()).ok()?.max(1);
        let now = Utc::now();
        let offset_ms = i64::from(
            chrono::Offset::fix(now.with_timezone(&self.properties.timezone).offset())
                .local_minus_utc(),
        ) * 1000;
        let local_ms = now.timestamp_millis() + offset_ms;
        Some((local_ms.div_euclid(step) + 1) * step - offset_ms)
    }

    /// Assigns new partitions to the consumer and unassigns deleted ones.
    fn refresh(&self, writers: &mut HashMap<Partition, PartitionWriter>) {
        let metadata = match self.consumer.fetch_metadata(None, Duration::from_secs(5)) {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::debug!(%error, "cannot list topics");
                return;
            }
        };
        let topics = metadata.topics().iter().filter(|topic| {
            topic.error().is_none() && self.properties.topics.matches(topic.name())
        });
        let existing: Vec<Partition> = topics
            .flat_map(|topic| {
                topic
                    .partitions()
                    .iter()
                    .map(|partition| (topic.name().to_string(), partition.id()))
            })
            .collect();
        let mut added = TopicPartitionList::new();
        for (topic, partition) in &existing {
            if !writers.contains_key(&(topic.clone(), *partition))
                && added.add_partition_offset(topic, *partition, Offset::Stored).is_ok()
            {
                writers.insert(
                    (topic.clone(), *partition),
                    PartitionWriter::new(topic, *partition, self.root.clone()),
                );
            }
        }
        let mut removed = TopicPartitionList::new();
        writers.retain(|key, _| {
            let exists = existing.contains(key);
            if !exists {
                removed.add_partition(&key.0, key.1);
            }
            exists
        });
        if added.count() > 0
            && let Err(error) = self.consumer.incremental_assign(&added)
        {
            tracing::warn!(%error, "cannot assign partitions to the sink");
            // The next refresh retries them.
            for element in added.elements() {
                writers.remove(&(element.topic().to_string(), element.partition()));
            }
        }
        if removed.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&removed)
        {
            tracing::warn!(%error, "cannot unassign partitions from the sink");
        }
    }

    /// Appends a record to the object of its folder, and closes objects that are complete.
    fn process(
        &self,
        writers: &mut HashMap<Partition, PartitionWriter>,
        message: &BorrowedMessage<'_>,
    ) -> Result<(), String> {
        let key = (message.topic().to_string(), message.partition());
        let position = || {
            format!(
                "topic `{}`, partition {}, offset {}",
                message.topic(),
                message.partition(),
                message.offset()
            )
        };
        let Some(writer) = writers.get_mut(&key) else {
            return Ok(());
        };
        if message.offset() < writer.next_offset {
            // The topic was recreated. The open objects belong to the deleted topic, and their
            // offsets were never committed.
            *writer = PartitionWriter::new(message.topic(), message.partition(), self.root.clone());
        }
        let Some(value) = message.payload() else {
            if self.properties.ignore_nulls {
                writer.skip(message.offset());
                return Ok(());
            }
            return Err(format!(
                "{} has no value, and `behavior.on.null.values` is fail",
                position()
            ));
        };
        // Only partitioners and timestamps from fields need the parsed record.
        let needs_value = matches!(self.properties.partitioner, Partitioner::Field(_))
            || matches!(self.properties.timestamp, TimestampSource::Field(_));
        let result = if needs_value {
            serde_json::from_slice::<Value>(value)
        } else {
            serde_json::from_slice::<serde::de::IgnoredAny>(value).map(|_| Value::Null)
        };
        let parsed = match result {
            Ok(parsed) => parsed,
            Err(error) if self.properties.tolerate_errors => {
                tracing::warn!(%error, "skipped {}", position());
                writer.skip(message.offset());
                return Ok(());
            }
            Err(error) => {
                return Err(format!(
                    "{} is not JSON ({error}), and `errors.tolerance` is none",
                    position()
                ));
            }
        };
        let record_ms =
            message.timestamp().to_millis().unwrap_or_else(|| Utc::now().timestamp_millis());
        let time_ms = self.properties.timestamp.extract(&parsed, record_ms).ok_or_else(|| {
            format!("{} has no valid time in the field of `timestamp.field`", position())
        })?;
        let folder = self.properties.partitioner.path(
            message.partition(),
            &parsed,
            time_ms,
            self.properties.timezone,
        );
        let folder = folder
            .ok_or_else(|| format!("{} has no field of `partition.field.name`", position()))?;
        let offset = message.offset();
        if !writer.can_hold(&self.properties, &folder, offset, self.max_name_bytes) {
            if self.properties.tolerate_errors {
                tracing::warn!("skipped {}: its folder has too long a name", position());
                writer.skip(offset);
                return Ok(());
            }
            return Err(format!(
                "{} belongs in a folder whose name is too long for the lake ({} bytes), and \
                 `errors.tolerance` is none",
                position(),
                folder.len()
            ));
        }
        let spans_too_long = match (self.properties.rotate_interval, writer.first_ms) {
            (Some(interval), Some(first_ms)) => {
                time_ms - first_ms >= i64::try_from(interval.as_millis()).unwrap_or(i64::MAX)
            }
            _ => false,
        };
        if spans_too_long {
            self.close(&key, writer)?;
        }
        writer.first_ms.get_or_insert(time_ms);
        self.runtime
            .block_on(writer.append(&self.store, &self.properties, folder, offset, value))
            .map_err(|error| format!("cannot write to the lake: {error}"))?;
        self.state.records.fetch_add(1, Ordering::Relaxed);
        if writer.is_full(&self.properties) { self.close(&key, writer) } else { Ok(()) }
    }

    fn close_if_open(
        &self,
        (key, writer): (&Partition, &mut PartitionWriter),
    ) -> Result<(), String> {
        if writer.is_open() { self.close(key, writer) } else { Ok(()) }
    }

    /// Closes the objects of a partition, then commits the offset after their records.
    fn close(
        &self,
        (topic, partition): &Partition,
        writer: &mut PartitionWriter,
    ) -> Result<(), String> {
        let closed = self
            .runtime
            .block_on(writer.close())
            .map_err(|error| format!("cannot write to the lake: {error}"))?;
        self.state.objects.fetch_add(closed, Ordering::Relaxed);
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, *partition, Offset::Offset(writer.next_offset))
            .map_err(|error| error.to_string())?;
        // A failed commit only means that records which are already in the lake are read again.
        if let Err(error) = self.consumer.commit(&offsets, CommitMode::Sync) {
            tracing::warn!(%error, topic, partition, "cannot commit the sink's offset");
        }
        Ok(())
    }
}

/// Returns whether Kafka denied access, which a retry cannot resolve.
fn is_access_denied(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
        )
    )
}
