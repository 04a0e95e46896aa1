//! `POST /topics/{topic}` and `POST /topics/{topic}/partitions/{partition}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::producer::FutureRecord;
use rdkafka::types::RDKafkaErrorCode;
use serde_json::{Value, json};

use crate::stages::gateway::Gateway;
use crate::stages::gateway::response;
use crate::stages::gateway::response::RestError;

/// Format of the keys and values in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Embedded {
    Json,
    Binary,
}

/// A record as bytes, ready to be sent to Kafka.
struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    partition: Option<i32>,
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
    let partition = gateway.partition(&topic, &partition).await?.id();
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
    let request: Value = serde_json::from_slice(body)
        .map_err(|error| RestError::bad_request(format!("the body is not JSON: {error}")))?;
    let records = request
        .get("records")
        .and_then(Value::as_array)
        .filter(|records| !records.is_empty())
        .ok_or_else(|| RestError::unprocessable("records may not be empty"))?;
    let partitions = gateway.partitions(topic).await?;
    let records = records
        .iter()
        .map(|record| read_record(record, embedded, partition))
        .collect::<Result<Vec<_>, _>>()?;
    if records.iter().any(|record| {
        record.partition.is_some_and(|id| !partitions.iter().any(|partition| partition.id() == id))
    }) {
        return Err(RestError::partition_not_found());
    }
    let timeout = Duration::from_millis(gateway.config.kafka.timeout_ms);
    // `join_all` polls in order, which keeps the records of a request in order.
    let deliveries = records.iter().map(|record| {
        let mut kafka_record: FutureRecord<'_, Vec<u8>, Vec<u8>> = FutureRecord::to(topic);
        kafka_record.key = record.key.as_ref();
        kafka_record.payload = record.value.as_ref();
        kafka_record.partition = record.partition;
        gateway.producer.send(kafka_record, timeout)
    });
    let outcomes = futures::future::join_all(deliveries).await;
    let offsets: Vec<Value> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(delivery) => json!({ "partition": delivery.partition, "offset": delivery.offset, "error_code": null, "error": null }),
            Err((error, _)) => {
                let code = error.rdkafka_error_code();
                if matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) {
                    gateway.clear_topic_cache();
                }
                // A client may retry a record with code 50003, but not one with code 50002.
                let is_permanent = matches!(
                    code,
                    Some(
                        RDKafkaErrorCode::MessageSizeTooLarge
                            | RDKafkaErrorCode::UnknownTopicOrPartition
                            | RDKafkaErrorCode::UnknownTopic
                            | RDKafkaErrorCode::TopicAuthorizationFailed
                    )
                );
                json!({ "partition": null, "offset": null, "error_code": if is_permanent { 50002 } else { 50003 }, "error": error.to_string() })
            }
        })
        .collect();
    Ok(response::kafka(
        &json!({ "offsets": offsets, "key_schema_id": null, "value_schema_id": null }),
    ))
}

fn read_record(
    record: &Value,
    embedded: Embedded,
    partition: Option<i32>,
) -> Result<Record, RestError> {
    let record = record.as_object().ok_or_else(|| {
        RestError::unprocessable("each of records must be an object with a value")
    })?;
    if let Some(unknown) =
        record.keys().find(|key| !matches!(key.as_str(), "key" | "value" | "partition"))
    {
        return Err(RestError::unprocessable(format!("Unrecognized field: {unknown}")));
    }
    let own_partition = match record.get("partition") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_i64()
                .and_then(|id| i32::try_from(id).ok())
                .ok_or_else(|| RestError::unprocessable("partition must be a whole number"))?,
        ),
    };
    Ok(Record {
        key: bytes(record.get("key"), embedded)?,
        value: bytes(record.get("value"), embedded)?,
        partition: partition.or(own_partition),
    })
}

fn bytes(value: Option<&Value>, embedded: Embedded) -> Result<Option<Vec<u8>>, RestError> {
    match (value, embedded) {
        (None | Some(Value::Null), _) => Ok(None),
        (Some(value), Embedded::Json) => Ok(Some(value.to_string().into_bytes())),
        (Some(Value::String(text)), Embedded::Binary) => STANDARD
            .decode(text)
            .map(Some)
            .map_err(|_| RestError::conversion("a key or value is not base64")),
        (Some(_), Embedded::Binary) => {
            Err(RestError::conversion("a key or value is not a base64 text"))
        }
    }
}
