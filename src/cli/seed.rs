//! `pinpipe seed`: fill the source database.

use std::path::PathBuf;

use clap::Args;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::output::Printer;
use crate::cli::value_parser::whole_number;
use crate::stages::source::seed::{SeedOptions, seed};

/// Arguments of `pinpipe seed`.
#[derive(Debug, Args)]
pub struct SeedArguments {
    /// Number of posts to generate [default: 11154, the size of the original data set]
    #[arg(long, value_name = "N", value_parser = whole_number(1u32..=10_000_000), conflicts_with = "from")]
    pub posts: Option<u32>,
    /// Random seed for the generated posts; the same seed generates the same posts
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = whole_number(0..=u64::MAX), conflicts_with = "from")]
    pub seed: u64,
    /// Load the tables from files in this folder: pinterest_data, geolocation_data and user_data as
    /// .csv or .jsonl
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Replace existing tables once the new ones are filled
    #[arg(long)]
    pub replace: bool,
}

/// Fills the database and prints the number of posts.
///
/// # Errors
/// The database cannot be reached or written; the tables to load are missing or invalid.
pub async fn run(config: &Config, arguments: SeedArguments, printer: &Printer) -> Result<()> {
    let SeedArguments { posts, seed: random_seed, from, replace } = arguments;
    let options = SeedOptions { posts, seed: random_seed, from, replace };
    printer.report(&seed(config, &options, printer).await?);
    Ok(())
}
