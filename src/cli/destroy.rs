//! `pinpipe destroy`: delete resources, or all local data.

use clap::Args;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::cli::selection::SelectionArguments;
use crate::provision::engine::destroy::{DestroyOptions, destroy};

/// Arguments of `pinpipe destroy`.
#[derive(Debug, Args)]
pub struct DestroyArguments {
    /// Delete the data too: on target local the data folder with database, lake and
    /// tables; on target aws the objects of buckets that are not empty
    #[arg(long)]
    pub data: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub selection: SelectionArguments,
}

/// Deletes the selected resources after confirmation.
///
/// # Errors
/// A resource cannot be deleted; the user did not confirm.
pub async fn run(config: &Config, arguments: DestroyArguments, printer: &Printer) -> Result<()> {
    let DestroyArguments { data, yes, selection } = arguments;
    let options = DestroyOptions { data, yes, selection: selection.into() };
    printer.report(&destroy(config, &options, printer).await?);
    Ok(())
}
