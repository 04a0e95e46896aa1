//! Conversion between CBOR and the JSON of the operations. In JSON, blobs are base64
//! text and timestamps are seconds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value as Cbor;
use serde_json::{Map, Number, Value};

use crate::local::kinesis::error::KinesisError;

/// CBOR tag for seconds since the epoch.
const EPOCH_TAG: u64 = 1;

/// Decodes a request.
pub fn decode(bytes: &[u8]) -> Result<Value, KinesisError> {
    let value: Cbor = ciborium::from_reader(bytes)
        .map_err(|error| KinesisError::serialization(error.to_string()))?;
    from_cbor(value)
}

fn from_cbor(value: Cbor) -> Result<Value, KinesisError> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(flag) => Value::Bool(flag),
        Cbor::Text(text) => Value::String(text),
        Cbor::Bytes(bytes) => Value::String(STANDARD.encode(bytes)),
        Cbor::Float(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Cbor::Integer(number) => i64::try_from(number)
            .map(Value::from)
            .map_err(|_| KinesisError::serialization("a number is too large"))?,
        // The Java SDK encodes timestamps as integer milliseconds, Smithy RPC v2 as seconds.
        Cbor::Tag(EPOCH_TAG, inner) => match *inner {
            Cbor::Integer(number) => {
                let number = i64::try_from(number)
                    .map_err(|_| KinesisError::serialization("a timestamp is too large"))?;
                let is_milliseconds = number.abs() > 100_000_000_000;
                Value::from(if is_milliseconds { number as f64 / 1000.0 } else { number as f64 })
            }
            other => from_cbor(other)?,
        },
        Cbor::Tag(_, inner) => from_cbor(*inner)?,
        Cbor::Array(items) => {
            Value::Array(items.into_iter().map(from_cbor).collect::<Result<_, _>>()?)
        }
        Cbor::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let Cbor::Text(key) = key else {
                    return Err(KinesisError::serialization("a key is not text"));
                };
                map.insert(key, from_cbor(value)?);
            }
            Value::Object(map)
        }
        _ => return Err(KinesisError::serialization("a value of an unknown type")),
    })
}

/// Encodes a response. Timestamps are in seconds if `in_seconds` is true, else in milliseconds.
pub fn encode(value: &Value, in_seconds: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail, and `to_cbor` always builds a valid value.
    let _ = ciborium::into_writer(&to_cbor("", value, in_seconds), &mut bytes);
    bytes
}

fn to_cbor(key: &str, value: &Value, in_seconds: bool) -> Cbor {
    match value {
        Value::Null => Cbor::Map(Vec::new()),
        Value::Bool(flag) => Cbor::Bool(*flag),
        Value::Number(number) if key.ends_with("Timestamp") => {
            let time = number.as_f64().unwrap_or_default();
            let inner = if in_seconds {
                Cbor::Float(time)
            } else {
                Cbor::Integer(((time * 1000.0).round() as i64).into())
            };
            Cbor::Tag(EPOCH_TAG, Box::new(inner))
        }
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cbor::Integer(number.into()),
            None => Cbor::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) if key == "Data" => {
            Cbor::Bytes(STANDARD.decode(text).unwrap_or_default())
        }
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Array(items) => {
            Cbor::Array(items.iter().map(|item| to_cbor(key, item, in_seconds)).collect())
        }
        Value::Object(map) => Cbor::Map(
            map.iter()
                .map(|(key, value)| (Cbor::Text(key.clone()), to_cbor(key, value, in_seconds)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn converts_blobs_and_timestamps_in_both_directions() {
        let response = json!({ "Records": [{ "Data": STANDARD.encode(b"hello"), "ApproximateArrivalTimestamp": 1_700_000_000.5, "PartitionKey": "k" }], "MillisBehindLatest": 7 });
        assert_eq!(decode(&encode(&response, false)).expect("decodes"), response);
        assert_eq!(decode(&encode(&response, true)).expect("decodes"), response);
    }

    #[test]
    fn rejects_invalid_cbor_as_a_serialization_error() {
        assert_eq!(decode(&[0xff, 0x00]).expect_err("not CBOR").name, "SerializationException");
    }
}
