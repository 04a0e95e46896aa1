//! The schedule in Managed Airflow: activation, runs and their answers.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::progress::Progress;
use crate::base::output::table::Table;
use crate::base::output::{Printer, Report};
use crate::base::shutdown::run_until_shutdown;
use crate::clients::airflow::AirflowApi;
use crate::clients::aws::{mwaa, sdk_config};
use crate::clients::databricks::Databricks;
use crate::data::lake::objects::{Layout, count_objects};
use crate::data::sql;
use crate::data::storage::Lake;
use crate::spark::databricks::job::scheduled_folder;
use crate::spark::databricks::run::failure_since;
use crate::spark::job::answers_url;
use crate::spark::results::fetch;
use crate::spark::schedule::connection::Connection;
use crate::spark::schedule::dag::{dag_id, description, rendered_dag, run_folder};
use crate::stages::batch::report::BatchReport;

/// Maximum number of runs in the report, newest first.
const MAX_RUNS: u32 = 10;

/// One run of the DAG.
#[derive(Debug, Serialize)]
struct DagRun {
    run_id: String,
    state: String,
    started: Option<String>,
    ended: Option<String>,
}

/// The DAG and its most recent runs.
#[derive(Debug, Serialize)]
pub struct ScheduleReport {
    dag: String,
    schedule: String,
    is_paused: bool,
    runs: Vec<DagRun>,
}

impl Report for ScheduleReport {
    fn text(&self) -> String {
        let state = if self.is_paused { "paused" } else { "on" };
        let head = format!("{}: {}, {state}", self.dag, self.schedule);
        if self.runs.is_empty() {
            return format!("{head}\nno runs yet; `pinpipe batch schedule --trigger` starts one");
        }
        let mut table = Table::new(["run", "state", "started", "ended"]);
        for run in &self.runs {
            let time = |time: &Option<String>| time.clone().unwrap_or_default();
            table.row([
                run.run_id.clone(),
                run.state.clone(),
                time(&run.started),
                time(&run.ended),
            ]);
        }
        format!("{head}\n{}", table.render())
    }
}

/// The result of activating the schedule.
pub enum Activated {
    /// A run was triggered and succeeded.
    Ran(BatchReport),
    Scheduled(ScheduleReport),
}

/// The schedule of one pipeline in Managed Airflow.
pub struct Schedule<'a> {
    config: &'a Config,
    mwaa: aws_sdk_mwaa::Client,
    api: AirflowApi,
    /// Id of the DAG.
    pub dag: String,
}

impl<'a> Schedule<'a> {
    /// Opens the schedule of the configured Airflow environment.
    ///
    /// # Errors
    /// The configuration has no schedule.
    pub async fn open(config: &'a Config) -> Result<Self> {
        check_target(config)?;
        let mwaa = mwaa(&sdk_config(config).await);
        Ok(Self { config, api: AirflowApi::of(config, mwaa.clone()), mwaa, dag: dag_id(config) })
    }

    /// Returns the DAG file.
    ///
    /// # Errors
    /// The Databricks credentials are missing; the current user cannot be determined.
    pub async fn rendered_dag(&self) -> Result<String> {
        let client = Databricks::open(self.config)?;
        Ok(rendered_dag(self.config, &scheduled_folder(&client, self.config).await?))
    }

    /// Calls the REST API of the environment.
    ///
    /// # Errors
    /// The environment does not exist; its REST API cannot be called.
    pub async fn check_environment(&self) -> Result<()> {
        self.api.get("/dags", json!({ "limit": 1 })).await?;
        Ok(())
    }

    /// Updates the connection and unpauses the DAG; with `trigger` runs it once and waits for it.
    ///
    /// # Errors
    /// Airflow cannot import the DAG; the run fails; the user interrupted the wait.
    pub async fn activate(&self, trigger: bool, printer: &Printer) -> Result<Activated> {
        let progress = printer.activity("Airflow");
        let work = async {
            let connection = Connection::new(self.config, self.mwaa.clone());
            match connection.find().await? {
                // Always updated, because Airflow does not return the token.
                Some(existing) if connection.is_managed(&existing) => connection.update().await?,
                Some(existing) => printer.warn(format!(
                    "Airflow's connection `databricks_default` is not managed by pinpipe: runs go to {}",
                    existing["host"].as_str().unwrap_or("no host")
                )),
                None => {}
            }
            match activate_dag(self.config, &self.api, &self.dag, trigger, &progress, printer)
                .await?
            {
                Some(report) => Ok(Activated::Ran(report)),
                None => schedule_report(self.config, &self.api, &self.dag)
                    .await
                    .map(Activated::Scheduled),
            }
        };
        let outcome = run_until_shutdown(work, interrupted).await;
        progress.finish();
        outcome
    }

    /// Pauses the DAG. Returns `false` if it does not exist in Airflow or is inactive.
    ///
    /// # Errors
    /// Airflow cannot be called.
    pub async fn pause(&self) -> Result<bool> {
        match self.api.patch(&self.path(), json!({ "is_paused": true })).await {
            Ok(dag) => Ok(is_active(&dag)),
            Err(refusal) if refusal.status == 404 => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Deletes the DAG and its runs from Airflow's database. Airflow refuses while a run is active,
    /// which is not an error: Airflow removes the DAG later.
    ///
    /// # Errors
    /// Airflow cannot be called; the user interrupts the command.
    pub async fn delete_history(&self) -> Result<()> {
        let delete = async {
            match self.api.delete(&self.path()).await {
                Err(refusal) if !matches!(refusal.status, 404 | 409) => Err(refusal.into()),
                _ => Ok(()),
            }
        };
        run_until_shutdown(delete, interrupted).await
    }

    fn path(&self) -> String {
        format!("/dags/{}", self.dag)
    }
}

fn check_target(config: &Config) -> Result<()> {
    if config.target == Target::Local {
        return Err(Error::usage("a schedule requires Managed Airflow, which is on AWS")
            .hint("`pinpipe init --target aws` writes a configuration for it; on this machine, cron can call `pinpipe batch`"));
    }
    if !config.has_schedule() {
        let key = if config.airflow.enabled { "schedule.enabled" } else { "airflow.enabled" };
        return Err(Error::usage(format!("`{key}` is false in the configuration"))
            .hint("set it to true; `pinpipe provision` then creates the Airflow environment, which costs by the hour"));
    }
    Ok(())
}

fn interrupted() -> Error {
    Error::interrupted("interrupted while waiting for Airflow")
        .hint("started runs continue there: `pinpipe batch schedule` shows them")
}

/// Waits until Airflow has loaded the DAG and unpauses it. With `trigger`, runs it and waits for
/// the results.
async fn activate_dag(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    trigger: bool,
    progress: &Progress,
    printer: &Printer,
) -> Result<Option<BatchReport>> {
    let path = format!("/dags/{dag}");
    let folder = scheduled_folder(&Databricks::open(config)?, config).await?;
    wait_until_loaded(config, api, dag, &description(config, &folder), progress).await?;
    api.patch(&path, json!({ "is_paused": false })).await?;
    if !trigger {
        return Ok(None);
    }
    // Counted before the run, so that objects that arrive later are not counted.
    let lake = lake_bucket(config);
    let objects =
        count_objects(&Lake::open(config, &lake, false).await?, &Layout::of(config)).await?;
    let now = Utc::now();
    let run_id = format!("pinpipe__{}", now.format("%Y-%m-%dT%H-%M-%S%.3f"));
    // Airflow 3 requires the logical date, Airflow 2 accepts it.
    let body = json!({ "dag_run_id": run_id, "logical_date": now.to_rfc3339_opts(SecondsFormat::Micros, true) });
    match api.post(&format!("{path}/dagRuns"), body).await {
        // 409: an earlier attempt started the run, but its response was lost.
        Err(refusal) if refusal.status != 409 => return Err(refusal.into()),
        _ => {}
    }
    printer.note(format!("started run `{run_id}`"));
    wait_for_run(config, api, dag, &run_id, progress).await?;
    let questions = sql::questions_of(config)?;
    let out = format!("{}/{}", answers_url(config, &lake), run_folder(&run_id));
    let report = fetch(config, &out, &lake, &questions).await?.of_objects(&objects);
    Ok(Some(BatchReport { seconds: (Utc::now() - now).as_seconds_f64(), ..report }))
}

/// Returns whether the DAG is active in Airflow.
fn is_active(dag: &Value) -> bool {
    // `is_active` in Airflow 2, `is_stale` in Airflow 3.
    dag["is_active"] != false && dag["is_stale"] != true
}

/// Waits until Airflow has loaded this version of the DAG. Airflow synchronises its bucket only
/// periodically.
async fn wait_until_loaded(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    description: &str,
    progress: &Progress,
) -> Result<()> {
    let timeout = Duration::from_secs(config.provision.operation_timeout_minutes * 60);
    let (began, began_at) = (Instant::now(), Utc::now());
    // An import error may belong to the previous version, until Airflow has loaded the new one.
    let margin =
        TimeDelta::milliseconds((config.provision.consistency_timeout_ms * 4).cast_signed());
    loop {
        match api.get(&format!("/dags/{dag}"), Value::Null).await {
            Ok(loaded)
                if is_active(&loaded)
                    && loaded["description"] == description
                    && loaded["has_import_errors"] != true =>
            {
                return Ok(());
            }
            Ok(_) => {}
            Err(refusal) if refusal.status == 404 => {}
            Err(refusal) => return Err(refusal.into()),
        }
        if let Some((stack_trace, raised_at)) = import_error(api, dag).await?
            && raised_at.is_none_or(|raised_at| raised_at > began_at + margin)
        {
            let last_line =
                stack_trace.trim().lines().last().unwrap_or("no reason given").to_string();
            let hint = if stack_trace.contains("airflow.providers") {
                "add `apache-airflow-providers-databricks` to `airflow.requirements` and wait until the environment has installed it"
            } else {
                "see the full error in the Airflow UI of the environment"
            };
            return Err(
                Error::failed(format!("Airflow cannot load `{dag}.py`: {last_line}")).hint(hint)
            );
        }
        if began.elapsed() > timeout {
            return Err(Error::failed(format!(
                "Airflow did not load `{dag}.py` within {} min",
                config.provision.operation_timeout_minutes
            ))
            .hint("check the Airflow UI of the environment, then re-run `pinpipe batch schedule` to wait again"));
        }
        progress.say(format!("waiting for Airflow to load `{dag}.py`"));
        tokio::time::sleep(Duration::from_millis(config.provision.poll_interval_ms)).await;
    }
}

/// Returns the stack trace and time of the import error of the DAG file, if there is one.
async fn import_error(
    api: &AirflowApi,
    dag: &str,
) -> Result<Option<(String, Option<DateTime<Utc>>)>> {
    let errors = api.get("/importErrors", json!({ "limit": 100 })).await?;
    let file = format!("/{dag}.py");
    let is_its = |error: &&Value| {
        error["filename"].as_str().is_some_and(|name| format!("/{name}").ends_with(&file))
    };
    let dag_error = errors["import_errors"].as_array().into_iter().flatten().find(is_its);
    let time = |error: &Value| {
        DateTime::parse_from_rfc3339(error["timestamp"].as_str()?).ok().map(|time| time.to_utc())
    };
    Ok(dag_error
        .map(|error| (error["stack_trace"].as_str().unwrap_or_default().to_string(), time(error))))
}

/// Waits until a run has succeeded.
///
/// # Errors
/// The run fails or exceeds the time of all its attempts; Airflow cannot be called.
async fn wait_for_run(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    run_id: &str,
    progress: &Progress,
) -> Result<()> {
    let (began, began_at) = (Instant::now(), Utc::now());
    // Time for all attempts, each of which may wait for another run.
    let attempts = config.schedule.retries + 1;
    let attempt_seconds =
        2 * 60 * config.databricks.timeout_minutes + config.schedule.retry_delay_seconds;
    let timeout = Duration::from_secs(
        u64::from(attempts) * u64::from(attempt_seconds)
            + config.provision.operation_timeout_minutes * 60,
    );
    loop {
        // Listed instead of read by id, because MWAA accepts paths of at most 64 characters.
        let response = api
            .get(&format!("/dags/{dag}/dagRuns"), json!({ "limit": 100, "order_by": "-id" }))
            .await?;
        if began.elapsed() > timeout {
            return Err(Error::failed(format!(
                "run `{run_id}` of `{dag}` has not finished after {} min",
                timeout.as_secs() / 60
            ))
            .hint("the run continues in Airflow: `pinpipe batch schedule` shows its state"));
        }
        let runs = response["dag_runs"].as_array().into_iter().flatten();
        let run = runs.clone().find(|run| run["dag_run_id"] == run_id);
        match run.and_then(|run| run["state"].as_str()).unwrap_or("not listed yet") {
            "success" => return Ok(()),
            "failed" => {
                let reason = failure_since(&Databricks::open(config)?, config, began_at).await?;
                return Err(Error::failed(format!(
                    "run `{run_id}` of `{dag}` failed{}",
                    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
                ))
                .hint(
                    "see the log of its task `batch` in the Airflow UI, which names the run on Databricks",
                ));
            }
            // When a DAG is unpaused, Airflow may start a scheduled run first.
            state => {
                let active = runs
                    .clone()
                    .find(|run| run["state"] == "running" && run["dag_run_id"] != run_id);
                let blocker = active
                    .and_then(|run| run["dag_run_id"].as_str())
                    .map(|other| format!(", after `{other}`"))
                    .unwrap_or_default();
                progress.say(format!(
                    "waiting for run `{run_id}`: {state}{blocker} ({} s)",
                    began.elapsed().as_secs()
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(config.provision.poll_interval_ms)).await;
    }
}

/// Reads the DAG and its most recent runs.
async fn schedule_report(config: &Config, api: &AirflowApi, dag: &str) -> Result<ScheduleReport> {
    let state = api.get(&format!("/dags/{dag}"), Value::Null).await?;
    let response = api
        .get(&format!("/dags/{dag}/dagRuns"), json!({ "limit": MAX_RUNS, "order_by": "-id" }))
        .await?;
    let text = |value: &Value| value.as_str().map(String::from);
    let time = |value: &Value| {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
        Some(time.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let runs = response["dag_runs"].as_array().into_iter().flatten().map(|run| DagRun {
        run_id: text(&run["dag_run_id"]).unwrap_or_default(),
        state: text(&run["state"]).unwrap_or_default(),
        started: time(&run["start_date"]),
        ended: time(&run["end_date"]),
    });
    Ok(ScheduleReport {
        dag: dag.into(),
        schedule: config.schedule.cron.clone(),
        is_paused: state["is_paused"] == true,
        runs: runs.collect(),
    })
}
