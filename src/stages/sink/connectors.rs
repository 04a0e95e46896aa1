//! Connectors of the local stack, which can be created, updated, paused, resumed, restarted and
//! deleted. Their definitions are stored in `connectors.json` and survive restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::base::config::data_dir::DataEntry;
use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::fs::{load_json, save_json};
use crate::clients::control::ConnectorStatus;
use crate::data::storage::Lake;
use crate::stages::sink::properties::SinkProperties;
use crate::stages::sink::task::{Task, TaskState};
use crate::stages::sink::writer::MAX_KEY_BYTES;

/// Time that a request waits for a task to start or stop. A task that takes longer, because the
/// lake or the broker does not respond, stops after its current call.
const TASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of the name of a file or folder.
const MAX_FILE_NAME_BYTES: usize = 255;

/// Stored definition of a connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Definition {
    config: BTreeMap<String, String>,
    paused: bool,
}

struct Running {
    state: Arc<TaskState>,
    /// Cancelled when the thread has ended.
    finished: CancellationToken,
}

struct Connector {
    definition: Definition,
    running: Option<Running>,
}

/// All connectors with their tasks.
#[derive(Default)]
struct Registry {
    connectors: BTreeMap<String, Connector>,
    /// The `finished` tokens of tasks that were told to stop, by connector. The next task of the
    /// connector waits for it: two tasks must not write the same objects.
    stopping: BTreeMap<String, CancellationToken>,
}

impl Registry {
    /// Tells the task of a connector to stop. Returns the token that is cancelled when the task
    /// has stopped, or `None` if no task runs.
    fn stop(&mut self, name: &str) -> Option<CancellationToken> {
        self.stopping.retain(|_, finished| !finished.is_cancelled());
        let Running { state, finished } = self.connectors.get_mut(name)?.running.take()?;
        state.stop.store(true, Ordering::Relaxed);
        self.stopping.insert(name.to_string(), finished.clone());
        Some(finished)
    }
}

/// All connectors of one process.
pub struct Connectors {
    config: Arc<Config>,
    path: PathBuf,
    /// Never held while a task starts or stops: one slow task must not block the other connectors.
    registry: Mutex<Registry>,
}

impl Connectors {
    /// Loads the stored connectors and starts those that are not paused.
    ///
    /// # Errors
    /// The definitions cannot be read.
    pub async fn open(config: &Config) -> Result<Arc<Self>> {
        let path = DataEntry::Connectors.path(&config.data_dir);
        let definitions: BTreeMap<String, Definition> = load_json(&path)?.unwrap_or_default();
        let manager = Self { config: Arc::new(config.clone()), path, registry: Mutex::default() };
        let started: Vec<CancellationToken> = {
            let mut registry = manager.lock();
            let names: Vec<String> = definitions.keys().cloned().collect();
            let connectors = definitions
                .into_iter()
                .map(|(name, definition)| (name, Connector { definition, running: None }));
            registry.connectors.extend(connectors);
            names.iter().filter_map(|name| manager.start(name, &mut registry)).collect()
        };
        wait_for(&started).await;
        Ok(Arc::new(manager))
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Creates a connector, or replaces the properties of an existing one. Returns `true` if it is
    /// new.
    ///
    /// # Errors
    /// A property is missing, invalid or not supported; `store.url` is not the server of the
    /// configuration; the definitions cannot be stored.
    pub async fn put(&self, name: &str, config: BTreeMap<String, String>) -> Result<bool> {
        self.check(&config)?;
        let (is_new, changed) = {
            let mut registry = self.lock();
            let paused =
                registry.connectors.get(name).is_some_and(|connector| connector.definition.paused);
            let definition = Definition { config, paused };
            // Stored first, so that a failure here leaves the connector unchanged.
            self.save(&registry.connectors, Some((name, &definition)))?;
            let stopped = registry.stop(name);
            let connector = Connector { definition, running: None };
            let is_new = registry.connectors.insert(name.to_string(), connector).is_none();
            (is_new, self.start(name, &mut registry).or(stopped))
        };
        wait_for(changed.as_slice()).await;
        Ok(is_new)
    }

    fn check(&self, config: &BTreeMap<String, String>) -> Result<()> {
        let properties = SinkProperties::parse(config)?;
        let lake_url = self.config.endpoints().lake_url();
        check_store_url(&properties, &lake_url, &self.config.lake.endpoint_url)
    }

    /// Stops and deletes a connector. Its objects are kept. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// The definitions cannot be stored; then the connector is unchanged.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        let stopped = {
            let mut registry = self.lock();
            if !registry.connectors.contains_key(name) {
                return Ok(false);
            }
            let remaining = registry
                .connectors
                .iter()
                .filter(|(other, _)| *other != name)
                .map(|(other, connector)| (other.as_str(), &connector.definition));
            save_json(&self.path, &remaining.collect::<BTreeMap<_, _>>())?;
            let stopped = registry.stop(name);
            registry.connectors.remove(name);
            stopped
        };
        wait_for(stopped.as_slice()).await;
        Ok(true)
    }

    /// Pauses or resumes a connector. Returns `false` if it does not exist.
    ///
    /// # Errors
    /// The definitions cannot be stored; then the connector is unchanged.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<bool> {
        let changed = {
            let mut registry = self.lock();
            let Some(definition) = registry
                .connectors
                .get(name)
                .map(|connector| Definition { paused, ..connector.definition.clone() })
            else {
                return Ok(false);
            };
            self.save(&registry.connectors, Some((name, &definition)))?;
            let Some(connector) = registry.connectors.get_mut(name) else {
                return Ok(false);
            };
            connector.definition = definition;
            let is_running = connector.running.is_some();
            match (paused, is_running) {
                (true, _) => registry.stop(name),
                (false, true) => None,
                (false, false) => self.start(name, &mut registry),
            }
        };
        wait_for(changed.as_slice()).await;
        Ok(true)
    }

    /// Restarts the task of a connector. Returns `false` if the connector does not exist.
    pub async fn restart(&self, name: &str) -> bool {
        let changed = {
            let mut registry = self.lock();
            if !registry.connectors.contains_key(name) {
                return false;
            }
            let stopped = registry.stop(name);
            self.start(name, &mut registry).or(stopped)
        };
        wait_for(changed.as_slice()).await;
        true
    }

    /// Returns the properties of a connector.
    pub fn config(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.lock().connectors.get(name).map(|connector| connector.definition.config.clone())
    }

    /// Returns the status of each connector, ordered by name.
    pub fn statuses(&self) -> Vec<ConnectorStatus> {
        self.lock().connectors.iter().map(|(name, connector)| status(name, connector)).collect()
    }

    /// Returns the status of a connector.
    pub fn status(&self, name: &str) -> Option<ConnectorStatus> {
        self.lock().connectors.get(name).map(|connector| status(name, connector))
    }

    /// Stops all tasks; waits for them at most [`TASK_TIMEOUT`]. The next run of the local stack
    /// starts them again.
    pub async fn stop_all(&self) {
        let stopped: Vec<CancellationToken> = {
            let mut registry = self.lock();
            let names: Vec<String> = registry.connectors.keys().cloned().collect();
            names.iter().filter_map(|name| registry.stop(name)).collect()
        };
        wait_for(&stopped).await;
    }

    /// Stores the definitions of all connectors; `changed` is added or replaced.
    fn save(
        &self,
        connectors: &BTreeMap<String, Connector>,
        changed: Option<(&str, &Definition)>,
    ) -> Result<()> {
        let mut definitions: BTreeMap<&str, &Definition> = connectors
            .iter()
            .map(|(name, connector)| (name.as_str(), &connector.definition))
            .collect();
        definitions.extend(changed);
        save_json(&self.path, &definitions)
    }

    /// Starts the task of a connector that is not paused, on a thread of its own. Returns the token
    /// that is cancelled when the task reads its first records or has failed to start.
    fn start(&self, name: &str, registry: &mut Registry) -> Option<CancellationToken> {
        let previous = registry.stopping.get(name).cloned();
        let connector = registry.connectors.get_mut(name)?;
        if connector.definition.paused {
            return None;
        }
        let task_state: Arc<TaskState> = Arc::default();
        let (started, finished) = (CancellationToken::new(), CancellationToken::new());
        connector.running = Some(Running { state: task_state.clone(), finished: finished.clone() });
        let (started_guard, finished_guard) = (started.clone().drop_guard(), finished.drop_guard());
        let (config, name) = (self.config.clone(), name.to_string());
        let properties = connector.definition.config.clone();
        let (runtime, thread_state) = (tokio::runtime::Handle::current(), task_state.clone());
        let thread = std::thread::Builder::new().name("sink".into()).spawn(move || {
            let _finished = finished_guard;
            let task = runtime.block_on(async {
                if let Some(previous) = previous {
                    previous.cancelled().await;
                }
                create_task(&config, &name, &properties, thread_state.clone()).await
            });
            match task {
                Ok(task) => {
                    tracing::info!(connector = name, "started the sink task");
                    drop(started_guard);
                    task.run();
                }
                Err(error) => {
                    record_failure(&thread_state, error.to_string());
                    drop(started_guard);
                }
            }
        });
        if let Err(error) = thread {
            record_failure(&task_state, format!("cannot start a thread: {error}"));
        }
        Some(started)
    }
}

/// Waits until all tokens are cancelled, at most [`TASK_TIMEOUT`].
async fn wait_for(tokens: &[CancellationToken]) {
    let all = futures::future::join_all(tokens.iter().map(|token| token.cancelled()));
    if tokio::time::timeout(TASK_TIMEOUT, all).await.is_err() {
        tracing::warn!(
            seconds = TASK_TIMEOUT.as_secs(),
            "a sink task did not start or stop in time; it continues in the background"
        );
    }
}

fn record_failure(state: &TaskState, reason: String) {
    *state.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(reason);
}

async fn create_task(
    config: &Config,
    name: &str,
    properties: &BTreeMap<String, String>,
    state: Arc<TaskState>,
) -> Result<Task> {
    let properties = SinkProperties::parse(properties)?;
    let Destination { store, root, max_name_bytes } = destination(config, &properties).await?;
    let consumer = crate::clients::kafka::consumer(config, &group(name))?;
    Ok(Task {
        consumer,
        store,
        root,
        max_name_bytes,
        properties,
        state,
        runtime: tokio::runtime::Handle::current(),
    })
}

/// Checks that `store.url`, if it is set, is the server of the configured lake, which is
/// `endpoint_url`, the value of `lake.endpoint_url`. The sink sends records and credentials of the
/// user there, so a request to the control interface must not choose another server.
fn check_store_url(properties: &SinkProperties, lake_url: &str, endpoint_url: &str) -> Result<()> {
    let Some(store_url) = &properties.store_url else {
        return Ok(());
    };
    if !lake_url.starts_with("s3://") {
        return Err(Error::usage(format!(
            "`store.url` requires a bucket in `lake.url`, got the folder `{lake_url}`"
        ))
        .hint("set `lake.url` to `s3://BUCKET`, so that batch reads what the sink writes"));
    }
    if store_url.trim_end_matches('/') == endpoint_url.trim_end_matches('/') {
        return Ok(());
    }
    let expected = match endpoint_url {
        "" => "no value, because `lake.endpoint_url` is not set".to_string(),
        url => format!("`{url}`, the value of `lake.endpoint_url`"),
    };
    Err(Error::usage(format!("`store.url`: expected {expected}, got `{store_url}`"))
        .hint("set `lake.endpoint_url` in the configuration, or remove `store.url`"))
}

/// The store that a task writes to.
struct Destination {
    store: Arc<dyn object_store::ObjectStore>,
    /// Path in the store at which the paths of the bucket begin.
    root: Path,
    /// Maximum length of a path segment.
    max_name_bytes: usize,
}

/// Returns the destination of a connector: S3 if `lake.url` is a bucket, else a folder of the lake.
async fn destination(config: &Config, properties: &SinkProperties) -> Result<Destination> {
    let lake_url = config.endpoints().lake_url();
    // Checked again, because the configuration may have changed since the connector was stored.
    check_store_url(properties, &lake_url, &config.lake.endpoint_url)?;
    let Some(bucket) = lake_url.strip_prefix("s3://").map(|bucket| bucket.trim_end_matches('/'))
    else {
        return folder(config, &lake_url, properties).await;
    };
    if bucket != properties.bucket {
        return Err(Error::usage(format!(
            "expected the same bucket in `s3.bucket.name` and `lake.url`, got `{}` and \
             `{lake_url}`",
            properties.bucket
        ))
        .hint("set both to the same bucket"));
    }
    Ok(Destination {
        store: Lake::bucket(config, &properties.bucket).await?,
        root: Path::default(),
        max_name_bytes: MAX_KEY_BYTES,
    })
}

/// Returns the bucket's folder in the lake.
async fn folder(
    config: &Config,
    lake_url: &str,
    properties: &SinkProperties,
) -> Result<Destination> {
    let folder = PathBuf::from(lake_url).join(&properties.bucket);
    let lake = Lake::open(config, &folder.to_string_lossy(), true).await?;
    Ok(Destination { store: lake.store, root: lake.root, max_name_bytes: MAX_FILE_NAME_BYTES })
}

/// Returns the consumer group of a connector, named as Kafka Connect names it.
pub fn group(connector: &str) -> String {
    format!("connect-{connector}")
}

fn status(name: &str, connector: &Connector) -> ConnectorStatus {
    let failure = connector.running.as_ref().and_then(|running| {
        let failure =
            running.state.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        failure.or_else(|| {
            running
                .finished
                .is_cancelled()
                .then(|| "the task exited unexpectedly; see the log for the cause".to_string())
        })
    });
    let state = match (&failure, connector.definition.paused) {
        (Some(_), _) => "FAILED",
        (None, true) => "PAUSED",
        (None, false) => "RUNNING",
    };
    let count = |read: fn(&TaskState) -> u64| {
        connector.running.as_ref().map_or(0, |running| read(&running.state))
    };
    ConnectorStatus {
        name: name.to_string(),
        state: state.to_string(),
        trace: failure,
        records: count(|state| state.records.load(Ordering::Relaxed)),
        objects: count(|state| state.objects.load(Ordering::Relaxed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running_connector() -> (Connector, CancellationToken) {
        let finished = CancellationToken::new();
        let running = Running { state: Arc::default(), finished: finished.clone() };
        let definition = Definition { config: BTreeMap::new(), paused: false };
        (Connector { definition, running: Some(running) }, finished)
    }

    #[test]
    fn accepts_only_the_configured_server_as_store_url() {
        let is_accepted = |lake_url: &str, endpoint_url: &str, store_url: Option<&str>| {
            let mut properties: BTreeMap<String, String> = [
                ("connector.class", "S3SinkConnector"),
                ("topics", "t"),
                ("s3.bucket.name", "b"),
                ("flush.size", "1"),
            ]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into();
            properties.extend(store_url.map(|url| ("store.url".to_string(), url.to_string())));
            let properties = SinkProperties::parse(&properties).expect("valid properties");
            check_store_url(&properties, lake_url, endpoint_url).is_ok()
        };
        let server = "http://minio:9000";
        assert!(is_accepted("s3://b", "", None));
        assert!(is_accepted("s3://b", server, None));
        assert!(is_accepted("s3://b", server, Some("http://minio:9000/")));
        assert!(!is_accepted("s3://b", server, Some("http://evil.example")));
        assert!(!is_accepted("s3://b", server, Some("http://minio:9000.evil.example")));
        assert!(!is_accepted("s3://b", "", Some("http://evil.example")));
        assert!(is_accepted(".pinpipe/lake", "", None));
        assert!(!is_accepted(".pinpipe/lake", server, Some(server)), "the lake is a folder");
    }

    #[test]
    fn remembers_a_task_until_it_has_stopped() {
        let (connector, finished) = running_connector();
        let mut registry = Registry::default();
        registry.connectors.insert("c".into(), connector);
        assert_eq!(registry.stop("c").map(|token| token.is_cancelled()), Some(false));
        assert!(registry.stop("c").is_none(), "no second task runs");
        assert!(registry.stopping.contains_key("c"), "the next task has to wait for this one");
        finished.cancel();
        assert!(registry.stop("c").is_none());
        assert!(registry.stopping.is_empty(), "nothing is left to wait for");
    }

    #[tokio::test]
    async fn waits_a_limited_time_for_a_task_that_does_not_stop() {
        let begin = std::time::Instant::now();
        wait_for(&[CancellationToken::new()]).await;
        assert!(begin.elapsed() >= TASK_TIMEOUT);
    }
}
