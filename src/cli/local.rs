//! `pinpipe local`: run the local stack until Ctrl-C.

use clap::Args;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::local::{self, LocalOptions};

/// Arguments of `pinpipe local`.
#[derive(Debug, Args)]
pub struct LocalArguments {
    /// Listen on any free ports instead of the configured ones
    #[arg(long)]
    pub any_port: bool,
}

/// Runs the servers until Ctrl-C.
///
/// # Errors
/// A port is in use; another local stack uses the data folder.
pub async fn run(config: Config, arguments: LocalArguments, printer: &Printer) -> Result<()> {
    local::run(config, &LocalOptions { any_port: arguments.any_port }, printer).await
}
