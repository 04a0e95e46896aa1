//! Accepts the connections of a local server, up to a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of connections of a server: as many as `emulate` can open, which is the maximum
/// of `emulate.concurrency`.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Pause after a connection could not be accepted. Most likely the process is out of file
/// descriptors, some of which are freed when connections close.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A listener that limits the number of connections. Further clients wait until a connection
/// closes.
pub struct LimitedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
}

/// An accepted connection. It counts towards the limit until `slot` is dropped.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub slot: Option<OwnedSemaphorePermit>,
}

impl LimitedListener {
    pub fn new(listener: TcpListener, max_connections: usize) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(max_connections)) }
    }

    /// Accepts the next connection. The returned future may be dropped at any time.
    pub async fn accept(&self) -> Accepted {
        // Cannot fail: the semaphore is never closed.
        let slot = self.slots.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return Accepted { stream, peer, slot },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}
