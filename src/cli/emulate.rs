//! `pinpipe emulate`: emulate users by posting rows of the source database.

use std::time::Duration;

use clap::Args;

use crate::base::config::schema::{Config, Destination};
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::base::output::table::thousands;
use crate::cli::value_parser::{parse_duration, parse_number, whole_number};
use crate::stages::emulate::order::RowList;
use crate::stages::emulate::run::{EmulateOptions, run as emulate};

/// Arguments of `pinpipe emulate`.
#[derive(Debug, Args)]
pub struct EmulateArguments {
    /// Destination of the posts [default: both (emulate.to)]
    #[arg(long, value_enum)]
    pub to: Option<Destination>,
    /// Stop after this number of posts [default: run until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = whole_number(1..=u64::MAX))]
    pub posts: Option<u64>,
    /// Stop after this time, such as 90s, 15m or 2h; a bare number is seconds [default: run until
    /// Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Posts per second; 0 is unlimited [default: 0 (emulate.rate)]
    #[arg(long, value_name = "R", value_parser = parse_number)]
    pub rate: Option<f64>,
    /// Maximum random pause before each post, in milliseconds [default: 0 (emulate.jitter_ms)]
    #[arg(long, value_name = "MS", value_parser = whole_number(0..=u64::MAX))]
    pub jitter: Option<u64>,
    /// Maximum number of requests in flight per topic or stream [default: 16 (emulate.concurrency)]
    #[arg(long, value_name = "N", value_parser = whole_number(1u32..=10_000))]
    pub concurrency: Option<u32>,
    /// Records per request [default: 1 (emulate.batch)]
    #[arg(long, value_name = "N", value_parser = whole_number(1u32..=500))]
    pub batch: Option<u32>,
    /// Random seed for the order of rows [default: random]
    #[arg(long, value_name = "NUMBER", value_parser = whole_number(0..=u64::MAX))]
    pub seed: Option<u64>,
    /// Post exactly these rows, once and in this order: numbers and ranges, such as 7,19,30-40
    #[arg(long, value_name = "LIST", conflicts_with = "seed")]
    pub rows: Option<RowList>,
}

/// Posts rows and prints a summary.
///
/// # Errors
/// The database or the gateway cannot be used; records were not delivered.
pub async fn run(config: &Config, arguments: EmulateArguments, printer: &Printer) -> Result<()> {
    let options = EmulateOptions {
        to: arguments.to,
        posts: arguments.posts,
        duration: arguments.duration,
        rate: arguments.rate,
        jitter_ms: arguments.jitter,
        concurrency: arguments.concurrency,
        batch: arguments.batch,
        seed: arguments.seed,
        rows: arguments.rows,
    };
    let summary = emulate(config, &options, printer).await?;
    printer.report(&summary);
    if summary.errors == 0 {
        return Ok(());
    }
    let failure =
        Error::failed(format!("{} records were not delivered", thousands(summary.errors)));
    Err(failure
        .with_source(format!("the first: {}", summary.first_reason.unwrap_or_default()))
        .hint(
            "see the dead-letter file for the failed records and reasons, then post the rows \
             again: duplicates are dropped",
        ))
}
