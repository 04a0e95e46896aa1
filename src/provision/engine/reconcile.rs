//! One resource, brought from how it stands to how it should.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::error::{Error, Result};
use crate::provision::aws::context::Account;
use crate::provision::engine::session::read_one;
use crate::provision::resource::{Action, Observation, Resource};
use crate::provision::state::document::Phase;

/// Most changes until a resource must be as it should: made, waited for, mended, and once more.
const ROUNDS: usize = 20;
/// Most updates for one and the same reason.
const REPEATS: usize = 3;
/// What was begun so lately may not be seen yet.
const FRESH: Duration = Duration::from_secs(600);

/// What may be done.
#[derive(Debug, Clone, Copy)]
pub struct DataLossPolicy {
    /// Resources that hold records may be made anew, which loses them.
    pub may_lose_data: bool,
}

/// What was done.
#[derive(Debug)]
pub struct Converged {
    pub action: Action,
    pub observation: Observation,
}

/// Makes, mends, waits and reads again until nothing is left to do. Reading after each
/// change is what makes a plan after an apply empty.
///
/// # Errors
/// A call fails; Ctrl-C; it still differs after it was mended.
pub async fn converge(
    account: Option<&Account>,
    resource: &dyn Resource,
    planned: Observation,
    data_loss: DataLossPolicy,
) -> Result<Converged> {
    let mut done = Action::NoOp;
    let mut observation = planned;
    let key = resource.key();
    // What an update was last to mend, and how often: what it does not mend again and again stays.
    let (mut mended, mut repeats) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        if let Some(account) = account
            && account.stop.is_cancelled()
        {
            return Err(account.stopped(&format!(
                "{} `{}` is not as it should be yet",
                resource.kind(),
                resource.name()
            )));
        }
        tracing::info!(resource = key, action = ?observation.action, reason = observation.reason());
        match observation.action {
            Action::NoOp => {
                if let Some(account) = account {
                    account.state.mark_ready(&key).await?;
                }
                return Ok(Converged {
                    action: done,
                    observation,
                });
            }
            Action::Unmanaged => return Err(foreign(resource)),
            Action::Pending => resource.wait().await?,
            Action::Update => {
                repeats = if mended == observation.reasons {
                    repeats + 1
                } else {
                    0
                };
                if repeats >= REPEATS {
                    break;
                }
                if let Some(account) = account
                    && repeats > 0
                {
                    // Reads of AWS may be behind.
                    account.pause(account.patience() / 4).await;
                }
                mended.clone_from(&observation.reasons);
                resource.update().await?;
                if done == Action::NoOp {
                    done = Action::Update;
                }
            }
            Action::Create => {
                if let Some(account) = account {
                    if let Some(seen) = reread_before_create(account, resource).await? {
                        observation = seen;
                        continue;
                    }
                    account.state.mark_creating(&key, &resource.name()).await?;
                }
                resource.create().await?;
                if done != Action::Recreate {
                    done = Action::Create;
                }
            }
            // Making it again and again would help nobody and cost money.
            Action::Recreate if matches!(done, Action::Create | Action::Recreate) => break,
            Action::Recreate => {
                ensure_data_loss_allowed(resource, &observation, data_loss).await?;
                remove(account, resource).await?;
                done = Action::Recreate;
            }
            // What goes has gone before anything is made.
            Action::Delete => {
                return Ok(Converged {
                    action: Action::Delete,
                    observation,
                });
            }
        }
        observation = read_one(resource).await?;
    }
    Err(Error::failed(format!("{} `{}` still differs after it was changed: {}", resource.kind(), resource.name(), observation.reason()))
        .hint("AWS took the change and it did not last: `pinpipe provision --plan` shows how it stands, the service's console why"))
}

/// Removes a resource and forgets it. `false`: it was not there.
pub async fn remove(account: Option<&Account>, resource: &dyn Resource) -> Result<bool> {
    let key = resource.key();
    if let Some(account) = account {
        if account.stop.is_cancelled() {
            return Err(account.stopped(&format!(
                "{} `{}` is still there",
                resource.kind(),
                resource.name()
            )));
        }
        account.state.mark_deleting(&key).await?;
    }
    let removed = resource.delete().await?;
    if let Some(account) = account {
        account.state.remove_entry(&key).await?;
    }
    Ok(removed)
}

/// Looks again for something that may have been made a moment ago, by this run or by one
/// that was killed, before it is made a second time: reads of AWS may be behind.
async fn reread_before_create(
    account: &Account,
    resource: &dyn Resource,
) -> Result<Option<Observation>> {
    let Some(entry) = account.state.entry(&resource.key()).await else {
        return Ok(None);
    };
    let age = (chrono::Utc::now() - entry.begun_at)
        .to_std()
        .unwrap_or_default();
    if entry.phase == Phase::Deleting || age > FRESH {
        return Ok(None);
    }
    let began = Instant::now();
    while began.elapsed() < account.patience() && !account.stop.is_cancelled() {
        account.pause(account.patience() / 8).await;
        let observation = read_one(resource).await?;
        if observation.action != Action::Create {
            return Ok(Some(observation));
        }
    }
    Ok(None)
}

/// What to say of something that somebody else made.
pub fn foreign(resource: &dyn Resource) -> Error {
    Error::failed(format!("{} `{}` is there already, and pinpipe did not make it", resource.kind(), resource.name())).hint(format!(
        "choose another `id` or name in the configuration, or use it as it is with `--skip {}`; it was not touched",
        resource.key()
    ))
}

/// Refuses to make anew or to remove what holds records, unless that was allowed.
///
/// # Errors
/// It was not; it cannot be asked what it holds.
pub async fn ensure_data_loss_allowed(
    resource: &dyn Resource,
    observation: &Observation,
    data_loss: DataLossPolicy,
) -> Result<()> {
    if data_loss.may_lose_data {
        return Ok(());
    }
    if observation.action == Action::Delete
        && let Some(held) = resource.deletion_blocker().await?
    {
        return Err(Error::failed(format!("{} `{}` is not asked for any more, but holds {held}", resource.kind(), resource.name()))
            .hint("set the configuration back, empty it, or say `--allow-recreate` to lose that; nothing was changed"));
    }
    if observation.action != Action::Recreate || !resource.holds_data() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} `{}` would have to be made anew, which loses what it holds: {}",
        resource.kind(),
        resource.name(),
        observation.reason()
    ))
    .hint("set the configuration back, or say `--allow-recreate` to lose it"))
}
