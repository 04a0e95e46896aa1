//! Serves a router of the local stack, with limits for its connections.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::local::listener::{Accepted, LimitedListener, MAX_CONNECTIONS};

/// Time within which a client must send the headers of a request, counted from the start of the
/// connection or the previous response. Common clients keep idle connections for a shorter time (60
/// to 90 seconds), so that they do not send a request on a connection that is about to close.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Maximum size of the read buffer of a connection, in bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Serves a router until `stop` is cancelled, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let listener = LimitedListener::new(listener, MAX_CONNECTIONS);
    serve_within(listener, router, HEADER_TIMEOUT, stop).await;
}

async fn serve_within(
    listener: LimitedListener,
    router: Router,
    header_timeout: Duration,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Accepted { stream, peer, slot } = listener.accept() => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serve_connection(stream, router, header_timeout, stop).await
                    {
                        tracing::debug!(%peer, %error, "HTTP connection closed");
                    }
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    // New clients are refused from now on.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    header_timeout: Duration,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Disables Nagle's algorithm, which delays small responses.
    let _ = stream.set_nodelay(true);
    let has_request = Arc::new(AtomicBool::new(false));
    let app = TowerToHyperService::new(router);
    let service = {
        let has_request = has_request.clone();
        service_fn(move |request: Request<Incoming>| {
            has_request.store(true, Ordering::Relaxed);
            app.call(request)
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_BUFFER_BYTES);
    // Some SDKs call Kinesis over HTTP/2, where pings detect clients that are gone.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(header_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // The timers of both protocols start only after the first bytes, which identify the protocol.
    let first_request_is_late = async {
        tokio::time::sleep(header_timeout).await;
        if has_request.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = first_request_is_late => Err("the client sent no request in time".into()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    /// Far more than any step takes.
    const LONG: Duration = Duration::from_secs(60);

    async fn start(max_connections: usize, header_timeout: Duration) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", get(|| async { "here" }));
        let listener = LimitedListener::new(listener, max_connections);
        tokio::spawn(serve_within(listener, router, header_timeout, CancellationToken::new()));
        address
    }

    async fn connect(address: std::net::SocketAddr, sent: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(sent).await.expect("writes");
        stream
    }

    /// Reads until a response has arrived.
    async fn read_response(stream: &mut TcpStream) {
        let mut received = Vec::new();
        while !received.ends_with(b"here") {
            let read = timeout(LONG, stream.read_buf(&mut received)).await.expect("in time");
            assert!(read.expect("reads") > 0, "the connection is open");
        }
    }

    #[tokio::test]
    async fn closes_connections_without_complete_headers() {
        let address = start(10, Duration::from_millis(100)).await;
        for sent in ["", "P", "GET / HTTP/1.1\r\nhost: local", "PRI * HTTP/2.0\r\n"] {
            let mut stream = connect(address, sent.as_bytes()).await;
            let mut received = Vec::new();
            let read = timeout(LONG, stream.read_to_end(&mut received)).await;
            assert!(read.is_ok(), "still open after `{sent}`");
        }
        let mut stream = connect(address, REQUEST).await;
        read_response(&mut stream).await;
        let mut rest = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open without a second request");
    }

    #[tokio::test]
    async fn further_clients_wait_for_a_connection_to_close() {
        let address = start(1, LONG).await;
        let mut first = connect(address, REQUEST).await;
        read_response(&mut first).await;
        let mut second = connect(address, REQUEST).await;
        let early = timeout(Duration::from_millis(200), second.read_u8()).await;
        assert!(early.is_err(), "served beside the first");
        drop(first);
        read_response(&mut second).await;
    }
}
