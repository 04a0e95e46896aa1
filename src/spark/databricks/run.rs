//! One run of the job on Databricks: submitted, followed, fetched.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// A run that was begun: kept before it is submitted, so that the next command finds it
/// where this one is killed.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// Names the run: its folders, and what keeps Databricks from starting it twice.
    name: String,
    host: String,
    /// What it was told.
    parameters: Value,
    /// The job's folder in the workspace.
    folder: String,
    /// Where its answers go.
    out: String,
    /// Once it is submitted.
    run_id: Option<i64>,
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

/// Why this command does not go on.
enum Stop {
    /// The run is over, or was never begun.
    Over(Error),
    /// It may go on: the next command looks for it.
    Open(Error),
}

/// How long ago a run may have ended whose answers an earlier command could not fetch any more.
const FRESH_MS: i64 = 600_000;

/// A run, or one of its tasks, as Databricks describes it.
#[derive(Debug, Deserialize)]
struct Run {
    #[serde(default)]
    run_id: i64,
    #[serde(default)]
    state: State,
    run_name: Option<String>,
    run_page_url: Option<String>,
    /// In milliseconds since 1970; 0 while it goes on.
    #[serde(default)]
    end_time: i64,
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
        matches!(
            self.life_cycle_state(),
            "TERMINATED" | "SKIPPED" | "INTERNAL_ERROR"
        )
    }

    fn is_good(&self) -> bool {
        self.state.result_state.as_deref() == Some("SUCCESS")
    }

    fn life_cycle_state(&self) -> &str {
        self.state.life_cycle_state.as_deref().unwrap_or("PENDING")
    }
}

/// Uploads the job, runs it, and brings its answers here.
///
/// # Errors
/// No login; a lake that no cluster can read; the run fails; Ctrl-C, which cancels the run.
pub async fn run(batch: &SparkBatch<'_>) -> Result<BatchReport> {
    let SparkBatch {
        config,
        lake_url,
        topics_dir,
        questions,
        median,
        printer,
    } = *batch;
    if !lake_url.starts_with("s3://") {
        return Err(Error::usage(format!("Databricks cannot read `{lake_url}`, a folder of this machine"))
            .hint("name a bucket with `--lake s3://BUCKET`, or run Spark here: `spark.place = \"spark-submit\"`"));
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
    let records = config.data_dir.join("databricks");
    std::fs::create_dir_all(&records)
        .map_err(|error| crate::base::error::io_error("make", &records, error))?;
    let Some(_lock) = FileLock::try_lock(&records.join("lock"))? else {
        return Err(Error::failed(
            "another `pinpipe batch` runs on Databricks from this data folder",
        )
        .hint("wait for it, or use another folder with `--data-dir`"));
    };
    let record = Record {
        client: &client,
        config,
        path: records.join("run.json"),
        printer,
    };
    let parent = job_folder(&client, config).await?;
    let mut begun = record.begin(&parameters, &parent, &out).await?;
    let progress = printer.activity("Databricks");
    loop {
        let outcome = tokio::select! {
            done = record.attempt(&mut begun, &parameters, &progress) => done,
            () = crate::base::shutdown::shutdown_signal() => Err(record.cancel().await),
        };
        match outcome {
            Ok(Outcome::Done) => break,
            Ok(Outcome::Stale) => {
                record.close(&begun).await;
                begun = record.begin(&parameters, &parent, &out).await?;
            }
            Err(Stop::Over(error)) => {
                progress.finish();
                record.close(&begun).await;
                return Err(error);
            }
            Err(Stop::Open(error)) => {
                progress.finish();
                return Err(error.hint("the run may go on, and costs as long as it does: the same command finds it again"));
            }
        }
    }
    progress.finish();
    let report = fetch(config, &begun.out, lake_url, questions).await?;
    record.close(&begun).await;
    Ok(report)
}

/// What is known of the run that was begun, and how it is worked on.
struct Record<'a> {
    client: &'a Databricks,
    config: &'a Config,
    path: PathBuf,
    printer: &'a Printer,
}

impl Record<'_> {
    /// The run to submit: that of a command that was killed, where it was the same, else a new one.
    async fn begin(&self, parameters: &Parameters, parent: &str, out: &str) -> Result<Begun> {
        let parameters = json!(parameters);
        if let Some(before) = load_json::<Begun>(&self.path)? {
            if before.host == self.client.host() && before.parameters == parameters {
                return Ok(Begun {
                    is_resumed: true,
                    ..before
                });
            }
            self.give_up(&before).await;
        }
        let name = format!("run-{}", uuid::Uuid::new_v4().simple());
        let (folder, out) = (format!("{parent}/{name}"), format!("{out}/{name}"));
        let begun = Begun {
            name,
            host: self.client.host().to_string(),
            parameters,
            folder,
            out,
            run_id: None,
            is_resumed: false,
        };
        save_json(&self.path, &begun)?;
        Ok(begun)
    }

    /// Ends a run that was told something else and that nobody waits for any more.
    async fn give_up(&self, before: &Begun) {
        self.printer.warn(format!(
            "run `{}`, which an earlier command began and did not see the end of, is given up",
            before.name
        ));
        if before.host != self.client.host() {
            self.printer.warn(format!(
                "it was begun at {}: look there whether it goes on",
                before.host
            ));
            return;
        }
        if let Some(run_id) = before.run_id
            && let Err(refused) = self
                .client
                .post::<Value>("/api/2.2/jobs/runs/cancel", &json!({ "run_id": run_id }))
                .await
        {
            self.printer.warn(Error::from(refused).to_string());
        }
        self.close(before).await;
    }

    /// Removes what a run that is over left; what cannot be removed is in nobody's way.
    async fn close(&self, begun: &Begun) {
        if let Err(error) = remove_job(self.client, &begun.folder).await {
            self.printer.warn(format!(
                "the job's folder `{}` stays in the workspace: {error}",
                begun.folder
            ));
        }
        if let Err(error) = discard(self.config, &begun.out).await {
            self.printer.warn(error.to_string());
        }
        let _ = std::fs::remove_file(&self.path);
    }

    /// Submits the run, or finds the one that was submitted under its name.
    async fn submitted(&self, begun: &mut Begun) -> Result<i64> {
        if let Some(run_id) = begun.run_id {
            return Ok(run_id);
        }
        let mut body = submission(
            self.config,
            &run_name(self.config),
            &JobFiles::of(&begun.folder),
            &begun.name,
        );
        body["idempotency_token"] = json!(begun.name);
        let submitted: Submitted = self.client.post("/api/2.2/jobs/runs/submit", &body).await?;
        begun.run_id = Some(submitted.run_id);
        save_json(&self.path, begun)?;
        Ok(submitted.run_id)
    }

    async fn attempt(
        &self,
        begun: &mut Begun,
        parameters: &Parameters,
        progress: &Progress,
    ) -> Result<Outcome, Stop> {
        // Of a run that an earlier command may have submitted nothing is known until it is asked for.
        let is_resumed = begun.is_resumed;
        let early = |error: Error| {
            if is_resumed || error.is_retryable() {
                Stop::Open(error)
            } else {
                Stop::Over(error)
            }
        };
        if begun.run_id.is_none() {
            progress.say("uploading the job");
            upload_job(self.client, &begun.folder, parameters)
                .await
                .map_err(early)?;
        }
        let run_id = self.submitted(begun).await.map_err(early)?;
        if is_resumed {
            let run = self.run(run_id).await.map_err(Stop::Open)?;
            if run.is_over() {
                let is_fresh = run.is_good()
                    && chrono::Utc::now().timestamp_millis() - run.end_time < FRESH_MS;
                return Ok(if is_fresh {
                    Outcome::Done
                } else {
                    Outcome::Stale
                });
            }
            self.printer.note(format!(
                "going on with run {run_id}, which an earlier command began"
            ));
        }
        self.follow(run_id, progress).await.map(|()| Outcome::Done)
    }

    async fn run(&self, run_id: i64) -> Result<Run> {
        Ok(self
            .client
            .get("/api/2.2/jobs/runs/get", &[("run_id", &run_id.to_string())])
            .await?)
    }

    /// Asks for the run's state until it is over; says each change.
    async fn follow(&self, run_id: i64, progress: &Progress) -> Result<(), Stop> {
        let mut shown = String::new();
        let longest = Duration::from_millis(self.config.databricks.poll_ms);
        let mut pause = longest / 8;
        loop {
            let run = self.run(run_id).await.map_err(Stop::Open)?;
            let message = run.state.state_message.as_deref().unwrap_or_default();
            let says = if message.is_empty() {
                run.life_cycle_state().to_string()
            } else {
                format!("{}: {message}", run.life_cycle_state())
            };
            if says != shown {
                let page = run
                    .run_page_url
                    .as_deref()
                    .filter(|_| shown.is_empty())
                    .map(|url| format!(" ({url})"))
                    .unwrap_or_default();
                progress.aside(|| {
                    self.printer
                        .note(format!("Databricks run {run_id}: {says}{page}"))
                });
                progress.say(format!("run {run_id} is {says}"));
                shown = says;
            }
            if run.is_over() {
                return if run.is_good() {
                    Ok(())
                } else {
                    Err(Stop::Over(failure(self.client, &run).await))
                };
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Cancels the run, which costs money as long as it goes on.
    async fn cancel(&self) -> Stop {
        let cancelling = async {
            // As it was kept last: it may or may not have been submitted. Under its name there is one at most.
            let Some(mut begun) = load_json::<Begun>(&self.path)? else {
                return Ok(None);
            };
            let run_id = self.submitted(&mut begun).await?;
            let _: Value = self
                .client
                .post("/api/2.2/jobs/runs/cancel", &json!({ "run_id": run_id }))
                .await?;
            Ok::<Option<i64>, Error>(Some(run_id))
        };
        match cancelling.await {
            Ok(run_id) => {
                let which = run_id
                    .map(|run_id| format!("; run {run_id} on Databricks was cancelled"))
                    .unwrap_or_default();
                Stop::Over(
                    Error::failed(format!("stopped{which}, and no answer was written"))
                        .hint("run it again"),
                )
            }
            Err(error) => Stop::Open(
                Error::failed("stopped, but the run on Databricks may go on").with_source(error),
            ),
        }
    }
}

/// Why a run failed, as its tasks tell it.
async fn failure(client: &Databricks, run: &Run) -> Error {
    #[derive(Default, Deserialize)]
    struct Output {
        error: Option<String>,
    }
    let result = run
        .state
        .result_state
        .as_deref()
        .unwrap_or_else(|| run.life_cycle_state());
    let mut why = run.state.state_message.clone().unwrap_or_default();
    for task in &run.tasks {
        let id = task.run_id.to_string();
        // What it printed is more than its state says; that there is none is no further failure.
        let output: Output = client
            .get("/api/2.2/jobs/runs/get-output", &[("run_id", &id)])
            .await
            .unwrap_or_default();
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
    Error::failed(format!(
        "the run on Databricks ended as {result}: {}",
        why.trim()
    ))
    .hint(hint)
}

/// Why the last run of this pipeline's job failed that Airflow started since then; `None`: Databricks knows none.
///
/// # Errors
/// Databricks refuses.
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
    // The newest comes first.
    let failed = |run: &&Run| {
        run.run_name.as_deref() == Some(&run_name(config)) && run.is_over() && !run.is_good()
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
