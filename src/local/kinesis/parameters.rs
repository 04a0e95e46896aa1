//! Parameters in the JSON body of a request, validated as in Kinesis.

use serde_json::Value;

use crate::local::kinesis::error::KinesisError;
use crate::local::kinesis::store::{Store, Stream};

pub fn optional_text<'a>(body: &'a Value, key: &str) -> Result<Option<&'a str>, KinesisError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KinesisError::serialization(format!("{key} must be a string."))),
    }
}

pub fn required_text<'a>(body: &'a Value, key: &str) -> Result<&'a str, KinesisError> {
    optional_text(body, key)?.ok_or_else(|| missing(key))
}

pub fn missing(key: &str) -> KinesisError {
    let member: String =
        key.chars().take(1).flat_map(char::to_lowercase).chain(key.chars().skip(1)).collect();
    KinesisError::validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
    ))
}

pub fn integer(
    body: &Value,
    key: &str,
    default: i64,
    min: i64,
    max: i64,
) -> Result<i64, KinesisError> {
    let number = match body.get(key) {
        None | Some(Value::Null) => return Ok(default),
        Some(value) => value
            .as_i64()
            .ok_or_else(|| KinesisError::serialization(format!("{key} must be an integer.")))?,
    };
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(KinesisError::validation(format!(
            "1 validation error detected: Value '{number}' at '{key}' failed to satisfy constraint: Member must be between {min} and {max}"
        )))
    }
}

/// Returns the stream that a request identifies by name or ARN.
///
/// # Errors
/// Neither is given; they contradict each other; the stream does not exist.
pub fn stream_of(store: &Store, body: &Value) -> Result<Stream, KinesisError> {
    let by_arn = match optional_text(body, "StreamARN")? {
        Some(arn) => Some(
            arn.rsplit_once(":stream/")
                .map(|(_, name)| name)
                .ok_or_else(|| KinesisError::validation("StreamARN is not the ARN of a stream."))?,
        ),
        None => None,
    };
    let name = match (optional_text(body, "StreamName")?, by_arn) {
        (Some(name), Some(by_arn)) if name != by_arn => {
            return Err(KinesisError::invalid(format!(
                "StreamName {name} and StreamARN identify different streams."
            )));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => {
            return Err(KinesisError::invalid("Either StreamName or StreamARN must be provided."));
        }
    };
    store.stream(name)
}
