//! `pinpipe status`: show resources, their age and their cost.

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::cli::selection::SelectionArguments;
use crate::provision::engine::status::status;

/// Prints one row per resource.
///
/// # Errors
/// The local stack is not running; AWS denies access.
pub async fn run(config: &Config, selection: SelectionArguments, printer: &Printer) -> Result<()> {
    printer.report(&status(config, &selection.into(), printer).await?);
    Ok(())
}
