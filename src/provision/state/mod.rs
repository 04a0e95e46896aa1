//! State of `provision`: names, identifiers and phases of its resources, without secrets.
//!
//! The state is written after every call that changes a resource, to a file in the data folder or
//! an S3 object, so that the next run can resume after a kill at any time.

pub mod backend;
pub mod document;
pub mod output;

use std::collections::BTreeMap;

use chrono::Utc;
use tokio::sync::Mutex;

use crate::base::error::{Error, Result};
use crate::provision::state::backend::StateBackend;
use crate::provision::state::document::{Entry, Phase, StateDocument, VERSION};
use crate::provision::state::output::{ObservedOutputs, Output, OutputValue};

/// The state, opened by a command.
#[derive(Debug)]
pub struct State {
    backend: StateBackend,
    /// Whether changes are stored; otherwise they are kept in memory only.
    is_written: bool,
    document: Mutex<StateDocument>,
}

impl State {
    /// Reads the state of this pipeline. A state that does not exist yet is empty.
    ///
    /// # Errors
    /// The state cannot be read, is damaged, or belongs to another pipeline, account or region.
    pub async fn open(
        backend: StateBackend,
        is_written: bool,
        id: &str,
        account: &str,
        region: &str,
    ) -> Result<Self> {
        let found: Option<StateDocument> = backend.read().await?;
        let document = match found {
            Some(found) => {
                check(&found, &backend, id, account, region)?;
                found
            }
            None => StateDocument {
                version: VERSION,
                id: id.into(),
                account: account.into(),
                region: region.into(),
                ..StateDocument::default()
            },
        };
        Ok(Self { backend, is_written, document: Mutex::new(document) })
    }

    async fn change<T>(&self, change: impl FnOnce(&mut StateDocument) -> T) -> Result<T> {
        let mut document = self.document.lock().await;
        let before = document.clone();
        let result = change(&mut document);
        if self.is_written && *document != before {
            self.backend.write(&document).await?;
        }
        Ok(result)
    }

    /// Records that the create call is about to be sent. Returns the idempotency token of the call;
    /// after an interruption, that of the interrupted run.
    pub async fn mark_creating(&self, key: &str, name: &str) -> Result<String> {
        self.change(|document| {
            let resumed = document
                .resources
                .get(key)
                .filter(|entry| entry.phase == Phase::Creating && entry.name == name);
            if let Some(entry) = resumed {
                return entry.token.clone();
            }
            let entry = new_entry(name, Phase::Creating);
            let token = entry.token.clone();
            document.resources.insert(key.into(), entry);
            token
        })
        .await
    }

    /// Records the outputs of an observation. Creates the entry if it does not exist.
    pub async fn record_observed(&self, key: &str, outputs: ObservedOutputs) -> Result<()> {
        match outputs.into_entry() {
            Some((name, values)) => self.merge(key, &name, values).await,
            None => Ok(()),
        }
    }

    /// Records an output during a change, before the next call, so that the next run can resume if
    /// this run is killed.
    pub async fn record<T: OutputValue>(
        &self,
        name: &str,
        output: &Output<T>,
        value: impl Into<T>,
    ) -> Result<()> {
        let value = (output.field.clone().into_owned(), value.into().to_text());
        self.merge(&output.key, name, BTreeMap::from([value])).await
    }

    /// Records that a resource without outputs exists.
    pub async fn record_entry(&self, key: &str, name: &str) -> Result<()> {
        self.merge(key, name, BTreeMap::new()).await
    }

    async fn merge(&self, key: &str, name: &str, values: BTreeMap<String, String>) -> Result<()> {
        self.change(|document| {
            let entry = document
                .resources
                .entry(key.into())
                .or_insert_with(|| new_entry(name, Phase::Ready));
            entry.values.extend(values);
        })
        .await
    }

    /// Records the new name of a resource that was renamed.
    pub async fn rename(&self, key: &str, name: &str) -> Result<()> {
        self.change(|document| {
            if let Some(entry) = document.resources.get_mut(key) {
                entry.name = name.into();
            }
        })
        .await
    }

    /// Records that a resource can be used.
    pub async fn mark_ready(&self, key: &str) -> Result<()> {
        self.phase(key, Phase::Ready).await
    }

    /// Records that a resource is about to be deleted.
    pub async fn mark_deleting(&self, key: &str) -> Result<()> {
        self.phase(key, Phase::Deleting).await
    }

    async fn phase(&self, key: &str, phase: Phase) -> Result<()> {
        self.change(|document| {
            if let Some(entry) = document.resources.get_mut(key) {
                entry.phase = phase;
            }
        })
        .await
    }

    /// Removes the entry of a deleted resource.
    pub async fn remove_entry(&self, key: &str) -> Result<()> {
        self.change(|document| document.resources.remove(key)).await.map(|_| ())
    }

    /// Returns the entry of a resource.
    pub async fn entry(&self, key: &str) -> Option<Entry> {
        self.document.lock().await.resources.get(key).cloned()
    }

    /// Returns an output of a resource.
    pub async fn output<T: OutputValue>(&self, output: &Output<T>) -> Option<T> {
        let document = self.document.lock().await;
        let values = &document.resources.get(output.key.as_ref())?.values;
        T::from_text(values.get(output.field.as_ref())?)
    }

    /// Returns an output that another resource must have recorded.
    ///
    /// # Errors
    /// The output is missing, because its resource was not created.
    pub async fn require_output<T: OutputValue>(&self, output: &Output<T>) -> Result<T> {
        self.output(output).await.ok_or_else(|| {
            let key = &output.key;
            Error::failed(format!("cannot continue: resource `{key}` does not exist yet"))
                .hint(format!("run `pinpipe provision --only {key}`"))
        })
    }

    /// Records that the state has an entry for every existing resource of the pipeline.
    pub async fn mark_complete(&self) -> Result<()> {
        self.change(|document| document.is_whole = true).await
    }

    /// Whether the state has an entry for every existing resource. If not, an earlier state may
    /// have been lost.
    pub async fn is_complete(&self) -> bool {
        self.document.lock().await.is_whole
    }

    /// Returns the keys of all entries.
    pub async fn keys(&self) -> Vec<String> {
        self.document.lock().await.resources.keys().cloned().collect()
    }

    /// Deletes the state if it has no entries.
    pub async fn remove_if_empty(&self) -> Result<()> {
        if self.is_written && self.document.lock().await.resources.is_empty() {
            self.backend.remove().await
        } else {
            Ok(())
        }
    }
}

fn new_entry(name: &str, phase: Phase) -> Entry {
    Entry {
        name: name.into(),
        phase,
        token: uuid::Uuid::new_v4().to_string(),
        begun_at: Utc::now(),
        values: BTreeMap::new(),
    }
}

fn check(
    found: &StateDocument,
    backend: &StateBackend,
    id: &str,
    account: &str,
    region: &str,
) -> Result<()> {
    if found.version != VERSION {
        return Err(Error::failed(format!(
            "cannot read {backend}: expected format version {VERSION}, got {}",
            found.version
        ))
        .hint("install the pinpipe version that wrote the state, or a newer one"));
    }
    for (what, stored, current) in [
        ("pipeline", found.id.as_str(), id),
        ("account", &found.account, account),
        ("region", &found.region, region),
    ] {
        if stored != current {
            return Err(Error::failed(format!("{backend} belongs to {what} `{stored}`, not to `{current}`"))
                .hint("correct `id`, `aws.region` or the credentials, or choose another `--data-dir`: nothing was changed"));
        }
    }
    Ok(())
}
