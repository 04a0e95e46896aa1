//! The run of `batch` on the embedded engine: ingest, answer, write.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};

use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{AnswerFormat, Config, Median, OnUnreadable};
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::model::Kind;
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::base::output::table::thousands;
use crate::data::engine::memory_budget::MemoryBudget;
use crate::data::engine::session::{Engine, cores};
use crate::data::engine::spill::SpillFolder;
use crate::data::lake::objects::Layout;
use crate::data::sql;
use crate::data::sql::Question;
use crate::data::storage::Lake;
use crate::data::tables::as_of::{AsOf, open_as_of};
use crate::data::tables::clean_table::{CleanTable, TableNamespace};
use crate::data::tables::maintain::maintain_tables;
use crate::data::tables::open_clean_table;
use crate::data::tables::rejects::Rejects;
use crate::stages::batch::answer::Answer;
use crate::stages::batch::ingest::{Ingest, Ingested, Tables, empty_lake, ingest};
use crate::stages::batch::report::{BatchReport, KindCounts};
use crate::stages::batch::row_cache::{
    PendingColumns, RequiredColumns, RowCache, clean_name, required_columns,
};

/// Settings of one run. `None` and empty lists select the values of `[batch]` in the
/// configuration.
#[derive(Debug, Clone, Default)]
pub struct BatchOptions {
    /// Lake to read: a folder or s3://BUCKET[/PREFIX].
    pub lake: Option<String>,
    /// Reprocesses all objects and overwrites the tables.
    pub full: bool,
    /// Answers the questions from the lake alone; tables are neither read nor written.
    pub no_tables: bool,
    /// Folder for the answers; created if missing.
    pub out: Option<PathBuf>,
    /// Formats of the answers.
    pub formats: Vec<AnswerFormat>,
    /// Answers the questions from this earlier state of the tables, without reading the lake.
    pub as_of: Option<AsOf>,
    /// Compacts the tables after the run.
    pub optimize: bool,
    /// Median of an even number of values.
    pub median: Option<Median>,
}

/// Maximum number of attempts to commit to a table that another writer keeps changing.
const MAX_ATTEMPTS: usize = 3;

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
        Error::interrupted("interrupted before all questions were answered")
            .hint("re-run the command to resume; committed rows are kept")
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
    let report = ingest_and_answer(config, options, &questions, median, printer).await?;
    finish(config, options, report, started).await
}

/// Reads the questions and creates the output folder, before any expensive work.
///
/// # Errors
/// Formats are given without an output folder; a question cannot be read; the folder cannot be
/// created.
pub fn prepare(config: &Config, options: &BatchOptions) -> Result<Vec<Question>> {
    if options.out.is_none() && options.formats.iter().any(|format| *format != AnswerFormat::Delta)
    {
        return Err(Error::usage("`--format` requires an output folder").hint("add `--out DIR`"));
    }
    let questions = sql::questions_of(config)?;
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out).map_err(|error| io_error("create", out, error))?;
    }
    Ok(questions)
}

/// Writes the answers and compacts the tables, if the options request it.
///
/// # Errors
/// The output folder or a table cannot be written.
pub async fn finish(
    config: &Config,
    options: &BatchOptions,
    mut report: BatchReport,
    started: Instant,
) -> Result<BatchReport> {
    let formats = if options.formats.is_empty() { &config.batch.formats } else { &options.formats };
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
        report.maintained = maintain_tables(config).await?;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Ingests and answers on the embedded engine.
async fn ingest_and_answer(
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
        Some(as_of) => register_as_of(config, as_of, &engine).await?,
        None => {
            // The questions are planned on another core while the lake is opened and listed.
            let planned_questions = questions.to_vec();
            let planning =
                tokio::spawn(async move { required_columns(&planned_questions, median).await });
            ingest_lake(config, options, &engine, planning, &budget, printer).await?
        }
    };
    let max_rows = report.inputs.iter().map(|input| input.rows).max().unwrap_or_default();
    let activity = printer.activity("answering the questions");
    let answers = if budget.fits_in_memory(max_rows) {
        answer_in_memory(&engine, questions, median).await
    } else {
        answer_with_spill(&engine, questions, median, &budget).await
    };
    activity.finish();
    tracing::debug!("answered the questions");
    report.answers = answers?;
    Ok(report)
}

/// Answers all questions in memory, several at a time.
async fn answer_in_memory(
    engine: &Engine,
    questions: &[Question],
    median: Median,
) -> Result<Vec<Answer>> {
    let (schema, posts) = engine.query("the posts", sql::POST).await?;
    tracing::debug!("joined the posts");
    // A single question is too small for all cores, so each runs on one core and they run in
    // parallel.
    let question_engine = Engine::single();
    question_engine.register("post", schema, posts)?;
    for kind in Kind::ALL {
        engine.share(&clean_name(kind), &question_engine).await?;
    }
    let answers = futures::stream::iter(questions).map(|question| {
        let (engine, question) = (question_engine.clone(), question.clone());
        let answer = tokio::spawn(async move {
            let (schema, batches) = engine.query(&question.name, &question.query(median)).await?;
            Answer::new(&question, schema, batches)
        });
        async move { answer.await.context(|| "answering the questions was interrupted")? }
    });
    answers.buffered(cores()).try_collect().await
}

/// Answers one question after another with limited memory; the joined posts spill to disk.
async fn answer_with_spill(
    engine: &Engine,
    questions: &[Question],
    median: Median,
    budget: &MemoryBudget,
) -> Result<Vec<Answer>> {
    let folder = &budget.spill_folder;
    std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
    let question_engine = Engine::within(budget.query_bytes(), folder)?;
    for kind in Kind::ALL {
        engine.share(&clean_name(kind), &question_engine).await?;
    }
    question_engine.spill("post", sql::POST, &folder.join("post.parquet")).await?;
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let (schema, batches) =
            question_engine.query(&question.name, &question.query(median)).await?;
        answers.push(Answer::new(question, schema, batches)?);
    }
    Ok(answers)
}

/// Opens the lake of the options or of the configuration, and returns it with its layout.
///
/// # Errors
/// The lake is neither a folder nor an S3 URL, or cannot be opened.
pub async fn open_lake(config: &Config, options: &BatchOptions) -> Result<(Lake, Layout)> {
    let url = options.lake.clone().unwrap_or_else(|| lake_bucket(config));
    if url.is_empty() || !crate::base::config::check::is_location(&url) {
        return Err(Error::usage(format!(
            "invalid lake: expected a folder or s3://BUCKET[/PREFIX], got `{url}`"
        ))
        .hint("name the lake with `--lake`"));
    }
    let lake = Lake::open(config, &url, false).await?;
    Ok((lake, Layout::of(config)))
}

/// Registers an earlier state of the tables, without reading the lake.
async fn register_as_of(config: &Config, as_of: AsOf, engine: &Engine) -> Result<BatchReport> {
    let mut report = BatchReport::new(format!("tables as of {as_of}"));
    for table in open_as_of(config, as_of).await? {
        let rows = register(engine, table.kind, table.provider).await?;
        report.inputs.push(KindCounts::of_table(table.kind, rows, table.name, table.version));
    }
    Ok(report)
}

/// Registers the rows of a clean table under its SQL name and returns their number.
async fn register(engine: &Engine, kind: Kind, rows: Arc<dyn TableProvider>) -> Result<u64> {
    let name = clean_name(kind);
    engine.register_provider(&name, rows)?;
    engine.count(&name).await
}

/// Tables that the run writes.
struct OutputTables {
    clean: BTreeMap<Kind, Box<dyn CleanTable>>,
    rejects: Rejects,
}

/// Ingests new objects of the lake into the tables, or all objects into memory.
async fn ingest_lake(
    config: &Config,
    options: &BatchOptions,
    engine: &Engine,
    planning: tokio::task::JoinHandle<Result<RequiredColumns>>,
    budget: &MemoryBudget,
    printer: &Printer,
) -> Result<BatchReport> {
    let (lake, layout) = open_lake(config, options).await?;
    let mut report = BatchReport::new(lake.url.clone());
    let mut output_tables = None;
    if !options.no_tables {
        let rejects = Rejects::open(config).await?;
        report.rejects_table = rejects.name().to_string();
        let mut clean = BTreeMap::new();
        for kind in Kind::ALL {
            clean.insert(kind, open_clean_table(config, TableNamespace::Batch, kind).await?);
        }
        output_tables = Some(OutputTables { clean, rejects });
    }
    let pending_columns = PendingColumns::new(planning);
    let progress = printer.progress("objects of the lake", None);
    let scan = ScanContext {
        lake: &lake,
        layout: &layout,
        output_tables: output_tables.as_ref(),
        full: options.full,
        on_unreadable: config.batch.on_unreadable,
        pending_columns: &pending_columns,
        budget,
        progress: &progress,
    };
    let results = if budget.is_low_memory() {
        let mut results = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            results.push(scan.ingest_kind(kind).await?);
        }
        results
    } else {
        // In parallel: the small kinds use the cores that the large one leaves idle.
        try_join_all(Kind::ALL.map(|kind| scan.ingest_kind(kind))).await?
    };
    tracing::debug!("ingested the lake");
    for (kind, ingested) in Kind::ALL.into_iter().zip(results) {
        let clean = output_tables.as_ref().and_then(|tables| tables.clean.get(&kind));
        let rows = match (ingested.cached_rows, clean) {
            (Some(cached), _) => {
                let rows = cached.batches.iter().map(|batch| batch.num_rows() as u64).sum();
                engine.register(&clean_name(kind), cached.schema, cached.batches)?;
                rows
            }
            (None, Some(clean)) => {
                let rows = clean.provider().await?.ok_or_else(|| {
                    Error::failed(format!(
                        "cannot read the table `{}`: it was deleted during the run",
                        clean.name()
                    ))
                })?;
                register(engine, kind, rows).await?
            }
            (None, None) => 0,
        };
        let table = clean.map_or("(none written)", |clean| clean.name()).to_string();
        report.inputs.push(KindCounts {
            objects_in_lake: ingested.objects_in_lake,
            objects: ingested.objects,
            skipped: ingested.skipped.count,
            records: ingested.records,
            tombstones: ingested.tombstones,
            rejects: ingested.rejected,
            duplicates: ingested.duplicates,
            new_rows: ingested.new_rows,
            ..KindCounts::of_table(kind, rows, table, ingested.version)
        });
        if ingested.has_former_checkpoint {
            report.notes.push(format!(
                "another version of pinpipe wrote `{}`: read all {} objects again, once",
                clean.map_or("", |clean| clean.name()),
                thousands(ingested.objects)
            ));
        }
        report.skipped.extend(ingested.skipped.named);
        report.rejects.extend(ingested.rejects);
        report.quality.extend(ingested.quality);
    }
    progress.finish();
    if report.inputs.iter().all(|input| input.rows == 0 && input.rejects == 0) {
        return Err(empty_lake(&lake, &layout));
    }
    Ok(report)
}

/// Parameters shared by the ingests of all record kinds.
struct ScanContext<'a> {
    lake: &'a Lake,
    layout: &'a Layout,
    output_tables: Option<&'a OutputTables>,
    full: bool,
    on_unreadable: OnUnreadable,
    pending_columns: &'a PendingColumns,
    budget: &'a MemoryBudget,
    progress: &'a Progress,
}

impl ScanContext<'_> {
    /// Ingests the objects of a record kind; retries if another writer changed the table.
    async fn ingest_kind(&self, kind: Kind) -> Result<Ingested> {
        let required_columns = self.pending_columns.columns().await?;
        let tables = || {
            let output_tables = self.output_tables?;
            Some(Tables {
                clean: output_tables.clean.get(&kind)?.as_ref(),
                rejects: &output_tables.rejects,
                full: self.full,
            })
        };
        let request = Ingest {
            lake: self.lake,
            layout: self.layout,
            kind,
            tables: tables(),
            on_unreadable: self.on_unreadable,
            budget: self.budget,
            progress: self.progress,
        };
        let mut attempt = 1;
        loop {
            let row_cache = RowCache::new(
                kind,
                &required_columns[&kind],
                self.budget,
                self.output_tables.is_none(),
            );
            match ingest(&request, row_cache).await {
                Err(error) if error.is_retryable() && attempt < MAX_ATTEMPTS => {
                    tracing::info!(%error, attempt, "retrying the ingest");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}
