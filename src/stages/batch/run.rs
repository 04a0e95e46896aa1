//! The run: read, clean, write, answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};

use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{AnswerFormat, Config, Median};
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::model::Kind;
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::{Engine, cores};
use crate::data::engine::spill::SpillFolder;
use crate::data::lake::objects::Layout;
use crate::data::sql;
use crate::data::sql::Question;
use crate::data::storage::Lake;
use crate::data::tables::as_of::AsOf;
use crate::data::tables::delta::{DeltaLocation, TableNamespace};
use crate::data::tables::maintain::Maintained;
use crate::data::tables::rejects::Rejects;
use crate::stages::batch::answer::Answer;
use crate::stages::batch::ingest::{Ingest, Ingested, Tables, empty_lake, ingest};
use crate::stages::batch::report::{BatchReport, KindCounts};
use crate::stages::batch::row_cache::{
    PendingColumns, RequiredColumns, RowCache, clean_name, required_columns,
};

/// Settings of one run; those that are `None` or empty come from `[batch]` in the configuration.
#[derive(Debug, Clone, Default)]
pub struct BatchOptions {
    /// Lake to read: a folder or s3://BUCKET[/PREFIX].
    pub lake: Option<String>,
    /// Reprocesses all objects and overwrites the tables.
    pub full: bool,
    /// Answers from the lake alone; tables are neither read nor written.
    pub no_tables: bool,
    /// Folder for the answers; created if missing.
    pub out: Option<PathBuf>,
    pub formats: Vec<AnswerFormat>,
    /// Answers for this state of the tables, without reading the lake.
    pub as_of: Option<AsOf>,
    /// Compacts the tables after the run.
    pub optimize: bool,
    pub median: Option<Median>,
}

/// How often a table is written again that another writer changed meanwhile.
const ATTEMPTS: usize = 3;

/// Ingests new objects of the lake into the clean tables and answers the questions, on the
/// embedded engine.
///
/// # Errors
/// The lake does not exist, is empty or cannot be read; tables or files cannot be written;
/// the user interrupted the run.
pub async fn run(
    config: &Config,
    options: &BatchOptions,
    printer: &Printer,
) -> Result<BatchReport> {
    let interrupted = || {
        Error::failed("interrupted before all questions were answered")
            .hint("committed rows are kept; re-run to continue")
    };
    crate::base::shutdown::run_until_shutdown(
        answer_and_write(config, options, printer),
        interrupted,
    )
    .await
}

async fn answer_and_write(
    config: &Config,
    options: &BatchOptions,
    printer: &Printer,
) -> Result<BatchReport> {
    let started = Instant::now();
    let questions = prepare(config, options)?;
    let median = options.median.unwrap_or(config.batch.median);
    let report = embedded(config, options, &questions, median, printer).await?;
    finish(config, options, report, started).await
}

/// Reads the questions and creates the output folder, before any expensive work.
///
/// # Errors
/// Formats without an output folder; a question that cannot be read; a folder that cannot be created.
pub fn prepare(config: &Config, options: &BatchOptions) -> Result<Vec<Question>> {
    if options.out.is_none()
        && options
            .formats
            .iter()
            .any(|format| *format != AnswerFormat::Delta)
    {
        return Err(Error::usage("`--format` requires an output folder").hint("add `--out DIR`"));
    }
    let questions = sql::questions_of(config)?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(|error| io_error("create", out, error))?;
    }
    Ok(questions)
}

/// Writes the answers and compacts the tables, where the options ask for it.
///
/// # Errors
/// The output folder or a table cannot be written.
pub async fn finish(
    config: &Config,
    options: &BatchOptions,
    mut report: BatchReport,
    started: Instant,
) -> Result<BatchReport> {
    let formats = if options.formats.is_empty() {
        &config.batch.formats
    } else {
        &options.formats
    };
    if options.out.is_some() || options.formats.contains(&AnswerFormat::Delta) {
        report.written = crate::stages::batch::answer_files::write(
            config,
            &report,
            options.out.as_deref(),
            formats,
        )
        .await?;
    }
    if options.optimize {
        report.maintained = maintain(config).await?;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The run of the engine inside this program.
async fn embedded(
    config: &Config,
    options: &BatchOptions,
    questions: &[Question],
    median: Median,
    printer: &Printer,
) -> Result<BatchReport> {
    let folder = SpillFolder::new(&config.data_dir)?;
    let budget = MemoryBudget::of(config, folder.path())?;
    let engine = Engine::new();
    let mut report = match options.as_of {
        Some(as_of) => state_as_of(config, as_of, &engine).await?,
        None => {
            // Planned on another core while the lake is being opened and listed.
            let own = questions.to_vec();
            let asked = tokio::spawn(async move { required_columns(&own, median).await });
            read_lake(config, options, &engine, asked, &budget, printer).await?
        }
    };
    let most = report
        .inputs
        .iter()
        .map(|input| input.rows)
        .max()
        .unwrap_or_default();
    let answering = printer.activity("answering");
    let answered = if budget.fits_in_memory(most) {
        answers(&engine, questions, median).await
    } else {
        answers_within(&engine, questions, median, &budget).await
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
            let (schema, batches) = engine
                .query(&question.name, &question.query(median))
                .await?;
            Answer::new(&question, schema, batches)
        });
        async move { answering.await.context(|| "answering was interrupted")? }
    });
    answered.buffered(cores()).try_collect().await
}

/// All answers, one after another, with the posts on disk.
async fn answers_within(
    engine: &Engine,
    questions: &[Question],
    median: Median,
    budget: &MemoryBudget,
) -> Result<Vec<Answer>> {
    let folder = &budget.spill_folder;
    std::fs::create_dir_all(folder).map_err(|error| io_error("make", folder, error))?;
    let asked = Engine::within(budget.query_bytes(), folder)?;
    for kind in Kind::ALL {
        engine.share(&clean_name(kind), &asked).await?;
    }
    asked
        .spill("post", sql::POST, &folder.join("post.parquet"))
        .await?;
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let (schema, batches) = asked.query(&question.name, &question.query(median)).await?;
        answers.push(Answer::new(question, schema, batches)?);
    }
    Ok(answers)
}

/// The lake that is read, and how it is laid out.
pub async fn open_lake(config: &Config, options: &BatchOptions) -> Result<(Lake, Layout)> {
    let url = options.lake.clone().unwrap_or_else(|| lake_bucket(config));
    if url.is_empty() || !crate::base::config::check::is_location(&url) {
        return Err(Error::usage(format!("`--lake {url}` names no lake"))
            .hint("name a folder, or s3://BUCKET[/PREFIX]"));
    }
    let lake = Lake::open(config, &url, false).await?;
    Ok((lake, Layout::of(config)))
}

/// The tables as they were, without reading the lake.
async fn state_as_of(config: &Config, as_of: AsOf, engine: &Engine) -> Result<BatchReport> {
    let mut report = BatchReport::new(format!("tables as of {as_of}"));
    let mut locations = Vec::new();
    for kind in Kind::ALL {
        let location =
            DeltaLocation::open(config, TableNamespace::Batch, &kind.clean_table(&config.id))
                .await?;
        location.check_access().await?;
        let newest = location.load().await?.and_then(|table| table.version());
        locations.push((kind, location, newest));
    }
    // Each table counts its own versions: one that has not come so far is taken as it is, unless none has.
    let newest_of_all = locations.iter().filter_map(|(_, _, newest)| *newest).max();
    for (kind, location, newest) in locations {
        let as_of = match (as_of, newest) {
            (AsOf::Version(version), Some(newest))
                if newest_of_all.is_some_and(|of_all| version <= of_all) =>
            {
                AsOf::Version(version.min(newest))
            }
            _ => as_of,
        };
        let table = location.load_as_of(as_of).await?;
        let rows = register(engine, kind, &location, &table).await?;
        report.inputs.push(KindCounts::of_table(
            kind,
            rows,
            location.name,
            table.version().unwrap_or_default(),
        ));
    }
    Ok(report)
}

async fn register(
    engine: &Engine,
    kind: Kind,
    location: &DeltaLocation,
    table: &deltalake::DeltaTable,
) -> Result<u64> {
    let name = clean_name(kind);
    engine.register_provider(&name, location.provider_of(table).await?)?;
    engine.count(&name).await
}

/// What reading needs of the tables, where there are any.
struct OutputTables {
    locations: BTreeMap<Kind, DeltaLocation>,
    rejects: Rejects,
}

/// Takes what is new in the lake into the tables, or all of it into memory.
async fn read_lake(
    config: &Config,
    options: &BatchOptions,
    engine: &Engine,
    asked: tokio::task::JoinHandle<Result<RequiredColumns>>,
    budget: &MemoryBudget,
    printer: &Printer,
) -> Result<BatchReport> {
    let (lake, layout) = open_lake(config, options).await?;
    let mut report = BatchReport::new(lake.url.clone());
    let mut places = None;
    if !options.no_tables {
        let rejects = Rejects::open(config).await?;
        report.rejects_table = rejects.name().to_string();
        let mut locations = BTreeMap::new();
        for kind in Kind::ALL {
            locations.insert(
                kind,
                DeltaLocation::open(config, TableNamespace::Batch, &kind.clean_table(&config.id))
                    .await?,
            );
        }
        places = Some(OutputTables { locations, rejects });
    }
    let asked = PendingColumns::begun(asked);
    let progress = printer.progress("objects of the lake", None);
    let scan = ScanContext {
        lake: &lake,
        layout: &layout,
        places: places.as_ref(),
        full: options.full,
        asked: &asked,
        budget,
        progress: &progress,
    };
    let one = |kind| scan.kind(kind);
    let taken = if budget.is_low_memory() {
        [
            one(Kind::Pin).await?,
            one(Kind::Geo).await?,
            one(Kind::User).await?,
        ]
    } else {
        // Side by side: the two small kinds fill the gaps that the large one leaves.
        let (pin, geo, user) = futures::try_join!(one(Kind::Pin), one(Kind::Geo), one(Kind::User))?;
        [pin, geo, user]
    };
    tracing::debug!("read the lake");
    for (kind, taken) in Kind::ALL.into_iter().zip(taken) {
        let location = places
            .as_ref()
            .and_then(|places| places.locations.get(&kind));
        let rows = match (taken.kept, location) {
            (Some(kept), _) => {
                let rows = kept
                    .batches
                    .iter()
                    .map(|batch| batch.num_rows() as u64)
                    .sum();
                engine.register(&clean_name(kind), kept.schema, kept.batches)?;
                rows
            }
            (None, Some(location)) => {
                let table = location.load().await?.ok_or_else(|| {
                    Error::failed(format!("the table `{}` is gone", location.name))
                })?;
                register(engine, kind, location, &table).await?
            }
            (None, None) => 0,
        };
        let table =
            location.map_or_else(|| "(none written)".into(), |location| location.name.clone());
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
    if report
        .inputs
        .iter()
        .all(|input| input.rows == 0 && input.rejects == 0)
    {
        return Err(empty_lake(&lake, &layout));
    }
    Ok(report)
}

/// Compacts and sweeps the clean tables and the rejects.
async fn maintain(config: &Config) -> Result<Vec<Maintained>> {
    let mut maintained = Vec::new();
    let tables = Kind::ALL.map(|kind| kind.clean_table(&config.id));
    for table in tables
        .into_iter()
        .chain([crate::data::tables::rejects::table(config)])
    {
        let location = DeltaLocation::open(config, TableNamespace::Batch, &table).await?;
        maintained.extend(location.maintain(config.batch.retention_hours).await?);
    }
    Ok(maintained)
}

/// What all kinds are read with.
struct ScanContext<'a> {
    lake: &'a Lake,
    layout: &'a Layout,
    places: Option<&'a OutputTables>,
    full: bool,
    asked: &'a PendingColumns,
    budget: &'a MemoryBudget,
    progress: &'a Progress,
}

impl ScanContext<'_> {
    /// Takes a kind's objects, again where another writer came between.
    async fn kind(&self, kind: Kind) -> Result<Ingested> {
        let asked = self.asked.columns().await?;
        let tables = || {
            let places = self.places?;
            Some(Tables {
                location: places.locations.get(&kind)?,
                rejects: &places.rejects,
                full: self.full,
            })
        };
        let what = Ingest {
            lake: self.lake,
            layout: self.layout,
            kind,
            tables: tables(),
            budget: self.budget,
            progress: self.progress,
        };
        let mut attempt = 1;
        loop {
            let row_cache = RowCache::new(kind, &asked[&kind], self.budget, self.places.is_none());
            match ingest(&what, row_cache).await {
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    tracing::info!(%error, attempt, "taking the objects again");
                    attempt += 1;
                }
                done => return done,
            }
        }
    }
}
