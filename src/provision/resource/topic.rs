//! Kafka topics, made by whichever of three ways the cluster allows.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Reading, Resource, client, cluster};
use crate::error::Result;
use crate::provision::account::Account;
use crate::provision::topic_way::{self, Way};
use crate::record::Kind;

pub struct Topic {
    pub kind: Kind,
    pub account: Rc<Account>,
}

/// Key of one kind's topic.
pub fn key(kind: Kind) -> String {
    format!("topic-{}", kind.name())
}

#[async_trait(?Send)]
impl Resource for Topic {
    fn key(&self) -> String {
        key(self.kind)
    }

    fn kind(&self) -> &'static str {
        "topic"
    }

    fn name(&self) -> String {
        self.account.config.topic(self.kind)
    }

    fn needs(&self) -> Vec<String> {
        vec![cluster::KEY.into(), client::KEY.into()]
    }

    fn falls_with(&self) -> Vec<String> {
        vec![cluster::KEY.into()]
    }

    fn lies_in(&self) -> Option<String> {
        Some(cluster::KEY.into())
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn read(&self) -> Result<Reading> {
        if self.account.state.value(cluster::KEY, "bootstrap_servers").await.is_none() {
            return Ok(Reading::missing());
        }
        let Some(way) = Way::choose(&self.account).await? else { return Ok(Reading::missing()) };
        let Some(partitions) = topic_way::partitions(&self.account, way, &self.name()).await? else { return Ok(Reading::missing()) };
        let wanted = self.account.config.topics.partitions;
        // Partitions cannot be taken away, and more would move keys: that is left to the owner.
        let remark = if partitions == wanted { String::new() } else { format!(" (the configuration says {wanted})") };
        Ok(Reading::good(format!("{partitions} partitions{remark}, seen through {way}")))
    }

    async fn create(&self) -> Result<()> {
        let Some(way) = Way::choose(&self.account).await? else { return Ok(()) };
        topic_way::create(&self.account, way, &self.name(), self.account.config.topics.partitions).await?;
        // MSK's answers are behind by some seconds.
        self.account.pause(Duration::from_millis(self.account.config.provision.poll_ms / 16)).await;
        Ok(())
    }

    /// Nothing of it can differ and be changed.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        if self.account.state.value(cluster::KEY, "bootstrap_servers").await.is_none() {
            return Ok(false);
        }
        let Some(way) = Way::choose(&self.account).await? else { return Ok(false) };
        topic_way::delete(&self.account, way, &self.name()).await
    }
}
