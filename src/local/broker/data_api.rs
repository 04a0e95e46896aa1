//! Produce, Fetch, ListOffsets, InitProducerId.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse, ProducerId,
};
use tokio::time::Instant;

use crate::local::broker::Broker;

/// Maximum bytes of records in a fetch response, regardless of what the client requests.
const MAX_FETCH_BYTES: usize = 16 * 1024 * 1024;
/// Maximum time that a fetch waits for records.
const MAX_FETCH_WAIT: Duration = Duration::from_secs(30);

pub fn produce(broker: &Broker, request: ProduceRequest) -> ProduceResponse {
    let transactional = request.transactional_id.is_some();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic_data in request.topic_data {
        let topic = broker.topics.get(&topic_data.name);
        let append = |partition: i32, records: Option<Bytes>| {
            if transactional {
                return Err(ResponseError::UnsupportedVersion);
            }
            let topic = topic.as_ref().ok_or(ResponseError::UnknownTopicOrPartition)?;
            let mut log = topic.log(partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
            let offset = log.append(&records.unwrap_or_default())?;
            Ok((offset, log.start_offset()))
        };
        let partitions = topic_data.partition_data.into_iter().map(|partition| {
            let response = PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_log_append_time_ms(-1);
            match append(partition.index, partition.records) {
                Ok((offset, start)) => {
                    response.with_base_offset(offset).with_log_start_offset(start)
                }
                Err(error) => response
                    .with_error_code(error.code())
                    .with_base_offset(-1)
                    .with_log_start_offset(-1),
            }
        });
        let partitions = partitions.collect();
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic_data.name)
                .with_partition_responses(partitions),
        );
    }
    broker.appended.send_modify(|count| *count += 1);
    ProduceResponse::default().with_responses(responses)
}

pub async fn fetch(broker: &Broker, request: FetchRequest) -> FetchResponse {
    let wait =
        Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_FETCH_WAIT);
    let deadline = Instant::now() + wait;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut appended = broker.appended.subscribe();
    loop {
        appended.borrow_and_update();
        let (response, bytes, failed) = fetch_now(broker, &request);
        if bytes >= min_bytes || failed {
            return response;
        }
        tokio::select! {
            _ = appended.changed() => {}
            () = tokio::time::sleep_until(deadline) => return fetch_now(broker, &request).0,
        }
    }
}

/// Reads the available records. Returns the response, the size of its records in bytes, and whether
/// a partition failed.
fn fetch_now(broker: &Broker, request: &FetchRequest) -> (FetchResponse, usize, bool) {
    let mut remaining_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCH_BYTES);
    let (mut total_bytes, mut failed) = (0, false);
    let mut responses = Vec::with_capacity(request.topics.len());
    for requested in &request.topics {
        let topic = broker.topics.get(&requested.topic);
        let mut partitions = Vec::with_capacity(requested.partitions.len());
        for partition in &requested.partitions {
            let mut data = PartitionData::default()
                .with_partition_index(partition.partition)
                .with_high_watermark(-1)
                .with_last_stable_offset(-1)
                .with_log_start_offset(-1)
                .with_preferred_read_replica(BrokerId(-1))
                .with_records(Some(Bytes::new()));
            let Some(log) = topic.as_ref().and_then(|topic| topic.log(partition.partition)) else {
                failed = true;
                partitions
                    .push(data.with_error_code(ResponseError::UnknownTopicOrPartition.code()));
                continue;
            };
            data = data
                .with_high_watermark(log.end_offset())
                .with_last_stable_offset(log.end_offset())
                .with_log_start_offset(log.start_offset());
            // The first partition with records always returns a batch, however large; later
            // partitions are limited to the remaining bytes.
            let max_bytes =
                usize::try_from(partition.partition_max_bytes).unwrap_or(0).min(remaining_bytes);
            let read = if remaining_bytes == 0 && total_bytes > 0 {
                Ok(Vec::new())
            } else {
                log.read(partition.fetch_offset, max_bytes)
            };
            match read {
                Ok(records) => {
                    total_bytes += records.len();
                    remaining_bytes = remaining_bytes.saturating_sub(records.len());
                    partitions.push(data.with_records(Some(records.into())));
                }
                Err(error) => {
                    failed = true;
                    partitions.push(data.with_error_code(error.code()));
                }
            }
        }
        responses.push(
            FetchableTopicResponse::default()
                .with_topic(requested.topic.clone())
                .with_partitions(partitions),
        );
    }
    (FetchResponse::default().with_responses(responses), total_bytes, failed)
}

pub fn list_offsets(broker: &Broker, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|requested| {
        let topic = broker.topics.get(&requested.name);
        let partitions = requested.partitions.iter().map(|partition| {
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(0);
            let Some(log) = topic.as_ref().and_then(|topic| topic.log(partition.partition_index))
            else {
                return response.with_error_code(ResponseError::UnknownTopicOrPartition.code());
            };
            match partition.timestamp {
                -1 => response.with_offset(log.end_offset()),
                -2 => response.with_offset(log.start_offset()),
                timestamp => {
                    let found = match timestamp {
                        -3 => log.offset_of_max_timestamp(),
                        timestamp => log.offset_for_timestamp(timestamp),
                    };
                    match found {
                        Some((offset, time)) => response.with_offset(offset).with_timestamp(time),
                        None => response,
                    }
                }
            }
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(requested.name)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Assigns a producer id. Ids are unique, even across restarts, because each is at least the
/// current time in microseconds.
pub fn init_producer_id(request: &InitProducerIdRequest) -> InitProducerIdResponse {
    static LAST: AtomicI64 = AtomicI64::new(0);
    if request.transactional_id.is_some() {
        return InitProducerIdResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
    }
    let now_us = chrono::Utc::now().timestamp_micros();
    let next = |last: i64| Some(last.max(now_us - 1) + 1);
    let id = match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(last) | Err(last) => last.max(now_us - 1) + 1,
    };
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}
