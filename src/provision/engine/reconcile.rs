//! Reconciles one resource with the configuration.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::error::{Error, Result};
use crate::provision::aws::context::Account;
use crate::provision::engine::change::{Change, plan_change};
use crate::provision::resource::{Action, Resource};
use crate::provision::state::document::Phase;

/// Maximum number of changes and waits until a resource matches the configuration.
const ROUNDS: usize = 20;
/// Maximum number of repetitions of an update that leaves the same differences.
const REPEATS: usize = 3;
/// Age below which AWS may not show a created resource to all readers yet.
const RECENT: Duration = Duration::from_secs(600);

/// Whether an apply may delete data.
#[derive(Debug, Clone, Copy)]
pub struct DataLossPolicy {
    /// Resources that hold data may be replaced or deleted, which deletes the data.
    pub may_lose_data: bool,
}

/// The result of a reconciliation.
#[derive(Debug)]
pub struct Converged {
    pub action: Action,
    pub change: Change,
}

/// Creates, updates, waits and observes again until nothing differs. The resource is observed after
/// each change, so that a plan after an apply is empty.
///
/// # Errors
/// A call fails; Ctrl-C; the resource still differs after it was changed.
pub async fn converge(
    account: Option<&Account>,
    resource: &dyn Resource,
    planned: Change,
    data_loss: DataLossPolicy,
) -> Result<Converged> {
    let mut done = Action::NoOp;
    let mut change = planned;
    let key = resource.key();
    // The differences before the last update, and how often they remained: an update may have no
    // effect.
    let (mut updated, mut repeats) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        if let Some(account) = account
            && account.stop.is_cancelled()
        {
            return Err(account.interrupted(&format!(
                "{} `{}` does not match the configuration yet",
                resource.kind(),
                resource.name()
            )));
        }
        tracing::info!(resource = key, action = ?change.action, reason = change.reason());
        match change.action {
            Action::NoOp => {
                if let Some(account) = account {
                    account.state.mark_ready(&key).await?;
                }
                return Ok(Converged { action: done, change });
            }
            Action::Unmanaged => return Err(unmanaged(resource)),
            Action::Pending => resource.wait().await?,
            Action::Update => {
                repeats = if updated == change.reasons { repeats + 1 } else { 0 };
                if repeats >= REPEATS {
                    break;
                }
                if let Some(account) = account
                    && repeats > 0
                {
                    // AWS may return stale data.
                    account.pause(account.consistency_timeout() / 4).await;
                }
                updated.clone_from(&change.reasons);
                resource.update().await?;
                if done == Action::NoOp {
                    done = Action::Update;
                }
            }
            Action::Create => {
                if let Some(account) = account {
                    if let Some(seen) = reread_before_create(account, resource).await? {
                        change = seen;
                        continue;
                    }
                    account.state.mark_creating(&key, &resource.name()).await?;
                }
                resource.create().await?;
                if done != Action::Replace {
                    done = Action::Create;
                }
            }
            // Another replacement would have the same result, and costs money.
            Action::Replace if matches!(done, Action::Create | Action::Replace) => break,
            Action::Replace => {
                ensure_data_loss_allowed(resource, &change, data_loss).await?;
                delete(account, resource).await?;
                done = Action::Replace;
            }
            // Deletions precede all other changes.
            Action::Delete => {
                return Ok(Converged { action: Action::Delete, change });
            }
        }
        change = plan_change(account, resource).await?;
    }
    Err(Error::failed(format!("{} `{}` still differs after it was changed: {}", resource.kind(), resource.name(), change.reason()))
        .hint("AWS accepted the change, but it has no effect: show the differences with `pinpipe provision --plan`, and look for the cause in the AWS console"))
}

/// Deletes a resource and its entry in the state. `false`: it did not exist.
pub async fn delete(account: Option<&Account>, resource: &dyn Resource) -> Result<bool> {
    let key = resource.key();
    if let Some(account) = account {
        if account.stop.is_cancelled() {
            return Err(account.interrupted(&format!(
                "{} `{}` was not deleted",
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

/// Observes a recently created resource again before it is created a second time, because AWS may
/// return stale data. The first creation was by this run, or by a run that was killed.
async fn reread_before_create(
    account: &Account,
    resource: &dyn Resource,
) -> Result<Option<Change>> {
    let Some(entry) = account.state.entry(&resource.key()).await else {
        return Ok(None);
    };
    let age = (chrono::Utc::now() - entry.begun_at).to_std().unwrap_or_default();
    if entry.phase == Phase::Deleting || age > RECENT {
        return Ok(None);
    }
    let began = Instant::now();
    while began.elapsed() < account.consistency_timeout() && !account.stop.is_cancelled() {
        account.pause(account.consistency_timeout() / 8).await;
        let change = plan_change(Some(account), resource).await?;
        if change.action != Action::Create {
            return Ok(Some(change));
        }
    }
    Ok(None)
}

/// Returns the error for a resource whose name belongs to an unmanaged resource.
pub fn unmanaged(resource: &dyn Resource) -> Error {
    Error::failed(format!("{} `{}` already exists and is not managed by pinpipe", resource.kind(), resource.name())).hint(format!(
        "choose another `id` or name in the configuration, or use the existing resource with `--skip {}`; it was not changed",
        resource.key()
    ))
}

/// Refuses to replace or delete a resource that holds data, unless the user allows it.
///
/// # Errors
/// The user does not allow it; the content of the resource cannot be read.
pub async fn ensure_data_loss_allowed(
    resource: &dyn Resource,
    change: &Change,
    data_loss: DataLossPolicy,
) -> Result<()> {
    if data_loss.may_lose_data {
        return Ok(());
    }
    if change.action == Action::Delete
        && let Some(held) = resource.deletion_blocker().await?
    {
        return Err(Error::failed(format!("{} `{}` is no longer in the configuration but still holds {held}", resource.kind(), resource.name()))
            .hint("restore the configuration, empty the resource, or add `--allow-replace` to delete its data; nothing was changed"));
    }
    if change.action != Action::Replace || !resource.holds_data() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} `{}` must be replaced, which deletes its data: {}",
        resource.kind(),
        resource.name(),
        change.reason()
    ))
    .hint("restore the configuration, or add `--allow-replace` to delete its data"))
}
