//! `pinpipe connector`: the sink from topics to the lake.

use clap::Subcommand;
use serde::Serialize;

use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::base::output::table::{Table, thousands};
use crate::base::output::{Printer, Report};
use crate::clients::control::ConnectorStatus;
use crate::clients::control::ControlClient;
use crate::clients::kafka::admin::Admin;
use crate::provision::aws::connect::operations::{ConnectorOperation, operate_connector};
use crate::provision::aws::listing::{ListedResource, connectors};
use crate::provision::engine::apply::{ProvisionOptions, provision};
use crate::provision::engine::destroy::{DestroyOptions, destroy};
use crate::provision::engine::selection::Selection;
use crate::provision::engine::status::status;
use crate::stages::sink::properties::SinkProperties;

/// What to do with the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConnectorCommand {
    /// Make the connector, or give it the configuration's properties
    #[command(after_help = "Example: pinpipe connector create")]
    Create,
    /// List all connectors
    #[command(after_help = "Example: pinpipe connector list")]
    List,
    /// Show how it is doing
    #[command(after_help = "Example: pinpipe connector status")]
    Status,
    /// Stop reading, keep the place
    #[command(after_help = "Example: pinpipe connector pause")]
    Pause,
    /// Read on
    #[command(after_help = "Example: pinpipe connector resume")]
    Resume,
    /// Start its task anew, as after a failure
    #[command(after_help = "Example: pinpipe connector restart")]
    Restart,
    /// Remove the connector; what it wrote stays
    #[command(after_help = "Example: pinpipe connector delete")]
    Delete,
}

/// The report of `connector status`.
#[derive(Debug, Serialize)]
struct StatusReport {
    #[serde(flatten)]
    status: ConnectorStatus,
    /// Records in the pipeline's topics that are not in the lake yet.
    behind: u64,
}

impl Report for StatusReport {
    fn text(&self) -> String {
        let status = &self.status;
        let mut table = Table::new(["connector", "state", "records", "objects", "behind"]);
        table.row([
            status.name.clone(),
            status.state.clone(),
            thousands(status.records),
            thousands(status.objects),
            thousands(self.behind),
        ]);
        match &status.trace {
            Some(trace) => format!("{}\n{trace}", table.render()),
            None => table.render(),
        }
    }
}

/// The report of `connector list`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Listed(Vec<ListedResource>);

impl Report for Listed {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "no connectors; `pinpipe connector create` makes the pipeline's".into();
        }
        let mut table = Table::new(["connector", "state"]);
        for listing in &self.0 {
            table.row([&listing.name, &listing.state]);
        }
        table.render()
    }
}

#[derive(Debug, Serialize)]
struct Done {
    connector: String,
    change: &'static str,
}

impl Report for Done {
    fn text(&self) -> String {
        let colon = if self.change == "not there" { ":" } else { "" };
        format!("{}{colon} {}", self.change, self.connector)
    }
}

/// Runs one of the commands.
///
/// # Errors
/// No stack is running, properties that are not honoured, no such connector.
pub async fn run(config: &Config, command: ConnectorCommand, printer: &Printer) -> Result<()> {
    if config.target == Target::Aws {
        return on_aws(config, command, printer).await;
    }
    let name = config.connector_name();
    let properties = config.connector_properties();
    if command == ConnectorCommand::Create {
        // Mistakes are found here, before anything is asked for.
        SinkProperties::parse(&properties)?;
    }
    let client = ControlClient::new(config)?;
    let missing = || {
        Error::failed(format!("there is no connector `{name}`"))
            .hint("`pinpipe connector create` makes it")
    };
    let change = match command {
        ConnectorCommand::Create => {
            let existing = client.connector_config(&name).await?;
            let change = match &existing {
                None => "created",
                Some(existing) if *existing == properties => "kept",
                Some(_) => "updated",
            };
            if change != "kept" {
                client.put_connector(&name, &properties).await?;
            }
            change
        }
        ConnectorCommand::List => {
            let mut listed = Vec::new();
            for name in client.connectors().await? {
                let state = client
                    .connector_status(&name)
                    .await?
                    .map(|status| status.state)
                    .unwrap_or_default();
                listed.push(ListedResource { name, state });
            }
            printer.report(&Listed(listed));
            return Ok(());
        }
        ConnectorCommand::Status => {
            let status = client.connector_status(&name).await?.ok_or_else(missing)?;
            let topics = Kind::ALL.map(|kind| config.topic(kind));
            let behind = Admin::new(config)?
                .lag(&crate::stages::sink::connectors::group(&name), &topics)
                .await?;
            let has_failed = status.state == "FAILED";
            printer.report(&StatusReport { status, behind });
            return if has_failed {
                Err(Error::failed(format!("connector `{name}` has failed"))
                    .hint("mend the cause, then `pinpipe connector restart`"))
            } else {
                Ok(())
            };
        }
        ConnectorCommand::Pause => client
            .connector_action(&name, "pause")
            .await?
            .then_some("paused")
            .ok_or_else(missing)?,
        ConnectorCommand::Resume => client
            .connector_action(&name, "resume")
            .await?
            .then_some("resumed")
            .ok_or_else(missing)?,
        ConnectorCommand::Restart => client
            .connector_action(&name, "restart")
            .await?
            .then_some("restarted")
            .ok_or_else(missing)?,
        ConnectorCommand::Delete => {
            if client.delete_connector(&name).await? {
                "deleted"
            } else {
                "not there"
            }
        }
    };
    printer.report(&Done {
        connector: name,
        change,
    });
    Ok(())
}

/// The same on MSK Connect: one resource of `provision`, driven alone.
async fn on_aws(config: &Config, command: ConnectorCommand, printer: &Printer) -> Result<()> {
    let selection = Selection::of(["connector"]);
    let operation = match command {
        ConnectorCommand::Create => {
            let arguments = ProvisionOptions {
                yes: true,
                selection,
                ..ProvisionOptions::default()
            };
            printer.report(&provision(config, &arguments, printer).await?);
            return Ok(());
        }
        ConnectorCommand::Delete => {
            let arguments = DestroyOptions {
                yes: true,
                data: false,
                selection,
            };
            printer.report(&destroy(config, &arguments, printer).await?);
            return Ok(());
        }
        ConnectorCommand::Status => {
            printer.report(&status(config, &selection, printer).await?);
            return Ok(());
        }
        ConnectorCommand::List => {
            printer.report(&Listed(connectors(config).await?));
            return Ok(());
        }
        ConnectorCommand::Pause => ConnectorOperation::Pause,
        ConnectorCommand::Resume => ConnectorOperation::Resume,
        ConnectorCommand::Restart => ConnectorOperation::Restart,
    };
    let change = operate_connector(config, operation, printer).await?;
    printer.report(&Done {
        connector: config.connector_name(),
        change,
    });
    Ok(())
}
