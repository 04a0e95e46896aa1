//! `pinpipe demo`: the whole pipeline in one process, through the code of the subcommands.

pub mod agree;
pub mod report;
pub mod run;

use clap::Args;

use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::cli::value_parser::whole_number;

/// Arguments of `pinpipe demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Number of posts to send through the pipeline
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = whole_number(1u32..=1_000_000))]
    pub posts: u32,
    /// Random seed for the choice of rows [default: random]
    #[arg(long, value_name = "NUMBER", value_parser = whole_number(0..=u64::MAX))]
    pub seed: Option<u64>,
}

/// Runs the demo and prints its report.
///
/// # Errors
/// A stage failed; the counts of two stages differ.
pub async fn run(config: &Config, arguments: &DemoArguments, printer: &Printer) -> Result<()> {
    let report = run::run(config, arguments, printer).await?;
    printer.report(&report);
    match report.mismatches() {
        0 => Ok(()),
        mismatches => Err(Error::failed(format!(
            "{mismatches} of {} counts differ from the expected counts",
            report.claims.len()
        ))
        .hint(
            "see the lines with ✖; re-run the demo in an empty folder, and report a bug if they \
             differ again",
        )),
    }
}
