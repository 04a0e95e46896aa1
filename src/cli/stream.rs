//! `pinpipe stream`: process records as they arrive.

use clap::Args;

use crate::base::config::schema::{Config, Source};
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::cli::value_parser::whole_number;
use crate::stages::stream::run::{StreamOptions, run as stream};

/// Arguments of `pinpipe stream`.
#[derive(Debug, Args)]
pub struct StreamArguments {
    /// Service to read from [default: kinesis (stream.source)]
    #[arg(long, value_enum)]
    pub source: Option<Source>,
    /// Process all records that are available now, then exit
    #[arg(long)]
    pub available_now: bool,
    /// Pause between reads while there are no new records, in milliseconds [default: 1000
    /// (stream.interval_ms)]
    #[arg(long, value_name = "MS", value_parser = whole_number(0..=u64::MAX))]
    pub interval: Option<u64>,
}

/// Runs until Ctrl-C, or until all available records are processed.
///
/// # Errors
/// A source or a table cannot be used.
pub async fn run(config: &Config, arguments: StreamArguments, printer: &Printer) -> Result<()> {
    let StreamArguments { source, available_now, interval } = arguments;
    let options = StreamOptions { source, available_now, interval_ms: interval };
    printer.report(&stream(config, &options, printer).await?);
    Ok(())
}
