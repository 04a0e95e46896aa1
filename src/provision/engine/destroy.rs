//! `pinpipe destroy`: deletes the managed resources, or all local data.

use futures::FutureExt;
use serde::Serialize;

use std::collections::BTreeSet;

use crate::base::config::data_dir;
use crate::base::config::runtime::Runtime;
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result};
use crate::base::fs::FileLock;
use crate::base::output::{Printer, Report, confirm};
use crate::provision::engine::change::Change;
use crate::provision::engine::graph::Order;
use crate::provision::engine::reconcile::delete;
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Changes, Purpose, Session};
use crate::provision::resource::Resource;

/// Options of `destroy`.
#[derive(Debug, Clone, Default)]
pub struct DestroyOptions {
    /// Deletes data too: the local data folder, or the objects of buckets that are not empty.
    pub data: bool,
    /// Skips the confirmation prompt.
    pub yes: bool,
    pub selection: Selection,
}

#[derive(Debug, Serialize)]
struct Removed {
    #[serde(rename = "type")]
    type_name: &'static str,
    name: String,
    /// `false`: the resource did not exist.
    removed: bool,
}

/// The report of `destroy`.
#[derive(Debug, Serialize)]
pub struct DestroyReport {
    resources: Vec<Removed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<std::path::PathBuf>,
    /// Files in the data folder that pinpipe did not write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept_files: Vec<String>,
    /// Each deletion was already printed on stderr.
    #[serde(skip)]
    is_reported: bool,
}

impl DestroyReport {
    /// Whether anything was deleted.
    pub fn removed_any(&self) -> bool {
        self.resources.iter().any(|resource| resource.removed)
    }
}

impl Report for DestroyReport {
    fn text(&self) -> String {
        if self.is_reported && !self.resources.is_empty() {
            return format!("deleted {} resources", self.resources.len());
        }
        let mut lines: Vec<String> = self
            .resources
            .iter()
            .map(|removed| {
                format!(
                    "{} {} {}",
                    if removed.removed { "deleted" } else { "does not exist:" },
                    removed.type_name,
                    removed.name
                )
            })
            .collect();
        lines.extend(self.data_dir.iter().map(|folder| match self.kept_files.as_slice() {
            [] => format!("deleted {}", folder.display()),
            files => format!(
                "deleted the data in {}; the folder is kept because it contains other files: {}",
                folder.display(),
                files.join(", ")
            ),
        }));
        if lines.is_empty() { "nothing to delete".into() } else { lines.join("\n") }
    }
}

/// Deletes the selected resources, dependents first, or all local data.
///
/// # Errors
/// The user did not confirm; the local stack uses the data folder; a resource cannot be deleted.
pub async fn destroy(
    config: &Config,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let lock_path = Runtime::lock_path(&config.data_dir);
    // Without the lock file, no local stack can be running. The check must not create the file.
    let lock = if lock_path.exists() { FileLock::try_lock(&lock_path)? } else { None };
    let runs = lock_path.exists() && lock.is_none();
    if config.target == Target::Aws {
        return remove_resources(config, options, printer).await;
    }
    let is_selective = !options.selection.only.is_empty() || !options.selection.skip.is_empty();
    if options.data && is_selective {
        return Err(Error::usage("`--data` deletes the whole data folder, not a selection")
            .hint("remove `--data` to delete selected resources of the running local stack"));
    }
    if !runs && !options.data {
        return Err(Error::failed(format!("the local stack is not running in `{}`", config.data_dir.display()))
            .hint("start the stack with `pinpipe local` to delete its resources, or delete all local data with `--data`"));
    }
    if runs && options.data {
        return Err(Error::failed(format!(
            "the local stack is still running in `{}`",
            config.data_dir.display()
        ))
        .hint("stop the stack with Ctrl-C, then re-run `pinpipe destroy --data`"));
    }
    if options.data {
        // The lock is held until all data is deleted, so that no local stack can start meanwhile.
        return remove_data(config, options.yes, lock).await;
    }
    remove_resources(config, options, printer).await
}

async fn remove_resources(
    config: &Config,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let progress = printer.activity("deleting");
    let session = Session::open(config, Purpose::Change, progress.clone()).await?;
    let outcome = session.run_until_cancelled(delete_selected(&session, options, printer)).await;
    progress.finish();
    session.close().await;
    outcome
}

async fn delete_selected(
    session: &Session,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let selected = options.selection.keys(&session.graph)?;
    let changes = session.observe(&selected).await?;
    let is_managed = |key: &String| changes.get(key).is_some_and(exists_and_is_managed);
    let to_delete: BTreeSet<String> =
        selected.iter().filter(|key| is_managed(key)).cloned().collect();
    if let Some(account) = &session.account {
        check_dependents(session, &selected, &changes, &account.state.keys().await)?;
        if options.data {
            let all = session.graph.resources().map(Resource::key);
            account.may_lose_data.borrow_mut().extend(all);
        }
        confirm_on_aws(session, options, &to_delete, &changes, &account.id, printer).await?;
    } else {
        let action = format!(
            "delete {} with all records",
            selected.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        session.progress.hide();
        confirm(options.yes, &action).await?;
        session.progress.show();
    }
    let visits = session
        .graph
        .walk(Order::DependentsFirst, session.max_concurrency, |resource| {
            delete_one(session, resource, &selected, &to_delete, printer).boxed_local()
        })
        .await;
    let results = session.collect_results(visits)?;
    let in_selection = results.into_iter().filter(|(key, _)| selected.contains(key));
    let mut resources: Vec<Removed> = in_selection.map(|(_, removed)| removed).collect();
    if let Some(account) = &session.account {
        for key in account.state.keys().await {
            // The state has an entry, but the resource no longer exists.
            if selected.contains(&key) && !to_delete.contains(&key) {
                account.state.remove_entry(&key).await?;
            }
        }
        account.state.remove_if_empty().await?;
        resources.retain(|removed| removed.removed);
    }
    // In the order of deletion.
    resources.reverse();
    Ok(DestroyReport {
        resources,
        data_dir: None,
        kept_files: Vec::new(),
        is_reported: session.account.is_some(),
    })
}

/// Refuses to delete data without `--data`, and prompts for confirmation.
async fn confirm_on_aws(
    session: &Session,
    options: &DestroyOptions,
    to_delete: &BTreeSet<String>,
    changes: &Changes,
    account_id: &str,
    printer: &Printer,
) -> Result<()> {
    let (mut names, mut holding_data) = (Vec::new(), Vec::new());
    for resource in session.graph.resources().filter(|resource| to_delete.contains(&resource.key()))
    {
        let (key, name) = (resource.key(), session.recorded_name(resource).await);
        if resource.holds_data() {
            let detail = changes.get(&key).map(Change::reason).unwrap_or_default();
            holding_data.push(format!("{} {name} ({detail})", resource.kind()));
        }
        if !options.data
            && let Some(held) = resource.deletion_blocker().await?
        {
            return Err(Error::failed(format!("{} `{name}` still holds {held}", resource.kind()))
                .hint(format!(
                    "add `--data` to delete its data too, or `--skip {key}` to keep the resource; \
                     nothing was deleted"
                )));
        }
        names.push(format!("  {} {name}", resource.kind()));
    }
    if names.is_empty() {
        return Ok(());
    }
    let with_data = if holding_data.is_empty() {
        String::new()
    } else {
        format!(", with all records of {}", holding_data.join(", "))
    };
    session.progress.hide();
    if !options.yes {
        for name in &names {
            printer.note(name);
        }
    }
    let count = names.len();
    let action = format!("delete {count} resources of account {account_id}{with_data}");
    confirm(options.yes, &action).await?;
    session.progress.show();
    Ok(())
}

async fn delete_one(
    session: &Session,
    resource: &dyn Resource,
    selected: &BTreeSet<String>,
    to_delete: &BTreeSet<String>,
    printer: &Printer,
) -> Result<Removed> {
    let key = resource.key();
    // On target local every resource is managed, and the deletion of a missing one does nothing.
    let is_included =
        to_delete.contains(&key) || session.account.is_none() && selected.contains(&key);
    let name = session.recorded_name(resource).await;
    let container = resource.contained_in().filter(|container| to_delete.contains(container));
    let removed = match (&session.account, container) {
        _ if !is_included => false,
        // The resource is deleted with the resource that contains it.
        (Some(account), Some(_)) => {
            account.state.remove_entry(&key).await?;
            true
        }
        _ => {
            let deleting = delete(session.account.as_deref(), resource);
            session.run_until_shutdown(deleting).await?
        }
    };
    if removed && session.account.is_some() {
        let text = format!("deleted {} {name}", resource.kind());
        session.progress.aside(|| printer.note(text));
    }
    Ok(Removed { type_name: resource.kind(), name, removed })
}

/// Refuses to delete a resource that a remaining resource depends on.
fn check_dependents(
    session: &Session,
    selected: &BTreeSet<String>,
    changes: &Changes,
    recorded: &[String],
) -> Result<()> {
    for resource in session.graph.resources() {
        let key = resource.key();
        // An unmanaged resource does not depend on a managed one.
        let exists =
            changes.get(&key).map_or_else(|| recorded.contains(&key), exists_and_is_managed);
        if selected.contains(&key) || !exists {
            continue;
        }
        let is_deleted = |dependency: &&str| {
            let is_removable =
                session.graph.resource(dependency).is_some_and(|resource| resource.is_removable());
            selected.contains(*dependency) && is_removable
        };
        if let Some(dependency) = session.graph.depends_on(&key).find(is_deleted) {
            return Err(Error::failed(format!(
                "cannot delete `{dependency}`: `{key}` depends on it and is not selected"
            ))
            .hint(format!(
                "delete both (`--only {dependency},{key}`), or keep both (`--skip {dependency}`); nothing was deleted"
            )));
        }
    }
    Ok(())
}

fn exists_and_is_managed(change: &Change) -> bool {
    change.exists && change.is_managed()
}

async fn remove_data(config: &Config, yes: bool, lock: Option<FileLock>) -> Result<DestroyReport> {
    let folder = &config.data_dir;
    if !folder.exists() {
        return Ok(DestroyReport {
            resources: Vec::new(),
            data_dir: None,
            kept_files: Vec::new(),
            is_reported: false,
        });
    }
    // A run that failed early leaves an empty folder.
    let is_empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty && !data_dir::is_data_dir(folder) {
        return Err(Error::failed(format!(
            "`{}` is not a data folder of pinpipe",
            folder.display()
        ))
        .hint("check `data_dir` and `--data-dir`; nothing was deleted"));
    }
    confirm(
        yes,
        &format!(
            "delete all data of pinpipe in `{}`: database, records, lake and tables",
            folder.display()
        ),
    )
    .await?;
    let kept_files = data_dir::delete_local_data(folder)?;
    drop(lock);
    Ok(DestroyReport {
        resources: Vec::new(),
        data_dir: Some(folder.clone()),
        kept_files,
        is_reported: false,
    })
}
