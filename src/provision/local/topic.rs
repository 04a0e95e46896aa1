//! A topic of the local broker.

use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::base::model::Kind;
use crate::base::output::table::thousands;
use crate::provision::local::Clients;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

pub struct Topic {
    pub kind: Kind,
    pub clients: Rc<Clients>,
}

#[async_trait(?Send)]
impl Resource for Topic {
    fn key(&self) -> String {
        format!("topic-{}", self.kind.name())
    }

    fn kind(&self) -> &'static str {
        "topic"
    }

    fn name(&self) -> String {
        self.clients.config.topic(self.kind)
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(topic) = self.clients.kafka.describe(&self.name()).await? else {
            return Ok(Observation::missing());
        };
        let records: u64 = topic
            .partitions
            .iter()
            .map(|partition| partition.end_offset.abs_diff(partition.start_offset))
            .sum();
        let desired = self.clients.config.topics.partitions as usize;
        let partitions = topic.partitions.len();
        // Partitions cannot be removed, and additional partitions would move keys to other
        // partitions, so the user decides.
        let note = if partitions == desired {
            String::new()
        } else {
            format!(" ({desired} in the configuration)")
        };
        Ok(Observation::in_sync(format!(
            "{partitions} partitions{note}, {} records",
            thousands(records)
        )))
    }

    async fn create(&self) -> Result<()> {
        let topics = &self.clients.config.topics;
        self.clients
            .kafka
            .create(&self.name(), topics.partitions, topics.replication_factor)
            .await
            .map(|_| ())
    }

    /// Does nothing, because no difference of a local topic is repaired.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        self.clients.kafka.delete(&self.name()).await
    }
}
