//! Kafka topics, made by whichever of three ways the cluster allows.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::error::Result;
use crate::base::model::Kind;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::msk::topic_backend;
use crate::provision::aws::msk::topic_backend::{TopicBackend, TopicState};
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::document::Phase;

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

    fn recreated_with(&self) -> Vec<String> {
        vec![keys::CLUSTER.into()]
    }

    fn contained_in(&self) -> Option<String> {
        Some(keys::CLUSTER.into())
    }

    fn holds_data(&self) -> bool {
        true
    }

    async fn read(&self) -> Result<Observation> {
        if self
            .account
            .state
            .output(keys::CLUSTER, "bootstrap_servers")
            .await
            .is_none()
        {
            return Ok(Observation::missing());
        }
        let Some(backend) = TopicBackend::choose(&self.account).await? else {
            // Where the machine that could tell does not run, what was made is not known to be gone.
            let is_known = self
                .account
                .state
                .entry(&self.key())
                .await
                .is_some_and(|entry| entry.phase == Phase::Ready);
            return Ok(if is_known {
                Observation::pending("the client machine, which could tell, does not run")
            } else {
                Observation::missing()
            });
        };
        let partitions = match topic_backend::describe(&self.account, backend, &self.name()).await?
        {
            TopicState::There(partitions) => partitions,
            TopicState::Missing => return Ok(Observation::missing()),
            // Not known to be gone: it is looked for again once the machine can be asked.
            TopicState::Unknown => {
                return Ok(Observation::pending(
                    "the client machine, which could tell, cannot be asked",
                ));
            }
        };
        let wanted = self.account.config.topics.partitions;
        // Partitions cannot be taken away, and more would move keys: that is left to the owner.
        let remark = if partitions == wanted {
            String::new()
        } else {
            format!(" (the configuration says {wanted})")
        };
        Ok(Observation::in_sync(format!(
            "{partitions} partitions{remark}, seen through {backend}"
        )))
    }

    async fn create(&self) -> Result<()> {
        let Some(backend) = TopicBackend::choose(&self.account).await? else {
            return Ok(());
        };
        topic_backend::create(
            &self.account,
            backend,
            &self.name(),
            self.account.config.topics.partitions,
        )
        .await?;
        // MSK's answers are behind by some seconds.
        self.account
            .pause(Duration::from_millis(
                self.account.config.provision.poll_ms / 16,
            ))
            .await;
        Ok(())
    }

    /// Nothing of it can differ and be changed.
    async fn update(&self) -> Result<()> {
        Ok(())
    }

    async fn wait(&self) -> Result<()> {
        let check = || async {
            let Some(backend) = TopicBackend::choose(&self.account).await? else {
                return Ok(None);
            };
            let seen = topic_backend::describe(&self.account, backend, &self.name()).await?;
            Ok((seen == TopicState::Unknown).then(|| "out of sight".to_string()))
        };
        self.account
            .wait_until(&format!("topic `{}`", self.name()), check)
            .await
    }

    async fn delete(&self) -> Result<bool> {
        if self
            .account
            .state
            .output(keys::CLUSTER, "bootstrap_servers")
            .await
            .is_none()
        {
            return Ok(false);
        }
        let Some(backend) = TopicBackend::choose(&self.account).await? else {
            return Ok(false);
        };
        topic_backend::delete(&self.account, backend, &self.name()).await
    }
}
