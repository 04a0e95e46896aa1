//! Topics with `kafka-topics.sh` on the client machine, through SSM Run Command.

use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;

use crate::base::error::{Error, Result};
use crate::provision::aws::context::Account;
use crate::provision::aws::msk::topic_backend::backend::{TopicBackend, TopicState};
use crate::provision::aws::outputs;
use crate::provision::aws::run_command::{CommandOutcome, run_command};

pub struct ClientMachine {
    pub account: Rc<Account>,
}

/// Whether the client machine is running and its REST proxy has responded.
pub async fn is_ready(account: &Account) -> bool {
    let state = &account.state;
    state.output(&outputs::CLIENT_RUNNING).await == Some(true)
        && state.output(&outputs::CLIENT_ANSWERED).await == state.output(&outputs::CLIENT_ID).await
}

impl ClientMachine {
    /// Runs `kafka-topics.sh`. Returns its output, or `None` if the machine is not registered with
    /// Systems Manager.
    async fn run_kafka_topics(&self, arguments: &str) -> Result<Option<String>> {
        let state = &self.account.state;
        let instance = state.require_output(&outputs::CLIENT_ID).await?;
        let brokers = state.require_output(&outputs::BOOTSTRAP_SERVERS).await?;
        let script = format!(
            ". /etc/profile.d/pinpipe.sh\n/opt/pinpipe/kafka/bin/kafka-topics.sh --bootstrap-server {brokers} --command-config /opt/pinpipe/kafka/bin/client.properties {arguments}\n"
        );
        match run_command(&self.account, &instance, &script).await? {
            CommandOutcome::Done(text) => Ok(Some(text)),
            CommandOutcome::Failed(reason) => Err(Error::failed(format!(
                "`kafka-topics.sh {arguments}` failed on the client machine"
            ))
            .with_source(reason)
            .hint(
                "open an SSM session with `aws ssm start-session`; the REST proxy's log is in \
                 /var/log/kafka-rest",
            )),
            CommandOutcome::Unregistered => Ok(None),
        }
    }

    /// Describes all topics and caches the result. One command describes all topics, because
    /// starting the tool takes seconds on a small machine.
    async fn describe_all(&self) -> Result<Option<BTreeMap<String, i32>>> {
        let mut topics = self.account.described_topics.lock().await;
        if topics.is_none() {
            let description = self.run_kafka_topics("--describe").await?;
            *topics = description.map(|text| parse_description(&text));
        }
        Ok(topics.clone())
    }

    /// Changes topics and clears the cached description.
    async fn change(&self, arguments: &str) -> Result<()> {
        self.run_kafka_topics(arguments).await?.ok_or_else(unregistered_error)?;
        *self.account.described_topics.lock().await = None;
        Ok(())
    }
}

fn unregistered_error() -> Error {
    Error::failed("the client machine is not registered with Systems Manager").hint(
        "`pinpipe status` shows whether the machine is running, `pinpipe provision` starts it; \
         `topics.via` selects another backend",
    )
}

/// Parses the output of `kafka-topics.sh --describe` into topics and their number of partitions.
fn parse_description(text: &str) -> BTreeMap<String, i32> {
    let field = |line: &str, name: &str| {
        let rest = line.split(name).nth(1)?;
        rest.split_whitespace().next().map(String::from)
    };
    let topics = text.lines().filter(|line| line.starts_with("Topic:"));
    topics
        .filter_map(|line| {
            Some((field(line, "Topic:")?, field(line, "PartitionCount:")?.parse().ok()?))
        })
        .collect()
}

#[async_trait(?Send)]
impl TopicBackend for ClientMachine {
    fn name(&self) -> &'static str {
        "the client machine"
    }

    async fn list(&self) -> Result<BTreeMap<String, i32>> {
        self.describe_all().await?.ok_or_else(unregistered_error)
    }

    async fn describe(&self, topic: &str) -> Result<TopicState> {
        Ok(self.describe_all().await?.map_or(TopicState::Unknown, |topics| {
            TopicState::from_partitions(topics.get(topic).copied())
        }))
    }

    async fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<()> {
        self.change(&format!(
            "--create --if-not-exists --topic {topic} --partitions {partitions} --replication-factor {replicas}"
        ))
        .await
    }

    async fn delete(&self, topic: &str) -> Result<bool> {
        match self.describe(topic).await? {
            TopicState::Exists(_) => {}
            TopicState::Missing => return Ok(false),
            TopicState::Unknown => return Err(unregistered_error()),
        }
        self.change(&format!("--delete --if-exists --topic {topic}")).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_description_of_topics() {
        let text = "Topic: me.pin\tTopicId: abc\tPartitionCount: 3\tReplicationFactor: 3\tConfigs: \n\tTopic: me.pin\tPartition: 0\tLeader: 1\n\
                    Topic: me.geo\tPartitionCount: 12\tReplicationFactor: 3\tConfigs: min.insync.replicas=2\n";
        assert_eq!(
            parse_description(text),
            BTreeMap::from([("me.pin".to_string(), 3), ("me.geo".to_string(), 12)])
        );
        assert_eq!(parse_description(""), BTreeMap::new());
    }
}
