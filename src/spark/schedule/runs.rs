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

/// Runs that are shown, the newest first.
const SHOWN_RUNS: u32 = 10;

/// One run of the DAG.
#[derive(Debug, Serialize)]
struct DagRun {
    run_id: String,
    state: String,
    started: Option<String>,
    ended: Option<String>,
}

/// The DAG and its latest runs.
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
    /// # Errors
    /// The configuration has no schedule.
    pub async fn open(config: &'a Config) -> Result<Self> {
        check_target(config)?;
        let mwaa = mwaa(&sdk_config(config).await);
        Ok(Self {
            config,
            api: AirflowApi::of(config, mwaa.clone()),
            mwaa,
            dag: dag_id(config),
        })
    }

    /// The text of the DAG.
    ///
    /// # Errors
    /// No Databricks credentials.
    pub async fn rendered_dag(&self) -> Result<String> {
        let client = Databricks::open(self.config)?;
        Ok(rendered_dag(
            self.config,
            &scheduled_folder(&client, self.config).await?,
        ))
    }

    /// # Errors
    /// The environment does not exist, or its REST API cannot be called.
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
                // Airflow does not reveal whether the token differs.
                Some(found) if connection.is_ours(&found) => connection.update().await?,
                Some(found) => printer.warn(format!(
                    "Airflow's connection `databricks_default` is not managed by pinpipe: runs go to {}",
                    found["host"].as_str().unwrap_or("no host")
                )),
                None => {}
            }
            match turn_on(
                self.config,
                &self.api,
                &self.dag,
                trigger,
                &progress,
                printer,
            )
            .await?
            {
                Some(report) => Ok(Activated::Ran(report)),
                None => shown(self.config, &self.api, &self.dag)
                    .await
                    .map(Activated::Scheduled),
            }
        };
        let outcome = run_until_shutdown(work, interrupted).await;
        progress.finish();
        outcome
    }

    /// Pauses the DAG. `false`: Airflow does not have it.
    ///
    /// # Errors
    /// Airflow cannot be called.
    pub async fn pause(&self) -> Result<bool> {
        match self
            .api
            .patch(&self.path(), json!({ "is_paused": true }))
            .await
        {
            Ok(found) => Ok(is_active(&found)),
            Err(refusal) if refusal.status == 404 => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Deletes the runs from Airflow's history. While a run is still active Airflow refuses,
    /// and drops the DAG by itself later.
    ///
    /// # Errors
    /// Airflow cannot be called; the user interrupted it.
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
        let key = if config.airflow.enabled {
            "schedule.enabled"
        } else {
            "airflow.enabled"
        };
        return Err(Error::usage(format!("`{key}` is false in the configuration"))
            .hint("set it to true; `pinpipe provision` then creates the Airflow environment, which costs by the hour"));
    }
    Ok(())
}

fn interrupted() -> Error {
    Error::failed("interrupted while waiting for Airflow")
        .hint("started runs continue there: `pinpipe batch schedule` shows them")
}

/// Waits until Airflow knows the DAG, turns it on, and runs it where that was asked for.
async fn turn_on(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    trigger: bool,
    progress: &Progress,
    printer: &Printer,
) -> Result<Option<BatchReport>> {
    let path = format!("/dags/{dag}");
    let folder = scheduled_folder(&Databricks::open(config)?, config).await?;
    known(config, api, dag, &description(config, &folder), progress).await?;
    api.patch(&path, json!({ "is_paused": false })).await?;
    if !trigger {
        return Ok(None);
    }
    // Before the run, which reads no more than these.
    let lake = lake_bucket(config);
    let objects = count_objects(
        &Lake::open(config, &lake, false).await?,
        &Layout::of(config),
    )
    .await?;
    let now = Utc::now();
    let run_id = format!("pinpipe__{}", now.format("%Y-%m-%dT%H-%M-%S%.3f"));
    // Newer versions of Airflow want the date, older ones take it.
    let body = json!({ "dag_run_id": run_id, "logical_date": now.to_rfc3339_opts(SecondsFormat::Micros, true) });
    match api.post(&format!("{path}/dagRuns"), body).await {
        // An attempt whose answer got lost had its effect.
        Err(refusal) if refusal.status != 409 => return Err(refusal.into()),
        _ => {}
    }
    printer.note(format!("started run `{run_id}`"));
    finished(config, api, dag, &run_id, progress).await?;
    let questions = sql::questions_of(config)?;
    let out = format!("{}/{}", answers_url(config, &lake), run_folder(&run_id));
    let report = fetch(config, &out, &lake, &questions)
        .await?
        .of_objects(&objects);
    Ok(Some(BatchReport {
        seconds: (Utc::now() - now).as_seconds_f64(),
        ..report
    }))
}

/// Whether Airflow knows the DAG and would run it.
fn is_active(found: &Value) -> bool {
    // By its name in Airflow 2, and in 3.
    found["is_active"] != false && found["is_stale"] != true
}

/// Airflow looks into its bucket now and then: waits until it has read the DAG as it is now.
async fn known(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    description: &str,
    progress: &Progress,
) -> Result<()> {
    let longest = Duration::from_secs(config.provision.wait_minutes * 60);
    let (began, began_at) = (Instant::now(), Utc::now());
    // An error may be that of the file as it was before, until Airflow has fetched and read the new one.
    let margin = TimeDelta::milliseconds((config.provision.patience_ms * 4).cast_signed());
    loop {
        match api.get(&format!("/dags/{dag}"), Value::Null).await {
            Ok(found)
                if is_active(&found)
                    && found["description"] == description
                    && found["has_import_errors"] != true =>
            {
                return Ok(());
            }
            Ok(_) => {}
            Err(refusal) if refusal.status == 404 => {}
            Err(refusal) => return Err(refusal.into()),
        }
        if let Some((why, found_at)) = import_error(api, dag).await?
            && found_at.is_none_or(|found_at| found_at > began_at + margin)
        {
            let last = why
                .trim()
                .lines()
                .last()
                .unwrap_or("no reason given")
                .to_string();
            let hint = if why.contains("airflow.providers") {
                "`airflow.requirements` must hold apache-airflow-providers-databricks, and the environment have installed it"
            } else {
                "the environment's page shows the whole error"
            };
            return Err(
                Error::failed(format!("Airflow cannot load `{dag}.py`: {last}")).hint(hint),
            );
        }
        if began.elapsed() > longest {
            return Err(Error::failed(format!(
                "Airflow has not read `{dag}.py` within {} min",
                config.provision.wait_minutes
            ))
            .hint("look at the environment's page; `pinpipe batch schedule` waits for it again"));
        }
        progress.say(format!("waiting until Airflow has read `{dag}.py`"));
        tokio::time::sleep(Duration::from_millis(config.provision.poll_ms)).await;
    }
}

/// What Airflow says of a file that it could not load, and when it tried.
async fn import_error(
    api: &AirflowApi,
    dag: &str,
) -> Result<Option<(String, Option<DateTime<Utc>>)>> {
    let errors = api.get("/importErrors", json!({ "limit": 100 })).await?;
    let file = format!("/{dag}.py");
    let is_its = |error: &&Value| {
        error["filename"]
            .as_str()
            .is_some_and(|name| format!("/{name}").ends_with(&file))
    };
    let found = errors["import_errors"]
        .as_array()
        .into_iter()
        .flatten()
        .find(is_its);
    let time = |error: &Value| {
        DateTime::parse_from_rfc3339(error["timestamp"].as_str()?)
            .ok()
            .map(|time| time.to_utc())
    };
    Ok(found.map(|error| {
        (
            error["stack_trace"]
                .as_str()
                .unwrap_or_default()
                .to_string(),
            time(error),
        )
    }))
}

/// Waits until a run is over.
async fn finished(
    config: &Config,
    api: &AirflowApi,
    dag: &str,
    run_id: &str,
    progress: &Progress,
) -> Result<()> {
    let (began, began_at) = (Instant::now(), Utc::now());
    // All attempts, each behind another run at worst.
    let attempts = config.schedule.retries + 1;
    let each = 2 * 60 * config.databricks.timeout_minutes + config.schedule.retry_delay_seconds;
    let longest = Duration::from_secs(
        u64::from(attempts) * u64::from(each) + config.provision.wait_minutes * 60,
    );
    loop {
        // Listed, not asked for by its id: MWAA takes paths of at most 64 characters.
        let listed = api
            .get(
                &format!("/dags/{dag}/dagRuns"),
                json!({ "limit": 100, "order_by": "-id" }),
            )
            .await?;
        if began.elapsed() > longest {
            return Err(Error::failed(format!(
                "run `{run_id}` of `{dag}` is not over after {} min",
                longest.as_secs() / 60
            ))
            .hint("it goes on: `pinpipe batch schedule` shows how it does"));
        }
        let runs = listed["dag_runs"].as_array().into_iter().flatten();
        let run = runs.clone().find(|run| run["dag_run_id"] == run_id);
        match run
            .and_then(|run| run["state"].as_str())
            .unwrap_or("not listed yet")
        {
            "success" => return Ok(()),
            "failed" => {
                let why = failure_since(&Databricks::open(config)?, config, began_at).await?;
                return Err(Error::failed(format!(
                    "run `{run_id}` of `{dag}` failed{}",
                    why.map(|why| format!(": {why}")).unwrap_or_default()
                ))
                .hint(
                    "the log of its task `batch` on Airflow's page names the run on Databricks",
                ));
            }
            // The first one that Airflow starts by itself, when a DAG is turned on, goes first.
            state => {
                let first = runs
                    .clone()
                    .find(|run| run["state"] == "running" && run["dag_run_id"] != run_id);
                let behind = first
                    .and_then(|run| run["dag_run_id"].as_str())
                    .map(|other| format!(", behind `{other}`"))
                    .unwrap_or_default();
                progress.say(format!(
                    "run `{run_id}` is {state}{behind} since {} s",
                    began.elapsed().as_secs()
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(config.provision.poll_ms)).await;
    }
}

/// The DAG and its runs.
async fn shown(config: &Config, api: &AirflowApi, dag: &str) -> Result<ScheduleReport> {
    let found = api.get(&format!("/dags/{dag}"), Value::Null).await?;
    let runs = api
        .get(
            &format!("/dags/{dag}/dagRuns"),
            json!({ "limit": SHOWN_RUNS, "order_by": "-id" }),
        )
        .await?;
    let text = |value: &Value| value.as_str().map(String::from);
    let time = |value: &Value| {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
        Some(time.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let runs = runs["dag_runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| DagRun {
            run_id: text(&run["dag_run_id"]).unwrap_or_default(),
            state: text(&run["state"]).unwrap_or_default(),
            started: time(&run["start_date"]),
            ended: time(&run["end_date"]),
        });
    Ok(ScheduleReport {
        dag: dag.into(),
        schedule: config.schedule.cron.clone(),
        is_paused: found["is_paused"] == true,
        runs: runs.collect(),
    })
}
