//! Connectors of the local stack, which can be created, updated, paused, resumed, restarted and
//! deleted. Their definitions are stored in `connectors.json` and survive restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::base::config::data_dir::DataEntry;
use crate::base::config::schema::Config;
use crate::base::error::{Error, Result};
use crate::base::fs::{load_json, save_json};
use crate::clients::control::ConnectorStatus;
use crate::data::storage::Lake;
use crate::stages::sink::properties::SinkProperties;
use crate::stages::sink::task::{Task, TaskState};

/// Stored definition of a connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Definition {
    config: BTreeMap<String, String>,
    paused: bool,
}

struct Running {
    state: Arc<TaskState>,
    thread: JoinHandle<()>,
}

struct Connector {
    definition: Definition,
    running: Option<Running>,
    /// Error of the last attempt to start the task.
    start_error: Option<String>,
}

/// All connectors of one process.
pub struct Connectors {
    config: Config,
    path: PathBuf,
    connectors: Mutex<BTreeMap<String, Connector>>,
}

impl Connectors {
    /// Loads the stored connectors and starts those that are not paused.
    ///
    /// # Errors
    /// The definitions cannot be read.
    pub async fn open(config: &Config) -> Result<Arc<Self>> {
        let path = DataEntry::Connectors.path(&config.data_dir);
        let definitions: BTreeMap<String, Definition> = load_json(&path)?.unwrap_or_default();
        let manager =
            Self { config: config.clone(), path, connectors: Mutex::new(BTreeMap::new()) };
        {
            let mut connectors = manager.connectors.lock().await;
            for (name, definition) in definitions {
                let mut connector = Connector { definition, running: None, start_error: None };
                manager.start(&name, &mut connector).await;
                connectors.insert(name, connector);
            }
        }
        Ok(Arc::new(manager))
    }

    /// Creates a connector, or replaces the properties of an existing one. Returns `true` if it is
    /// new.
    ///
    /// # Errors
    /// A property is missing, invalid or not supported; the definitions cannot be stored.
    pub async fn put(&self, name: &str, config: BTreeMap<String, String>) -> Result<bool> {
        SinkProperties::parse(&config)?;
        let mut connectors = self.connectors.lock().await;
        let paused = connectors.get(name).is_some_and(|connector| connector.definition.paused);
        let definition = Definition { config, paused };
        // Stored first, so that a failure here leaves the connector unchanged.
        self.save(&connectors, Some((name, &definition)))?;
        let is_new = !connectors.contains_key(name);
        let connector = connectors.entry(name.to_string()).or_insert_with(|| Connector {
            definition: definition.clone(),
            running: None,
            start_error: None,
        });
        connector.definition = definition;
        stop(connector).await;
        self.start(name, connector).await;
        Ok(is_new)
    }

    /// Stops and deletes a connector. Its objects are kept. Returns `false` if it does not exist.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        let mut connectors = self.connectors.lock().await;
        let Some(connector) = connectors.get_mut(name) else {
            return Ok(false);
        };
        stop(connector).await;
        let remaining = connectors
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(other, connector)| (other.as_str(), &connector.definition));
        save_json(&self.path, &remaining.collect::<BTreeMap<_, _>>())?;
        connectors.remove(name);
        Ok(true)
    }

    /// Pauses or resumes a connector. Returns `false` if it does not exist.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<bool> {
        let mut connectors = self.connectors.lock().await;
        let Some(definition) = connectors
            .get(name)
            .map(|connector| Definition { paused, ..connector.definition.clone() })
        else {
            return Ok(false);
        };
        self.save(&connectors, Some((name, &definition)))?;
        let Some(connector) = connectors.get_mut(name) else {
            return Ok(false);
        };
        connector.definition = definition;
        if paused {
            stop(connector).await;
        } else if connector.running.is_none() {
            self.start(name, connector).await;
        }
        Ok(true)
    }

    /// Restarts the task of a connector. Returns `false` if the connector does not exist.
    pub async fn restart(&self, name: &str) -> bool {
        let mut connectors = self.connectors.lock().await;
        let Some(connector) = connectors.get_mut(name) else {
            return false;
        };
        stop(connector).await;
        self.start(name, connector).await;
        true
    }

    /// Returns the properties of a connector.
    pub async fn config(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.connectors.lock().await.get(name).map(|connector| connector.definition.config.clone())
    }

    /// Returns the status of each connector, ordered by name.
    pub async fn statuses(&self) -> Vec<ConnectorStatus> {
        self.connectors
            .lock()
            .await
            .iter()
            .map(|(name, connector)| status(name, connector))
            .collect()
    }

    /// Returns the status of a connector.
    pub async fn status(&self, name: &str) -> Option<ConnectorStatus> {
        self.connectors.lock().await.get(name).map(|connector| status(name, connector))
    }

    /// Stops all tasks. The next run of the local stack starts them again.
    pub async fn stop_all(&self) {
        for connector in self.connectors.lock().await.values_mut() {
            stop(connector).await;
        }
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

    /// Starts the task of a connector that is not paused, on a thread of its own.
    async fn start(&self, name: &str, connector: &mut Connector) {
        connector.start_error = None;
        if connector.definition.paused {
            return;
        }
        match self.create_task(name, &connector.definition.config).await {
            Ok(task) => {
                let state = task.state.clone();
                let thread =
                    std::thread::Builder::new().name("sink".into()).spawn(move || task.run());
                match thread {
                    Ok(thread) => {
                        tracing::info!(connector = name, "started the sink task");
                        connector.running = Some(Running { state, thread });
                    }
                    Err(error) => connector.start_error = Some(error.to_string()),
                }
            }
            Err(error) => connector.start_error = Some(error.to_string()),
        }
    }

    async fn create_task(&self, name: &str, config: &BTreeMap<String, String>) -> Result<Task> {
        let properties = SinkProperties::parse(config)?;
        let (store, root) = self.destination(&properties).await?;
        let consumer = crate::clients::kafka::consumer(&self.config, &group(name))?;
        Ok(Task {
            consumer,
            store,
            root,
            properties,
            state: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Returns the store and the root path of the bucket: S3 if `lake.url` is a bucket, at
    /// `store.url` if that is set; else a folder of the lake.
    async fn destination(
        &self,
        properties: &SinkProperties,
    ) -> Result<(Arc<dyn object_store::ObjectStore>, Path)> {
        let mut config = self.config.clone();
        let lake_url = config.endpoints().lake_url();
        let Some(bucket) =
            lake_url.strip_prefix("s3://").map(|bucket| bucket.trim_end_matches('/'))
        else {
            if properties.store_url.is_some() {
                return Err(Error::usage(format!(
                    "`store.url` requires a bucket in `lake.url`, got the folder `{lake_url}`"
                ))
                .hint(
                    "set `lake.url` to `s3://BUCKET`, so that batch reads what the sink writes",
                ));
            }
            return self.folder(&lake_url, properties).await;
        };
        if bucket != properties.bucket {
            return Err(Error::usage(format!(
                "expected the same bucket in `s3.bucket.name` and `lake.url`, got `{}` and \
                 `{lake_url}`",
                properties.bucket
            ))
            .hint("set both to the same bucket"));
        }
        if let Some(url) = &properties.store_url {
            config.lake.endpoint_url.clone_from(url);
        }
        Ok((Lake::bucket(&config, &properties.bucket).await?, Path::default()))
    }

    /// Returns the store and the root path of the bucket's folder in the lake.
    async fn folder(
        &self,
        lake_url: &str,
        properties: &SinkProperties,
    ) -> Result<(Arc<dyn object_store::ObjectStore>, Path)> {
        let folder = PathBuf::from(lake_url).join(&properties.bucket);
        let lake = Lake::open(&self.config, &folder.to_string_lossy(), true).await?;
        Ok((lake.store.clone(), lake.root))
    }
}

/// Returns the consumer group of a connector, named as Kafka Connect names it.
pub fn group(connector: &str) -> String {
    format!("connect-{connector}")
}

fn status(name: &str, connector: &Connector) -> ConnectorStatus {
    let failure = match &connector.running {
        Some(running) => {
            let failure = running
                .state
                .failure
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .clone();
            failure.or_else(|| {
                running
                    .thread
                    .is_finished()
                    .then(|| "the task exited unexpectedly; see the log for the cause".to_string())
            })
        }
        None => connector.start_error.clone(),
    };
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

/// Stops the task of a connector and waits for its thread.
async fn stop(connector: &mut Connector) {
    if let Some(running) = connector.running.take() {
        running.state.stop.store(true, Ordering::Relaxed);
        // The thread runs futures on this runtime, so waiting for it must not block a worker.
        let _ = tokio::task::spawn_blocking(move || running.thread.join()).await;
    }
}
