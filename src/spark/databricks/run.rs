//! One run of the job on Databricks: submission, monitoring, results.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::config::data_dir::DataEntry;
use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::fs::{FileLock, load_json, save_json};
use crate::base::output::Printer;
use crate::base::output::progress::Progress;
use crate::clients::databricks::Databricks;
use crate::spark::SparkBatch;
use crate::spark::databricks::cluster::submission;
use crate::spark::databricks::job::{JobFiles, job_folder, remove_job, upload_job};
use crate::spark::job::{Parameters, answers_url};
use crate::spark::results::{discard, fetch};
use crate::stages::batch::report::BatchReport;

/// A started run. Saved before it is submitted, so that the next command can resume it if this one
/// is killed.
#[derive(Debug, Serialize, Deserialize)]
struct PendingRun {
    /// Unique name of the run. Names its folders, and is the idempotency token that prevents a
    /// second submission.
    name: String,
    host: String,
    /// Parameters of the job.
    parameters: Value,
    /// Folder of the job in the workspace.
    folder: String,
    /// Output folder.
    out: String,
    /// Id at Databricks, after submission.
    run_id: Option<i64>,
    /// An earlier command started the run.
    #[serde(skip)]
    is_resumed: bool,
}

/// Result of an attempt that did not fail.
enum AttemptOutcome {
    Done,
    /// The run ended before this command started, so its results may lack newer records.
    Stale,
}

/// Failure of an attempt.
enum AttemptError {
    /// The run has ended, or was never submitted.
    Final(Error),
    /// The run may still be active: the next command resumes it.
    Resumable(Error),
}

/// Maximum age of results that an earlier command did not read, in milliseconds.
const MAX_RESULT_AGE_MS: i64 = 600_000;

/// A run, or one of its tasks, as Databricks describes it.
#[derive(Debug, Deserialize)]
struct Run {
    #[serde(default)]
    run_id: i64,
    #[serde(default)]
    state: RunState,
    run_name: Option<String>,
    run_page_url: Option<String>,
    /// In milliseconds since the epoch; 0 while the run is active.
    #[serde(default)]
    end_time: i64,
    #[serde(default)]
    tasks: Vec<Run>,
}

#[derive(Debug, Default, Deserialize)]
struct RunState {
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

    fn is_success(&self) -> bool {
        self.state.result_state.as_deref() == Some("SUCCESS")
    }

    fn life_cycle_state(&self) -> &str {
        self.state.life_cycle_state.as_deref().unwrap_or("PENDING")
    }
}

/// Uploads the job, runs it and reads its results.
///
/// # Errors
/// Credentials are missing; the lake is a local folder; the run fails; the user interrupts the
/// command, which cancels the run.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    let SparkBatch { config, lake_url, topics_dir, questions, median, printer } = *batch;
    if !lake_url.starts_with("s3://") {
        return Err(Error::usage(format!("cannot read the lake `{lake_url}` from Databricks: it is a local folder"))
            .hint("choose a bucket with `--lake s3://BUCKET`, or set `spark.place = \"spark-submit\"` to run Spark on this machine"));
    }
    let client = Databricks::open(config)?;
    let out = answers_url(config, lake_url);
    let parameters = Parameters::new(
        config,
        lake_url.trim_end_matches('/'),
        topics_dir,
        questions,
        median,
        out.clone(),
    );
    let run_folder = DataEntry::Databricks.path(&config.data_dir);
    std::fs::create_dir_all(&run_folder)
        .map_err(|error| crate::base::error::io_error("create", &run_folder, error))?;
    let Some(_lock) = FileLock::try_lock(&run_folder.join("lock"))? else {
        return Err(Error::failed(
            "cannot run on Databricks: another `pinpipe batch` process uses this data folder",
        )
        .hint("wait until it exits, or use another folder with `--data-dir`"));
    };
    let runner = Runner { client: &client, config, path: run_folder.join("run.json"), printer };
    let parent = job_folder(&client, config).await?;
    let mut pending = runner.start_or_resume(&parameters, &parent, &out).await?;
    let progress = printer.activity("Databricks");
    loop {
        let outcome = tokio::select! {
            outcome = runner.attempt(&mut pending, &parameters, &progress) => outcome,
            () = crate::base::shutdown::shutdown_signal() => Err(runner.cancel().await),
        };
        match outcome {
            Ok(AttemptOutcome::Done) => break,
            Ok(AttemptOutcome::Stale) => {
                runner.clean_up(&pending).await;
                pending = runner.start_or_resume(&parameters, &parent, &out).await?;
            }
            Err(AttemptError::Final(error)) => {
                progress.finish();
                runner.clean_up(&pending).await;
                return Err(error);
            }
            Err(AttemptError::Resumable(error)) => {
                progress.finish();
                return Err(error.hint("the run may still be active on Databricks and incur costs: re-run the command to resume"));
            }
        }
    }
    progress.finish();
    let report = fetch(config, &pending.out, lake_url, questions).await?;
    runner.clean_up(&pending).await;
    Ok(report)
}

/// Drives the run that is saved at `path`.
struct Runner<'a> {
    client: &'a Databricks,
    config: &'a Config,
    path: PathBuf,
    printer: &'a Printer,
}

impl Runner<'_> {
    /// Returns the run to submit: that of a killed command if it has the same workspace and
    /// parameters, or a new one.
    async fn start_or_resume(
        &self,
        parameters: &Parameters,
        parent: &str,
        out: &str,
    ) -> Result<PendingRun> {
        let parameters = json!(parameters);
        if let Some(previous) = load_json::<PendingRun>(&self.path)? {
            if previous.host == self.client.host() && previous.parameters == parameters {
                return Ok(PendingRun { is_resumed: true, ..previous });
            }
            self.abandon(&previous).await;
        }
        let name = format!("run-{}", uuid::Uuid::new_v4().simple());
        let (folder, out) = (format!("{parent}/{name}"), format!("{out}/{name}"));
        let pending = PendingRun {
            name,
            host: self.client.host().to_string(),
            parameters,
            folder,
            out,
            run_id: None,
            is_resumed: false,
        };
        save_json(&self.path, &pending)?;
        Ok(pending)
    }

    /// Cancels the run of an earlier command that had another workspace or other parameters.
    async fn abandon(&self, previous: &PendingRun) {
        self.printer.warn(format!(
            "abandoning run `{}` of an earlier, interrupted command: its workspace or parameters differ",
            previous.name
        ));
        if previous.host != self.client.host() {
            self.printer.warn(format!(
                "run `{}` was started at {}: check there whether it is still active",
                previous.name, previous.host
            ));
            return;
        }
        if let Some(run_id) = previous.run_id
            && let Err(error) = self
                .client
                .post::<Value>("/api/2.2/jobs/runs/cancel", &json!({ "run_id": run_id }))
                .await
        {
            self.printer.warn(Error::from(error).to_string());
        }
        self.clean_up(previous).await;
    }

    /// Deletes the files of a run that has ended. A failure is only a warning, because leftover
    /// files do not affect other runs.
    async fn clean_up(&self, pending: &PendingRun) {
        if let Err(error) = remove_job(self.client, &pending.folder).await {
            self.printer.warn(format!(
                "cannot delete the job folder `{}` in the workspace: {error}",
                pending.folder
            ));
        }
        if let Err(error) = discard(self.config, &pending.out).await {
            self.printer.warn(error.to_string());
        }
        let _ = std::fs::remove_file(&self.path);
    }

    /// Submits the run and returns its id. If the run was submitted before, the idempotency token
    /// makes Databricks return the existing id.
    async fn submit(&self, pending: &mut PendingRun) -> Result<i64> {
        if let Some(run_id) = pending.run_id {
            return Ok(run_id);
        }
        let mut body = submission(
            self.config,
            &run_name(self.config),
            &JobFiles::of(&pending.folder),
            &pending.name,
        );
        body["idempotency_token"] = json!(pending.name);
        let submitted: Submitted = self.client.post("/api/2.2/jobs/runs/submit", &body).await?;
        pending.run_id = Some(submitted.run_id);
        save_json(&self.path, pending)?;
        Ok(submitted.run_id)
    }

    async fn attempt(
        &self,
        pending: &mut PendingRun,
        parameters: &Parameters,
        progress: &Progress,
    ) -> Result<AttemptOutcome, AttemptError> {
        // A resumed run may have been submitted by an earlier command. Until its state is read, the
        // run may be active.
        let is_resumed = pending.is_resumed;
        let submit_error = |error: Error| {
            if is_resumed || error.is_retryable() {
                AttemptError::Resumable(error)
            } else {
                AttemptError::Final(error)
            }
        };
        if pending.run_id.is_none() {
            progress.say("uploading the job");
            upload_job(self.client, &pending.folder, parameters).await.map_err(submit_error)?;
        }
        let run_id = self.submit(pending).await.map_err(submit_error)?;
        if is_resumed {
            let run = self.run(run_id).await.map_err(AttemptError::Resumable)?;
            if run.is_over() {
                let is_recent = run.is_success()
                    && chrono::Utc::now().timestamp_millis() - run.end_time < MAX_RESULT_AGE_MS;
                return Ok(if is_recent { AttemptOutcome::Done } else { AttemptOutcome::Stale });
            }
            self.printer.note(format!("resuming run {run_id}, which an earlier command started"));
        }
        self.wait(run_id, progress).await.map(|()| AttemptOutcome::Done)
    }

    async fn run(&self, run_id: i64) -> Result<Run> {
        Ok(self.client.get("/api/2.2/jobs/runs/get", &[("run_id", &run_id.to_string())]).await?)
    }

    /// Polls the state of the run until it has ended, and reports each change.
    async fn wait(&self, run_id: i64, progress: &Progress) -> Result<(), AttemptError> {
        let mut reported = String::new();
        let max_pause = Duration::from_millis(self.config.databricks.poll_interval_ms);
        let mut pause = max_pause / 8;
        loop {
            let run = self.run(run_id).await.map_err(AttemptError::Resumable)?;
            let message = run.state.state_message.as_deref().unwrap_or_default();
            let state = if message.is_empty() {
                run.life_cycle_state().to_string()
            } else {
                format!("{}: {message}", run.life_cycle_state())
            };
            if state != reported {
                let page = run
                    .run_page_url
                    .as_deref()
                    .filter(|_| reported.is_empty())
                    .map(|url| format!(" ({url})"))
                    .unwrap_or_default();
                progress
                    .aside(|| self.printer.note(format!("Databricks run {run_id}: {state}{page}")));
                progress.say(format!("waiting for run {run_id}: {state}"));
                reported = state;
            }
            if run.is_over() {
                return if run.is_success() {
                    Ok(())
                } else {
                    Err(AttemptError::Final(failure(self.client, &run).await))
                };
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(max_pause);
        }
    }

    /// Cancels the run, which incurs costs while it is active.
    async fn cancel(&self) -> AttemptError {
        let cancellation = async {
            // The saved run may or may not have been submitted. Submitting it again returns the id
            // of the existing run, because its name is the idempotency token.
            let Some(mut pending) = load_json::<PendingRun>(&self.path)? else {
                return Ok(None);
            };
            let run_id = self.submit(&mut pending).await?;
            let _: Value =
                self.client.post("/api/2.2/jobs/runs/cancel", &json!({ "run_id": run_id })).await?;
            Ok::<Option<i64>, Error>(Some(run_id))
        };
        match cancellation.await {
            Ok(run_id) => {
                let cancelled = run_id
                    .map(|run_id| format!("run {run_id} on Databricks was cancelled; "))
                    .unwrap_or_default();
                AttemptError::Final(
                    Error::interrupted(format!("interrupted: {cancelled}no answers were written"))
                        .hint("re-run the command"),
                )
            }
            Err(error) => AttemptError::Resumable(
                Error::interrupted("interrupted: cannot cancel the run on Databricks")
                    .with_source(error),
            ),
        }
    }
}

/// Returns the error of a failed run, with the message of its tasks.
async fn failure(client: &Databricks, run: &Run) -> Error {
    #[derive(Default, Deserialize)]
    struct Output {
        error: Option<String>,
    }
    let result = run.state.result_state.as_deref().unwrap_or_else(|| run.life_cycle_state());
    let mut reason = run.state.state_message.clone().unwrap_or_default();
    for task in &run.tasks {
        let id = task.run_id.to_string();
        // The output of a task has more detail than its state. A missing output is not an error.
        let output: Output = client
            .get("/api/2.2/jobs/runs/get-output", &[("run_id", &id)])
            .await
            .unwrap_or_default();
        if let Some(error) = output.error.or_else(|| task.state.state_message.clone()) {
            reason = error;
        }
    }
    let page = run.run_page_url.as_deref().unwrap_or_else(|| client.host());
    let hint = match result {
        "TIMEDOUT" => "increase `databricks.timeout_minutes`".to_string(),
        "CANCELED" => "a user cancelled the run: re-run the command".to_string(),
        _ => format!("see the full log at {page}"),
    };
    Error::failed(format!("the run on Databricks ended with {result}: {}", reason.trim()))
        .hint(hint)
}

/// Returns the failure reason of the most recent failed run of this pipeline since `since`, or
/// `None` if Databricks lists none.
///
/// # Errors
/// Databricks refuses the request.
pub async fn failure_since(
    client: &Databricks,
    config: &Config,
    since: chrono::DateTime<chrono::Utc>,
) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(default)]
        runs: Vec<Run>,
    }
    let since = since.timestamp_millis().to_string();
    let query = [
        ("run_type", "SUBMIT_RUN"),
        ("start_time_from", &since),
        ("expand_tasks", "true"),
        ("limit", "20"),
    ];
    let listed: Listed = client.get("/api/2.2/jobs/runs/list", &query).await?;
    // Databricks lists the newest run first.
    let failed = |run: &&Run| {
        run.run_name.as_deref() == Some(&run_name(config)) && run.is_over() && !run.is_success()
    };
    match listed.runs.iter().find(failed) {
        Some(run) => Ok(Some(failure(client, run).await.to_string())),
        None => Ok(None),
    }
}

/// Returns the name of this pipeline's runs at Databricks.
fn run_name(config: &Config) -> String {
    format!("pinpipe batch {}", config.id)
}
