//! The sink's task: reads its topics, writes objects, commits offsets after them.

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

/// How often new topics and partitions are looked for.
const REFRESH: Duration = Duration::from_secs(1);

/// Shared between the task and whoever asks about it.
#[derive(Default)]
pub struct TaskState {
    pub stop: AtomicBool,
    pub records: AtomicU64,
    pub objects: AtomicU64,
    /// Why the task has stopped by itself.
    pub failure: Mutex<Option<String>>,
}

/// Everything a task works with.
pub struct Task {
    pub consumer: BaseConsumer<Context>,
    pub store: Arc<dyn ObjectStore>,
    /// Where in the store the bucket's own paths begin.
    pub root: Path,
    pub properties: SinkProperties,
    pub state: Arc<TaskState>,
    pub runtime: tokio::runtime::Handle,
}

type Partition = (String, i32);

impl Task {
    /// Runs until it is told to stop or fails; on a thread of its own.
    pub fn run(self) {
        if let Err(reason) = self.work() {
            tracing::error!(reason, "the sink's task failed");
            *self
                .state
                .failure
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(reason);
        }
    }

    fn work(&self) -> Result<(), String> {
        let mut writers: HashMap<Partition, PartitionWriter> = HashMap::new();
        let mut refreshed: Option<Instant> = None;
        let mut next_rotation_ms = self.next_rotation_ms();
        while !self.state.stop.load(Ordering::Relaxed) {
            if refreshed.is_none_or(|last| last.elapsed() >= REFRESH) {
                self.refresh(&mut writers);
                refreshed = Some(Instant::now());
            }
            match self.consumer.poll(Duration::from_millis(50)) {
                None => {}
                Some(Ok(message)) => self.take(&mut writers, &message)?,
                // Lost connections and deleted topics mend themselves or show at the next refresh.
                Some(Err(error)) if is_access_denied(&error) => {
                    return Err(format!("Kafka refuses: {error}"));
                }
                Some(Err(error)) => tracing::debug!(%error, "the sink cannot read"),
            }
            if next_rotation_ms.is_some_and(|at| Utc::now().timestamp_millis() >= at) {
                for writer in writers.iter_mut() {
                    self.close(writer)?;
                }
                next_rotation_ms = self.next_rotation_ms();
            }
        }
        // What has not been closed was not committed either: the next start reads it again.
        Ok(())
    }

    /// The next multiple of the schedule's interval in local time.
    fn next_rotation_ms(&self) -> Option<i64> {
        let step = i64::try_from(self.properties.rotate_schedule?.as_millis())
            .ok()?
            .max(1);
        let now = Utc::now();
        let offset_ms = i64::from(
            chrono::Offset::fix(now.with_timezone(&self.properties.timezone).offset())
                .local_minus_utc(),
        ) * 1000;
        let local_ms = now.timestamp_millis() + offset_ms;
        Some((local_ms.div_euclid(step) + 1) * step - offset_ms)
    }

    /// Takes up partitions that are new and lets go of those that are gone.
    fn refresh(&self, writers: &mut HashMap<Partition, PartitionWriter>) {
        let metadata = match self.consumer.fetch_metadata(None, Duration::from_secs(5)) {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::debug!(%error, "the sink cannot list topics");
                return;
            }
        };
        let topics = metadata.topics().iter().filter(|topic| {
            topic.error().is_none() && self.properties.topics.matches(topic.name())
        });
        let there: Vec<Partition> = topics
            .flat_map(|topic| {
                topic
                    .partitions()
                    .iter()
                    .map(|partition| (topic.name().to_string(), partition.id()))
            })
            .collect();
        let mut added = TopicPartitionList::new();
        for (topic, partition) in &there {
            if !writers.contains_key(&(topic.clone(), *partition))
                && added
                    .add_partition_offset(topic, *partition, Offset::Stored)
                    .is_ok()
            {
                writers.insert(
                    (topic.clone(), *partition),
                    PartitionWriter::new(topic, *partition, self.root.clone()),
                );
            }
        }
        let mut gone = TopicPartitionList::new();
        writers.retain(|key, _| {
            let stays = there.contains(key);
            if !stays {
                gone.add_partition(&key.0, key.1);
            }
            stays
        });
        if added.count() > 0
            && let Err(error) = self.consumer.incremental_assign(&added)
        {
            tracing::warn!(%error, "the sink cannot take up partitions");
            // They are tried again at the next refresh.
            for element in added.elements() {
                writers.remove(&(element.topic().to_string(), element.partition()));
            }
        }
        if gone.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&gone)
        {
            tracing::warn!(%error, "the sink cannot let go of partitions");
        }
    }

    fn take(
        &self,
        writers: &mut HashMap<Partition, PartitionWriter>,
        message: &BorrowedMessage<'_>,
    ) -> Result<(), String> {
        let key = (message.topic().to_string(), message.partition());
        let place = || {
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
            // The topic was made anew: what is open belongs to the old one and was never committed.
            *writer = PartitionWriter::new(message.topic(), message.partition(), self.root.clone());
        }
        let Some(value) = message.payload() else {
            if self.properties.ignore_nulls {
                writer.skip(message.offset());
                return Ok(());
            }
            return Err(format!(
                "{} has no value, and `behavior.on.null.values` is fail",
                place()
            ));
        };
        // Only partitioners that look into the record need it taken apart.
        let needs_value = matches!(self.properties.partitioner, Partitioner::Field(_))
            || matches!(self.properties.timestamp, TimestampSource::Field(_));
        let parsed = if needs_value {
            serde_json::from_slice::<Value>(value)
        } else {
            serde_json::from_slice::<serde::de::IgnoredAny>(value).map(|_| Value::Null)
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) if self.properties.tolerate_errors => {
                tracing::warn!(%error, "left out {}", place());
                writer.skip(message.offset());
                return Ok(());
            }
            Err(error) => {
                return Err(format!(
                    "{} is not JSON ({error}), and `errors.tolerance` is none",
                    place()
                ));
            }
        };
        let record_ms = message
            .timestamp()
            .to_millis()
            .unwrap_or_else(|| Utc::now().timestamp_millis());
        let time_ms = self
            .properties
            .timestamp
            .of(&parsed, record_ms)
            .ok_or_else(|| {
                format!(
                    "{} has no time in the field that `timestamp.field` names",
                    place()
                )
            })?;
        let folder = self.properties.partitioner.path(
            message.partition(),
            &parsed,
            time_ms,
            self.properties.timezone,
        );
        let folder =
            folder.ok_or_else(|| format!("{} lacks a field of `partition.field.name`", place()))?;
        let one_line = one_line(value);
        let spans_too_long = match (self.properties.rotate_interval, writer.first_ms) {
            (Some(interval), Some(first_ms)) => {
                time_ms - first_ms >= i64::try_from(interval.as_millis()).unwrap_or(i64::MAX)
            }
            _ => false,
        };
        if spans_too_long {
            self.close_one(&key, writer)?;
        }
        writer.first_ms.get_or_insert(time_ms);
        self.runtime
            .block_on(writer.append(
                &self.store,
                &self.properties,
                folder,
                message.offset(),
                &one_line,
            ))
            .map_err(|error| format!("cannot write to the lake: {error}"))?;
        self.state.records.fetch_add(1, Ordering::Relaxed);
        if writer.is_full(&self.properties) {
            self.close_one(&key, writer)
        } else {
            Ok(())
        }
    }

    fn close(&self, (key, writer): (&Partition, &mut PartitionWriter)) -> Result<(), String> {
        if writer.is_open() {
            self.close_one(key, writer)
        } else {
            Ok(())
        }
    }

    /// Closes the objects of a partition, then commits what they hold.
    fn close_one(
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
        // A commit that fails only means reading again what lies in the lake already.
        if let Err(error) = self.consumer.commit(&offsets, CommitMode::Sync) {
            tracing::warn!(%error, topic, partition, "the sink cannot commit");
        }
        Ok(())
    }
}

/// JSON without line breaks: one object, one line.
fn one_line(value: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if !value.contains(&b'\n') && !value.contains(&b'\r') {
        return value.into();
    }
    // In JSON a line break only ever stands between tokens; inside a text it is escaped.
    value
        .iter()
        .map(|byte| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            }
        })
        .collect::<Vec<u8>>()
        .into()
}

/// Errors that no waiting mends.
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
