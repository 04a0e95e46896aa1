//! Connections. Each handles its requests one after the other, as in Kafka.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::local::broker::caller::Caller;
use crate::local::broker::{Broker, api, request_format};
use crate::local::listener::{Accepted, LimitedListener, MAX_CONNECTIONS};

/// Maximum size of a request. The first bytes of an HTTP request, read as a size, would be 1.2 GB.
const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
/// Maximum memory for the large requests of all connections: two of the maximum size.
const MAX_LARGE_FRAMES_BYTES: usize = 2 * MAX_FRAME_BYTES;
/// Size up to which a request needs no reservation, so that large requests do not delay small ones.
const SMALL_FRAME_BYTES: usize = 64 * 1024;
/// Bytes per permit of the semaphore that limits the memory for large requests.
const PERMIT_BYTES: usize = 1024;
/// Time after which a connection without requests is closed, the default of Kafka.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Time within which a client must finish sending a request, or receive a response.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts connections until the future is dropped, which closes them.
pub async fn serve(broker: Arc<Broker>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let memory = Arc::new(Semaphore::new(MAX_LARGE_FRAMES_BYTES / PERMIT_BYTES));
    let listener = LimitedListener::new(listener, MAX_CONNECTIONS);
    loop {
        tokio::select! {
            Accepted { stream, peer, slot } = listener.accept() => {
                let (broker, memory) = (broker.clone(), memory.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    let host = peer.ip().to_string();
                    if let Err(error) = serve_connection(&broker, &memory, stream, host).await {
                        tracing::debug!(%peer, %error, "Kafka connection closed");
                    }
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve_connection(
    broker: &Broker,
    memory: &Semaphore,
    mut stream: TcpStream,
    host: String,
) -> ConnectionResult {
    stream.set_nodelay(true)?;
    loop {
        let mut prefix = [0u8; 4];
        match timeout(IDLE_TIMEOUT, stream.read_exact(&mut prefix)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err("the connection was idle".into()),
        }
        let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if !(8..=MAX_FRAME_BYTES).contains(&length) {
            return Err(format!("invalid size of a Kafka request: {length} bytes").into());
        }
        let _reservation = if length <= SMALL_FRAME_BYTES {
            None
        } else {
            Some(memory.acquire_many(u32::try_from(length.div_ceil(PERMIT_BYTES))?).await?)
        };
        let frame = timeout(TRANSFER_TIMEOUT, read_frame(&mut stream, length)).await??;
        if let Some(response) = handle(broker, frame, &host).await? {
            timeout(TRANSFER_TIMEOUT, stream.write_all(&response)).await??;
        }
    }
}

/// Reads a request of `length` bytes. Its memory grows with the bytes that arrive.
async fn read_frame(stream: &mut TcpStream, length: usize) -> std::io::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(length.min(SMALL_FRAME_BYTES));
    let mut rest = AsyncReadExt::take(stream, length as u64);
    while rest.read_buf(&mut frame).await? > 0 {}
    if frame.len() < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame.freeze())
}

/// Result of work on a connection. Any error closes the connection.
type ConnectionResult<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn handle(broker: &Broker, mut frame: Bytes, host: &str) -> ConnectionResult<Option<Bytes>> {
    let key = i16::from_be_bytes([frame[0], frame[1]]);
    let version = i16::from_be_bytes([frame[2], frame[3]]);
    let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
    let api_key = ApiKey::try_from(key).map_err(|()| format!("unknown API {key}"))?;
    let supported = api::versions(api_key);
    if supported.is_none_or(|(min, max)| version < min || version > max) {
        if api_key != ApiKey::ApiVersions {
            return Err(format!("{api_key:?} version {version} is not supported").into());
        }
        // The client may use a newer protocol, so the response has version 0.
        return frame_of(correlation_id, 0, |bytes| api::unsupported_version().encode(bytes, 0))
            .map(Some);
    }
    request_format::check(api_key, version, &frame)?;
    let header = RequestHeader::decode(&mut frame, api_key.request_header_version(version))
        .map_err(|error| error.to_string())?;
    let caller = Caller {
        client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
        host: host.to_string(),
    };
    let request = kafka_protocol::messages::RequestKind::decode(api_key, &mut frame, version)
        .map_err(|error| error.to_string())?;
    if frame.has_remaining() {
        tracing::debug!(
            ?api_key,
            version,
            bytes = frame.remaining(),
            "the request has unread bytes"
        );
    }
    let Some(response) = api::respond(broker, request, version, &caller).await else {
        return Ok(None);
    };
    frame_of(correlation_id, api_key.response_header_version(version), |bytes| {
        response.encode(bytes, version)
    })
    .map(Some)
}

fn frame_of<E: std::fmt::Display>(
    correlation_id: i32,
    header_version: i16,
    body: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> ConnectionResult<Bytes> {
    let mut bytes = BytesMut::zeroed(4);
    let mut header = ResponseHeader::default();
    header.correlation_id = correlation_id;
    header.encode(&mut bytes, header_version).map_err(|error| error.to_string())?;
    body(&mut bytes).map_err(|error| error.to_string())?;
    let length = i32::try_from(bytes.len() - 4).map_err(|_| "a response is too long")?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes.freeze())
}
