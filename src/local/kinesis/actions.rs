//! The operations on streams, and PutRecord and PutRecords.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::local::kinesis::error::KinesisError;
use crate::local::kinesis::parameters::{
    integer, missing, optional_text, required_text, stream_of,
};
use crate::local::kinesis::reads;
use crate::local::kinesis::shard;
use crate::local::kinesis::store::{NewRecord, Store, Stream};

/// Maximum size of a record (data and partition key) in bytes.
const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// Maximum size of a PutRecords request in bytes.
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;
/// Maximum number of shards of a stream.
const MAX_SHARDS: i64 = 10_000;
/// Number of shards of a stream in on-demand mode.
const ON_DEMAND_SHARDS: i64 = 4;

/// Runs an operation of the service.
pub async fn perform(store: &Store, operation: &str, body: &Value) -> Result<Value, KinesisError> {
    match operation {
        "CreateStream" => create_stream(store, body).await,
        "DeleteStream" => {
            let stream = stream_of(store, body)?;
            store.delete(&stream.name).await.map(|()| Value::Null)
        }
        "ListStreams" => list_streams(store, body),
        "DescribeStream" => describe_stream(store, body),
        "DescribeStreamSummary" => describe_stream_summary(store, body),
        "ListShards" => list_shards(store, body),
        "PutRecord" => put_record(store, body).await,
        "PutRecords" => put_records(store, body).await,
        "GetShardIterator" => reads::get_shard_iterator(store, body).await,
        "GetRecords" => reads::get_records(store, body).await,
        other => Err(KinesisError::unknown_operation(other)),
    }
}

fn arn(store: &Store, name: &str) -> String {
    format!("arn:aws:kinesis:{}:000000000000:stream/{name}", store.region)
}

fn mode(stream: &Stream) -> Value {
    json!({ "StreamMode": if stream.on_demand { "ON_DEMAND" } else { "PROVISIONED" } })
}

async fn create_stream(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let name = required_text(body, "StreamName")?;
    let is_valid_name = (1..=128).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !is_valid_name {
        return Err(KinesisError::validation(format!(
            "1 validation error detected: Value '{name}' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have length between 1 and 128"
        )));
    }
    let on_demand =
        body.pointer("/StreamModeDetails/StreamMode").and_then(Value::as_str) == Some("ON_DEMAND");
    if on_demand && body.get("ShardCount").is_some_and(|count| !count.is_null()) {
        return Err(KinesisError::validation("ShardCount must not be given in ON_DEMAND mode."));
    }
    let shards =
        integer(body, "ShardCount", if on_demand { ON_DEMAND_SHARDS } else { 0 }, 1, MAX_SHARDS)?;
    if shards == 0 {
        return Err(missing("ShardCount"));
    }
    store.create(name, shards as u32, on_demand).await.map(|()| Value::Null)
}

fn list_streams(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let limit = integer(body, "Limit", 100, 1, 10_000)? as usize;
    let after = optional_text(body, "ExclusiveStartStreamName")?
        .or(optional_text(body, "NextToken")?)
        .unwrap_or_default();
    let mut streams: Vec<Stream> =
        store.streams().into_iter().filter(|stream| stream.name.as_str() > after).collect();
    let has_more = streams.len() > limit;
    streams.truncate(limit);
    let summaries: Vec<Value> = streams.iter().map(|stream| summary(store, stream)).collect();
    let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    let mut response =
        json!({ "StreamNames": names, "HasMoreStreams": has_more, "StreamSummaries": summaries });
    if let (true, Some(last)) = (has_more, names.last()) {
        response["NextToken"] = json!(last);
    }
    Ok(response)
}

fn summary(store: &Store, stream: &Stream) -> Value {
    json!({
        "StreamName": stream.name,
        "StreamARN": arn(store, &stream.name),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": mode(stream),
        "StreamCreationTimestamp": stream.created_ms as f64 / 1000.0,
    })
}

fn retention_hours(store: &Store) -> u64 {
    store.retention.as_secs() / 3600
}

fn describe_stream(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let stream = stream_of(store, body)?;
    let limit = integer(body, "Limit", 100, 1, 10_000)? as usize;
    let start = first_shard(&stream, optional_text(body, "ExclusiveStartShardId")?)?;
    let shards: Vec<Value> =
        (start..stream.shards).take(limit).map(|index| shard_description(&stream, index)).collect();
    let mut description = summary(store, &stream);
    description["HasMoreShards"] = json!((start as usize + shards.len()) < stream.shards as usize);
    description["Shards"] = json!(shards);
    description["RetentionPeriodHours"] = json!(retention_hours(store));
    description["EnhancedMonitoring"] = json!([{ "ShardLevelMetrics": [] }]);
    description["EncryptionType"] = json!("NONE");
    Ok(json!({ "StreamDescription": description }))
}

fn describe_stream_summary(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let stream = stream_of(store, body)?;
    let mut description = summary(store, &stream);
    description["OpenShardCount"] = json!(stream.shards);
    description["ConsumerCount"] = json!(0);
    description["RetentionPeriodHours"] = json!(retention_hours(store));
    description["EnhancedMonitoring"] = json!([{ "ShardLevelMetrics": [] }]);
    description["EncryptionType"] = json!("NONE");
    Ok(json!({ "StreamDescriptionSummary": description }))
}

fn first_shard(stream: &Stream, after: Option<&str>) -> Result<u32, KinesisError> {
    match after {
        None => Ok(0),
        Some(id) => shard::index(id, stream.shards)
            .map(|index| index + 1)
            .ok_or_else(|| KinesisError::shard_not_found(id, &stream.name)),
    }
}

fn shard_description(stream: &Stream, index: u32) -> Value {
    let (start, end) = shard::hash_range(index, stream.shards);
    json!({
        "ShardId": shard::id(index),
        "HashKeyRange": { "StartingHashKey": start.to_string(), "EndingHashKey": end.to_string() },
        "SequenceNumberRange": { "StartingSequenceNumber": shard::sequence_number(stream.created_ms, index, 0) },
    })
}

/// Returns the index of the first shard that passes a filter of ListShards; all later shards pass
/// too, because all shards of a stream are open here, and are as old as the stream.
///
/// Source: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ShardFilter.html>
fn first_shard_of_filter(stream: &Stream, filter: &Value) -> Result<u32, KinesisError> {
    let kind = optional_text(filter, "Type")?.unwrap_or_default();
    let (needs_shard, needs_timestamp) = match kind {
        "AFTER_SHARD_ID" => (true, false),
        "AT_TIMESTAMP" | "FROM_TIMESTAMP" => (false, true),
        "AT_TRIM_HORIZON" | "FROM_TRIM_HORIZON" | "AT_LATEST" => (false, false),
        _ => {
            return Err(KinesisError::invalid(format!(
                "Invalid type `{kind}` of ShardFilter. Valid types: AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP"
            )));
        }
    };
    let shard_id = optional_text(filter, "ShardId")?;
    let timestamp = match filter.get("Timestamp") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_f64()
                .ok_or_else(|| KinesisError::serialization("Timestamp must be a number."))?,
        ),
    };
    for (member, is_given, is_needed) in [
        ("ShardId", shard_id.is_some(), needs_shard),
        ("Timestamp", timestamp.is_some(), needs_timestamp),
    ] {
        if is_given != is_needed {
            let rule = if is_needed { "requires" } else { "does not allow" };
            return Err(KinesisError::invalid(format!(
                "The type {kind} of ShardFilter {rule} {member}."
            )));
        }
    }
    let precedes_stream =
        timestamp.is_some_and(|seconds| (seconds * 1000.0).round() < stream.created_ms as f64);
    match kind {
        "AFTER_SHARD_ID" => first_shard(stream, shard_id),
        // No shard was open at that time.
        "AT_TIMESTAMP" if precedes_stream => Ok(stream.shards),
        _ => Ok(0),
    }
}

fn list_shards(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let max_results = integer(body, "MaxResults", 1_000, 1, 10_000)? as usize;
    // The token contains the stream and the next shard.
    let (stream, start) = match optional_text(body, "NextToken")? {
        Some(token) => {
            let excluded = ["StreamName", "ExclusiveStartShardId", "StreamCreationTimestamp"];
            if let Some(name) = excluded
                .into_iter()
                .find(|name| body.get(*name).is_some_and(|value| !value.is_null()))
            {
                return Err(KinesisError::invalid(format!(
                    "NextToken and {name} cannot be provided together."
                )));
            }
            let (index, name) =
                token.split_once(':').ok_or_else(|| KinesisError::invalid("Invalid NextToken."))?;
            let index = index.parse().map_err(|_| KinesisError::invalid("Invalid NextToken."))?;
            (store.stream(name)?, index)
        }
        None => {
            let stream = stream_of(store, body)?;
            let after = first_shard(&stream, optional_text(body, "ExclusiveStartShardId")?)?;
            let filtered = match body.get("ShardFilter").filter(|filter| !filter.is_null()) {
                Some(filter) => first_shard_of_filter(&stream, filter)?,
                None => 0,
            };
            (stream, after.max(filtered))
        }
    };
    let shards: Vec<Value> = (start..stream.shards)
        .take(max_results)
        .map(|index| shard_description(&stream, index))
        .collect();
    let next = start as usize + shards.len();
    let mut response = json!({ "Shards": shards });
    if next < stream.shards as usize {
        response["NextToken"] = json!(format!("{next}:{}", stream.name));
    }
    Ok(response)
}

/// Parses a hash key: a decimal number without sign and leading zeros.
fn explicit_hash_key(text: &str) -> Result<u128, KinesisError> {
    let is_canonical = text == "0" || !text.starts_with('0');
    if text.is_empty() || !is_canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(KinesisError::validation(format!(
            "1 validation error detected: Value '{text}' at 'explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{{0,38}})"
        )));
    }
    text.parse().map_err(|_| {
        KinesisError::invalid(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

/// Validates a record of a request and returns it with the index of its shard.
fn parse_record(stream: &Stream, body: &Value) -> Result<(u32, NewRecord), KinesisError> {
    let partition_key = required_text(body, "PartitionKey")?;
    if !(1..=256).contains(&partition_key.chars().count()) {
        return Err(KinesisError::validation(
            "1 validation error detected: Value at 'partitionKey' failed to satisfy constraint: Member must have length between 1 and 256",
        ));
    }
    let data = STANDARD
        .decode(required_text(body, "Data")?)
        .map_err(|_| KinesisError::serialization("Data is not base64."))?;
    if data.len() + partition_key.len() > MAX_RECORD_BYTES {
        return Err(KinesisError::validation(format!(
            "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must have length less than or equal to {MAX_RECORD_BYTES}"
        )));
    }
    let hash = match optional_text(body, "ExplicitHashKey")? {
        Some(text) => explicit_hash_key(text)?,
        None => shard::hash_key(partition_key),
    };
    let index = shard::for_hash_key(hash, stream.shards);
    Ok((
        index,
        NewRecord {
            shard_key: stream.shard_key(index),
            partition_key: partition_key.to_string(),
            data,
        },
    ))
}

async fn put_record(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let stream = stream_of(store, body)?;
    let (index, record) = parse_record(&stream, body)?;
    let counters = store.append(vec![record]).await?;
    let counter = counters.first().copied().unwrap_or_default();
    Ok(json!({
        "ShardId": shard::id(index),
        "SequenceNumber": shard::sequence_number(stream.created_ms, index, counter),
        "EncryptionType": "NONE",
    }))
}

async fn put_records(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let stream = stream_of(store, body)?;
    let entries =
        body.get("Records").and_then(Value::as_array).ok_or_else(|| missing("Records"))?;
    if !(1..=500).contains(&entries.len()) {
        return Err(KinesisError::validation(
            "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length between 1 and 500",
        ));
    }
    let mut indexes = Vec::with_capacity(entries.len());
    let mut records = Vec::with_capacity(entries.len());
    for entry in entries {
        let (index, record) = parse_record(&stream, entry)?;
        indexes.push(index);
        records.push(record);
    }
    let bytes: usize =
        records.iter().map(|record| record.data.len() + record.partition_key.len()).sum();
    if bytes > MAX_REQUEST_BYTES {
        return Err(KinesisError::invalid(format!(
            "Records size exceeds {MAX_REQUEST_BYTES} bytes."
        )));
    }
    let counters = store.append(records).await?;
    let results: Vec<Value> = indexes
        .into_iter()
        .zip(counters)
        .map(|(index, counter)| json!({ "ShardId": shard::id(index), "SequenceNumber": shard::sequence_number(stream.created_ms, index, counter) }))
        .collect();
    Ok(json!({ "FailedRecordCount": 0, "Records": results, "EncryptionType": "NONE" }))
}
