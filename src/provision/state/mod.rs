//! What `provision` remembers: which resources it began, made and named, never a secret.
//!
//! Written after every call that changes anything, in a file of the data folder or an
//! object on S3, so that a run that was killed at any instruction can be gone on with.

pub mod backend;
pub mod document;

use std::collections::BTreeMap;

use chrono::Utc;
use tokio::sync::Mutex;

use crate::base::error::{Error, Result};
use crate::provision::state::backend::StateBackend;
use crate::provision::state::document::{Entry, Phase, StateDocument, VERSION};

/// The state while a command works with it.
#[derive(Debug)]
pub struct State {
    backend: StateBackend,
    /// False: what is found is kept in memory only.
    is_written: bool,
    document: Mutex<StateDocument>,
}

impl State {
    /// Reads the state of this pipeline; an empty one where there is none yet.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or belongs to another pipeline, account or region.
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

    /// Notes that a resource is about to be made. Returns the token for the call: the same
    /// one as before where an earlier run got no further.
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

    /// Notes what is known of a resource: ARNs, ids, addresses. Makes an entry where there is none.
    pub async fn record_outputs(
        &self,
        key: &str,
        name: &str,
        values: &[(&str, &str)],
    ) -> Result<()> {
        self.change(|document| {
            let entry = document
                .resources
                .entry(key.into())
                .or_insert_with(|| new_entry(name, Phase::Ready));
            for (field, value) in values {
                entry.values.insert((*field).into(), (*value).into());
            }
        })
        .await
    }

    /// Notes that a resource that could be renamed has another name now.
    pub async fn rename(&self, key: &str, name: &str) -> Result<()> {
        self.change(|document| {
            if let Some(entry) = document.resources.get_mut(key) {
                entry.name = name.into();
            }
        })
        .await
    }

    /// Notes that a resource can be used.
    pub async fn mark_ready(&self, key: &str) -> Result<()> {
        self.phase(key, Phase::Ready).await
    }

    /// Notes that a resource is about to go.
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

    /// Forgets a resource that is gone.
    pub async fn remove_entry(&self, key: &str) -> Result<()> {
        self.change(|document| document.resources.remove(key)).await.map(|_| ())
    }

    /// What is remembered of a resource.
    pub async fn entry(&self, key: &str) -> Option<Entry> {
        self.document.lock().await.resources.get(key).cloned()
    }

    /// One remembered value of a resource.
    pub async fn output(&self, key: &str, field: &str) -> Option<String> {
        self.document.lock().await.resources.get(key)?.values.get(field).cloned()
    }

    /// One remembered value that must be there by now.
    ///
    /// # Errors
    /// It is not: what it belongs to has not been made.
    pub async fn require_output(&self, key: &str, field: &str) -> Result<String> {
        self.output(key, field).await.ok_or_else(|| {
            Error::failed(format!("`{key}` is needed first"))
                .hint(format!("`pinpipe provision --only {key}` makes it"))
        })
    }

    /// Notes that nothing is there that is not remembered.
    pub async fn mark_complete(&self) -> Result<()> {
        self.change(|document| document.is_whole = true).await
    }

    /// Whether nothing can be there that is not remembered: until then the state may be one
    /// that was begun anew after it had been lost.
    pub async fn is_complete(&self) -> bool {
        self.document.lock().await.is_whole
    }

    /// Keys of everything remembered.
    pub async fn keys(&self) -> Vec<String> {
        self.document.lock().await.resources.keys().cloned().collect()
    }

    /// Removes the state itself, once nothing is left in it.
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
            "{backend} was written by another version of pinpipe (layout {})",
            found.version
        ))
        .hint("use the version that wrote it, or one newer than both"));
    }
    for (what, theirs, ours) in [
        ("pipeline", found.id.as_str(), id),
        ("account", &found.account, account),
        ("region", &found.region, region),
    ] {
        if theirs != ours {
            return Err(Error::failed(format!("{backend} belongs to {what} `{theirs}`, not to `{ours}`"))
                .hint("correct `id`, `aws.region` or the credentials, or choose another `--data-dir`: nothing was changed"));
        }
    }
    Ok(())
}
