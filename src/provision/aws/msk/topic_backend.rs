//! The three ways to a cluster's topics: MSK's own operations, the Kafka protocol from
//! here, and Kafka's tool on the client machine.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::config::check::has_topic_operations;
use crate::base::config::schema::{Config, KafkaAuth, TopicsVia};
use crate::base::error::{Error, Result};
use crate::clients::aws::call::{Call, code, failed};
use crate::clients::kafka::admin::Admin;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::aws::run_command::{CommandOutcome, run_command};

/// How topics are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicBackend {
    Msk,
    Ssm,
    Direct,
}

impl std::fmt::Display for TopicBackend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Msk => "MSK",
            Self::Ssm => "the client machine",
            Self::Direct => "the brokers",
        })
    }
}

/// How long a broker may take to be reached.
const REACH: Duration = Duration::from_millis(1500);

impl TopicBackend {
    /// `None`: there is no machine yet to ask on.
    pub async fn choose(account: &Account) -> Result<Option<Self>> {
        let backend = match account.config.topics.via {
            TopicsVia::Msk => Self::Msk,
            TopicsVia::Direct => Self::Direct,
            TopicsVia::Ssm => Self::Ssm,
            TopicsVia::Auto
                if has_topic_operations(
                    &account
                        .state
                        .output(keys::CLUSTER, "kafka_version")
                        .await
                        .unwrap_or_default(),
                ) =>
            {
                Self::Msk
            }
            TopicsVia::Auto => {
                let brokers = account
                    .state
                    .output(keys::CLUSTER, "bootstrap_servers")
                    .await
                    .unwrap_or_default();
                let is_reached = account
                    .brokers_reached
                    .get_or_init(|| reached(&brokers))
                    .await;
                if *is_reached { Self::Direct } else { Self::Ssm }
            }
        };
        Ok((backend != Self::Ssm || is_machine_up(account).await).then_some(backend))
    }
}

/// Whether the machine runs and has been set up.
async fn is_machine_up(account: &Account) -> bool {
    let value = |field: &'static str| account.state.output(keys::CLIENT, field);
    value("running").await.as_deref() == Some("yes") && value("answered").await == value("id").await
}

/// Whether the first broker takes a connection from here.
async fn reached(brokers: &str) -> bool {
    let first = brokers.split(',').next().unwrap_or_default().to_string();
    matches!(
        tokio::time::timeout(REACH, tokio::net::TcpStream::connect(first)).await,
        Ok(Ok(_))
    )
}

async fn direct(account: &Account) -> Result<Admin> {
    let mut config: Config = account.config.clone();
    config.kafka.bootstrap_servers = account
        .state
        .require_output(keys::CLUSTER, "bootstrap_servers")
        .await?;
    config.kafka.auth = KafkaAuth::Iam;
    Admin::new(&config)
}

/// Runs Kafka's tool on the client machine. `None`: the machine cannot be asked now.
async fn tool(account: &Account, arguments: &str) -> Result<Option<String>> {
    let instance = account.state.require_output(keys::CLIENT, "id").await?;
    let brokers = account
        .state
        .require_output(keys::CLUSTER, "bootstrap_servers")
        .await?;
    let script = format!(
        ". /etc/profile.d/pinpipe.sh\n/opt/pinpipe/kafka/bin/kafka-topics.sh --bootstrap-server {brokers} --command-config /opt/pinpipe/kafka/bin/client.properties {arguments}\n"
    );
    match run_command(account, &instance, &script).await? {
        CommandOutcome::Done(text) => Ok(Some(text)),
        CommandOutcome::Failed(reason) => Err(Error::failed(format!("`kafka-topics.sh {arguments}` failed on the client machine"))
            .with_source(reason)
            .hint("log in with `aws ssm start-session` to see more; the proxy's log is /var/log/kafka-rest")),
        CommandOutcome::NotThere => Ok(None),
    }
}

fn unreachable() -> Error {
    Error::failed("the client machine is not registered with Systems Manager")
        .hint("is it running? `pinpipe status` says so, `pinpipe provision` starts it; choose another way with `topics.via`")
}

/// Topics and their partitions, out of what `kafka-topics.sh --describe` says.
fn described(text: &str) -> BTreeMap<String, i32> {
    let field = |line: &str, name: &str| {
        let rest = line.split(name).nth(1)?;
        rest.split_whitespace().next().map(String::from)
    };
    let topics = text.lines().filter(|line| line.starts_with("Topic:"));
    topics
        .filter_map(|line| {
            Some((
                field(line, "Topic:")?,
                field(line, "PartitionCount:")?.parse().ok()?,
            ))
        })
        .collect()
}

/// What Kafka's tool says of all topics. One command describes all, and starting the tool
/// takes seconds on a small machine.
async fn seen_by_tool(account: &Account) -> Result<Option<BTreeMap<String, i32>>> {
    let mut seen = account.described_topics.lock().await;
    if seen.is_none() {
        *seen = tool(account, "--describe")
            .await?
            .map(|text| described(&text));
    }
    Ok(seen.clone())
}

/// Every topic with the number of its partitions.
pub async fn list(account: &Account, backend: TopicBackend) -> Result<BTreeMap<String, i32>> {
    match backend {
        TopicBackend::Direct => {
            let (admin, mut all) = (direct(account).await?, BTreeMap::new());
            for topic in admin.list().await? {
                let partitions = admin
                    .describe(&topic)
                    .await?
                    .map_or(0, |found| found.partitions.len() as i32);
                all.insert(topic, partitions);
            }
            Ok(all)
        }
        TopicBackend::Msk => {
            let arn = account.state.require_output(keys::CLUSTER, "arn").await?;
            let mut all = BTreeMap::new();
            let mut pages = account
                .msk
                .list_topics()
                .cluster_arn(arn)
                .into_paginator()
                .items()
                .send();
            while let Some(found) = pages.next().await {
                let found = found
                    .map_err(|error| failed(Call("kafka:ListTopics", "the topics"), &error))?;
                all.insert(
                    found.topic_name().unwrap_or_default().to_string(),
                    found.partition_count().unwrap_or_default(),
                );
            }
            Ok(all)
        }
        TopicBackend::Ssm => seen_by_tool(account).await?.ok_or_else(unreachable),
    }
}

/// How a topic stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    /// It has so many partitions.
    There(i32),
    Missing,
    /// The machine that could tell cannot be asked now.
    Unknown,
}

impl TopicState {
    fn of(partitions: Option<i32>) -> Self {
        partitions.map_or(Self::Missing, Self::There)
    }
}

/// How a topic stands.
pub async fn describe(account: &Account, backend: TopicBackend, topic: &str) -> Result<TopicState> {
    match backend {
        TopicBackend::Direct => Ok(TopicState::of(
            direct(account)
                .await?
                .describe(topic)
                .await?
                .map(|found| found.partitions.len() as i32),
        )),
        TopicBackend::Msk => {
            let arn = account.state.require_output(keys::CLUSTER, "arn").await?;
            match account
                .msk
                .describe_topic()
                .cluster_arn(arn)
                .topic_name(topic)
                .send()
                .await
            {
                Ok(found) => Ok(TopicState::of(found.partition_count())),
                Err(error)
                    if matches!(
                        code(&error),
                        "NotFoundException" | "UnknownTopicOrPartitionException"
                    ) =>
                {
                    Ok(TopicState::Missing)
                }
                Err(error) => Err(failed(
                    Call("kafka:DescribeTopic", &format!("topic `{topic}`")),
                    &error,
                )),
            }
        }
        TopicBackend::Ssm => Ok(seen_by_tool(account)
            .await?
            .map_or(TopicState::Unknown, |topics| {
                TopicState::of(topics.get(topic).copied())
            })),
    }
}

/// Makes a topic; one that is there stays as it is.
pub async fn create(
    account: &Account,
    backend: TopicBackend,
    topic: &str,
    partitions: i32,
) -> Result<()> {
    let replicas = account.config.topics.replication_factor;
    match backend {
        TopicBackend::Direct => direct(account)
            .await?
            .create(topic, partitions, replicas)
            .await
            .map(|_| ()),
        TopicBackend::Msk => {
            let arn = account.state.require_output(keys::CLUSTER, "arn").await?;
            let request = account
                .msk
                .create_topic()
                .cluster_arn(arn)
                .topic_name(topic);
            match request
                .partition_count(partitions)
                .replication_factor(replicas)
                .send()
                .await
            {
                Ok(_) => Ok(()),
                Err(error)
                    if matches!(code(&error), "TopicExistsException" | "ConflictException") =>
                {
                    Ok(())
                }
                Err(error) => Err(failed(
                    Call("kafka:CreateTopic", &format!("topic `{topic}`")),
                    &error,
                )),
            }
        }
        TopicBackend::Ssm => {
            let arguments = format!(
                "--create --if-not-exists --topic {topic} --partitions {partitions} --replication-factor {replicas}"
            );
            tool(account, &arguments).await?.ok_or_else(unreachable)?;
            *account.described_topics.lock().await = None;
            Ok(())
        }
    }
}

/// Removes a topic; `false`: it was not there.
pub async fn delete(account: &Account, backend: TopicBackend, topic: &str) -> Result<bool> {
    match describe(account, backend, topic).await? {
        TopicState::There(_) => {}
        TopicState::Missing => return Ok(false),
        TopicState::Unknown => return Err(unreachable()),
    }
    match backend {
        TopicBackend::Direct => direct(account).await?.delete(topic).await,
        TopicBackend::Msk => {
            let arn = account.state.require_output(keys::CLUSTER, "arn").await?;
            match account
                .msk
                .delete_topic()
                .cluster_arn(arn)
                .topic_name(topic)
                .send()
                .await
            {
                Ok(_) => Ok(true),
                Err(error)
                    if matches!(
                        code(&error),
                        "NotFoundException" | "UnknownTopicOrPartitionException"
                    ) =>
                {
                    Ok(false)
                }
                Err(error) => Err(failed(
                    Call("kafka:DeleteTopic", &format!("topic `{topic}`")),
                    &error,
                )),
            }
        }
        TopicBackend::Ssm => {
            tool(account, &format!("--delete --if-exists --topic {topic}"))
                .await?
                .ok_or_else(unreachable)?;
            *account.described_topics.lock().await = None;
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafkas_tool_says_is_read() {
        let text = "Topic: me.pin\tTopicId: abc\tPartitionCount: 3\tReplicationFactor: 3\tConfigs: \n\tTopic: me.pin\tPartition: 0\tLeader: 1\n\
                    Topic: me.geo\tPartitionCount: 12\tReplicationFactor: 3\tConfigs: min.insync.replicas=2\n";
        assert_eq!(
            described(text),
            BTreeMap::from([("me.pin".to_string(), 3), ("me.geo".to_string(), 12)])
        );
        assert_eq!(described(""), BTreeMap::new());
    }
}
