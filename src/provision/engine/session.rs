//! A session: the resources of a target, their account, state and lock, for one command.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::base::config::outputs::Outputs;
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::progress::Progress;
use crate::base::shutdown::shutdown_signal;
use crate::provision::aws::context::Account;
use crate::provision::aws::outputs;
use crate::provision::engine::change::{Change, plan_change};
use crate::provision::engine::graph::{Graph, Order, Visit};
use crate::provision::local;
use crate::provision::resource::{Action, Resource};
use crate::provision::state::backend::Lock;

/// Grace period of one call after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);
/// Grace period of a whole command, so that results which arrived are still reported.
pub const LONGER_GRACE: Duration = Duration::from_secs(3);

/// What a command does with the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only reads; takes no lock.
    Read,
    Change,
}

/// Planned changes, by the key of the resource.
pub type Changes = BTreeMap<String, Change>;

/// The resources of a pipeline and the account that they are in.
pub struct Session {
    pub graph: Graph,
    /// On target aws only.
    pub account: Option<Rc<Account>>,
    pub stop: CancellationToken,
    pub progress: Progress,
    /// Maximum number of resources that are read or changed at a time.
    pub max_concurrency: usize,
    lock: Option<Lock>,
    /// Some disabled resources could not be read, so the plan may be incomplete.
    is_incomplete: Cell<bool>,
}

impl Session {
    /// Opens the state and the clients; locks the state to change it.
    ///
    /// # Errors
    /// The local stack is not running; no credentials; another process holds the lock.
    pub async fn open(config: &Config, purpose: Purpose, progress: Progress) -> Result<Self> {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        // It listens beyond the session: callers may keep using the account.
        tokio::spawn(async move {
            shutdown_signal().await;
            asked.cancel();
        });
        let (resources, account, lock) = match config.target {
            Target::Local => (local::resources(config).await?, None, None),
            Target::Aws => {
                let place = run_until_shutdown(&stop, GRACE, Account::place(config)).await?;
                // Not interruptible: an interrupted call could leave a lock behind.
                let lock =
                    if purpose == Purpose::Change { Some(place.lock().await?) } else { None };
                let opening = Account::open(
                    config,
                    place,
                    purpose == Purpose::Change,
                    progress.clone(),
                    stop.clone(),
                );
                match run_until_shutdown(&stop, GRACE, opening).await {
                    Ok(account) => {
                        let account = Rc::new(account);
                        (crate::provision::aws::all(&account), Some(account), lock)
                    }
                    Err(error) => {
                        if let Some(lock) = lock {
                            lock.release().await;
                        }
                        return Err(error);
                    }
                }
            }
        };
        Ok(Self {
            graph: Graph::new(resources),
            account,
            stop,
            progress,
            max_concurrency: config.provision.max_concurrency,
            lock,
            is_incomplete: Cell::new(false),
        })
    }

    /// Writes the outputs for other commands and releases the lock.
    pub async fn close(mut self) {
        if let Some(account) = &self.account {
            let outputs = Outputs {
                bootstrap_servers: account.state.output(&outputs::BOOTSTRAP_SERVERS).await,
                gateway_url: account.state.output(&outputs::API_URL).await,
                api_key_id: account.state.output(&outputs::API_KEY_ID).await,
            };
            if let Err(error) = outputs.write(&account.config.data_dir) {
                tracing::warn!(%error, "other commands will not find the provisioned resources");
            }
        }
        if let Some(lock) = self.lock.take() {
            // If this takes too long, the next run explains how to remove the lock.
            let _ = run_until_shutdown(&self.stop, GRACE, async {
                lock.release().await;
                Ok(())
            })
            .await;
        }
    }

    /// Observes the selected resources and those they depend on. A disabled resource is observed
    /// only if it is in the state, or, as long as the pipeline was never applied completely, if
    /// there are signs of it.
    ///
    /// # Errors
    /// A resource cannot be read.
    pub async fn observe(&self, selected: &BTreeSet<String>) -> Result<Changes> {
        let to_read = self.graph.with_dependencies(selected);
        let (recorded, may_be_lost) = match &self.account {
            Some(account) => (account.state.keys().await, !account.state.is_complete().await),
            None => (Vec::new(), false),
        };
        let mut changes = Changes::new();
        // One resource that the state has lost is a sign of others.
        for _ in 0..if may_be_lost { 2 } else { 1 } {
            let (to_read, recorded, before) = (&to_read, &recorded, &changes);
            let visits = self
                .graph
                .walk(Order::DependenciesFirst, self.max_concurrency, |resource| {
                    async move {
                        let key = resource.key();
                        if !to_read.contains(&key) || before.contains_key(&key) {
                            return Ok(before.get(&key).cloned());
                        }
                        let is_recorded = recorded.contains(&key);
                        self.observe_one(resource, is_recorded, may_be_lost).await
                    }
                    .boxed_local()
                })
                .await;
            let found = self.collect_results(visits)?;
            let found = found.into_iter().filter_map(|(key, change)| Some((key, change?)));
            changes = found.collect();
        }
        self.propagate_replacement(&mut changes, selected);
        Ok(changes)
    }

    /// `None`: the resource is disabled, and nothing suggests that it exists.
    async fn observe_one(
        &self,
        resource: &dyn Resource,
        is_recorded: bool,
        may_be_lost: bool,
    ) -> Result<Option<Change>> {
        let is_known = resource.is_enabled() || is_recorded;
        if !(is_known || may_be_lost && resource.may_be_orphaned().await) {
            return Ok(None);
        }
        if self.stop.is_cancelled() {
            return Err(Error::interrupted("interrupted while reading: nothing was changed"));
        }
        match self.run_until_shutdown(plan_change(self.account.as_deref(), resource)).await {
            // The resource is disabled: a missing permission to read it must not stop the command.
            Err(error) if !is_known && !error.is_retryable() && !self.stop.is_cancelled() => {
                tracing::warn!(%error, "cannot search for `{}`", resource.key());
                self.is_incomplete.set(true);
                Ok(None)
            }
            change => change.map(Some),
        }
    }

    /// Records that the whole pipeline equals the configuration, if all of it was observed.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn mark_complete_if_done(&self, selected: &BTreeSet<String>) -> Result<()> {
        match &self.account {
            Some(account)
                if selected.len() == self.graph.resources().count()
                    && !self.is_incomplete.get() =>
            {
                account.state.mark_complete().await
            }
            _ => Ok(()),
        }
    }

    /// Replaces selected resources that cannot outlive a replaced one.
    fn propagate_replacement(&self, changes: &mut Changes, selected: &BTreeSet<String>) {
        // Dependencies stand before their dependents, so one pass is enough.
        for resource in self.graph.resources() {
            let is_replaced = |key: &String| {
                let change = changes.get(key).filter(|_| selected.contains(key));
                change.is_some_and(|change| change.action == Action::Replace)
            };
            let reasons: Vec<String> = resource
                .replaced_with()
                .iter()
                .filter(|key| is_replaced(key))
                .map(|key| format!("`{key}` is replaced"))
                .collect();
            if let Some(change) = changes.get_mut(&resource.key())
                && change.exists
                && !reasons.is_empty()
                && !matches!(change.action, Action::Delete | Action::Unmanaged)
            {
                change.action = Action::Replace;
                change.reasons = reasons;
                change.fields.clear();
            }
        }
    }

    /// The name that a resource was created under; the configuration may have changed since.
    pub async fn recorded_name(&self, resource: &dyn Resource) -> String {
        let entry = match &self.account {
            Some(account) => account.state.entry(&resource.key()).await,
            None => None,
        };
        entry.map_or_else(|| resource.name(), |entry| entry.name)
    }

    /// Runs work on one resource; after Ctrl-C for the grace period at most.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_shutdown<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, GRACE, work).await
    }

    /// Runs the work of a whole command; after Ctrl-C for a longer grace period at most.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, LONGER_GRACE, work).await
    }

    /// The results of all visits, by key in graph order.
    ///
    /// # Errors
    /// The first interruption; without one, the first failure with a specific hint, otherwise the
    /// first. The others become notes.
    pub fn collect_results<T>(&self, visits: Vec<(String, Visit<T>)>) -> Result<Vec<(String, T)>> {
        let mut results = Vec::with_capacity(visits.len());
        let (mut interruptions, mut failures, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (key, visit) in visits {
            match visit {
                Visit::Done(value) => results.push((key, value)),
                Visit::Failed(error) if error.is_interrupted() => interruptions.push(error),
                Visit::Failed(error) => failures.push(error),
                Visit::Skipped => skipped.push(key),
            }
        }
        let error = if interruptions.is_empty() {
            if failures.is_empty() {
                return Ok(results);
            }
            let specific = failures.iter().position(Error::has_specific_hint);
            failures.remove(specific.unwrap_or_default())
        } else {
            interruptions.remove(0)
        };
        let is_enabled =
            |key: &String| self.graph.resource(key).is_some_and(|resource| resource.is_enabled());
        skipped.retain(is_enabled);
        // Calls of several resources may be abandoned with the same words.
        let mut others: Vec<String> =
            interruptions.iter().chain(&failures).map(Error::to_string).collect();
        others.retain(|other| *other != error.to_string());
        others.dedup();
        let mut note: String = others.iter().map(|other| format!("\n  also: {other}")).collect();
        if !skipped.is_empty() {
            note.push_str(&format!("\n  skipped, since they depend on it: {}", skipped.join(", ")));
        }
        Err(if note.is_empty() { error } else { error.with_note(note) })
    }
}

/// Runs work until it is done or `grace` after Ctrl-C: the SDK may retry a call for minutes.
/// The next run observes the effect of an abandoned call.
///
/// # Errors
/// The work fails; Ctrl-C.
pub async fn run_until_shutdown<T>(
    stop: &CancellationToken,
    grace: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let abandoned = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = abandoned => Err(Error::interrupted("interrupted during an AWS call")
            .hint("created resources are kept and recorded; re-run the command to resume")),
    }
}
