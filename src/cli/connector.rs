//! `pinpipe connector`: manage the sink connector from topics to the lake.

use clap::Subcommand;
use serde::Serialize;

use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::base::output::table::{Table, thousands};
use crate::base::output::{Printer, Report, confirm};
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

/// Subcommands of `pinpipe connector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConnectorCommand {
    /// Create the connector, or update its properties from the configuration
    #[command(after_help = "Example: pinpipe connector create")]
    Create,
    /// List all connectors
    #[command(after_help = "Example: pinpipe connector list")]
    List,
    /// Show state, record count, object count and lag of the connector
    #[command(after_help = "Example: pinpipe connector status")]
    Status,
    /// Pause the connector; its offsets are kept
    #[command(after_help = "Example: pinpipe connector pause")]
    Pause,
    /// Resume the paused connector
    #[command(after_help = "Example: pinpipe connector resume")]
    Resume,
    /// Restart the task of the connector, for example after a failure
    #[command(after_help = "Example: pinpipe connector restart")]
    Restart,
    /// Delete the connector; its objects in the lake are kept
    #[command(after_help = "Example: pinpipe connector delete --yes")]
    Delete {
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
}

/// Value of `change` for a connector that does not exist.
const MISSING: &str = "does not exist";
/// Value of `change` for a connector that already has the configured properties.
const UNCHANGED: &str = "unchanged";

/// Report of `connector status`.
#[derive(Debug, Serialize)]
struct ConnectorReport {
    #[serde(flatten)]
    status: ConnectorStatus,
    /// Records in the topics of the pipeline that are not in the lake yet.
    lag: u64,
}

impl Report for ConnectorReport {
    fn text(&self) -> String {
        let status = &self.status;
        let mut table = Table::new(["connector", "state", "records", "objects", "lag"]);
        table.row([
            status.name.clone(),
            status.state.clone(),
            thousands(status.records),
            thousands(status.objects),
            thousands(self.lag),
        ]);
        match &status.trace {
            Some(trace) => format!("{}\n{trace}", table.render()),
            None => table.render(),
        }
    }
}

/// Report of `connector list`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ConnectorList(Vec<ListedResource>);

impl Report for ConnectorList {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "no connectors; run `pinpipe connector create` to create one".into();
        }
        let mut table = Table::new(["connector", "state"]);
        for listing in &self.0 {
            table.row([&listing.name, &listing.state]);
        }
        table.render()
    }
}

#[derive(Debug, Serialize)]
struct ConnectorChange {
    connector: String,
    change: &'static str,
}

impl Report for ConnectorChange {
    fn text(&self) -> String {
        match self.change {
            MISSING => format!("{MISSING}: {}", self.connector),
            change => format!("{change} {}", self.connector),
        }
    }
}

/// Runs a subcommand of `pinpipe connector`.
///
/// # Errors
/// The local stack is not running; a property is not supported; the connector does not exist or
/// has failed.
pub async fn run(config: &Config, command: ConnectorCommand, printer: &Printer) -> Result<()> {
    if config.target == Target::Aws {
        return on_aws(config, command, printer).await;
    }
    let name = config.connector_name();
    let properties = config.connector_properties();
    if command == ConnectorCommand::Create {
        // Invalid properties are reported before the first request.
        SinkProperties::parse(&properties)?;
    }
    let client = ControlClient::new(config)?;
    let missing = || {
        Error::failed(format!("connector `{name}` does not exist"))
            .hint("run `pinpipe connector create` to create it")
    };
    let change = match command {
        ConnectorCommand::Create => {
            let existing = client.connector_config(&name).await?;
            let change = match &existing {
                None => "created",
                Some(existing) if *existing == properties => UNCHANGED,
                Some(_) => "updated",
            };
            if change != UNCHANGED {
                client.put_connector(&name, &properties).await?;
            }
            change
        }
        ConnectorCommand::List => {
            let mut connectors = Vec::new();
            for name in client.connectors().await? {
                let state = client
                    .connector_status(&name)
                    .await?
                    .map(|status| status.state)
                    .unwrap_or_default();
                connectors.push(ListedResource { name, state });
            }
            printer.report(&ConnectorList(connectors));
            return Ok(());
        }
        ConnectorCommand::Status => {
            let status = client.connector_status(&name).await?.ok_or_else(missing)?;
            let topics = Kind::ALL.map(|kind| config.topic(kind));
            let lag = Admin::new(config)?
                .lag(&crate::stages::sink::connectors::group(&name), &topics)
                .await?;
            let has_failed = status.state == "FAILED";
            printer.report(&ConnectorReport { status, lag });
            return if has_failed {
                Err(Error::failed(format!("connector `{name}` has failed"))
                    .hint("fix the cause shown above, then run `pinpipe connector restart`"))
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
        ConnectorCommand::Delete { yes } => {
            confirm(yes, &format!("delete the connector `{name}`")).await?;
            if client.delete_connector(&name).await? { "deleted" } else { MISSING }
        }
    };
    printer.report(&ConnectorChange { connector: name, change });
    Ok(())
}

/// Runs the subcommand on MSK Connect. `create` and `delete` apply or destroy only the connector.
async fn on_aws(config: &Config, command: ConnectorCommand, printer: &Printer) -> Result<()> {
    let selection = Selection::of(["connector"]);
    let operation = match command {
        ConnectorCommand::Create => {
            let arguments =
                ProvisionOptions { yes: true, selection, ..ProvisionOptions::default() };
            printer.report(&provision(config, &arguments, printer).await?);
            return Ok(());
        }
        ConnectorCommand::Delete { yes } => {
            let arguments = DestroyOptions { yes, data: false, selection };
            printer.report(&destroy(config, &arguments, printer).await?);
            return Ok(());
        }
        ConnectorCommand::Status => {
            printer.report(&status(config, &selection, printer).await?);
            return Ok(());
        }
        ConnectorCommand::List => {
            printer.report(&ConnectorList(connectors(config).await?));
            return Ok(());
        }
        ConnectorCommand::Pause => ConnectorOperation::Pause,
        ConnectorCommand::Resume => ConnectorOperation::Resume,
        ConnectorCommand::Restart => ConnectorOperation::Restart,
    };
    let change = operate_connector(config, operation, printer).await?;
    printer.report(&ConnectorChange { connector: config.connector_name(), change });
    Ok(())
}
