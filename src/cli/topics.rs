//! `pinpipe topics`: manage topics, over the Kafka protocol or through an AWS service.

use clap::Subcommand;
use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::base::output::table::{Table, thousands};
use crate::base::output::{Printer, Report, confirm};
use crate::cli::value_parser::whole_number;
use crate::clients::kafka::admin::{Admin, TopicDescription};
use crate::clients::kafka::is_topic_name;
use crate::provision::aws::msk::topic_service::TopicService;

/// Subcommands of `pinpipe topics`.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Create topics; existing topics are not changed
    #[command(after_help = "Example: pinpipe topics create --partitions 6")]
    Create {
        /// Names of the topics [default: <id>.pin, <id>.geo and <id>.user]
        names: Vec<String>,
        /// Partitions of each topic [default: 3 (topics.partitions)]
        #[arg(long, value_name = "N", value_parser = whole_number(1i32..=10_000))]
        partitions: Option<i32>,
    },
    /// List all topics of the cluster
    #[command(after_help = "Example: pinpipe topics list")]
    List,
    /// Show partitions and offsets of topics
    #[command(visible_alias = "status", after_help = "Example: pinpipe topics describe local.pin")]
    Describe {
        /// Names of the topics [default: <id>.pin, <id>.geo and <id>.user]
        names: Vec<String>,
    },
    /// Delete topics and their records
    #[command(after_help = "Example: pinpipe topics delete local.pin --yes")]
    Delete {
        /// Names of the topics
        #[arg(required = true)]
        names: Vec<String>,
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
}

/// Value of `change` for a topic that does not exist.
const MISSING: &str = "does not exist";

#[derive(Debug, Serialize)]
struct TopicChange {
    topic: String,
    change: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Changes(Vec<TopicChange>);

impl Report for Changes {
    fn text(&self) -> String {
        let line = |changed: &TopicChange| match changed.change {
            MISSING => format!("{MISSING}: {}", changed.topic),
            change => format!("{change} {}", changed.topic),
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Names(Vec<String>);

impl Report for Names {
    fn text(&self) -> String {
        if self.0.is_empty() {
            "no topics; run `pinpipe topics create` to create the topics of the pipeline".into()
        } else {
            self.0.join("\n")
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Descriptions(Vec<TopicDescription>);

impl Report for Descriptions {
    fn text(&self) -> String {
        let mut table =
            Table::new(["topic", "partition", "leader", "start offset", "end offset", "records"]);
        for topic in &self.0 {
            for partition in &topic.partitions {
                table.row([
                    topic.name.clone(),
                    partition.partition.to_string(),
                    partition.leader.to_string(),
                    thousands(partition.start_offset.unsigned_abs()),
                    thousands(partition.end_offset.unsigned_abs()),
                    thousands(partition.end_offset.abs_diff(partition.start_offset)),
                ]);
            }
        }
        table.render()
    }
}

/// A topic as MSK or the client machine reports it, without offsets.
#[derive(Debug, Serialize)]
struct TopicCount {
    name: String,
    partition_count: i32,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct TopicCounts(Vec<TopicCount>);

impl Report for TopicCounts {
    fn text(&self) -> String {
        let mut table = Table::new(["topic", "partitions"]);
        for topic in &self.0 {
            table.row([topic.name.clone(), topic.partition_count.to_string()]);
        }
        table.render()
    }
}

/// Client of the brokers over the Kafka protocol, or of an AWS service.
enum TopicClient {
    Brokers(Box<Admin>),
    Service(TopicService),
}

impl TopicClient {
    async fn open(config: &Config, printer: &Printer) -> Result<Self> {
        match TopicService::open(config, printer).await? {
            Some(service) => Ok(Self::Service(service)),
            None => Ok(Self::Brokers(Box::new(Admin::new(config)?))),
        }
    }

    async fn create(&self, topic: &str, partitions: i32, replicas: i32) -> Result<bool> {
        match self {
            Self::Brokers(admin) => admin.create(topic, partitions, replicas).await,
            Self::Service(service) => service.create(topic, partitions).await,
        }
    }

    async fn delete(&self, topic: &str) -> Result<bool> {
        match self {
            Self::Brokers(admin) => admin.delete(topic).await,
            Self::Service(service) => service.delete(topic).await,
        }
    }

    async fn list(&self) -> Result<Vec<String>> {
        match self {
            Self::Brokers(admin) => admin.list().await,
            Self::Service(service) => Ok(service.list().await?.into_keys().collect()),
        }
    }

    async fn describe(&self, names: Vec<String>, printer: &Printer) -> Result<()> {
        let missing = |name: &str| {
            Error::failed(format!("topic `{name}` does not exist")).hint(
                "run `pinpipe topics list` to see the existing topics, or `pinpipe topics create` \
                 to create those of the pipeline",
            )
        };
        match self {
            Self::Brokers(admin) => {
                let mut descriptions = Vec::new();
                for name in names {
                    descriptions.push(admin.describe(&name).await?.ok_or_else(|| missing(&name))?);
                }
                printer.report(&Descriptions(descriptions));
            }
            Self::Service(service) => {
                let all = service.list().await?;
                let counts = names.into_iter().map(|name| {
                    let partition_count = all.get(&name).copied().ok_or_else(|| missing(&name))?;
                    Ok(TopicCount { name, partition_count })
                });
                printer.report(&TopicCounts(counts.collect::<Result<_>>()?));
            }
        }
        Ok(())
    }
}

/// Runs a subcommand of `pinpipe topics`.
///
/// # Errors
/// A name is invalid; the brokers cannot be reached or refuse the request; a topic to describe does
/// not exist.
pub async fn run(config: &Config, command: TopicsCommand, printer: &Printer) -> Result<()> {
    if let TopicsCommand::Create { names, .. }
    | TopicsCommand::Describe { names }
    | TopicsCommand::Delete { names, .. } = &command
    {
        // Some backends pass the names to a shell on another machine.
        if let Some(name) = names.iter().find(|name| !is_topic_name(name)) {
            return Err(Error::usage(format!("invalid topic name `{name}`"))
                .hint("use 1 to 249 letters, digits, `.`, `_` and `-`"));
        }
    }
    let client = TopicClient::open(config, printer).await?;
    let or_default = |names: Vec<String>| {
        if names.is_empty() { Kind::ALL.map(|kind| config.topic(kind)).to_vec() } else { names }
    };
    match command {
        TopicsCommand::Create { names, partitions } => {
            let mut changes = Vec::new();
            for topic in or_default(names) {
                let is_new = client
                    .create(
                        &topic,
                        partitions.unwrap_or(config.topics.partitions),
                        config.topics.replication_factor,
                    )
                    .await?;
                changes.push(TopicChange {
                    topic,
                    change: if is_new { "created" } else { "unchanged" },
                });
            }
            printer.report(&Changes(changes));
        }
        TopicsCommand::List => printer.report(&Names(client.list().await?)),
        TopicsCommand::Describe { names } => client.describe(or_default(names), printer).await?,
        TopicsCommand::Delete { names, yes } => {
            confirm(yes, &format!("delete {} with all records", names.join(", "))).await?;
            let mut changes = Vec::new();
            for topic in names {
                let deleted = client.delete(&topic).await?;
                changes
                    .push(TopicChange { topic, change: if deleted { "deleted" } else { MISSING } });
            }
            printer.report(&Changes(changes));
        }
    }
    Ok(())
}
