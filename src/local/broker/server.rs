//! Connections. Each handles one request frame after the other, as in Kafka.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::local::broker::caller::Caller;
use crate::local::broker::{Broker, api, request_format};

/// Maximum size of a request. An HTTP request, read as a Kafka frame, would have 1.2 GB.
const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;

/// Accepts connections until the future is dropped, which closes them.
pub async fn serve(broker: Arc<Broker>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let broker = broker.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve_connection(&broker, stream, peer.ip().to_string()).await {
                            tracing::debug!(%peer, %error, "Kafka connection closed");
                        }
                    });
                }
                Err(error) => {
                    // Most likely the process is out of file handles. Closed connections free some.
                    tracing::warn!(%error, "cannot accept a Kafka connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve_connection(
    broker: &Broker,
    mut stream: TcpStream,
    host: String,
) -> ConnectionResult {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0u8; 4];
        match stream.read_exact(&mut length).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(8..=MAX_FRAME_BYTES).contains(&length) {
            return Err(format!("invalid size of a Kafka request: {length} bytes").into());
        }
        let mut frame = BytesMut::zeroed(length);
        stream.read_exact(&mut frame).await?;
        if let Some(response) = handle(broker, frame.freeze(), &host).await? {
            stream.write_all(&response).await?;
        }
    }
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
        // The client may use a newer protocol, so the response has the oldest version.
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
