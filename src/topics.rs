//! `pinpipe topics`: the pipeline's topics, over the Kafka protocol.

use clap::Subcommand;
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::{Admin, TopicDescription};
use crate::output::{Printer, Report, Table, thousands};
use crate::record::Kind;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Make topics; those that are there stay as they are
    #[command(after_help = "Example: pinpipe topics create --partitions 6")]
    Create {
        /// Names [default: the pipeline's three, <id>.pin, <id>.geo and <id>.user]
        names: Vec<String>,
        /// Partitions of each [default: 3 (topics.partitions)]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: Option<i32>,
    },
    /// List all topics of the cluster
    #[command(after_help = "Example: pinpipe topics list")]
    List,
    /// Show partitions and offsets
    #[command(after_help = "Example: pinpipe topics describe local.pin")]
    Describe {
        /// Names [default: the pipeline's three]
        names: Vec<String>,
    },
    /// Delete topics and their records
    #[command(after_help = "Example: pinpipe topics delete local.pin")]
    Delete {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Serialize)]
struct Changed {
    topic: String,
    change: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Changes(Vec<Changed>);

impl Report for Changes {
    fn text(&self) -> String {
        self.0.iter().map(|changed| format!("{} {}", changed.change, changed.topic)).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Names(Vec<String>);

impl Report for Names {
    fn text(&self) -> String {
        if self.0.is_empty() { "no topics; `pinpipe topics create` makes the pipeline's three".into() } else { self.0.join("\n") }
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Descriptions(Vec<TopicDescription>);

impl Report for Descriptions {
    fn text(&self) -> String {
        let mut table = Table::new(["topic", "partition", "leader", "start offset", "end offset", "records"]);
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

/// Runs one of the commands.
///
/// # Errors
/// The brokers cannot be reached or refuse; a topic to describe is not there.
pub async fn run(config: &Config, command: TopicsCommand, printer: &Printer) -> Result<()> {
    let admin = Admin::new(config)?;
    let or_own = |names: Vec<String>| if names.is_empty() { Kind::ALL.map(|kind| config.topic(kind)).to_vec() } else { names };
    match command {
        TopicsCommand::Create { names, partitions } => {
            let mut changes = Vec::new();
            for topic in or_own(names) {
                let made = admin.create(&topic, partitions.unwrap_or(config.topics.partitions), config.topics.replication_factor).await?;
                changes.push(Changed { topic, change: if made { "created" } else { "kept" } });
            }
            printer.report(&Changes(changes));
        }
        TopicsCommand::List => printer.report(&Names(admin.list().await?)),
        TopicsCommand::Describe { names } => {
            let mut found = Vec::new();
            for name in or_own(names) {
                let description = admin.describe(&name).await?;
                found.push(description.ok_or_else(|| {
                    Error::failed(format!("there is no topic `{name}`"))
                        .hint("`pinpipe topics list` shows what is there, `pinpipe topics create` makes the pipeline's")
                })?);
            }
            printer.report(&Descriptions(found));
        }
        TopicsCommand::Delete { names } => {
            let mut changes = Vec::new();
            for topic in names {
                let deleted = admin.delete(&topic).await?;
                changes.push(Changed { topic, change: if deleted { "deleted" } else { "not there:" } });
            }
            printer.report(&Changes(changes));
        }
    }
    Ok(())
}
