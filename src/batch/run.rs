//! The run: read, clean, write, answer.

use std::path::PathBuf;
use std::time::Instant;

use arrow::array::RecordBatch;
use clap::Args;

use super::answer::Answer;
use super::engine::Engine;
use super::input;
use super::report::{BatchReport, KindCounts};
use crate::config::{Config, Median, lake_bucket};
use crate::error::{Error, Result, on_path};
use crate::lake::{DeltaLocation, Lake, Layout};
use crate::output::Printer;
use crate::record::Kind;
use crate::sql;

/// Which half of the tables batch writes.
pub const HALF: &str = "batch";

/// What `batch` is told.
#[derive(Debug, Args, Default)]
pub struct BatchArguments {
    /// Lake to read: s3://BUCKET[/PREFIX] or the folder that holds topics/ [default: the sink's bucket]
    #[arg(long, value_name = "URL|DIR")]
    pub lake: Option<String>,
    /// Id in front of the topics' and tables' names [default: local (id)]
    #[arg(long, value_name = "ID")]
    pub user_id: Option<String>,
    /// Write each answer as CSV into this folder, which is made where it is missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Median of an even number of values [default: interpolated (batch.median)]
    #[arg(long, value_enum)]
    pub median: Option<Median>,
}

/// Reads the whole lake, writes the clean tables, answers the questions.
///
/// # Errors
/// The lake is not there, empty or not readable; tables or files cannot be written.
pub async fn run(config: &Config, arguments: &BatchArguments, printer: &Printer) -> Result<BatchReport> {
    let started = Instant::now();
    let mut config = config.clone();
    if let Some(id) = &arguments.user_id {
        if !crate::config::is_id(id) {
            return Err(Error::usage(format!("`--user-id {id}` is no id")).hint("an id has 1 to 40 letters, digits, `-` or `_`"));
        }
        config.id.clone_from(id);
    }
    let url = arguments.lake.clone().unwrap_or_else(|| lake_bucket(&config));
    if url.is_empty() || !crate::config::is_location(&url) {
        return Err(Error::usage(format!("`--lake {url}` names no lake")).hint("name a folder, or s3://BUCKET[/PREFIX]"));
    }
    let lake = Lake::open(&config, &url, false).await?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).map_err(|error| on_path("create", out, error))?;
    }
    let topics_dir = config.connector_properties().get("topics.dir").cloned().unwrap_or_else(|| "topics".into());
    let layout = Layout { topics_dir, id: config.id.clone() };
    let engine = Engine::new();
    let mut inputs = Vec::new();
    let mut rejects = Vec::new();
    let progress = printer.progress("reading the lake", None);
    let mut raw = Vec::new();
    for kind in Kind::ALL {
        raw.push((kind, input::read(&lake, &layout, kind, &progress).await?));
    }
    progress.finish();
    if raw.iter().all(|(_, input)| input.records == 0) {
        return Err(Error::failed(format!("the lake `{}` holds no records of `{}`", lake.url, config.id)).hint(format!(
            "it was searched for {}/{}.pin and so on: `pinpipe emulate` posts records, `--user-id` names another id",
            layout.topics_dir, config.id
        )));
    }
    for (kind, input) in raw {
        let fitting = input.records - input.rejected;
        let batches = engine.clean(kind, input.batches).await?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let table = DeltaLocation::open(&config, HALF, &kind.clean_table(&config.id)).await?;
        table.replace(&kind.clean_schema(), batches.clone()).await?;
        tracing::info!(table = table.name, objects = input.objects, records = input.records, rows, "wrote the table");
        engine.register(&format!("clean_{}", kind.name()), kind.clean_schema(), batches)?;
        inputs.push(KindCounts {
            kind,
            objects: input.objects,
            records: input.records,
            rejects: input.rejected,
            duplicates: fitting - rows,
            rows,
            table: table.name,
        });
        rejects.extend(input.rejects);
    }
    let (schema, posts) = engine.query("the posts", sql::POST).await?;
    engine.register("post", schema, posts)?;
    let median = arguments.median.unwrap_or(config.batch.median);
    let mut answers = Vec::new();
    for question in &sql::QUESTIONS {
        let (schema, batches): (_, Vec<RecordBatch>) = engine.query(question.name, &question.query(median)).await?;
        let answer = Answer::new(question, schema, batches)?;
        if let Some(out) = &arguments.out {
            answer.write_csv(out)?;
        }
        answers.push(answer);
    }
    Ok(BatchReport { lake: lake.url, seconds: started.elapsed().as_secs_f64(), inputs, rejects, answers, out: arguments.out.clone() })
}
