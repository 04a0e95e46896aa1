//! `pinpipe seed`: fills the source database with generated or loaded posts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use secrecy::ExposeSecret;
use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::config::secret::redacted;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::model::Kind;
use crate::base::output::table::thousands;
use crate::base::output::{Printer, Report};
use crate::base::shutdown::shutdown_signal;
use crate::clients::database::Rows;
use crate::clients::database::connect::{Access, Database};
use crate::stages::source::{generate, load};

/// Options of one run of `seed`.
#[derive(Debug, Clone, Default)]
pub struct SeedOptions {
    /// Number of posts to generate; default: 11154, the size of the original data set.
    pub posts: Option<u32>,
    /// Random seed for the generated posts. Equal seeds generate equal posts.
    pub seed: u64,
    /// Folder with table files to load instead: pinterest_data, geolocation_data and user_data as
    /// .csv or .jsonl.
    pub from: Option<PathBuf>,
    /// Replace existing tables once the new ones are filled.
    pub replace: bool,
}

/// Report of `seed`.
#[derive(Debug, Serialize)]
pub struct SeedReport {
    pub database: String,
    /// `false` if the tables already had rows and were kept.
    pub filled: bool,
    pub pinterest_data: u64,
    pub geolocation_data: u64,
    pub user_data: u64,
    /// Row numbers that exist in all three tables.
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
                "{} is already filled: {rows} (`--replace` recreates the tables)",
                self.database
            )
        }
    }
}

/// Returns whether the database contains posts. Missing or empty tables contain none.
///
/// # Errors
/// The database cannot be reached; it contains rows but no post, and these rows may be data of
/// the user.
pub async fn has_posts(config: &Config) -> Result<bool> {
    let database = Database::connect(config, Access::Create).await?;
    if database.total_rows().await? == 0 {
        return Ok(false);
    }
    database.require_posts().await?;
    Ok(true)
}

/// Fills the database, unless it already contains rows.
///
/// # Errors
/// A file to load is missing or invalid; the database cannot be reached or written; it contains
/// rows, and `posts` or `from` is set without `replace`; the user interrupted the run before the
/// new rows were committed, so that the tables are unchanged.
pub async fn seed(config: &Config, options: &SeedOptions, printer: &Printer) -> Result<SeedReport> {
    let is_committing = AtomicBool::new(false);
    let mut filling = std::pin::pin!(fill(config, options, printer, &is_committing));
    tokio::select! {
        // In this order, so that the Ctrl-C handler is installed before the work begins.
        biased;
        () = shutdown_signal() => {}
        outcome = &mut filling => return outcome,
    }
    if is_committing.load(Ordering::Relaxed) {
        return filling.await;
    }
    Err(Error::interrupted("interrupted: the tables of the database are unchanged")
        .hint("re-run the command to fill them"))
}

async fn fill(
    config: &Config,
    options: &SeedOptions,
    printer: &Printer,
    is_committing: &AtomicBool,
) -> Result<SeedReport> {
    // All files are read before any table is dropped.
    let loaded = match &options.from {
        Some(folder) => {
            let folder = folder.clone();
            let read = move || -> Result<Vec<Rows>> {
                Kind::ALL.into_iter().map(|kind| load::load(&folder, kind)).collect()
            };
            Some(in_background(printer, "reading files", read).await??)
        }
        None => None,
    };
    let database = Database::connect(config, Access::Create).await?;
    let rows = database.total_rows().await?;
    if rows > 0 && !options.replace {
        if options.from.is_some() || options.posts.is_some() {
            return Err(Error::failed(format!(
                "the database already contains {} rows",
                thousands(rows.unsigned_abs())
            ))
            .hint("add `--replace` to drop the tables and fill new ones"));
        }
        // The report reads the posts, so that invalid tables are an error here, and not only in
        // `emulate`.
        return report(config, &database, false).await;
    }
    let tables = match loaded {
        Some(tables) => tables,
        None => {
            let (posts, seed) = (options.posts.unwrap_or(generate::DEFAULT_POSTS), options.seed);
            let generate = move || generate::generate(posts, seed);
            in_background(printer, "generating posts", generate).await?
        }
    };
    let total: u64 = tables.iter().map(|table| table.rows.len() as u64).sum();
    tracing::info!(rows = total, "filling the tables");
    let progress = printer.progress("filling the database", Some(total));
    database.replace_tables(&tables, &progress, is_committing).await?;
    progress.finish();
    report(config, &database, true).await
}

/// Runs blocking work on another thread, so that the label is shown and Ctrl-C is handled during
/// the work.
async fn in_background<T: Send + 'static>(
    printer: &Printer,
    label: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let progress = printer.activity(label);
    let result = tokio::task::spawn_blocking(work).await;
    progress.finish();
    result.context(|| format!("cannot complete {label}"))
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
