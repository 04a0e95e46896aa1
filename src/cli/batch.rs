//! `pinpipe batch`: clean the lake and answer the questions, on one of the two engines.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};

use crate::base::config::check::is_id;
use crate::base::config::data_dir;
use crate::base::config::schema::{AnswerFormat, BatchEngine, Config, Median, SparkPlace};
use crate::base::config::size::memory_bytes;
use crate::base::error::{Error, Result};
use crate::base::output::Printer;
use crate::cli::schedule::{self, ScheduleArguments};
use crate::clients::databricks::auth::Credentials;
use crate::data::lake::objects::count_objects;
use crate::data::tables::as_of::AsOf;
use crate::spark::{self, SparkBatch};
use crate::stages::batch::ingest::empty_lake;
use crate::stages::batch::report::BatchReport;
use crate::stages::batch::run::{self as batch, BatchOptions};

/// `pinpipe batch` and its subcommands.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BatchCommandLine {
    #[command(flatten)]
    pub arguments: BatchArguments,
    #[command(subcommand)]
    pub command: Option<BatchCommand>,
}

/// Subcommands of `pinpipe batch`.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Schedule batch on Databricks with Managed Airflow (schedule.cron), and show its runs
    #[command(
        after_help = "Examples:\n  pinpipe batch schedule\n  pinpipe batch schedule --trigger"
    )]
    Schedule(ScheduleArguments),
    /// Pause the schedule and delete its DAG
    #[command(after_help = "Example: pinpipe batch unschedule")]
    Unschedule,
}

/// Arguments of `pinpipe batch`.
#[derive(Debug, Args)]
pub struct BatchArguments {
    /// Lake to read: s3://BUCKET[/PREFIX] or the folder that contains topics/ [default: the
    /// sink's bucket]
    #[arg(long, value_name = "URL|DIR")]
    pub lake: Option<String>,
    /// Engine that runs the SQL [default: embedded (batch.engine)]
    #[arg(long, value_enum)]
    pub engine: Option<BatchEngine>,
    /// Platform that Spark runs on, with --engine spark [default: spark-submit (spark.place)]
    #[arg(long, value_enum, value_name = "PLACE")]
    pub on: Option<SparkPlace>,
    /// Reprocess the whole lake and overwrite the tables
    #[arg(long)]
    pub full: bool,
    /// Answer from the whole lake without reading or writing tables
    #[arg(long, conflicts_with_all = ["full", "as_of", "optimize"])]
    pub no_tables: bool,
    /// Memory limit, such as 1GB; larger data spills to disk [default: half of the machine's
    /// (batch.memory)]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Id that prefixes the names of topics and tables [default: local (id)]
    #[arg(long, value_name = "ID")]
    pub user_id: Option<String>,
    /// Write the answers into this folder, which is created if missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Formats of the answers [default: csv,html (batch.formats)]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT,…")]
    pub format: Vec<AnswerFormat>,
    /// Answer for an earlier state of the tables, without reading the lake: a version such as 3,
    /// or a time such as 2026-11-21T10:00:00Z
    #[arg(long, value_name = "VERSION|TIME", conflicts_with_all = ["full", "optimize", "lake"])]
    pub as_of: Option<AsOf>,
    /// Compact the tables afterwards and delete files of versions older than
    /// batch.retention_hours (168)
    #[arg(long)]
    pub optimize: bool,
    /// Median of an even number of values [default: interpolated (batch.median)]
    #[arg(long, value_enum)]
    pub median: Option<Median>,
}

/// Runs batch, or one of its subcommands.
///
/// # Errors
/// Those of [`batch::run`], [`schedule::schedule`] and [`schedule::unschedule`].
pub async fn run(config: &Config, command_line: BatchCommandLine, printer: &Printer) -> Result<()> {
    match command_line.command {
        Some(BatchCommand::Schedule(arguments)) => {
            schedule::schedule(config, &arguments, printer).await
        }
        Some(BatchCommand::Unschedule) => schedule::unschedule(config, printer).await,
        None => {
            let report = answer(config, command_line.arguments, printer).await?;
            for line in report.skipped_lines().into_iter().chain(report.reject_lines()) {
                printer.warn(line);
            }
            printer.report(&report);
            Ok(())
        }
    }
}

async fn answer(
    config: &Config,
    arguments: BatchArguments,
    printer: &Printer,
) -> Result<BatchReport> {
    let config = with_flags(config, &arguments)?;
    let engine = arguments.engine.unwrap_or(config.batch.engine);
    check_engine(engine, &arguments)?;
    let options = BatchOptions {
        lake: arguments.lake,
        full: arguments.full,
        no_tables: arguments.no_tables,
        out: arguments.out,
        formats: arguments.format,
        as_of: arguments.as_of,
        optimize: arguments.optimize,
        median: arguments.median,
    };
    // Errors are ignored, because a run that writes no tables does not require a writable folder.
    let _ = data_dir::create(&config.data_dir);
    match engine {
        BatchEngine::Embedded => batch::run(&config, &options, printer).await,
        BatchEngine::Spark => on_spark(&config, &options, printer).await,
    }
}

/// Returns the configuration with the values of the flags.
fn with_flags(config: &Config, arguments: &BatchArguments) -> Result<Config> {
    let mut config = config.clone();
    if let Some(id) = &arguments.user_id {
        if !is_id(id) {
            return Err(Error::usage(format!("invalid `--user-id {id}`"))
                .hint("use 1 to 40 letters, digits, `-` or `_`"));
        }
        config.id.clone_from(id);
    }
    if let Some(place) = arguments.on {
        config.spark.place = place;
    }
    if let Some(memory) = &arguments.memory {
        memory_bytes(memory)?;
        config.batch.memory.clone_from(memory);
    }
    Ok(config)
}

/// Refuses flags that the engine does not support.
fn check_engine(engine: BatchEngine, arguments: &BatchArguments) -> Result<()> {
    match engine {
        BatchEngine::Spark
            if arguments.full
                || arguments.as_of.is_some()
                || arguments.optimize
                || arguments.no_tables
                || arguments.memory.is_some() =>
        {
            Err(Error::usage(
                "`--full`, `--as-of`, `--optimize`, `--no-tables` and `--memory` require the \
                 embedded engine",
            )
            .hint(
                "Spark always reads the whole lake, with the memory of its own settings: remove \
                 these flags or `--engine spark`",
            ))
        }
        BatchEngine::Embedded if arguments.on.is_some() => {
            Err(Error::usage("`--on` requires the Spark engine")
                .hint("add `--engine spark`, or remove `--on`"))
        }
        _ => Ok(()),
    }
}

async fn on_spark(
    config: &Config,
    options: &BatchOptions,
    printer: &Printer,
) -> Result<BatchReport> {
    let started = Instant::now();
    let questions = batch::prepare(config, options)?;
    if config.spark.place == SparkPlace::Databricks {
        // Found before the lake is listed, which may take long.
        Credentials::find(config)?;
    }
    let (lake, layout) = batch::open_lake(config, options).await?;
    // Checked first, because Spark needs half a minute to detect an empty lake.
    let objects = count_objects(&lake, &layout).await?;
    if objects.iter().all(|count| *count == 0) {
        return Err(empty_lake(&lake, &layout));
    }
    let job = SparkBatch {
        config,
        lake_url: &lake.url,
        topics_dir: &layout.topics_dir,
        questions: &questions,
        median: options.median.unwrap_or(config.batch.median),
        printer,
    };
    let report = spark::run(&job).await?.of_objects(&objects);
    batch::finish(config, options, report, started).await
}
