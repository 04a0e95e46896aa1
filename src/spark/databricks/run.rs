//! One run of the job on Databricks: submitted, followed, fetched.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::Databricks;
use super::cluster::submission;
use super::job::{JobFiles, job_folder, remove_job, upload_job};
use crate::batch::BatchReport;
use crate::config::{Config, Median};
use crate::error::{Error, Result};
use crate::files::{keep_json, kept_json};
use crate::output::{Printer, Progress};
use crate::spark::job::{Parameters, answers_url};
use crate::spark::results::{discard, fetch};
use crate::sql::Question;

/// A run that was begun: kept before it is submitted, so that the next command finds it
/// where this one is killed.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// Names the run: its folders, and what keeps Databricks from starting it twice.
    name: String,
    host: String,
    /// What it was told.
    parameters: Value,
    /// An earlier command began it.
    #[serde(skip)]
    is_resumed: bool,
}

/// What became of a run.
enum Outcome {
    Done,
    /// It had ended before this command began: it knows nothing of what is new since.
    Stale,
}

/// A run, or one of its tasks, as Databricks describes it.
#[derive(Debug, Deserialize)]
struct Run {
    #[serde(default)]
    run_id: i64,
    #[serde(default)]
    state: State,
    run_name: Option<String>,
    run_page_url: Option<String>,
    #[serde(default)]
    tasks: Vec<Run>,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    life_cycle_state: Option<String>,
    result_state: Option<String>,
    state_message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Submitted {
    run_id: i64,
}

impl Run {
    fn is_over(&self) -> bool {
        matches!(self.life_cycle_state(), "TERMINATED" | "SKIPPED" | "INTERNAL_ERROR")
    }

    fn life_cycle_state(&self) -> &str {
        self.state.life_cycle_state.as_deref().unwrap_or("PENDING")
    }
}

/// Uploads the job, runs it, and brings its answers here.
///
/// # Errors
/// No login; a lake that no cluster can read; the run fails; Ctrl-C, which cancels the run.
pub async fn run(
    config: &Config,
    lake_url: &str,
    topics_dir: &str,
    questions: &[Question],
    median: Median,
    printer: &Printer,
) -> Result<BatchReport> {
    if !lake_url.starts_with("s3://") {
        return Err(Error::usage(format!("Databricks cannot read `{lake_url}`, a folder of this machine"))
            .hint("name a bucket with `--lake s3://BUCKET`, or run Spark here: `spark.place = \"spark-submit\"`"));
    }
    let client = Databricks::open(config)?;
    let out = answers_url(config, lake_url);
    let parameters = Parameters::new(config, lake_url.trim_end_matches('/'), topics_dir, questions, median, out.clone());
    let kept = config.data_dir.join("spark").join("databricks_run.json");
    let parent = job_folder(&client, config).await?;
    let mut begun = begin(&client, &kept, &parameters)?;
    let progress = printer.activity("Databricks");
    loop {
        let folder = format!("{parent}/{}", begun.name);
        let outcome = tokio::select! {
            done = attempt(&client, config, &folder, &begun, &parameters, printer, &progress) => done,
            () = crate::signals::stop_requested() => Err(cancelled(&client, config, &folder, &begun).await),
        };
        // Whatever came of it, the run is over.
        let _ = std::fs::remove_file(&kept);
        if let Err(error) = remove_job(&client, &folder).await {
            printer.warn(format!("the job's folder `{folder}` stays in the workspace: {error}"));
        }
        match outcome {
            Ok(Outcome::Done) => break,
            Ok(Outcome::Stale) => begun = begin(&client, &kept, &parameters)?,
            Err(error) => {
                progress.finish();
                clear(config, &format!("{out}/{}", begun.name), printer).await;
                return Err(error);
            }
        }
    }
    progress.finish();
    let own = format!("{out}/{}", begun.name);
    let report = fetch(config, &own, lake_url, questions).await?;
    clear(config, &own, printer).await;
    Ok(report)
}

/// Removes what a run wrote; what cannot be removed is in nobody's way.
async fn clear(config: &Config, out: &str, printer: &Printer) {
    if let Err(error) = discard(config, out).await {
        printer.warn(format!("{error}"));
    }
}

/// The run to submit: that of a command that was killed, where it was the same, else a new one.
fn begin(client: &Databricks, kept: &std::path::Path, parameters: &Parameters) -> Result<Begun> {
    let parameters = json!(parameters);
    let before: Option<Begun> = kept_json(kept)?;
    if let Some(before) = before
        && before.host == client.host()
        && before.parameters == parameters
    {
        return Ok(Begun { is_resumed: true, ..before });
    }
    let name = format!("run-{}", uuid::Uuid::new_v4().simple());
    let begun = Begun { name, host: client.host().to_string(), parameters, is_resumed: false };
    if let Some(folder) = kept.parent() {
        std::fs::create_dir_all(folder).map_err(|error| crate::error::on_path("make", folder, error))?;
    }
    keep_json(kept, &begun)?;
    Ok(begun)
}

/// Submits the run, or finds the one that was submitted under its name.
async fn submitted(client: &Databricks, config: &Config, job: &JobFiles, begun: &Begun) -> Result<i64> {
    let mut body = submission(config, &run_name(config), job, &begun.name);
    body["idempotency_token"] = json!(begun.name);
    let submitted: Submitted = client.post("/api/2.2/jobs/runs/submit", &body).await?;
    Ok(submitted.run_id)
}

async fn attempt(
    client: &Databricks,
    config: &Config,
    folder: &str,
    begun: &Begun,
    parameters: &Parameters,
    printer: &Printer,
    progress: &Progress,
) -> Result<Outcome> {
    progress.say("uploading the job");
    let job = upload_job(client, folder, parameters).await?;
    let run_id = submitted(client, config, &job, begun).await?;
    if begun.is_resumed {
        let run: Run = client.get("/api/2.2/jobs/runs/get", &[("run_id", &run_id.to_string())]).await?;
        if run.is_over() {
            return Ok(Outcome::Stale);
        }
        printer.note(format!("going on with run {run_id}, which an earlier command began"));
    }
    follow(client, config, run_id, printer, progress).await.map(|()| Outcome::Done)
}

/// Asks for the run's state until it is over; says each change.
async fn follow(client: &Databricks, config: &Config, run_id: i64, printer: &Printer, progress: &Progress) -> Result<()> {
    let id = run_id.to_string();
    let mut shown = String::new();
    let mut pause = Duration::from_millis(config.databricks.poll_ms) / 8;
    loop {
        let run: Run = client.get("/api/2.2/jobs/runs/get", &[("run_id", &id)]).await?;
        let message = run.state.state_message.as_deref().unwrap_or_default();
        let says = if message.is_empty() { run.life_cycle_state().to_string() } else { format!("{}: {message}", run.life_cycle_state()) };
        if says != shown {
            let page = run.run_page_url.as_deref().filter(|_| shown.is_empty()).map(|url| format!(" ({url})")).unwrap_or_default();
            progress.aside(|| printer.note(format!("Databricks run {id}: {says}{page}")));
            progress.say(format!("run {id} is {says}"));
            shown = says;
        }
        if run.is_over() {
            return if run.state.result_state.as_deref() == Some("SUCCESS") { Ok(()) } else { Err(failure(client, &run).await) };
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(config.databricks.poll_ms));
    }
}

/// Why a run failed, as its tasks tell it.
async fn failure(client: &Databricks, run: &Run) -> Error {
    #[derive(Default, Deserialize)]
    struct Output {
        error: Option<String>,
    }
    let result = run.state.result_state.as_deref().unwrap_or_else(|| run.life_cycle_state());
    let mut why = run.state.state_message.clone().unwrap_or_default();
    for task in &run.tasks {
        let id = task.run_id.to_string();
        // What it printed is more than its state says; that there is none is no further failure.
        let output: Output = client.get("/api/2.2/jobs/runs/get-output", &[("run_id", &id)]).await.unwrap_or_default();
        if let Some(error) = output.error.or_else(|| task.state.state_message.clone()) {
            why = error;
        }
    }
    let page = run.run_page_url.as_deref().unwrap_or_else(|| client.host());
    let hint = match result {
        "TIMEDOUT" => "`databricks.timeout_minutes` allows it more time".to_string(),
        "CANCELED" => "somebody cancelled it: run it again".to_string(),
        _ => format!("its page has the whole log: {page}"),
    };
    Error::failed(format!("the run on Databricks ended as {result}: {}", why.trim())).hint(hint)
}

/// Why the last run of this pipeline's job failed that Airflow started since then; `None`: Databricks knows none.
///
/// # Errors
/// Databricks refuses.
pub async fn failure_since(client: &Databricks, config: &Config, since: chrono::DateTime<chrono::Utc>) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(default)]
        runs: Vec<Run>,
    }
    let since = since.timestamp_millis().to_string();
    let query = [("run_type", "SUBMIT_RUN"), ("start_time_from", &since), ("expand_tasks", "true"), ("limit", "20")];
    let listed: Listed = client.get("/api/2.2/jobs/runs/list", &query).await?;
    // The newest comes first.
    let failed = |run: &&Run| {
        run.run_name.as_deref() == Some(&run_name(config)) && run.is_over() && run.state.result_state.as_deref() != Some("SUCCESS")
    };
    match listed.runs.iter().find(failed) {
        Some(run) => Ok(Some(failure(client, run).await.to_string())),
        None => Ok(None),
    }
}

/// What this pipeline's runs are called.
fn run_name(config: &Config) -> String {
    format!("pinpipe batch {}", config.id)
}

/// Cancels the run, which costs money as long as it goes on.
async fn cancelled(client: &Databricks, config: &Config, folder: &str, begun: &Begun) -> Error {
    let job = JobFiles::of(folder);
    let cancelling = async {
        // It may or may not have been submitted yet: under its name there is one at most.
        let run_id = submitted(client, config, &job, begun).await?;
        let _: Value = client.post("/api/2.2/jobs/runs/cancel", &json!({ "run_id": run_id })).await?;
        Ok::<i64, Error>(run_id)
    };
    match cancelling.await {
        Ok(run_id) => {
            Error::failed(format!("stopped; run {run_id} on Databricks was cancelled, and no answer was written")).hint("run it again")
        }
        Err(error) => Error::failed("stopped, but the run on Databricks may go on")
            .because(error)
            .hint(format!("look for it at {}/jobs/runs", client.host())),
    }
}
