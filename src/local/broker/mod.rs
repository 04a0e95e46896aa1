//! A Kafka broker of one node, for one machine: any Kafka client connects.
//!
//! Partitions are files of record batches in Kafka's own format, consumer groups
//! follow the classic protocol, and what is acknowledged has been written. No
//! replication, no log-in, no transactions.
//!
//! The library first meant for this (tansu 0.6) skips records when a consumer
//! resumes inside a batch, resends committed offsets of deleted topics and answers
//! concurrent producers with errors they must not retry, so the broker is our own;
//! the protocol's messages come from `kafka-protocol`.

pub mod api;
pub mod caller;
pub mod data_api;
pub mod group;
pub mod group_api;
pub mod log;
pub mod offsets;
pub mod record_batch;
pub mod server;
pub mod topic_api;
pub mod topics;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::error::{Result, io_error};

/// Id of the only node.
const NODE_ID: i32 = 1;

/// The broker's state; connections share it.
pub struct Broker {
    topics: topics::Topics,
    groups: group::Groups,
    offsets: offsets::Offsets,
    /// The address clients are told to connect to.
    advertised: SocketAddr,
    cluster_id: String,
    /// Counts appends, so that a fetch that found too little can wait for the next.
    appended: watch::Sender<u64>,
}

impl Broker {
    /// Opens the folder, mends what a kill left half-written, and starts housekeeping.
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
        tokio::spawn(keep_house(Arc::downgrade(&broker)));
        Ok(broker)
    }

    /// Answers connections until `listener`'s task is dropped.
    pub async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) {
        server::serve(self, listener).await;
    }
}

/// Expires group members, ends rebalances that have waited long enough, drops old segments.
async fn keep_house(broker: std::sync::Weak<Broker>) {
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
