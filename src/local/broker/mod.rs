//! A single-node Kafka broker for one machine, usable by any Kafka client.
//!
//! Partitions are files of record batches in Kafka's own format, consumer groups use the classic
//! protocol, and a record is written before it is acknowledged. There is no replication, no
//! authentication and no support for transactions.
//!
//! The first choice, the library tansu 0.6, skips records when a consumer resumes
//! inside a batch, returns committed offsets of deleted topics and answers
//! concurrent producers with errors that must not be retried. Therefore pinpipe has
//! its own broker; the messages of the protocol come from `kafka-protocol`.

pub mod api;
pub mod caller;
pub mod data_api;
pub mod group;
pub mod group_api;
pub mod log;
pub mod offsets;
pub mod record_batch;
pub mod request_format;
pub mod server;
pub mod topic_api;
pub mod topics;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::error::{Result, io_error};

/// Id of the only node in the cluster.
const NODE_ID: i32 = 1;

/// The state of the broker, shared by all connections.
pub struct Broker {
    topics: topics::Topics,
    groups: group::Groups,
    offsets: offsets::Offsets,
    /// Advertised listener: the address that clients connect to.
    advertised: SocketAddr,
    cluster_id: String,
    /// Number of appends. A fetch with too few records waits for it to change.
    appended: watch::Sender<u64>,
}

impl Broker {
    /// Opens the folder, recovers from incomplete writes and starts housekeeping.
    pub fn open(folder: &Path, advertised: SocketAddr) -> Result<Arc<Self>> {
        std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        let broker = Arc::new(Self {
            topics: topics::Topics::open(&folder.join("topics"))?,
            groups: group::Groups::default(),
            offsets: offsets::Offsets::open(&folder.join("offsets.jsonl"))?,
            advertised,
            cluster_id: "pinpipe-local".into(),
            appended: watch::channel(0).0,
        });
        tokio::spawn(run_housekeeping(Arc::downgrade(&broker)));
        Ok(broker)
    }

    /// Serves connections until the returned future is dropped.
    pub async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) {
        server::serve(self, listener).await;
    }
}

/// Expires group members, completes overdue rebalances and deletes old segments.
async fn run_housekeeping(broker: std::sync::Weak<Broker>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut count: u64 = 0;
    loop {
        ticks.tick().await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        broker.groups.tick();
        count += 1;
        if count.is_multiple_of(5 * 600) {
            broker.topics.drop_old_segments();
        }
    }
}
