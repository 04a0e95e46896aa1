//! Kafka topics, created through one of three backends.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::base::model::Kind;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::msk::topic_backend;
use crate::provision::aws::msk::topic_backend::backend::TopicState;
use crate::provision::aws::outputs;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::document::Phase;
use crate::provision::state::output::ObservedOutputs;

pub struct Topic {
    pub kind: Kind,
    pub account: Rc<Account>,
}

#[async_trait(?Send)]
impl Resource for Topic {
    fn key(&self) -> String {
        keys::topic(self.kind)
    }

    fn kind(&self) -> &'static str {
        "topic"
    }

    fn name(&self) -> String {
        self.account.config.topic(self.kind)
    }

    fn depends_on(&self) -> Vec<String> {
        vec![keys::CLUSTER.into(), keys::CLIENT.into()]
    }

    fn replaced_with(&self) -> Vec<String> {
        vec![keys::CLUSTER.into()]
    }

    fn contained_in(&self) -> Option<String> {
        Some(keys::CLUSTER.into())
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        if self.account.state.output(&outputs::BOOTSTRAP_SERVERS).await.is_none() {
            return Ok(Observation::missing());
        }
        let Some(backend) = topic_backend::choose(&self.account).await? else {
            // While the client machine is stopped, a created topic is assumed to exist.
            let is_created = self
                .account
                .state
                .entry(&self.key())
                .await
                .is_some_and(|entry| entry.phase == Phase::Ready);
            return Ok(if is_created {
                Observation::pending("unknown: the client machine is not running")
            } else {
                Observation::missing()
            });
        };
        let partitions = match backend.describe(&self.name()).await? {
            TopicState::Exists(partitions) => partitions,
            TopicState::Missing => return Ok(Observation::missing()),
            // The topic may exist. It is read again when the machine accepts commands.
            TopicState::Unknown => {
                return Ok(Observation::pending(
                    "unknown: the client machine does not accept commands",
                ));
            }
        };
        let desired = self.account.config.topics.partitions;
        // Partitions cannot be removed, and additional partitions would move keys to other
        // partitions, so the user decides.
        let note = if partitions == desired {
            String::new()
        } else {
            format!(" ({desired} in the configuration)")
        };
        Ok(Observation::in_sync(format!(
            "{partitions} partitions{note}, read through {}",
            backend.name()
        )))
    }

    async fn create(&self) -> Result<()> {
        let Some(backend) = topic_backend::choose(&self.account).await? else {
            return Ok(());
        };
        let topics = &self.account.config.topics;
        backend.create(&self.name(), topics.partitions, topics.replication_factor).await?;
        // MSK lists a new topic only after some seconds.
        self.account
            .pause(Duration::from_millis(self.account.config.provision.poll_interval_ms / 16))
            .await;
        Ok(())
    }

    /// Does nothing, because no difference of a topic is repaired.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let Some(backend) = topic_backend::choose(&self.account).await? else {
                return Ok(None);
            };
            let state = backend.describe(&self.name()).await?;
            Ok((state == TopicState::Unknown).then(|| "unreachable".to_string()))
        };
        self.account.wait_until(&format!("topic `{}`", self.name()), check).await
    }

    async fn delete(&self) -> Result<bool> {
        if self.account.state.output(&outputs::BOOTSTRAP_SERVERS).await.is_none() {
            return Ok(false);
        }
        let Some(backend) = topic_backend::choose(&self.account).await? else {
            return Ok(false);
        };
        backend.delete(&self.name()).await
    }
}
