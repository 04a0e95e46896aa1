//! The resources of a target, with what they are worked on with.

use std::cell::Cell;
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
use crate::clients::aws::call::VAGUE_HINTS;
use crate::provision::aws::context::Account;
use crate::provision::aws::keys;
use crate::provision::engine::graph::{Graph, Order, Visit};
use crate::provision::engine::selection::Selection;
use crate::provision::local;
use crate::provision::resource::{Action, Observation, Resource};
use crate::provision::state::backend::Lock;

/// How long a call may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);
/// How errors of what Ctrl-C ended begin.
const STOPPED: &str = "stopped";
/// How long a whole command may: what its calls brought is still told.
pub const LONGER_GRACE: Duration = Duration::from_secs(3);

/// What a command wants to do with the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Look,
    Change,
}

/// Resources, in order, and the account they are in.
pub struct Session {
    pub graph: Graph,
    /// On target aws only.
    pub account: Option<Rc<Account>>,
    pub stop: CancellationToken,
    pub progress: Progress,
    /// Most resources worked on at a time.
    pub at_once: usize,
    lock: Option<Lock>,
    /// Something that nobody asks for could not be looked for.
    is_incomplete: Cell<bool>,
}

impl Session {
    /// # Errors
    /// No local stack is running; no credentials; the state is held by another run.
    pub async fn open(config: &Config, purpose: Purpose, progress: Progress) -> Result<Self> {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        // It listens on when the stack is closed: who goes on with the account looks at it too.
        tokio::spawn(async move {
            shutdown_signal().await;
            asked.cancel();
        });
        let (resources, account, lock) = match config.target {
            Target::Local => (local::resources(config).await?, None, None),
            Target::Aws => {
                let place = run_until_shutdown(&stop, GRACE, Account::place(config)).await?;
                // Never given up half way: a lock that was put all the same would stay.
                let lock = if purpose == Purpose::Change {
                    Some(place.lock().await?)
                } else {
                    None
                };
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
            at_once: config.provision.parallel,
            lock,
            is_incomplete: Cell::new(false),
        })
    }

    /// Leaves word where everything is, and lets the next run in.
    pub async fn close(mut self) {
        if let Some(account) = &self.account {
            let outputs = Outputs {
                bootstrap_servers: account
                    .state
                    .output(keys::CLUSTER, "bootstrap_servers")
                    .await,
                gateway_url: account.state.output(keys::API, "url").await,
                api_key_id: account.state.output(keys::API_KEY, "id").await,
            };
            if let Err(error) = outputs.write(&account.config.data_dir) {
                tracing::warn!(%error, "other commands will not find what was provisioned");
            }
        }
        if let Some(lock) = self.lock.take() {
            // The next run says how to remove one that could not be let go of in time.
            let _ = run_until_shutdown(&self.stop, GRACE, async {
                lock.release().await;
                Ok(())
            })
            .await;
        }
    }

    /// Reads the chosen resources and what they need. What nobody wants is read only where
    /// something of it is remembered, or, until all was made once, where there are signs of it.
    ///
    /// # Errors
    /// One cannot be read.
    pub async fn read(&self, chosen: &[bool]) -> Result<Vec<Option<Observation>>> {
        let which = Selection::read(chosen, &self.graph);
        let which = &which;
        let remembered = match &self.account {
            Some(account) => account.state.keys().await,
            None => Vec::new(),
        };
        let remembered = &remembered;
        let may_be_lost = match &self.account {
            Some(account) => !account.state.is_complete().await,
            None => false,
        };
        let mut observations: Vec<Option<Observation>> = vec![None; which.len()];
        // One thing that the state forgot is a sign of others.
        for _ in 0..if may_be_lost { 2 } else { 1 } {
            let before = &observations;
            let visits = self
                .graph
                .walk(Order::Needs, self.at_once, |position, resource| {
                    async move {
                        if !which[position] || before[position].is_some() {
                            return Ok(before[position].clone());
                        }
                        let is_known =
                            resource.is_enabled() || remembered.contains(&resource.key());
                        if !(is_known || may_be_lost && resource.may_be_orphaned().await) {
                            return Ok(None);
                        }
                        if self.stop.is_cancelled() {
                            return Err(Error::failed(
                                "stopped while reading: nothing was changed",
                            ));
                        }
                        match self.run_until_shutdown(read_one(resource)).await {
                            // Nobody asks for it: a missing permission must not matter.
                            Err(error)
                                if !is_known
                                    && !error.is_retryable()
                                    && !self.stop.is_cancelled() =>
                            {
                                tracing::warn!(%error, "`{}` is not looked for", resource.key());
                                self.is_incomplete.set(true);
                                Ok(None)
                            }
                            observation => observation.map(Some),
                        }
                    }
                    .boxed_local()
                })
                .await;
            observations = self.collect_results(visits)?;
        }
        self.propagate_recreation(&mut observations, chosen);
        Ok(observations)
    }

    /// Notes that the whole pipeline is as it should be, where all of it was looked at.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn mark_complete_if_done(&self, chosen: &[bool]) -> Result<()> {
        match &self.account {
            Some(account) if chosen.iter().all(|chosen| *chosen) && !self.is_incomplete.get() => {
                account.state.mark_complete().await
            }
            _ => Ok(()),
        }
    }

    /// What cannot outlive something that is made anew is made anew too. What is not chosen
    /// stays as it is.
    fn propagate_recreation(&self, observations: &mut [Option<Observation>], chosen: &[bool]) {
        // Needs stand before what needs them, so that one pass carries it all the way.
        for (position, resource) in self.graph.resources.iter().enumerate() {
            let falls_with = resource.recreated_with();
            let fallen = falls_with.iter().filter(|key| {
                let other = self
                    .graph
                    .position(key)
                    .filter(|other| chosen[*other])
                    .and_then(|other| observations[other].as_ref());
                other.is_some_and(|observation| matches!(observation.action, Action::Recreate))
            });
            let because: Vec<String> = fallen.map(|key| format!("`{key}` is made anew")).collect();
            if let Some(observation) = &mut observations[position]
                && observation.exists
                && !because.is_empty()
                && !matches!(observation.action, Action::Delete | Action::Unmanaged)
            {
                observation.action = Action::Recreate;
                observation.reasons = because;
            }
        }
    }

    /// The name under which a resource was made: the configuration may give it another one now.
    pub async fn recorded_name(&self, resource: &dyn Resource) -> String {
        let entry = match &self.account {
            Some(account) => account.state.entry(&resource.key()).await,
            None => None,
        };
        entry.map_or_else(|| resource.name(), |entry| entry.name)
    }

    /// Does some work with one resource, but not much longer than Ctrl-C.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_shutdown<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, GRACE, work).await
    }

    /// Does all the work of a command, but not much longer than Ctrl-C, wherever it is.
    ///
    /// # Errors
    /// The work fails; Ctrl-C.
    pub async fn run_until_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        run_until_shutdown(&self.stop, LONGER_GRACE, work).await
    }

    /// What every visit brought.
    ///
    /// # Errors
    /// What the first that failed says, and how many others failed or had to wait for it.
    pub fn collect_results<T>(&self, visits: Vec<Visit<T>>) -> Result<Vec<T>> {
        let mut done = Vec::with_capacity(visits.len());
        let (mut failure, mut stopped): (Option<Error>, Option<Error>) = (None, None);
        let says_what_to_do = |error: &Error| {
            error
                .hint_text()
                .is_some_and(|hint| !VAGUE_HINTS.contains(&hint))
        };
        let (mut others, mut left) = (Vec::new(), Vec::new());
        for (position, visit) in visits.into_iter().enumerate() {
            match visit {
                Visit::Done(value) => done.push(value),
                // That others were stopped too goes without saying; what failed before does not.
                Visit::Failed(error)
                    if self.stop.is_cancelled() && error.to_string().starts_with(STOPPED) =>
                {
                    stopped.get_or_insert(error);
                }
                Visit::Failed(error) if failure.is_none() => failure = Some(error),
                // The first stands at the top, unless another one knows more.
                Visit::Failed(error)
                    if says_what_to_do(&error)
                        && !failure.as_ref().is_some_and(says_what_to_do) =>
                {
                    others.extend(failure.replace(error).map(|first| first.to_string()));
                }
                Visit::Failed(error) => others.push(error.to_string()),
                Visit::Left if !self.graph.resources[position].is_enabled() => {}
                Visit::Left => left.push(self.graph.resources[position].key()),
            }
        }
        if let Some(failure) = &failure
            && stopped.is_some()
        {
            others.insert(0, failure.to_string());
        }
        let Some(error) = stopped.or(failure) else {
            return Ok(done);
        };
        let mut note = String::new();
        for other in &others {
            note.push_str(&format!("\n  also: {other}"));
        }
        if !left.is_empty() {
            note.push_str(&format!(
                "\n  left, since they wait for it: {}",
                left.join(", ")
            ));
        }
        if note.is_empty() {
            Err(error)
        } else {
            Err(error.with_note(note))
        }
    }
}

/// Does some work, but not longer than Ctrl-C and `grace`: a call may be tried again for
/// minutes. Whatever a call that is left behind did is found by the next run.
///
/// # Errors
/// The work fails; Ctrl-C.
pub async fn run_until_shutdown<T>(
    stop: &CancellationToken,
    grace: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let given_up = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = given_up => Err(Error::failed("stopped while AWS was being asked")
            .hint("what was made stays and is remembered: the same command goes on from here")),
    }
}

/// How a resource stands, a resource nobody wants being one to delete.
pub async fn read_one(resource: &dyn Resource) -> Result<Observation> {
    let mut observation = resource.read().await?;
    if !resource.is_enabled() {
        observation.action = match (observation.exists, observation.action) {
            (_, Action::Unmanaged) | (false, _) => Action::NoOp,
            _ => Action::Delete,
        };
        observation.reasons = vec!["the configuration does not ask for it any more".into()];
    }
    Ok(observation)
}
