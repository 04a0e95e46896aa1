//! Shard iterators: positions of the next read, valid for five minutes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::local::kinesis::error::KinesisError;

/// Lifetime of an iterator in milliseconds.
const VALID_FOR_MS: i64 = 5 * 60 * 1000;

/// The decoded content of a shard iterator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIterator {
    pub stream: String,
    pub stream_id: i64,
    pub shard: u32,
    /// Counter of the next record to return.
    pub next: i64,
    pub issued_ms: i64,
}

impl ShardIterator {
    /// Encodes the iterator as an opaque string.
    pub fn encode(&self) -> String {
        let text = format!(
            "1:{}:{}:{}:{}:{}",
            self.stream_id, self.shard, self.next, self.issued_ms, self.stream
        );
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Decodes an iterator.
    ///
    /// # Errors
    /// `InvalidArgumentException` if the string is not an iterator, `ExpiredIteratorException`
    /// after five minutes.
    pub fn decode(text: &str, now_ms: i64) -> Result<Self, KinesisError> {
        let invalid = || KinesisError::invalid("Invalid ShardIterator.");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let fields: Vec<&str> = text.splitn(6, ':').collect();
        let ["1", stream_id, shard, next, issued_ms, stream] = fields[..] else {
            return Err(invalid());
        };
        let iterator = Self {
            stream: stream.to_string(),
            stream_id: stream_id.parse().map_err(|_| invalid())?,
            shard: shard.parse().map_err(|_| invalid())?,
            next: next.parse().map_err(|_| invalid())?,
            issued_ms: issued_ms.parse().map_err(|_| invalid())?,
        };
        if now_ms - iterator.issued_ms > VALID_FOR_MS {
            Err(KinesisError::expired_iterator())
        } else {
            Ok(iterator)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_iterators_until_they_expire() {
        let iterator = ShardIterator {
            stream: "streaming-a-pin".into(),
            stream_id: 3,
            shard: 1,
            next: 42,
            issued_ms: 1_000,
        };
        let text = iterator.encode();
        assert_eq!(
            ShardIterator::decode(&text, 1_000 + VALID_FOR_MS).expect("still valid"),
            iterator
        );
        assert_eq!(
            ShardIterator::decode(&text, 1_001 + VALID_FOR_MS).expect_err("expired").name,
            "ExpiredIteratorException"
        );
        assert_eq!(
            ShardIterator::decode("x", 0).expect_err("not an iterator").name,
            "InvalidArgumentException"
        );
    }
}
