//! The `/streams` routes. On AWS, API Gateway's mapping templates do the same.

use std::sync::Arc;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::stages::gateway::Gateway;
use crate::stages::gateway::response;

/// An error response, ready to send. Boxed, because it is large and rare.
pub struct StreamError(Box<Response<Body>>);

impl StreamError {
    fn new(response: Response<Body>) -> Self {
        Self(Box::new(response))
    }
}

impl axum::response::IntoResponse for StreamError {
    fn into_response(self) -> Response<Body> {
        *self.0
    }
}

type StreamResult = Result<Response<Body>, StreamError>;

/// Returns the error of Kinesis for an invalid request.
fn serialization_error(message: &str) -> StreamError {
    StreamError::new(response::kinesis(
        StatusCode::BAD_REQUEST,
        &json!({ "__type": "SerializationException", "message": message }),
    ))
}

/// Converts an error of Kinesis, or a failed connection to it, to a response.
fn kinesis_error<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> StreamError {
    match error.as_service_error() {
        Some(service) => {
            let code = service.code().unwrap_or("UnknownError");
            let status = match code {
                "InternalFailure" | "KMSInternalException" => StatusCode::INTERNAL_SERVER_ERROR,
                "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            StreamError::new(response::kinesis(
                status,
                &json!({ "__type": code, "message": service.message().unwrap_or_default() }),
            ))
        }
        None => StreamError::new(response::api_gateway(
            StatusCode::GATEWAY_TIMEOUT,
            "Kinesis cannot be reached",
        )),
    }
}

/// Parses a request body. An empty body is an empty object.
fn parse_body(bytes: &[u8]) -> Result<Value, StreamError> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| serialization_error(&format!("the body is not JSON: {error}")))
}

pub async fn list(State(gateway): State<Arc<Gateway>>) -> StreamResult {
    let mut names = Vec::new();
    let mut pages = gateway.kinesis.list_streams().into_paginator().send();
    while let Some(page) = pages.next().await {
        names.extend(page.map_err(kinesis_error)?.stream_names);
    }
    Ok(response::kinesis(StatusCode::OK, &json!({ "HasMoreStreams": false, "StreamNames": names })))
}

pub async fn describe(
    State(gateway): State<Arc<Gateway>>,
    Path(stream): Path<String>,
) -> StreamResult {
    let output = gateway
        .kinesis
        .describe_stream()
        .stream_name(stream)
        .send()
        .await
        .map_err(kinesis_error)?;
    let Some(details) = output.stream_description else {
        return Err(serialization_error("Kinesis described nothing"));
    };
    let shards: Vec<Value> = details
        .shards
        .iter()
        .map(|shard| {
            let range = shard.hash_key_range.as_ref();
            json!({
                "ShardId": shard.shard_id,
                "HashKeyRange": { "StartingHashKey": range.map(|range| &range.starting_hash_key), "EndingHashKey": range.map(|range| &range.ending_hash_key) },
                "SequenceNumberRange": { "StartingSequenceNumber": shard.sequence_number_range.as_ref().map(|range| &range.starting_sequence_number) },
            })
        })
        .collect();
    let description = json!({
        "StreamName": details.stream_name,
        "StreamARN": details.stream_arn,
        "StreamStatus": details.stream_status.as_str(),
        "RetentionPeriodHours": details.retention_period_hours,
        "HasMoreShards": details.has_more_shards,
        "Shards": shards,
    });
    Ok(response::kinesis(StatusCode::OK, &json!({ "StreamDescription": description })))
}

pub async fn create(
    State(gateway): State<Arc<Gateway>>,
    Path(stream): Path<String>,
    body: Bytes,
) -> StreamResult {
    let body = parse_body(&body)?;
    let shards = body
        .get("ShardCount")
        .and_then(Value::as_i64)
        .and_then(|count| i32::try_from(count).ok())
        .unwrap_or(gateway.config.kinesis.shards);
    gateway
        .kinesis
        .create_stream()
        .stream_name(stream)
        .shard_count(shards)
        .send()
        .await
        .map_err(kinesis_error)?;
    Ok(response::kinesis(StatusCode::OK, &json!({})))
}

pub async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Path(stream): Path<String>,
) -> StreamResult {
    gateway.kinesis.delete_stream().stream_name(stream).send().await.map_err(kinesis_error)?;
    Ok(response::kinesis(StatusCode::OK, &json!({})))
}

/// Returns a field by one of the two names that clients of this API use. Null counts as missing.
fn field<'a>(body: &'a Value, names: [&str; 2]) -> Option<&'a Value> {
    names.iter().find_map(|name| body.get(*name)).filter(|value| !value.is_null())
}

/// Returns data and partition key of one record. A string is used unchanged, any other value as
/// JSON text.
fn entry(body: &Value) -> Result<(Blob, String), StreamError> {
    let data = match field(body, ["Data", "data"]) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => return Err(serialization_error("Data is missing")),
    };
    let key = match field(body, ["PartitionKey", "partition-key"]) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => return Err(serialization_error("PartitionKey is missing")),
    };
    Ok((Blob::new(data), key))
}

pub async fn put_record(
    State(gateway): State<Arc<Gateway>>,
    Path(stream): Path<String>,
    body: Bytes,
) -> StreamResult {
    let (data, key) = entry(&parse_body(&body)?)?;
    let output = gateway
        .kinesis
        .put_record()
        .stream_name(stream)
        .data(data)
        .partition_key(key)
        .send()
        .await
        .map_err(kinesis_error)?;
    Ok(response::kinesis(
        StatusCode::OK,
        &json!({ "ShardId": output.shard_id, "SequenceNumber": output.sequence_number }),
    ))
}

pub async fn put_records(
    State(gateway): State<Arc<Gateway>>,
    Path(stream): Path<String>,
    body: Bytes,
) -> StreamResult {
    let body = parse_body(&body)?;
    let records = field(&body, ["Records", "records"])
        .and_then(Value::as_array)
        .ok_or_else(|| serialization_error("Records is missing"))?;
    let mut request = gateway.kinesis.put_records().stream_name(stream);
    for record in records {
        let (data, key) = entry(record)?;
        let put_entry = PutRecordsRequestEntry::builder().data(data).partition_key(key).build();
        request =
            request.records(put_entry.map_err(|error| serialization_error(&error.to_string()))?);
    }
    let output = request.send().await.map_err(kinesis_error)?;
    let results: Vec<Value> = output
        .records
        .iter()
        .map(|result| match &result.error_code {
            Some(code) => json!({ "ErrorCode": code, "ErrorMessage": result.error_message }),
            None => json!({ "ShardId": result.shard_id, "SequenceNumber": result.sequence_number }),
        })
        .collect();
    Ok(response::kinesis(
        StatusCode::OK,
        &json!({ "FailedRecordCount": output.failed_record_count, "Records": results }),
    ))
}
