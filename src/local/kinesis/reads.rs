//! GetShardIterator and GetRecords.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::local::kinesis::error::KinesisError;
use crate::local::kinesis::iterator::ShardIterator;
use crate::local::kinesis::parameters::{integer, optional_text, required_text, stream_of};
use crate::local::kinesis::shard;
use crate::local::kinesis::store::{Store, Stream, now_ms};

/// Maximum bytes of data in a GetRecords response.
const MAX_READ_BYTES: usize = 10 * 1024 * 1024;

pub async fn get_shard_iterator(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let stream = stream_of(store, body)?;
    let shard_id = required_text(body, "ShardId")?;
    let shard = shard::index(shard_id, stream.shards)
        .ok_or_else(|| KinesisError::shard_not_found(shard_id, &stream.name))?;
    let next = match required_text(body, "ShardIteratorType")? {
        "TRIM_HORIZON" => 0,
        "LATEST" => latest(store, &stream, shard).await? + 1,
        "AT_SEQUENCE_NUMBER" => starting_counter(body, &stream, shard)?,
        "AFTER_SEQUENCE_NUMBER" => starting_counter(body, &stream, shard)?.saturating_add(1),
        "AT_TIMESTAMP" => at_timestamp(store, &stream, shard, body).await?,
        other => {
            return Err(KinesisError::validation(format!(
                "1 validation error detected: Value '{other}' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]"
            )));
        }
    };
    let iterator = ShardIterator {
        stream: stream.name.clone(),
        stream_id: stream.id,
        shard,
        next,
        issued_ms: now_ms(),
    };
    Ok(json!({ "ShardIterator": iterator.encode() }))
}

fn starting_counter(body: &Value, stream: &Stream, shard: u32) -> Result<i64, KinesisError> {
    let number = optional_text(body, "StartingSequenceNumber")?.ok_or_else(|| {
        KinesisError::invalid(
            "Must either specify timestamp or sequence number for this ShardIteratorType.",
        )
    })?;
    shard::counter(stream.created_ms, shard, number).ok_or_else(|| {
        KinesisError::invalid(format!(
            "StartingSequenceNumber {number} used in GetShardIterator on shard {} in stream {} under account 000000000000 is invalid.",
            shard::id(shard),
            stream.name
        ))
    })
}

async fn latest(store: &Store, stream: &Stream, shard: u32) -> Result<i64, KinesisError> {
    let (counter,): (i64,) =
        sqlx::query_as("SELECT COALESCE(MAX(counter), 0) FROM records WHERE shard_key = ?")
            .bind(stream.shard_key(shard))
            .fetch_one(&store.pool)
            .await?;
    Ok(counter)
}

async fn at_timestamp(
    store: &Store,
    stream: &Stream,
    shard: u32,
    body: &Value,
) -> Result<i64, KinesisError> {
    let seconds = body
        .get("Timestamp")
        .and_then(Value::as_f64)
        .ok_or_else(|| KinesisError::invalid("Must specify timestamp for AT_TIMESTAMP."))?;
    let timestamp_ms = (seconds * 1000.0).round() as i64;
    if timestamp_ms > now_ms() {
        return Err(KinesisError::invalid("The timestamp must not be in the future."));
    }
    let (counter,): (Option<i64>,) =
        sqlx::query_as("SELECT MIN(counter) FROM records WHERE shard_key = ? AND arrived_ms >= ?")
            .bind(stream.shard_key(shard))
            .bind(timestamp_ms)
            .fetch_one(&store.pool)
            .await?;
    match counter {
        Some(counter) => Ok(counter),
        None => Ok(latest(store, stream, shard).await? + 1),
    }
}

pub async fn get_records(store: &Store, body: &Value) -> Result<Value, KinesisError> {
    let limit = integer(body, "Limit", 10_000, 1, 10_000)?;
    let mut iterator = ShardIterator::decode(required_text(body, "ShardIterator")?, now_ms())?;
    let stream = store.stream(&iterator.stream)?;
    if stream.id != iterator.stream_id {
        return Err(KinesisError::stream_not_found(&iterator.stream));
    }
    let shard_key = stream.shard_key(iterator.shard);
    let oldest_ms = now_ms() - i64::try_from(store.retention.as_millis()).unwrap_or(i64::MAX);
    let rows: Vec<(i64, String, Vec<u8>, i64)> = {
        use futures::TryStreamExt;
        // Row by row, because 10,000 records of 1 MiB must never be in memory together.
        let mut rows = sqlx::query_as("SELECT counter, partition_key, data, arrived_ms FROM records WHERE shard_key = ? AND counter >= ? AND arrived_ms >= ? ORDER BY counter LIMIT ?")
            .bind(shard_key)
            .bind(iterator.next)
            .bind(oldest_ms)
            .bind(limit)
            .fetch(&store.pool);
        let mut batch: Vec<(i64, String, Vec<u8>, i64)> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let row: (i64, String, Vec<u8>, i64) = row;
            bytes += row.2.len() + row.1.len();
            if bytes > MAX_READ_BYTES && !batch.is_empty() {
                break;
            }
            batch.push(row);
        }
        batch
    };
    let mut millis_behind = 0;
    if let Some((counter, _, _, arrived_ms)) = rows.last() {
        iterator.next = counter + 1;
        if latest(store, &stream, iterator.shard).await? > *counter {
            millis_behind = (now_ms() - arrived_ms).max(1);
        }
    }
    iterator.issued_ms = now_ms();
    let records: Vec<Value> = rows
        .into_iter()
        .map(|(counter, partition_key, data, arrived_ms)| {
            json!({
                "SequenceNumber": shard::sequence_number(stream.created_ms, iterator.shard, counter),
                "ApproximateArrivalTimestamp": arrived_ms as f64 / 1000.0,
                "Data": STANDARD.encode(data),
                "PartitionKey": partition_key,
                "EncryptionType": "NONE",
            })
        })
        .collect();
    Ok(
        json!({ "Records": records, "NextShardIterator": iterator.encode(), "MillisBehindLatest": millis_behind }),
    )
}
