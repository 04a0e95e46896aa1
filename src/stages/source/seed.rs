//! `pinpipe seed`: fills the source database.

use std::path::PathBuf;

use secrecy::ExposeSecret;
use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::config::secret::redacted;
use crate::base::error::{Error, Result};
use crate::base::model::Kind;
use crate::base::output::table::thousands;
use crate::base::output::{Printer, Report};
use crate::clients::database::connect::Database;
use crate::stages::source::{generate, load};

/// What `seed` fills the database with.
#[derive(Debug, Clone, Default)]
pub struct SeedOptions {
    /// Posts to generate [default: 11154, as many as the real source has]
    pub posts: Option<u32>,
    /// Number the generated records grow from; the same number gives the same records
    pub seed: u64,
    /// Load real tables from this folder: pinterest_data, geolocation_data and user_data as .csv or .jsonl
    pub from: Option<PathBuf>,
    /// Drop the tables that are there and fill new ones
    pub replace: bool,
}

/// What `seed` did.
#[derive(Debug, Serialize)]
pub struct SeedReport {
    pub database: String,
    /// False: the tables were full already and stayed as they were.
    pub filled: bool,
    pub pinterest_data: u64,
    pub geolocation_data: u64,
    pub user_data: u64,
    /// Row numbers that all three tables have.
    pub posts: u64,
}

impl Report for SeedReport {
    fn text(&self) -> String {
        let rows = format!(
            "pinterest_data {}, geolocation_data {}, user_data {} rows; {} posts",
            thousands(self.pinterest_data),
            thousands(self.geolocation_data),
            thousands(self.user_data),
            thousands(self.posts)
        );
        if self.filled {
            format!("filled {}: {rows}", self.database)
        } else {
            format!(
                "{} is full already: {rows} (`--replace` starts over)",
                self.database
            )
        }
    }
}

/// Whether the database holds posts already; one without any row in its tables is empty.
///
/// # Errors
/// It cannot be reached, or it holds rows that make no post: those are somebody's.
pub async fn has_posts(config: &Config) -> Result<bool> {
    let database = Database::connect(config, true).await?;
    if total_rows(&database).await? == 0 {
        return Ok(false);
    }
    if database.row_numbers().await?.is_empty() {
        return Err(Error::failed(
            "the database holds rows, but no row number that all three tables have",
        )
        .hint("`pinpipe seed --replace` drops the tables and fills them anew"));
    }
    Ok(true)
}

async fn total_rows(database: &Database) -> Result<i64> {
    let mut rows = 0;
    for kind in Kind::ALL {
        rows += database.row_count(kind).await?.unwrap_or(0);
    }
    Ok(rows)
}

/// Fills the database, unless it is full already.
///
/// # Errors
/// Files that do not fit, a database that cannot be reached or written.
pub async fn seed(config: &Config, options: &SeedOptions, printer: &Printer) -> Result<SeedReport> {
    // Files are read whole before anything is dropped.
    let loaded = match &options.from {
        Some(folder) => Some(
            Kind::ALL
                .into_iter()
                .map(|kind| load::load(folder, kind))
                .collect::<Result<Vec<_>>>()?,
        ),
        None => None,
    };
    let database = Database::connect(config, true).await?;
    let rows = total_rows(&database).await?;
    if rows > 0 && !options.replace {
        if options.from.is_some() || options.posts.is_some() {
            return Err(Error::failed(format!(
                "the database already holds {} rows",
                thousands(rows as u64)
            ))
            .hint("`--replace` drops them and fills the tables anew"));
        }
        // What cannot be read as posts is said here, not first by `emulate`.
        return report(config, &database, false).await;
    }
    let tables = match loaded {
        Some(tables) => tables,
        None => generate::generate(
            options.posts.unwrap_or(generate::DEFAULT_POSTS),
            options.seed,
        ),
    };
    let total = tables.iter().map(|table| table.rows.len() as u64).sum();
    let progress = printer.progress("filling the database", Some(total));
    database.recreate_tables().await?;
    database.fill(&tables, &progress).await?;
    progress.finish();
    report(config, &database, true).await
}

async fn report(config: &Config, database: &Database, filled: bool) -> Result<SeedReport> {
    let mut counts = [0; 3];
    for (count, kind) in counts.iter_mut().zip(Kind::ALL) {
        *count = database.row_count(kind).await?.unwrap_or(0).unsigned_abs();
    }
    let [pinterest_data, geolocation_data, user_data] = counts;
    let posts = database.row_numbers().await?.len() as u64;
    let url = config.endpoints().database_url()?;
    Ok(SeedReport {
        database: redacted(url.expose_secret()),
        filled,
        pinterest_data,
        geolocation_data,
        user_data,
        posts,
    })
}
