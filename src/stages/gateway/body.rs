//! Request bodies: limits of time, size and memory, and their compression.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::HeaderValue;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::stages::gateway::response::RestError;

/// Time within which a client must send the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum memory for the large bodies of all requests. A request with many small records takes
/// about ten times the memory of its body.
const MAX_LARGE_BODIES_BYTES: usize = 32 * 1024 * 1024;
/// Size up to which a body needs no reservation, so that large bodies do not delay small ones.
const SMALL_BODY_BYTES: usize = 64 * 1024;
/// Bytes per permit of [`BodyReader::memory`].
const PERMIT_BYTES: usize = 1024;

/// Reads request bodies within the limits.
pub struct BodyReader {
    /// Maximum size of a body in bytes, also after decompression.
    limit: usize,
    /// Memory for large bodies, in units of [`PERMIT_BYTES`].
    memory: Semaphore,
}

/// A received body. Memory for the body is reserved until this value is dropped.
pub struct Received<'a> {
    pub bytes: Bytes,
    _reservation: Option<SemaphorePermit<'a>>,
}

impl BodyReader {
    /// Returns a reader of bodies with at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let permits = MAX_LARGE_BODIES_BYTES.max(limit).div_ceil(PERMIT_BYTES);
        Self { limit, memory: Semaphore::new(permits.min(Semaphore::MAX_PERMITS)) }
    }

    /// Reads and decompresses a body.
    ///
    /// # Errors
    /// The body is too large, arrives too slowly, or has an unknown or damaged encoding.
    pub async fn read(
        &self,
        body: Body,
        content_encoding: Option<&HeaderValue>,
    ) -> Result<Received<'_>, RestError> {
        let encoding = Encoding::of(content_encoding)?;
        let declared = body.size_hint().exact().map(|size| usize::try_from(size).ok());
        let size = match declared {
            Some(Some(size)) if size > self.limit => None,
            // A compressed body may expand up to the limit.
            Some(Some(size)) if encoding == Encoding::Identity => Some(size),
            Some(None) => None,
            _ => Some(self.limit),
        };
        let Some(size) = size else {
            // A client that is still sending would see a connection reset instead of the response.
            let _ = tokio::time::timeout(BODY_TIMEOUT, discard(body)).await;
            return Err(RestError::too_large());
        };
        let reservation = if size <= SMALL_BODY_BYTES {
            None
        } else {
            let permits = u32::try_from(size.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
            // Cannot fail: the semaphore is never closed.
            self.memory.acquire_many(permits).await.ok()
        };
        let received = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, self.limit));
        let sent = match received.await {
            Ok(Ok(sent)) => sent,
            // A body of declared size is within the limit, so only the connection can have failed.
            Ok(Err(_)) if declared.is_some() => {
                return Err(RestError::bad_request("the connection closed within the body"));
            }
            Ok(Err(_)) => return Err(RestError::too_large()),
            Err(_) => return Err(RestError::request_timeout()),
        };
        let bytes = match encoding {
            Encoding::Identity => sent,
            Encoding::Gzip => self.decompress(flate2::read::MultiGzDecoder::new(&sent[..]))?,
            Encoding::Deflate => self.decompress(flate2::read::ZlibDecoder::new(&sent[..]))?,
        };
        Ok(Received { bytes, _reservation: reservation })
    }

    fn decompress(&self, decoder: impl Read) -> Result<Bytes, RestError> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(self.limit).unwrap_or(u64::MAX);
        decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| {
            RestError::bad_request(format!("cannot decompress the body: {error}"))
        })?;
        if bytes.len() > self.limit { Err(RestError::too_large()) } else { Ok(bytes.into()) }
    }
}

/// Receives a body and discards it.
async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    while chunks.next().await.is_some_and(|chunk| chunk.is_ok()) {}
}

/// Compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(header: Option<&HeaderValue>) -> Result<Self, RestError> {
        let name = header.map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            _ => Err(RestError::unsupported_media_type()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("writes to memory");
        encoder.finish().expect("writes to memory")
    }

    async fn read(
        reader: &BodyReader,
        bytes: Vec<u8>,
        encoding: Option<&'static str>,
    ) -> Option<Vec<u8>> {
        let header = encoding.map(HeaderValue::from_static);
        let received = reader.read(Body::from(bytes), header.as_ref()).await;
        received.ok().map(|received| received.bytes.to_vec())
    }

    #[tokio::test]
    async fn decompresses_bodies_within_the_limit() {
        let reader = BodyReader::new(100_000);
        let large = vec![b'x'; 100_000];
        assert_eq!(read(&reader, large.clone(), None).await, Some(large.clone()));
        assert_eq!(read(&reader, gzip(&large), Some("gzip")).await, Some(large.clone()));
        let mut too_large = large.clone();
        too_large.push(b'x');
        assert_eq!(read(&reader, too_large.clone(), None).await, None);
        assert_eq!(read(&reader, gzip(&too_large), Some("gzip")).await, None);
        assert_eq!(read(&reader, large.clone(), Some("gzip")).await, None, "not compressed");
        assert_eq!(read(&reader, large, Some("br")).await, None, "an unknown encoding");
    }

    #[tokio::test]
    async fn returns_the_reserved_memory() {
        let reader = BodyReader::new(MAX_LARGE_BODIES_BYTES);
        let all = reader.memory.available_permits();
        let received = reader.read(Body::from(vec![0u8; 1024 * 1024]), None).await.expect("reads");
        assert_eq!(reader.memory.available_permits(), all - 1024);
        drop(received);
        assert_eq!(reader.memory.available_permits(), all);
    }
}
