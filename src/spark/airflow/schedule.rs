//! `pinpipe batch schedule` and `unschedule`.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connection::Connection;
use super::dag::{dag_id, description, rendered_dag, run_folder};
use super::rest::AirflowApi;
use crate::batch::BatchReport;
use crate::config::{Config, Target, lake_bucket};
use crate::error::{Error, Result};
use crate::lake::{Lake, Layout, count_objects};
use crate::output::{Printer, Progress, Report, Table};
use crate::provision::{self, DestroyArguments, ProvisionArguments, Selection};
use crate::signals::or_stopped;
use crate::spark::databricks::{Databricks, failure_since, scheduled_folder};
use crate::spark::job::answers_url;
use crate::spark::results::fetch;
use crate::sql;

/// What `batch schedule` is told.
#[derive(Debug, Args, Default)]
pub struct ScheduleArguments {
    /// Print the DAG and change nothing
    #[arg(long, conflicts_with = "trigger")]
    pub print: bool,
    /// Start a run at once, wait for it, and print its answers
    #[arg(long)]
    pub trigger: bool,
}

/// Resources of `provision` that a schedule is made of, with Airflow itself.
const RESOURCES: [&str; 3] = ["databricks-job", "airflow-dag", "airflow-connection"];
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

#[derive(Debug, Serialize)]
struct Scheduled {
    dag: String,
    schedule: String,
    is_paused: bool,
    runs: Vec<DagRun>,
}

impl Report for Scheduled {
    fn text(&self) -> String {
        let state = if self.is_paused { "paused" } else { "on" };
        let head = format!("{}: {}, {state}", self.dag, self.schedule);
        if self.runs.is_empty() {
            return format!("{head}\nno runs yet; `pinpipe batch schedule --trigger` starts one");
        }
        let mut table = Table::new(["run", "state", "started", "ended"]);
        for run in &self.runs {
            let time = |time: &Option<String>| time.clone().unwrap_or_default();
            table.row([run.run_id.clone(), run.state.clone(), time(&run.started), time(&run.ended)]);
        }
        format!("{head}\n{}", table.render())
    }
}

#[derive(Debug, Serialize)]
struct Unscheduled {
    dag: String,
    removed: bool,
}

impl Report for Unscheduled {
    fn text(&self) -> String {
        if self.removed {
            format!(
                "`{}` is gone; answers of its runs stay in the bucket\n`pinpipe provision` makes it again unless `schedule.enabled` is false",
                self.dag
            )
        } else {
            format!("`{}` was not scheduled", self.dag)
        }
    }
}

fn check_target(config: &Config) -> Result<()> {
    if config.target == Target::Local {
        return Err(Error::usage("a schedule needs Managed Airflow, which is on AWS")
            .hint("`pinpipe init --target aws` writes a configuration for it; here, cron can call `pinpipe batch`"));
    }
    if !config.has_schedule() {
        let key = if config.airflow.enabled { "schedule.enabled" } else { "airflow.enabled" };
        return Err(Error::usage(format!("`{key}` is false in the configuration"))
            .hint("set it to true; `pinpipe provision` then makes the Airflow environment, which costs by the hour"));
    }
    Ok(())
}

fn selection() -> Selection {
    Selection { only: RESOURCES.map(String::from).to_vec(), skip: Vec::new() }
}

async fn mwaa(config: &Config) -> aws_sdk_mwaa::Client {
    crate::aws::mwaa(&crate::aws::sdk_config(config).await)
}

/// Puts job, DAG and connection where they belong, turns the DAG on, and shows its runs, or
/// runs it and shows the answers.
///
/// # Errors
/// No Airflow environment; no login for Databricks; Airflow cannot load the DAG; a run fails.
pub async fn schedule(config: &Config, arguments: &ScheduleArguments, printer: &Printer) -> Result<()> {
    check_target(config)?;
    if arguments.print {
        let client = Databricks::open(config)?;
        crate::output::write_out(&rendered_dag(config, &scheduled_folder(&client, config).await?));
        return Ok(());
    }
    let client = mwaa(config).await;
    let api = AirflowApi::of(config, client.clone());
    let dag = dag_id(config);
    // Asked first: where there is no environment, nothing should be put anywhere.
    api.get("/dags", json!({ "limit": 1 })).await?;
    let provisioning = ProvisionArguments { yes: true, selection: selection(), ..ProvisionArguments::default() };
    let made = provision::provision(config, &provisioning, printer).await?;
    printer.note(format!("{} of {} resources changed", made.changes(), RESOURCES.len()));
    let progress = printer.activity("Airflow");
    let work = async {
        let connection = Connection::new(config, client);
        match connection.find().await? {
            // Whether the token is another cannot be seen.
            Some(found) if connection.is_ours(&found) => connection.update().await?,
            Some(found) => printer.warn(format!(
                "somebody else made Airflow's connection `databricks_default`, to {}: runs go there",
                found["host"].as_str().unwrap_or("nowhere")
            )),
            None => {}
        }
        match turn_on(config, &api, &dag, arguments.trigger, &progress, printer).await? {
            Some(report) => Ok(Outcome::Ran(report)),
            None => shown(config, &api, &dag).await.map(Outcome::Shown),
        }
    };
    let outcome = or_stopped(work, stopped).await;
    progress.finish();
    match outcome? {
        Outcome::Ran(report) => printer.report(&report),
        Outcome::Shown(scheduled) => printer.report(&scheduled),
    }
    Ok(())
}

/// What came of `schedule`.
enum Outcome {
    Ran(BatchReport),
    Shown(Scheduled),
}

fn stopped() -> Error {
    Error::failed("stopped while waiting for Airflow").hint("what was begun goes on there: `pinpipe batch schedule` shows its runs")
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
    let objects = count_objects(&Lake::open(config, &lake, false).await?, &Layout::of(config)).await?;
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
    let report = fetch(config, &out, &lake, &questions).await?.of_objects(&objects);
    Ok(Some(BatchReport { seconds: (Utc::now() - now).as_seconds_f64(), ..report }))
}

/// Whether Airflow knows the DAG and would run it.
fn is_active(found: &Value) -> bool {
    // By its name in Airflow 2, and in 3.
    found["is_active"] != false && found["is_stale"] != true
}

/// Airflow looks into its bucket now and then: waits until it has read the DAG as it is now.
async fn known(config: &Config, api: &AirflowApi, dag: &str, description: &str, progress: &Progress) -> Result<()> {
    let longest = Duration::from_secs(config.provision.wait_minutes * 60);
    let (began, began_at) = (Instant::now(), Utc::now());
    // An error may be that of the file as it was before, until Airflow has fetched and read the new one.
    let margin = TimeDelta::milliseconds((config.provision.patience_ms * 4).cast_signed());
    loop {
        match api.get(&format!("/dags/{dag}"), Value::Null).await {
            Ok(found) if is_active(&found) && found["description"] == description && found["has_import_errors"] != true => return Ok(()),
            Ok(_) => {}
            Err(refusal) if refusal.status == 404 => {}
            Err(refusal) => return Err(refusal.into()),
        }
        if let Some((why, found_at)) = import_error(api, dag).await?
            && found_at.is_none_or(|found_at| found_at > began_at + margin)
        {
            let last = why.trim().lines().last().unwrap_or("no reason given").to_string();
            let hint = if why.contains("airflow.providers") {
                "`airflow.requirements` must hold apache-airflow-providers-databricks, and the environment have installed it"
            } else {
                "the environment's page shows the whole error"
            };
            return Err(Error::failed(format!("Airflow cannot load `{dag}.py`: {last}")).hint(hint));
        }
        if began.elapsed() > longest {
            return Err(Error::failed(format!("Airflow has not read `{dag}.py` within {} min", config.provision.wait_minutes))
                .hint("look at the environment's page; `pinpipe batch schedule` waits for it again"));
        }
        progress.say(format!("waiting until Airflow has read `{dag}.py`"));
        tokio::time::sleep(Duration::from_millis(config.provision.poll_ms)).await;
    }
}

/// What Airflow says of a file that it could not load, and when it tried.
async fn import_error(api: &AirflowApi, dag: &str) -> Result<Option<(String, Option<DateTime<Utc>>)>> {
    let errors = api.get("/importErrors", json!({ "limit": 100 })).await?;
    let file = format!("/{dag}.py");
    let is_its = |error: &&Value| error["filename"].as_str().is_some_and(|name| format!("/{name}").ends_with(&file));
    let found = errors["import_errors"].as_array().into_iter().flatten().find(is_its);
    let time = |error: &Value| DateTime::parse_from_rfc3339(error["timestamp"].as_str()?).ok().map(|time| time.to_utc());
    Ok(found.map(|error| (error["stack_trace"].as_str().unwrap_or_default().to_string(), time(error))))
}

/// Waits until a run is over.
async fn finished(config: &Config, api: &AirflowApi, dag: &str, run_id: &str, progress: &Progress) -> Result<()> {
    let (began, began_at) = (Instant::now(), Utc::now());
    // All attempts, each behind another run at worst.
    let attempts = config.schedule.retries + 1;
    let each = 2 * 60 * config.databricks.timeout_minutes + config.schedule.retry_delay_seconds;
    let longest = Duration::from_secs(u64::from(attempts) * u64::from(each) + config.provision.wait_minutes * 60);
    loop {
        // Listed, not asked for by its id: MWAA takes paths of at most 64 characters.
        let listed = api.get(&format!("/dags/{dag}/dagRuns"), json!({ "limit": 100, "order_by": "-id" })).await?;
        if began.elapsed() > longest {
            return Err(Error::failed(format!("run `{run_id}` of `{dag}` is not over after {} min", longest.as_secs() / 60))
                .hint("it goes on: `pinpipe batch schedule` shows how it does"));
        }
        let runs = listed["dag_runs"].as_array().into_iter().flatten();
        let run = runs.clone().find(|run| run["dag_run_id"] == run_id);
        match run.and_then(|run| run["state"].as_str()).unwrap_or("not listed yet") {
            "success" => return Ok(()),
            "failed" => {
                let why = failure_since(&Databricks::open(config)?, config, began_at).await?;
                return Err(Error::failed(format!(
                    "run `{run_id}` of `{dag}` failed{}",
                    why.map(|why| format!(": {why}")).unwrap_or_default()
                ))
                .hint("the log of its task `batch` on Airflow's page names the run on Databricks"));
            }
            // The first one that Airflow starts by itself, when a DAG is turned on, goes first.
            state => {
                let first = runs.clone().find(|run| run["state"] == "running" && run["dag_run_id"] != run_id);
                let behind =
                    first.and_then(|run| run["dag_run_id"].as_str()).map(|other| format!(", behind `{other}`")).unwrap_or_default();
                progress.say(format!("run `{run_id}` is {state}{behind} since {} s", began.elapsed().as_secs()));
            }
        }
        tokio::time::sleep(Duration::from_millis(config.provision.poll_ms)).await;
    }
}

/// The DAG and its runs.
async fn shown(config: &Config, api: &AirflowApi, dag: &str) -> Result<Scheduled> {
    let found = api.get(&format!("/dags/{dag}"), Value::Null).await?;
    let runs = api.get(&format!("/dags/{dag}/dagRuns"), json!({ "limit": SHOWN_RUNS, "order_by": "-id" })).await?;
    let text = |value: &Value| value.as_str().map(String::from);
    let time = |value: &Value| {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
        Some(time.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let runs = runs["dag_runs"].as_array().into_iter().flatten().map(|run| DagRun {
        run_id: text(&run["dag_run_id"]).unwrap_or_default(),
        state: text(&run["state"]).unwrap_or_default(),
        started: time(&run["start_date"]),
        ended: time(&run["end_date"]),
    });
    Ok(Scheduled { dag: dag.into(), schedule: config.schedule.cron.clone(), is_paused: found["is_paused"] == true, runs: runs.collect() })
}

/// Turns the DAG off and takes back what `schedule` put there; the connection stays with Airflow.
///
/// # Errors
/// Something cannot be removed.
pub async fn unschedule(config: &Config, printer: &Printer) -> Result<()> {
    check_target(config)?;
    let api = AirflowApi::of(config, mwaa(config).await);
    let dag = dag_id(config);
    let path = format!("/dags/{dag}");
    // First, so that no run begins while its files go.
    let was_known = match api.patch(&path, json!({ "is_paused": true })).await {
        Ok(found) => is_active(&found),
        Err(refusal) if refusal.status == 404 => false,
        Err(refusal) => return Err(refusal.into()),
    };
    let selection = Selection { only: vec![RESOURCES[0].into(), RESOURCES[1].into()], skip: Vec::new() };
    let removed = provision::destroy(config, &DestroyArguments { yes: true, data: false, selection }, printer).await?;
    if was_known {
        // Its history goes too; where a run is still going, Airflow forgets the DAG by itself later.
        let forget = async {
            match api.delete(&path).await {
                Err(refusal) if !matches!(refusal.status, 404 | 409) => Err(refusal.into()),
                _ => Ok(()),
            }
        };
        or_stopped(forget, stopped).await?;
    }
    printer.report(&Unscheduled { dag, removed: was_known || removed.removed_any() });
    Ok(())
}
