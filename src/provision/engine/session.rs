//! The session of one command: the resources of the target, and on AWS their account, state and
//! lock.

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
/// Grace period of a whole command. It is longer, so that finished changes are still reported.
pub const LONGER_GRACE: Duration = Duration::from_secs(3);

/// What a command does with the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reads without a lock.
    Read,
    Change,
}

/// Planned changes, by the key of the resource.
pub type Changes = BTreeMap<String, Change>;

/// The resources of a pipeline and the account that they are in.
pub struct Session {
    pub graph: Graph,
    /// `None` on target local.
    pub account: Option<Rc<Account>>,
    pub stop: CancellationToken,
    pub progress: Progress,
    /// Maximum number of resources that are read or changed concurrently.
    pub max_concurrency: usize,
    lock: Option<Lock>,
    /// Some disabled resources could not be read, so the plan may be incomplete.
    is_incomplete: Cell<bool>,
}

impl Session {
    /// Opens the clients and the state, and locks the state if `purpose` is `Change`.
    ///
    /// # Errors
    /// The local stack is not running; no credentials; another process holds the lock.
    pub async fn open(config: &Config, purpose: Purpose, progress: Progress) -> Result<Self> {
        let stop = CancellationToken::new();
        let cancelled = stop.clone();
        // The task outlives the session, because callers may continue to use the account.
        tokio::spawn(async move {
            shutdown_signal().await;
            cancelled.cancel();
        });
        let (resources, account, lock) = match config.target {
            Target::Local => (local::resources(config).await?, None, None),
            Target::Aws => {
                let backend = run_until_shutdown(&stop, GRACE, Account::place(config)).await?;
                // Not interruptible, because an interrupted call could leave a lock behind.
                let lock =
                    if purpose == Purpose::Change { Some(backend.lock().await?) } else { None };
                let opening = Account::open(
                    config,
                    backend,
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
                tracing::warn!(
                    %error,
                    "cannot write the addresses of the provisioned resources for other commands"
                );
            }
        }
        if let Some(lock) = self.lock.take() {
            // If the release is interrupted, the hint of the next run says how to delete the lock.
            let _ = run_until_shutdown(&self.stop, GRACE, async {
                lock.release().await;
                Ok(())
            })
            .await;
        }
    }

    /// Observes the selected resources and their dependencies. A disabled resource is observed only
    /// if the state has an entry for it or, until the whole pipeline was applied once, if it may be
    /// an orphan.
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
        // An orphan that the first pass finds is a sign of others, which the second pass finds.
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

    /// Observes one resource. `None`: the resource is disabled, and nothing indicates that it
    /// exists.
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
            // A command must not fail if the permission to read a disabled resource is missing.
            Err(error) if !is_known && !error.is_retryable() && !self.stop.is_cancelled() => {
                tracing::warn!(%error, "cannot search for `{}`", resource.key());
                self.is_incomplete.set(true);
                Ok(None)
            }
            change => change.map(Some),
        }
    }

    /// Records that the whole pipeline matches the configuration, if all resources were observed.
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

    /// Plans the replacement of selected resources that are replaced with another one.
    fn propagate_replacement(&self, changes: &mut Changes, selected: &BTreeSet<String>) {
        // Dependencies precede their dependents, so one pass is enough.
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

    /// Returns the name of a resource in the state; the configuration may have changed since.
    pub async fn recorded_name(&self, resource: &dyn Resource) -> String {
        let entry = match &self.account {
            Some(account) => account.state.entry(&resource.key()).await,
            None => None,
        };
        entry.map_or_else(|| resource.name(), |entry| entry.name)
    }

    /// Runs work on one resource, until the grace period after Ctrl-C ends.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_shutdown<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, GRACE, work).await
    }

    /// Runs the work of a whole command, until the longer grace period after Ctrl-C ends.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, LONGER_GRACE, work).await
    }

    /// Returns the results of all visits with their keys, in graph order.
    ///
    /// # Errors
    /// The first interruption; otherwise the first failure with a specific hint; otherwise the
    /// first failure. The messages of the other errors are appended.
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
        // Several resources may report the same error.
        let mut others: Vec<String> =
            interruptions.iter().chain(&failures).map(Error::to_string).collect();
        others.retain(|other| *other != error.to_string());
        others.dedup();
        let mut note: String = others.iter().map(|other| format!("\n  also: {other}")).collect();
        if !skipped.is_empty() {
            note.push_str(&format!(
                "\n  skipped, because they depend on it: {}",
                skipped.join(", ")
            ));
        }
        Err(if note.is_empty() { error } else { error.with_note(note) })
    }
}

/// Runs work until it completes, or until `grace` after Ctrl-C, because the SDK may retry a call
/// for minutes. The next run observes the effect of an abandoned call.
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
