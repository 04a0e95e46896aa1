//! The `/streams` routes. On AWS, API Gateway's mapping templates do the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use serde_json::value::RawValue;
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

/// Members of a JSON object. The values are kept as JSON text, because a parsed number could lose
/// digits.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Parses a request body. An empty body is an empty object.
fn parse_body(bytes: &[u8]) -> Result<Members<'_>, StreamError> {
    if bytes.is_empty() {
        return Ok(Members::new());
    }
    serde_json::from_slice(bytes)
        .map_err(|error| serialization_error(&format!("the body is not a JSON object: {error}")))
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
        .and_then(|count| count.get().parse().ok())
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

/// Returns a field by one of the two names that clients of this API use. A null field is treated as
/// missing.
fn field<'a>(body: &Members<'a>, names: [&str; 2]) -> Option<&'a RawValue> {
    names.iter().find_map(|name| body.get(*name)).copied().filter(|value| value.get() != "null")
}

/// Returns a field as text: a string unchanged, any other value as JSON text.
fn text_field(body: &Members<'_>, names: [&str; 2]) -> Result<String, StreamError> {
    let value = field(body, names)
        .ok_or_else(|| serialization_error(&format!("{} is missing", names[0])))?;
    if value.get().starts_with('"') {
        serde_json::from_str(value.get())
            .map_err(|error| serialization_error(&format!("invalid {}: {error}", names[0])))
    } else {
        Ok(compact(value.get()))
    }
}

/// Returns JSON text without white space between tokens and without unnecessary escapes in strings,
/// as API Gateway does. Numbers and the order of members are kept as sent.
fn compact(json: &str) -> String {
    let mut compacted = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        compacted.extend(rest[..start].chars().filter(|c| !c.is_ascii_whitespace()));
        let end = start + string_length(&rest[start..]);
        let literal = &rest[start..end];
        match serde_json::from_str::<String>(literal) {
            Ok(text) => compacted.push_str(&Value::String(text).to_string()),
            // A lone surrogate, which a Rust string cannot contain.
            Err(_) => compacted.push_str(literal),
        }
        rest = &rest[end..];
    }
    compacted.extend(rest.chars().filter(|c| !c.is_ascii_whitespace()));
    compacted
}

/// Returns the length in bytes of the JSON string at the start of a valid JSON text.
fn string_length(json: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

/// Returns data and partition key of one record.
fn entry(body: &Members<'_>) -> Result<(Blob, String), StreamError> {
    let data = text_field(body, ["Data", "data"])?;
    let key = text_field(body, ["PartitionKey", "partition-key"])?;
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
    let list = field(&body, ["Records", "records"])
        .ok_or_else(|| serialization_error("Records is missing"))?;
    let records: Vec<Members<'_>> = serde_json::from_str(list.get())
        .map_err(|error| serialization_error(&format!("invalid Records: {error}")))?;
    let mut request = gateway.kinesis.put_records().stream_name(stream);
    for record in &records {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_json_and_keeps_its_numbers_and_order() {
        for (sent, compacted) in [
            (
                r#"{ "b" : 1, "a" : [ 1.10, 18446744073709551616 ] }"#,
                r#"{"b":1,"a":[1.10,18446744073709551616]}"#,
            ),
            (r#"{"n": 1e400, "t": "a \"b\" \\"}"#, r#"{"n":1e400,"t":"a \"b\" \\"}"#),
            (r#"["\u00e9", "\ud83d", " x "]"#, r#"["é","\ud83d"," x "]"#),
            ("true", "true"),
        ] {
            assert_eq!(compact(sent), compacted);
        }
    }
}
