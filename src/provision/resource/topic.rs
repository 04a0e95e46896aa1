//! A Kafka topic.

use super::{Clients, State};
use crate::error::Result;
use crate::output::thousands;
use crate::record::Kind;

pub async fn read(clients: &Clients, kind: Kind) -> Result<State> {
    let Some(topic) = clients.kafka.describe(&clients.config.topic(kind)).await? else { return Ok(State::missing()) };
    let records: u64 = topic.partitions.iter().map(|partition| partition.end_offset.abs_diff(partition.start_offset)).sum();
    let wanted = clients.config.topics.partitions as usize;
    let partitions = topic.partitions.len();
    // Partitions cannot be taken away, and more would move keys: that is left to the owner.
    let remark = if partitions == wanted { String::new() } else { format!(" (the configuration says {wanted})") };
    Ok(State::good(format!("{partitions} partitions{remark}, {} records", thousands(records))))
}

pub async fn create(clients: &Clients, kind: Kind) -> Result<()> {
    let topics = &clients.config.topics;
    clients.kafka.create(&clients.config.topic(kind), topics.partitions, topics.replication_factor).await.map(|_| ())
}
