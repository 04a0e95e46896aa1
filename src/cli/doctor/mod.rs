//! `pinpipe doctor`: test every connection of the configuration.

pub mod aws;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::base::config::endpoints::lake_bucket;
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result, io_error};
use crate::base::fs::write_atomic;
use crate::base::model::Kind;
use crate::base::output::table::thousands;
use crate::base::output::{Printer, Report};
use crate::clients::control::ControlClient;
use crate::clients::database::connect::{Access, Database};
use crate::clients::gateway::GatewayClient;
use crate::clients::kafka::admin::Admin;
use crate::data::storage::Lake;
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::open_clean_table;

/// Timeout of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// Result of one check.
#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// The tested object, or the error.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Report of `pinpipe doctor`.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Returns the number of checks that failed.
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.ok).count()
    }
}

impl Report for DoctorReport {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (position, check) in self.checks.iter().enumerate() {
            let sign = if check.ok { '✔' } else { '✖' };
            // Several checks often fail for the same cause, which is printed once.
            let same = self.checks[..position]
                .iter()
                .find(|earlier| !check.ok && !earlier.ok && earlier.detail == check.detail);
            let detail = match same {
                Some(earlier) => format!("same error as {}", earlier.name),
                None => check.detail.clone(),
            };
            lines.push(format!("{sign} {:10} {detail}", check.name));
            if let Some(hint) = check.hint.as_ref().filter(|_| same.is_none()) {
                lines.push(format!("             hint: {hint}"));
            }
        }
        lines.join("\n")
    }
}

async fn check(name: &str, test: impl Future<Output = Result<String>>) -> Check {
    let outcome = match tokio::time::timeout(CHECK_TIMEOUT, test).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::failed(format!("no response within {} s", CHECK_TIMEOUT.as_secs()))
            .hint("check the address, the network and firewalls")),
    };
    match outcome {
        Ok(detail) => Check { name: name.into(), ok: true, detail, hint: None },
        Err(error) => Check {
            name: name.into(),
            ok: false,
            detail: error.to_string(),
            hint: error.hint_text().map(String::from),
        },
    }
}

/// Runs all checks and prints them.
///
/// # Errors
/// A check failed.
pub async fn run(config: &Config, printer: &Printer) -> Result<()> {
    let progress = printer.activity("testing the connections");
    let report = run_checks(config).await;
    progress.finish();
    printer.report(&report);
    match report.failed() {
        0 => Ok(()),
        failed => Err(Error::failed(format!("{failed} of {} checks failed", report.checks.len()))),
    }
}

async fn run_checks(config: &Config) -> DoctorReport {
    let (folder, database, kafka, gateway, kinesis, lake, tables) = tokio::join!(
        check("data", data_dir(config)),
        check("database", database(config)),
        check("kafka", kafka(config)),
        check("gateway", gateway(config)),
        check("kinesis", kinesis(config)),
        check("lake", lake(config)),
        check("tables", tables(config)),
    );
    let mut checks = vec![folder, database, kafka, gateway, kinesis, lake, tables];
    match config.target {
        Target::Local => checks.push(check("control", control(config)).await),
        Target::Aws => checks.extend(aws::checks(config).await),
    }
    DoctorReport { checks }
}

async fn data_dir(config: &Config) -> Result<String> {
    let folder = &config.data_dir;
    let probe = folder.join(".doctor");
    let existed = folder.exists();
    std::fs::create_dir_all(folder)
        .and_then(|()| write_atomic(&probe, b"x"))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| io_error("write to", folder, error))?;
    if !existed {
        // Fails if another process has begun to use the folder.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(format!("{} is writable", folder.display()))
}

async fn database(config: &Config) -> Result<String> {
    let posts = Database::connect(config, Access::ReadOnly).await?.require_posts().await?.len();
    Ok(format!("{} posts", thousands(posts as u64)))
}

/// Fails if any topic or stream of the pipeline does not exist, because other commands would fail.
fn check_all_exist(server: &str, what: &str, names: &[String], existing: &[String]) -> Result<()> {
    match names.iter().find(|name| !existing.contains(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Error::failed(format!("{server} responds, but {what} `{name}` does not exist"))
                .hint(format!("run `pinpipe provision` to create the {what}")))
        }
    }
}

async fn kafka(config: &Config) -> Result<String> {
    let topics = Admin::new(config)?.list().await?;
    let brokers = config.endpoints().bootstrap_servers()?;
    check_all_exist(&brokers, "topic", &Kind::ALL.map(|kind| config.topic(kind)), &topics)?;
    Ok(format!("{brokers}: {} topics", topics.len()))
}

async fn gateway(config: &Config) -> Result<String> {
    let client = GatewayClient::new(config, CHECK_TIMEOUT, 1).await?;
    let response = client.send(reqwest::Method::GET, "/brokers", None).await?;
    let url = client.url();
    match response.status().as_u16() {
        200 => Ok(format!("{url} responds")),
        403 if config.target == Target::Local => {
            Err(Error::failed(format!("{url} responds, but no routes are deployed"))
                .hint("run `pinpipe provision` or `pinpipe api deploy`"))
        }
        401 | 403 => Err(Error::failed(format!("{url} denies access"))
            .hint("set PINPIPE_GATEWAY_API_KEY in the environment or `.env`")),
        status => Err(Error::failed(format!("{url} responds with HTTP {status}")).hint(
            "check that `gateway.url` ends with the stage and that the REST proxy is running",
        )),
    }
}

async fn kinesis(config: &Config) -> Result<String> {
    let output = crate::clients::aws::kinesis(config)
        .await?
        .list_streams()
        .send()
        .await
        .map_err(|error| crate::clients::aws::call::failure("cannot list streams", &error))?;
    let streams = output.stream_names();
    // A long list has several pages, so a stream that is not on the first page may exist.
    if !output.has_more_streams() {
        let names = Kind::ALL.map(|kind| config.stream_name(kind));
        check_all_exist("the endpoint", "stream", &names, streams)?;
    }
    Ok(format!("{} streams", streams.len()))
}

/// Whether a folder exists. Returns `true` for a bucket, which is not checked here.
///
/// # Errors
/// The folder cannot be read, so it is unknown whether it exists.
fn exists(url: &str) -> Result<bool> {
    if url.starts_with("s3://") {
        return Ok(true);
    }
    match std::fs::read_dir(url) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("read", Path::new(url), error)),
    }
}

async fn lake(config: &Config) -> Result<String> {
    let url = lake_bucket(config);
    // The sink creates the folder with its first object.
    if !exists(&url)? {
        return Ok(format!("{url} is empty"));
    }
    let lake = Lake::open(config, &url, false).await?;
    let layout = crate::data::lake::objects::Layout::of(config);
    let objects =
        crate::data::lake::objects::count_objects(&lake, &layout).await?.into_iter().sum();
    Ok(format!("{url}: {} objects", thousands(objects)))
}

async fn tables(config: &Config) -> Result<String> {
    let url = config.endpoints().tables_url();
    if !exists(&url)? {
        return Ok(format!("{url} is empty"));
    }
    let table = open_clean_table(config, TableNamespace::Batch, Kind::Pin).await?;
    let state = if table.provider().await?.is_some() { "exists" } else { "does not exist yet" };
    Ok(format!("{} {state}", table.name()))
}

async fn control(config: &Config) -> Result<String> {
    let client = ControlClient::new(config)?;
    let name = config.connector_name();
    match client.connector_status(&name).await? {
        Some(status) if status.state == "FAILED" => Err(Error::failed(format!(
            "connector `{name}` has failed: {}",
            status.trace.unwrap_or_default()
        ))
        .hint("fix the cause, then run `pinpipe connector restart`")),
        Some(status) => Ok(format!("connector `{name}` is {}", status.state)),
        None => Err(Error::failed(format!("connector `{name}` does not exist"))
            .hint("run `pinpipe provision` or `pinpipe connector create` to create it")),
    }
}
