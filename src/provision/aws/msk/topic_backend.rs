//! The three backends for a cluster's topics: MSK's own operations, the Kafka protocol from this
//! machine, and `kafka-topics.sh` on the client machine.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::config::check::has_topic_operations;
use crate::base::config::schema::{Config, KafkaAuth, TopicsVia};
use crate::base::error::{Error, Result};
use crate::clients::aws::call::{CallContext, code};
use crate::clients::kafka::admin::Admin;
use crate::provision::aws::context::Account;
use crate::provision::aws::outputs;
use crate::provision::aws::run_command::{CommandOutcome, run_command};

/// Backend that reads and changes topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicBackend {
    /// Operations of the MSK API.
    Msk,
    /// `kafka-topics.sh` on the client machine, through SSM Run Command.
    Ssm,
    /// The Kafka protocol from this machine.
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

/// Timeout of the connection attempt to a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

impl TopicBackend {
    /// Chooses the backend by `topics.via`, the Kafka version and the reachability of the brokers.
    /// Returns `None` if the backend needs the client machine and it is not ready.
    pub async fn choose(account: &Account) -> Result<Option<Self>> {
        let backend = match account.config.topics.via {
            TopicsVia::Msk => Self::Msk,
            TopicsVia::Direct => Self::Direct,
            TopicsVia::Ssm => Self::Ssm,
            TopicsVia::Auto
                if has_topic_operations(
                    &account.state.output(&outputs::KAFKA_VERSION).await.unwrap_or_default(),
                ) =>
            {
                Self::Msk
            }
            TopicsVia::Auto => {
                let brokers =
                    account.state.output(&outputs::BOOTSTRAP_SERVERS).await.unwrap_or_default();
                let is_reachable =
                    account.brokers_reached.get_or_init(|| is_reachable(&brokers)).await;
                if *is_reachable { Self::Direct } else { Self::Ssm }
            }
        };
        Ok((backend != Self::Ssm || is_client_ready(account).await).then_some(backend))
    }
}

/// Whether the client machine runs and its REST proxy has answered.
async fn is_client_ready(account: &Account) -> bool {
    let state = &account.state;
    state.output(&outputs::CLIENT_RUNNING).await == Some(true)
        && state.output(&outputs::CLIENT_ANSWERED).await == state.output(&outputs::CLIENT_ID).await
}

/// Whether the first broker accepts a connection from this machine.
async fn is_reachable(brokers: &str) -> bool {
    let first = brokers.split(',').next().unwrap_or_default().to_string();
    matches!(
        tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(first)).await,
        Ok(Ok(_))
    )
}

/// Admin client of the provisioned cluster, with IAM authentication.
async fn admin_client(account: &Account) -> Result<Admin> {
    let mut config: Config = account.config.clone();
    config.kafka.bootstrap_servers =
        account.state.require_output(&outputs::BOOTSTRAP_SERVERS).await?;
    config.kafka.auth = KafkaAuth::Iam;
    Admin::new(&config)
}

/// Runs `kafka-topics.sh` on the client machine. Returns its output, or `None` if the machine is
/// not registered with Systems Manager.
async fn run_kafka_topics(account: &Account, arguments: &str) -> Result<Option<String>> {
    let instance = account.state.require_output(&outputs::CLIENT_ID).await?;
    let brokers = account.state.require_output(&outputs::BOOTSTRAP_SERVERS).await?;
    let script = format!(
        ". /etc/profile.d/pinpipe.sh\n/opt/pinpipe/kafka/bin/kafka-topics.sh --bootstrap-server {brokers} --command-config /opt/pinpipe/kafka/bin/client.properties {arguments}\n"
    );
    match run_command(account, &instance, &script).await? {
        CommandOutcome::Done(text) => Ok(Some(text)),
        CommandOutcome::Failed(reason) => Err(Error::failed(format!(
            "`kafka-topics.sh {arguments}` failed on the client machine"
        ))
        .with_source(reason)
        .hint(
            "open a session with `aws ssm start-session`; the REST proxy's log is in \
             /var/log/kafka-rest",
        )),
        CommandOutcome::Unregistered => Ok(None),
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

/// Describes all topics with `kafka-topics.sh` and caches the result. One command describes all
/// topics, because starting the tool takes seconds on a small machine.
async fn describe_with_tool(account: &Account) -> Result<Option<BTreeMap<String, i32>>> {
    let mut topics = account.described_topics.lock().await;
    if topics.is_none() {
        *topics =
            run_kafka_topics(account, "--describe").await?.map(|text| parse_description(&text));
    }
    Ok(topics.clone())
}

/// Lists the topics with their number of partitions.
///
/// # Errors
/// The backend cannot be reached; the client machine is not registered with Systems Manager.
pub async fn list(account: &Account, backend: TopicBackend) -> Result<BTreeMap<String, i32>> {
    match backend {
        TopicBackend::Direct => {
            let (admin, mut all) = (admin_client(account).await?, BTreeMap::new());
            for topic in admin.list().await? {
                let partitions = admin
                    .describe(&topic)
                    .await?
                    .map_or(0, |description| description.partitions.len() as i32);
                all.insert(topic, partitions);
            }
            Ok(all)
        }
        TopicBackend::Msk => {
            let arn = account.state.require_output(&outputs::CLUSTER_ARN).await?;
            let mut all = BTreeMap::new();
            let mut pages =
                account.msk.list_topics().cluster_arn(arn).into_paginator().items().send();
            while let Some(item) = pages.next().await {
                let topic = item.call_context("kafka:ListTopics", "the topics")?;
                all.insert(
                    topic.topic_name().unwrap_or_default().to_string(),
                    topic.partition_count().unwrap_or_default(),
                );
            }
            Ok(all)
        }
        TopicBackend::Ssm => describe_with_tool(account).await?.ok_or_else(unregistered_error),
    }
}

/// Result of describing a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    /// The topic exists and has this number of partitions.
    Exists(i32),
    Missing,
    /// The client machine does not accept commands at the moment.
    Unknown,
}

impl TopicState {
    fn from_partitions(partitions: Option<i32>) -> Self {
        partitions.map_or(Self::Missing, Self::Exists)
    }
}

/// Returns whether a topic exists, with its number of partitions.
///
/// # Errors
/// The backend cannot be reached.
pub async fn describe(account: &Account, backend: TopicBackend, topic: &str) -> Result<TopicState> {
    match backend {
        TopicBackend::Direct => Ok(TopicState::from_partitions(
            admin_client(account)
                .await?
                .describe(topic)
                .await?
                .map(|description| description.partitions.len() as i32),
        )),
        TopicBackend::Msk => {
            let arn = account.state.require_output(&outputs::CLUSTER_ARN).await?;
            match account.msk.describe_topic().cluster_arn(arn).topic_name(topic).send().await {
                Ok(response) => Ok(TopicState::from_partitions(response.partition_count())),
                Err(error)
                    if matches!(
                        code(&error),
                        "NotFoundException" | "UnknownTopicOrPartitionException"
                    ) =>
                {
                    Ok(TopicState::Missing)
                }
                Err(error) => {
                    Err(error.call_context("kafka:DescribeTopic", &format!("topic `{topic}`")))
                }
            }
        }
        TopicBackend::Ssm => {
            Ok(describe_with_tool(account).await?.map_or(TopicState::Unknown, |topics| {
                TopicState::from_partitions(topics.get(topic).copied())
            }))
        }
    }
}

/// Creates a topic. An existing topic is kept unchanged.
///
/// # Errors
/// The backend cannot be reached or rejects the topic.
pub async fn create(
    account: &Account,
    backend: TopicBackend,
    topic: &str,
    partitions: i32,
) -> Result<()> {
    let replicas = account.config.topics.replication_factor;
    match backend {
        TopicBackend::Direct => {
            admin_client(account).await?.create(topic, partitions, replicas).await.map(|_| ())
        }
        TopicBackend::Msk => {
            let arn = account.state.require_output(&outputs::CLUSTER_ARN).await?;
            let request = account.msk.create_topic().cluster_arn(arn).topic_name(topic);
            match request.partition_count(partitions).replication_factor(replicas).send().await {
                Ok(_) => Ok(()),
                Err(error)
                    if matches!(code(&error), "TopicExistsException" | "ConflictException") =>
                {
                    Ok(())
                }
                Err(error) => {
                    Err(error.call_context("kafka:CreateTopic", &format!("topic `{topic}`")))
                }
            }
        }
        TopicBackend::Ssm => {
            let arguments = format!(
                "--create --if-not-exists --topic {topic} --partitions {partitions} --replication-factor {replicas}"
            );
            run_kafka_topics(account, &arguments).await?.ok_or_else(unregistered_error)?;
            *account.described_topics.lock().await = None;
            Ok(())
        }
    }
}

/// Deletes a topic. Returns `false` if it does not exist.
///
/// # Errors
/// The backend cannot be reached or refuses the deletion.
pub async fn delete(account: &Account, backend: TopicBackend, topic: &str) -> Result<bool> {
    match describe(account, backend, topic).await? {
        TopicState::Exists(_) => {}
        TopicState::Missing => return Ok(false),
        TopicState::Unknown => return Err(unregistered_error()),
    }
    match backend {
        TopicBackend::Direct => admin_client(account).await?.delete(topic).await,
        TopicBackend::Msk => {
            let arn = account.state.require_output(&outputs::CLUSTER_ARN).await?;
            match account.msk.delete_topic().cluster_arn(arn).topic_name(topic).send().await {
                Ok(_) => Ok(true),
                Err(error)
                    if matches!(
                        code(&error),
                        "NotFoundException" | "UnknownTopicOrPartitionException"
                    ) =>
                {
                    Ok(false)
                }
                Err(error) => {
                    Err(error.call_context("kafka:DeleteTopic", &format!("topic `{topic}`")))
                }
            }
        }
        TopicBackend::Ssm => {
            run_kafka_topics(account, &format!("--delete --if-exists --topic {topic}"))
                .await?
                .ok_or_else(unregistered_error)?;
            *account.described_topics.lock().await = None;
            Ok(true)
        }
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
