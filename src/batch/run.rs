//! The run: read, clean, write, answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt};

use super::answer::Answer;
use super::engine::{Engine, cores};
use super::ingest::{Ingest, Ingested, Tables, ingest, nothing_in};
use super::keep::{Asked, AskedColumns, Keep, asked_columns, clean_name};
use super::limits::Limits;
use super::rejects::Rejects;
use super::report::{BatchReport, KindCounts};
use super::spill::SpillFolder;
use crate::config::{AnswerFormat, BatchEngine, Config, Median, SparkPlace, lake_bucket};
use crate::error::{Error, OrFail, Result, on_path};
use crate::lake::{AsOf, DeltaLocation, Lake, Layout, Maintained, count_objects};
use crate::output::{Printer, Progress};
use crate::record::Kind;
use crate::spark::{ScheduleArguments, SparkBatch};
use crate::sql::{self, Question};

/// Which half of the tables batch writes.
pub const HALF: &str = "batch";

/// `pinpipe batch`, or what is done about its schedule.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BatchCommandLine {
    #[command(flatten)]
    pub arguments: BatchArguments,
    #[command(subcommand)]
    pub command: Option<BatchCommand>,
}

/// Batch every day, without anybody's doing.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Let Managed Airflow run batch on Databricks, every day or as [schedule] says, and show its runs
    #[command(after_help = "Examples:\n  pinpipe batch schedule\n  pinpipe batch schedule --trigger")]
    Schedule(ScheduleArguments),
    /// Turn the schedule off and remove its DAG
    #[command(after_help = "Example: pinpipe batch unschedule")]
    Unschedule,
}

/// What `batch` is told.
#[derive(Debug, Args, Default)]
pub struct BatchArguments {
    /// Lake to read: s3://BUCKET[/PREFIX] or the folder that holds topics/ [default: the sink's bucket]
    #[arg(long, value_name = "URL|DIR")]
    pub lake: Option<String>,
    /// What runs the SQL [default: embedded (batch.engine)]
    #[arg(long, value_enum)]
    pub engine: Option<BatchEngine>,
    /// Where Spark runs, with --engine spark [default: spark-submit (spark.place)]
    #[arg(long, value_enum, value_name = "PLACE")]
    pub on: Option<SparkPlace>,
    /// Read all objects again, not only new ones, and write the tables anew
    #[arg(long)]
    pub full: bool,
    /// Answer from the whole lake without writing tables: nothing is remembered for the next run
    #[arg(long, conflicts_with_all = ["full", "as_of", "optimize"])]
    pub no_tables: bool,
    /// Most memory to take, such as 1GB; what does not fit goes to disk for the time being [default: half of the machine's (batch.memory)]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Id in front of the topics' and tables' names [default: local (id)]
    #[arg(long, value_name = "ID")]
    pub user_id: Option<String>,
    /// Write the answers into this folder, which is made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What the answers are written as [default: csv,html (batch.formats)]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT,…")]
    pub format: Vec<AnswerFormat>,
    /// Answer for an earlier state of the tables, without reading the lake: a version such as 3, or a time such as 2026-11-21T10:00:00Z
    #[arg(long, value_name = "VERSION|TIME", conflicts_with_all = ["full", "optimize", "lake"])]
    pub as_of: Option<AsOf>,
    /// Compact the tables afterwards, and remove files of states older than batch.retention_hours (168)
    #[arg(long)]
    pub optimize: bool,
    /// Median of an even number of values [default: interpolated (batch.median)]
    #[arg(long, value_enum)]
    pub median: Option<Median>,
}

/// How often a table is written again that another writer changed meanwhile.
const ATTEMPTS: usize = 3;

/// Takes what is new in the lake into the clean tables, and answers the questions over them.
///
/// # Errors
/// The lake is not there, empty or not readable; tables or files cannot be written.
pub async fn run(config: &Config, arguments: &BatchArguments, printer: &Printer) -> Result<BatchReport> {
    let work = carry_out(config, arguments, printer);
    if arguments.engine.unwrap_or(config.batch.engine) == BatchEngine::Spark {
        // Spark is told to stop where it runs.
        return work.await;
    }
    let stopped =
        || Error::failed("stopped before all was answered").hint("what is in the tables by now stays: the same command goes on from there");
    crate::signals::or_stopped(work, stopped).await
}

async fn carry_out(config: &Config, arguments: &BatchArguments, printer: &Printer) -> Result<BatchReport> {
    let started = Instant::now();
    let mut config = config.clone();
    if let Some(id) = &arguments.user_id {
        if !crate::config::is_id(id) {
            return Err(Error::usage(format!("`--user-id {id}` is no id")).hint("an id has 1 to 40 letters, digits, `-` or `_`"));
        }
        config.id.clone_from(id);
    }
    if let Some(place) = arguments.on {
        config.spark.place = place;
    }
    if let Some(memory) = &arguments.memory {
        crate::config::memory_bytes(memory)?;
        config.batch.memory.clone_from(memory);
    }
    let formats = if arguments.format.is_empty() { &config.batch.formats } else { &arguments.format };
    if arguments.out.is_none() && arguments.format.iter().any(|format| *format != AnswerFormat::Delta) {
        return Err(Error::usage("`--format` needs a folder to write to").hint("name one with `--out DIR`"));
    }
    let questions = sql::questions_of(&config)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).map_err(|error| on_path("create", out, error))?;
    }
    let median = arguments.median.unwrap_or(config.batch.median);
    let mut report = match arguments.engine.unwrap_or(config.batch.engine) {
        BatchEngine::Spark => {
            if arguments.full || arguments.as_of.is_some() || arguments.optimize || arguments.no_tables || arguments.memory.is_some() {
                return Err(Error::usage("`--full`, `--as-of`, `--optimize`, `--no-tables` and `--memory` are about the embedded engine")
                    .hint("Spark reads the whole lake each time, with the memory that its own settings give it: leave them out, or leave out `--engine spark`"));
            }
            let (lake, layout) = lake(&config, arguments).await?;
            // Looked at first: Spark takes half a minute to say that there is nothing.
            let objects = count_objects(&lake, &layout).await?;
            if objects.iter().all(|count| *count == 0) {
                return Err(nothing_in(&lake, &layout));
            }
            let (lake_url, topics_dir) = (&lake.url, &layout.topics_dir);
            let batch = SparkBatch { config: &config, lake_url, topics_dir, questions: &questions, median, printer };
            crate::spark::run(&batch).await?.of_objects(&objects)
        }
        BatchEngine::Embedded if arguments.on.is_some() => {
            return Err(Error::usage("`--on` says where Spark runs, and the embedded engine is asked for")
                .hint("add `--engine spark`, or leave out `--on`"));
        }
        BatchEngine::Embedded => embedded(&config, arguments, &questions, median, printer).await?,
    };
    if arguments.out.is_some() || arguments.format.contains(&AnswerFormat::Delta) {
        report.written = super::files::write(&config, &report, arguments.out.as_deref(), formats).await?;
    }
    if arguments.optimize {
        report.maintained = maintain(&config).await?;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The run of the engine inside this program.
async fn embedded(
    config: &Config,
    arguments: &BatchArguments,
    questions: &[Question],
    median: Median,
    printer: &Printer,
) -> Result<BatchReport> {
    let folder = SpillFolder::new(&config.data_dir)?;
    let limits = Limits::of(config, folder.path())?;
    let engine = Engine::new();
    let mut report = match arguments.as_of {
        Some(as_of) => state_as_of(config, as_of, &engine).await?,
        None => {
            // Planned on another core while the lake is being opened and listed.
            let own = questions.to_vec();
            let asked = tokio::spawn(async move { asked_columns(&own, median).await });
            read_lake(config, arguments, &engine, asked, &limits, printer).await?
        }
    };
    let most = report.inputs.iter().map(|input| input.rows).max().unwrap_or_default();
    let answering = printer.activity("answering");
    let answered = if limits.fits(most) {
        answers(&engine, questions, median).await
    } else {
        answers_within(&engine, questions, median, &limits).await
    };
    answering.finish();
    tracing::debug!("answered");
    report.answers = answered?;
    Ok(report)
}

/// All answers, from memory.
async fn answers(engine: &Engine, questions: &[Question], median: Median) -> Result<Vec<Answer>> {
    let (schema, posts) = engine.query("the posts", sql::POST).await?;
    tracing::debug!("joined the posts");
    // Each question is small beside the cores: side by side they leave none idle.
    let asked = Engine::single();
    asked.register("post", schema, posts)?;
    for kind in Kind::ALL {
        engine.share(&clean_name(kind), &asked).await?;
    }
    let answered = futures::stream::iter(questions).map(|question| {
        let (engine, question) = (asked.clone(), question.clone());
        let answering = tokio::spawn(async move {
            let (schema, batches) = engine.query(&question.name, &question.query(median)).await?;
            Answer::new(&question, schema, batches)
        });
        async move { answering.await.or_fail(|| "answering was interrupted")? }
    });
    answered.buffered(cores()).try_collect().await
}

/// All answers, one after another, with the posts on disk.
async fn answers_within(engine: &Engine, questions: &[Question], median: Median, limits: &Limits) -> Result<Vec<Answer>> {
    let folder = &limits.spill_folder;
    std::fs::create_dir_all(folder).map_err(|error| on_path("make", folder, error))?;
    let asked = Engine::within(limits.query_bytes(), folder)?;
    for kind in Kind::ALL {
        engine.share(&clean_name(kind), &asked).await?;
    }
    asked.spill("post", sql::POST, &folder.join("post.parquet")).await?;
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let (schema, batches) = asked.query(&question.name, &question.query(median)).await?;
        answers.push(Answer::new(question, schema, batches)?);
    }
    Ok(answers)
}

/// The lake that is read, and how it is laid out.
async fn lake(config: &Config, arguments: &BatchArguments) -> Result<(Lake, Layout)> {
    let url = arguments.lake.clone().unwrap_or_else(|| lake_bucket(config));
    if url.is_empty() || !crate::config::is_location(&url) {
        return Err(Error::usage(format!("`--lake {url}` names no lake")).hint("name a folder, or s3://BUCKET[/PREFIX]"));
    }
    let lake = Lake::open(config, &url, false).await?;
    Ok((lake, Layout::of(config)))
}

/// The tables as they were, without reading the lake.
async fn state_as_of(config: &Config, as_of: AsOf, engine: &Engine) -> Result<BatchReport> {
    let mut report = BatchReport::new(format!("tables as of {as_of}"));
    let mut locations = Vec::new();
    for kind in Kind::ALL {
        let location = DeltaLocation::open(config, HALF, &kind.clean_table(&config.id)).await?;
        location.reach().await?;
        let newest = location.load().await?.and_then(|table| table.version());
        locations.push((kind, location, newest));
    }
    // Each table counts its own versions: one that has not come so far is taken as it is, unless none has.
    let newest_of_all = locations.iter().filter_map(|(_, _, newest)| *newest).max();
    for (kind, location, newest) in locations {
        let as_of = match (as_of, newest) {
            (AsOf::Version(version), Some(newest)) if newest_of_all.is_some_and(|of_all| version <= of_all) => {
                AsOf::Version(version.min(newest))
            }
            _ => as_of,
        };
        let table = location.load_as_of(as_of).await?;
        let rows = register(engine, kind, &location, &table).await?;
        report.inputs.push(KindCounts::of_table(kind, rows, location.name, table.version().unwrap_or_default()));
    }
    Ok(report)
}

async fn register(engine: &Engine, kind: Kind, location: &DeltaLocation, table: &deltalake::DeltaTable) -> Result<u64> {
    let name = clean_name(kind);
    engine.register_provider(&name, location.provider_of(table).await?)?;
    engine.count(&name).await
}

/// What reading needs of the tables, where there are any.
struct Places {
    locations: BTreeMap<Kind, DeltaLocation>,
    rejects: Rejects,
}

/// Takes what is new in the lake into the tables, or all of it into memory.
async fn read_lake(
    config: &Config,
    arguments: &BatchArguments,
    engine: &Engine,
    asked: tokio::task::JoinHandle<Result<AskedColumns>>,
    limits: &Limits,
    printer: &Printer,
) -> Result<BatchReport> {
    let (lake, layout) = lake(config, arguments).await?;
    let mut report = BatchReport::new(lake.url.clone());
    let mut places = None;
    if !arguments.no_tables {
        let rejects = Rejects::open(config).await?;
        report.rejects_table = rejects.name().to_string();
        let mut locations = BTreeMap::new();
        for kind in Kind::ALL {
            locations.insert(kind, DeltaLocation::open(config, HALF, &kind.clean_table(&config.id)).await?);
        }
        places = Some(Places { locations, rejects });
    }
    let asked = Asked::begun(asked);
    let progress = printer.progress("objects of the lake", None);
    let reading =
        Reading { lake: &lake, layout: &layout, places: places.as_ref(), full: arguments.full, asked: &asked, limits, progress: &progress };
    let one = |kind| reading.kind(kind);
    let taken = if limits.is_tight() {
        [one(Kind::Pin).await?, one(Kind::Geo).await?, one(Kind::User).await?]
    } else {
        // Side by side: the two small kinds fill the gaps that the large one leaves.
        let (pin, geo, user) = futures::try_join!(one(Kind::Pin), one(Kind::Geo), one(Kind::User))?;
        [pin, geo, user]
    };
    tracing::debug!("read the lake");
    for (kind, taken) in Kind::ALL.into_iter().zip(taken) {
        let location = places.as_ref().and_then(|places| places.locations.get(&kind));
        let rows = match (taken.kept, location) {
            (Some(kept), _) => {
                let rows = kept.batches.iter().map(|batch| batch.num_rows() as u64).sum();
                engine.register(&clean_name(kind), kept.schema, kept.batches)?;
                rows
            }
            (None, Some(location)) => {
                let table = location.load().await?.ok_or_else(|| Error::failed(format!("the table `{}` is gone", location.name)))?;
                register(engine, kind, location, &table).await?
            }
            (None, None) => 0,
        };
        let table = location.map_or_else(|| "(none written)".into(), |location| location.name.clone());
        report.inputs.push(KindCounts {
            objects_in_lake: taken.objects_in_lake,
            objects: taken.objects,
            records: taken.records,
            rejects: taken.rejected,
            duplicates: taken.duplicates,
            new_rows: taken.new_rows,
            ..KindCounts::of_table(kind, rows, table, taken.version)
        });
        report.rejects.extend(taken.rejects);
        report.quality.extend(taken.quality);
    }
    progress.finish();
    if report.inputs.iter().all(|input| input.rows == 0 && input.rejects == 0) {
        return Err(nothing_in(&lake, &layout));
    }
    Ok(report)
}

/// Compacts and sweeps the clean tables and the rejects.
async fn maintain(config: &Config) -> Result<Vec<Maintained>> {
    let mut maintained = Vec::new();
    let tables = Kind::ALL.map(|kind| kind.clean_table(&config.id));
    for table in tables.into_iter().chain([super::rejects::table(config)]) {
        let location = DeltaLocation::open(config, HALF, &table).await?;
        maintained.extend(location.maintain(config.batch.retention_hours).await?);
    }
    Ok(maintained)
}

/// What all kinds are read with.
struct Reading<'a> {
    lake: &'a Lake,
    layout: &'a Layout,
    places: Option<&'a Places>,
    full: bool,
    asked: &'a Asked,
    limits: &'a Limits,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Takes a kind's objects, again where another writer came between.
    async fn kind(&self, kind: Kind) -> Result<Ingested> {
        let asked = self.asked.columns().await?;
        let tables = || {
            let places = self.places?;
            Some(Tables { location: places.locations.get(&kind)?, rejects: &places.rejects, full: self.full })
        };
        let what = Ingest { lake: self.lake, layout: self.layout, kind, tables: tables(), limits: self.limits, progress: self.progress };
        let mut attempt = 1;
        loop {
            let keep = Keep::new(kind, &asked[&kind], self.limits, self.places.is_none());
            match ingest(&what, keep).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tracing::info!(%error, attempt, "taking the objects again");
                    attempt += 1;
                }
                done => return done,
            }
        }
    }
}
