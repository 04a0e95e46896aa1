//! `pinpipe api`: the routes that the gateway serves.

use clap::Subcommand;
use serde::Serialize;

use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::table::Table;
use crate::base::output::{Printer, Report};
use crate::clients::control::ControlClient;
use crate::clients::control::Deployment;
use crate::provision::aws::apigateway::verify::verify_api;
use crate::provision::aws::listing::apis;
use crate::provision::engine::apply::{ProvisionOptions, provision};
use crate::provision::engine::destroy::{DestroyOptions, destroy};
use crate::provision::engine::selection::Selection;
use crate::provision::engine::status::status;

/// Subcommands of `pinpipe api`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ApiCommand {
    /// Deploy the routes to Kafka and Kinesis
    #[command(after_help = "Example: pinpipe api deploy")]
    Deploy,
    /// List all APIs
    #[command(after_help = "Example: pinpipe api list")]
    List,
    /// Show the deployed routes
    #[command(after_help = "Example: pinpipe api status")]
    Status,
    /// Print the invoke URL
    #[command(after_help = "Example: pinpipe api url")]
    Url,
    /// Delete the deployed routes
    #[command(after_help = "Example: pinpipe api delete")]
    Delete,
}

#[derive(Debug, Serialize)]
struct ApiReport {
    url: String,
    #[serde(flatten)]
    deployment: Deployment,
}

impl Report for ApiReport {
    fn text(&self) -> String {
        let routes: Vec<String> =
            self.deployment.routes.iter().map(|route| format!("  {route}")).collect();
        format!(
            "{} (deployed {})\n{}",
            self.url,
            self.deployment.deployed_at.format("%Y-%m-%d %H:%M:%S UTC"),
            routes.join("\n")
        )
    }
}

/// An API: its name, and its id or address.
#[derive(Debug, Serialize)]
struct ApiListing {
    name: String,
    id: String,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ApiList(Vec<ApiListing>);

impl Report for ApiList {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "no APIs; run `pinpipe api deploy` to deploy one".into();
        }
        let mut table = Table::new(["api", "id"]);
        for listing in &self.0 {
            table.row([&listing.name, &listing.id]);
        }
        table.render()
    }
}

#[derive(Debug, Serialize)]
struct Url {
    url: String,
}

impl Report for Url {
    fn text(&self) -> String {
        self.url.clone()
    }
}

#[derive(Debug, Serialize)]
struct Deleted {
    deleted: bool,
}

impl Report for Deleted {
    fn text(&self) -> String {
        if self.deleted { "deleted the routes".into() } else { "no routes were deployed".into() }
    }
}

/// Runs a subcommand of `pinpipe api`.
///
/// # Errors
/// The local stack is not running; AWS denies a call; no routes are deployed (`status`).
pub async fn run(config: &Config, command: ApiCommand, printer: &Printer) -> Result<()> {
    if command == ApiCommand::Url {
        printer.report(&Url { url: config.endpoints().gateway_url()? });
        return Ok(());
    }
    if config.target == Target::Aws {
        return on_aws(config, command, printer).await;
    }
    let client = ControlClient::new(config)?;
    let url = config.endpoints().gateway_url()?;
    match command {
        ApiCommand::Deploy => {
            printer.report(&ApiReport { url, deployment: client.deploy_routes().await? })
        }
        ApiCommand::List => {
            let deployed =
                client.routes().await?.map(|_| ApiListing { name: "gateway".into(), id: url });
            printer.report(&ApiList(deployed.into_iter().collect()));
        }
        ApiCommand::Status => {
            let deployment = client.routes().await?;
            let deployment = deployment.ok_or_else(|| {
                Error::failed("no routes are deployed")
                    .hint("run `pinpipe api deploy` to deploy them")
            })?;
            printer.report(&ApiReport { url, deployment });
        }
        ApiCommand::Delete => printer.report(&Deleted { deleted: client.delete_routes().await? }),
        ApiCommand::Url => {}
    }
    Ok(())
}

/// Resources of the API on AWS; the key and the usage plan only if `api.auth` is "key".
const RESOURCES: [&str; 3] = ["api", "api-key", "usage-plan"];

/// Runs the subcommand on API Gateway: applies or destroys only the resources of the API.
async fn on_aws(config: &Config, command: ApiCommand, printer: &Printer) -> Result<()> {
    let selection = Selection::of(RESOURCES);
    match command {
        ApiCommand::Deploy => {
            let arguments =
                ProvisionOptions { yes: true, selection, ..ProvisionOptions::default() };
            printer.report(&provision(config, &arguments, printer).await?);
        }
        ApiCommand::List => {
            let listings = apis(config).await?.into_iter();
            printer.report(&ApiList(
                listings
                    .map(|listing| ApiListing { name: listing.name, id: listing.state })
                    .collect(),
            ));
        }
        ApiCommand::Status => {
            printer.report(&status(config, &selection, printer).await?);
            printer.note(verify_api(config).await?);
        }
        ApiCommand::Delete => {
            let arguments = DestroyOptions { yes: true, data: false, selection };
            printer.report(&destroy(config, &arguments, printer).await?);
        }
        ApiCommand::Url => {}
    }
    Ok(())
}
