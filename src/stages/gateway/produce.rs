//! `POST /topics/{topic}` and `POST /topics/{topic}/partitions/{partition}`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryFuture, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::stages::gateway::Gateway;
use crate::stages::gateway::metadata::partition_id;
use crate::stages::gateway::response;
use crate::stages::gateway::response::RestError;

/// Format of the keys and values in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embedded {
    Json,
    Binary,
}

/// Maximum number of records of a request that wait for their acknowledgement, which bounds the
/// memory of a request with many small records.
const MAX_IN_FLIGHT: usize = 10_000;
/// Pause between attempts to add a record to the producer's queue while the queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// The body of a request. Keys and values are kept as the JSON text that was sent: a parsed number
/// could lose digits, and a parsed object the order of its members.
#[derive(Deserialize)]
struct ProduceRequest<'a> {
    #[serde(borrow)]
    records: Option<&'a RawValue>,
}

/// A record in the body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestRecord<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    partition: Option<i32>,
}

/// A record as bytes, ready to be sent to Kafka.
struct Record<'a> {
    key: Option<Cow<'a, [u8]>>,
    value: Option<Cow<'a, [u8]>>,
    partition: Option<i32>,
}

/// The response to a request, with the outcome of each record in the order of the request.
#[derive(Serialize)]
struct ProduceResponse {
    offsets: Vec<SentRecord>,
    key_schema_id: Option<u32>,
    value_schema_id: Option<u32>,
}

/// Partition and offset of a record, or why it was not sent.
#[derive(Serialize)]
struct SentRecord {
    partition: Option<i32>,
    offset: Option<i64>,
    error_code: Option<u32>,
    error: Option<String>,
}

pub async fn to_topic(
    State(gateway): State<Arc<Gateway>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, RestError> {
    produce(&gateway, &topic, None, &headers, &body).await
}

pub async fn to_partition(
    State(gateway): State<Arc<Gateway>>,
    Path((topic, partition)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, RestError> {
    // A partition that does not exist is reported even if the body is invalid, as by the REST
    // Proxy.
    let partition = partition_id(&partition)?;
    gateway.require_partitions(&topic, &[partition]).await?;
    produce(&gateway, &topic, Some(partition), &headers, &body).await
}

fn embedded(headers: &HeaderMap) -> Result<Embedded, RestError> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/vnd.kafka.json.v2+json" => Ok(Embedded::Json),
        // As in the REST Proxy, a content type without a format means binary.
        "application/vnd.kafka.binary.v2+json" | "application/vnd.kafka.v2+json" => {
            Ok(Embedded::Binary)
        }
        _ => Err(RestError::unsupported_media_type()),
    }
}

async fn produce(
    gateway: &Gateway,
    topic: &str,
    partition: Option<i32>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, RestError> {
    let embedded = embedded(headers)?;
    let records = read_records(body, embedded, partition)?;
    let ids: Vec<i32> = records.iter().filter_map(|record| record.partition).collect();
    gateway.require_partitions(topic, &ids).await?;
    let offsets = send_in_order(gateway, topic, &records).await;
    Ok(response::kafka(&ProduceResponse { offsets, key_schema_id: None, value_schema_id: None }))
}

/// Sends records in their order, and returns their outcomes.
async fn send_in_order(gateway: &Gateway, topic: &str, records: &[Record<'_>]) -> Vec<SentRecord> {
    let mut acknowledged = Vec::with_capacity(records.len());
    let mut in_flight: VecDeque<Result<DeliveryFuture, KafkaError>> = VecDeque::new();
    for record in records {
        if in_flight.len() == MAX_IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            acknowledged.push(acknowledgement(gateway, oldest).await);
        }
        in_flight.push_back(enqueue(gateway, topic, record).await);
    }
    for delivery in in_flight {
        acknowledged.push(acknowledgement(gateway, delivery).await);
    }
    acknowledged
}

/// Adds a record to the producer's queue. While the queue is full, no later record of the request
/// may overtake this one.
async fn enqueue(
    gateway: &Gateway,
    topic: &str,
    record: &Record<'_>,
) -> Result<DeliveryFuture, KafkaError> {
    let timeout = Duration::from_millis(gateway.config.kafka.timeout_ms);
    let begin = Instant::now();
    loop {
        let mut kafka_record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic);
        kafka_record.key = record.key.as_deref();
        kafka_record.payload = record.value.as_deref();
        kafka_record.partition = record.partition;
        match gateway.producer.send_result(kafka_record) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                if begin.elapsed() < timeout =>
            {
                tokio::time::sleep(QUEUE_FULL_PAUSE).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits for the acknowledgement of a record.
async fn acknowledgement(
    gateway: &Gateway,
    sent: Result<DeliveryFuture, KafkaError>,
) -> SentRecord {
    let delivered = match sent {
        Ok(delivery) => match delivery.await {
            Ok(delivered) => delivered.map_err(|(error, _)| error),
            // The producer was dropped: the stack stops.
            Err(_) => Err(KafkaError::Canceled),
        },
        Err(error) => Err(error),
    };
    let error = match delivered {
        Ok(delivery) => {
            return SentRecord {
                partition: Some(delivery.partition),
                offset: Some(delivery.offset),
                error_code: None,
                error: None,
            };
        }
        Err(error) => error,
    };
    let code = error.rdkafka_error_code();
    let is_missing = matches!(
        code,
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    );
    if is_missing {
        gateway.clear_topic_cache();
    }
    // A client may retry a record with code 50003, but not one with code 50002.
    let is_permanent = is_missing
        || matches!(
            code,
            Some(
                RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::TopicAuthorizationFailed
            )
        );
    SentRecord {
        partition: None,
        offset: None,
        error_code: Some(if is_permanent { 50002 } else { 50003 }),
        error: Some(error.to_string()),
    }
}

/// Reads the records of a request. `partition` is the partition of the path, if it names one.
fn read_records(
    body: &[u8],
    embedded: Embedded,
    partition: Option<i32>,
) -> Result<Vec<Record<'_>>, RestError> {
    let text: &RawValue = serde_json::from_slice(body)
        .map_err(|error| RestError::bad_request(format!("the body is not JSON: {error}")))?;
    let empty = || RestError::unprocessable("records may not be empty");
    // Checks the bracket, because serde also reads a struct from an array of its members.
    if !text.get().starts_with('{') {
        return Err(empty());
    }
    let request: ProduceRequest<'_> = serde_json::from_str(text.get())
        .map_err(|error| RestError::unprocessable(format!("invalid request: {error}")))?;
    let list = request.records.ok_or_else(empty)?;
    match serde_json::from_str::<Vec<&RawValue>>(list.get()) {
        Ok(records) if !records.is_empty() => {
            records.into_iter().map(|record| read_record(record, embedded, partition)).collect()
        }
        _ => Err(empty()),
    }
}

fn read_record<'a>(
    text: &'a RawValue,
    embedded: Embedded,
    partition: Option<i32>,
) -> Result<Record<'a>, RestError> {
    if !text.get().starts_with('{') {
        return Err(RestError::unprocessable("each of records must be an object with a value"));
    }
    let record: RequestRecord<'a> = serde_json::from_str(text.get())
        .map_err(|error| RestError::unprocessable(format!("invalid record: {error}")))?;
    Ok(Record {
        key: bytes(record.key, embedded)?,
        value: bytes(record.value, embedded)?,
        partition: partition.or(record.partition),
    })
}

fn bytes<'a>(
    value: Option<&'a RawValue>,
    embedded: Embedded,
) -> Result<Option<Cow<'a, [u8]>>, RestError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match embedded {
        Embedded::Json => Ok(Some(Cow::Borrowed(value.get().as_bytes()))),
        Embedded::Binary => {
            let text: String = serde_json::from_str(value.get())
                .map_err(|_| RestError::conversion("a key or value is not a base64 text"))?;
            STANDARD
                .decode(text)
                .map(|bytes| Some(Cow::Owned(bytes)))
                .map_err(|_| RestError::conversion("a key or value is not base64"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(body: &str) -> Vec<String> {
        let records = read_records(body.as_bytes(), Embedded::Json, None).expect("records");
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
        records.into_iter().map(|record| record.value.map_or("-".into(), text)).collect()
    }

    #[test]
    fn keeps_values_as_they_were_sent() {
        let nested = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for value in [
            r#"{"a":18446744073709551615,"b":18446744073709551616}"#,
            r#"{"c":123456789012345678901234567890,"g":0.1234567890123456789,"f":1.10}"#,
            r#"{"n":1e400}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"s":"\ud83d", "t" : "\u00e9"}"#,
            nested.as_str(),
        ] {
            assert_eq!(values(&format!(r#"{{"records":[{{"value": {value} }}]}}"#)), [value]);
        }
        assert_eq!(values(r#"{"records":[{"value":null},{}]}"#), ["-", "-"]);
    }

    #[test]
    fn refuses_what_is_no_request_with_records() {
        for body in [
            "[]",
            "{}",
            r#"{"records":null}"#,
            r#"{"records":[]}"#,
            r#"{"records":{}}"#,
            r#"[[{"value":1}]]"#,
            r#"{"records":[["k","v"]]}"#,
            r#"{"records":[1]}"#,
            r#"{"records":[{"valeu":1}]}"#,
            r#"{"records":[{"value":1,"partition":"1"}]}"#,
            r#"{"records":[{"value":1,"partition":1.5}]}"#,
            r#"{"records":[{"value":1}"#,
            "\"records\"",
        ] {
            assert!(read_records(body.as_bytes(), Embedded::Json, None).is_err(), "{body}");
        }
    }
}
