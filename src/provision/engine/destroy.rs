//! `pinpipe destroy`: takes back what `provision` made.

use futures::FutureExt;
use serde::Serialize;

use crate::base::config::runtime::Runtime;
use crate::base::config::schema::{Config, Target};
use crate::base::error::{Error, Result, io_error};
use crate::base::fs::FileLock;
use crate::base::output::{Printer, Report, confirm};
use crate::provision::engine::graph::Order;
use crate::provision::engine::reconcile::remove;
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Purpose, Session};
use crate::provision::resource::Observation;

/// What `destroy` deletes, and what it may do without asking.
#[derive(Debug, Clone, Default)]
pub struct DestroyOptions {
    /// Remove the data too: on target local the data folder with database, lake and
    /// tables, on target aws the objects of a bucket that still holds some
    pub data: bool,
    /// Do not ask
    pub yes: bool,
    pub selection: Selection,
}

#[derive(Debug, Serialize)]
struct Removed {
    #[serde(rename = "type")]
    type_name: &'static str,
    name: String,
    /// False: it was not there.
    removed: bool,
}

/// The report of `destroy`.
#[derive(Debug, Serialize)]
pub struct DestroyReport {
    resources: Vec<Removed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<std::path::PathBuf>,
    /// Each was told on stderr when it went.
    #[serde(skip)]
    is_told: bool,
}

impl DestroyReport {
    /// Whether anything was there.
    pub fn removed_any(&self) -> bool {
        self.resources.iter().any(|resource| resource.removed)
    }
}

impl Report for DestroyReport {
    fn text(&self) -> String {
        if self.is_told && !self.resources.is_empty() {
            return format!("removed {} resources", self.resources.len());
        }
        let mut lines: Vec<String> = self
            .resources
            .iter()
            .map(|removed| {
                format!(
                    "{} {} {}",
                    if removed.removed {
                        "deleted"
                    } else {
                        "not there:"
                    },
                    removed.type_name,
                    removed.name
                )
            })
            .collect();
        lines.extend(
            self.data_dir
                .iter()
                .map(|folder| format!("removed {}", folder.display())),
        );
        if lines.is_empty() {
            "nothing to remove".into()
        } else {
            lines.join("\n")
        }
    }
}

/// Files that show that a folder is a data folder of this program.
const MARKS: [&str; 2] = ["local.lock", "source.db"];

/// All that the program puts into its data folder; nothing else is removed.
const ENTRIES: [&str; 21] = [
    "answers",
    "api.json",
    "checkpoints",
    "connectors.json",
    "databricks",
    "dead-letters",
    "kafka",
    "kinesis.db",
    "kinesis.db-shm",
    "kinesis.db-wal",
    "lake",
    "local.json",
    "source.db",
    "spark",
    "spill",
    "source.db-shm",
    "source.db-wal",
    "tables",
    "api.json.new",
    "connectors.json.new",
    "local.json.new",
];

/// Removes everything, in the reverse order of making it.
///
/// # Errors
/// Nobody confirmed; the stack still uses the data folder; something cannot be removed.
pub async fn destroy(
    config: &Config,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let lock_path = Runtime::lock_path(&config.data_dir);
    // Without the file nothing can be running, and none is left behind by looking.
    let lock = if lock_path.exists() {
        FileLock::try_lock(&lock_path)?
    } else {
        None
    };
    let runs = lock_path.exists() && lock.is_none();
    if config.target == Target::Aws {
        return remove_resources(config, options, printer).await;
    }
    if !runs && !options.data {
        return Err(Error::failed(format!("the local stack is not running in `{}`", config.data_dir.display()))
            .hint("start it with `pinpipe local` to remove what it serves, or remove everything with `--data`"));
    }
    if runs && options.data {
        return Err(Error::failed(format!(
            "the local stack still runs in `{}`",
            config.data_dir.display()
        ))
        .hint("stop it with Ctrl-C first, then run `pinpipe destroy --data` again"));
    }
    if options.data {
        // Held until everything is gone: nothing may start in there meanwhile.
        return remove_data(config, options.yes, lock).await;
    }
    remove_resources(config, options, printer).await
}

async fn remove_resources(
    config: &Config,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let progress = printer.activity("removing");
    let session = Session::open(config, Purpose::Change, progress.clone()).await?;
    let outcome = session
        .run_until_cancelled(delete_selected(&session, options, printer))
        .await;
    progress.finish();
    session.close().await;
    outcome
}

async fn delete_selected(
    session: &Session,
    options: &DestroyOptions,
    printer: &Printer,
) -> Result<DestroyReport> {
    let chosen = options.selection.chosen(&session.graph)?;
    let observations = session.read(&chosen).await?;
    let is_ours = |position: usize| {
        chosen[position]
            && observations[position]
                .as_ref()
                .is_some_and(is_there_and_ours)
    };
    if let Some(account) = &session.account {
        check_dependents(session, &chosen, &observations, &account.state.keys().await)?;
        if options.data {
            account.may_lose_data.borrow_mut().extend(
                session
                    .graph
                    .resources
                    .iter()
                    .map(|resource| resource.key()),
            );
        }
        let mut holding = Vec::new();
        for (position, resource) in session
            .graph
            .resources
            .iter()
            .enumerate()
            .filter(|(position, _)| is_ours(*position))
        {
            let name = session.recorded_name(resource.as_ref()).await;
            if resource.holds_data() {
                let detail = observations[position]
                    .as_ref()
                    .map(Observation::reason)
                    .unwrap_or_default();
                holding.push(format!("{} {name} ({detail})", resource.kind()));
            }
            if !options.data
                && let Some(held) = resource.deletion_blocker().await?
            {
                return Err(Error::failed(format!(
                    "{} `{name}` still holds {held}",
                    resource.kind()
                ))
                .hint(format!(
                    "`--data` removes it with its data, `--skip {}` keeps it; nothing was removed",
                    resource.key()
                )));
            }
        }
        let count = (0..chosen.len())
            .filter(|position| is_ours(*position))
            .count();
        if count > 0 {
            let with_data = if holding.is_empty() {
                String::new()
            } else {
                format!(", with all records of {}", holding.join(", "))
            };
            let question = format!(
                "remove {count} resources from account {}{with_data}",
                account.id
            );
            session.progress.hide();
            if !options.yes {
                for (_, resource) in session
                    .graph
                    .resources
                    .iter()
                    .enumerate()
                    .filter(|(position, _)| is_ours(*position))
                {
                    printer.note(format!(
                        "  {} {}",
                        resource.kind(),
                        session.recorded_name(resource.as_ref()).await
                    ));
                }
            }
            confirm(options.yes, &question).await?;
            session.progress.show();
        }
    } else {
        let question =
            "delete the topics with their records, the streams, the connector and the routes";
        session.progress.hide();
        confirm(options.yes, question).await?;
        session.progress.show();
    }
    let visits = session
        .graph
        .walk(Order::Dependents, session.at_once, |position, resource| {
            let (is_ours, chosen) = (&is_ours, &chosen);
            async move {
                // Locally nothing is anybody else's, and deleting what is not there does no harm.
                let is_found = is_ours(position) || session.account.is_none() && chosen[position];
                let name = session.recorded_name(resource).await;
                let container = resource
                    .contained_in()
                    .and_then(|key| session.graph.position(&key));
                let removed = match (
                    &session.account,
                    container.filter(|container| is_ours(*container)),
                ) {
                    _ if !is_found => false,
                    // It goes when that goes.
                    (Some(account), Some(_)) => {
                        account.state.remove_entry(&resource.key()).await?;
                        true
                    }
                    _ => {
                        session
                            .run_until_shutdown(remove(session.account.as_deref(), resource))
                            .await?
                    }
                };
                if removed && session.account.is_some() {
                    let text = format!("deleted {} {name}", resource.kind());
                    session.progress.aside(|| printer.note(text));
                }
                Ok(Removed {
                    type_name: resource.kind(),
                    name,
                    removed,
                })
            }
            .boxed_local()
        })
        .await;
    let mut resources = session.collect_results(visits)?;
    if let Some(account) = &session.account {
        for key in account.state.keys().await {
            // What was remembered and is not there any more.
            if let Some(position) = session.graph.position(&key)
                && chosen[position]
                && !is_ours(position)
            {
                account.state.remove_entry(&key).await?;
            }
        }
        account.state.remove_if_empty().await?;
        resources.retain(|removed| removed.removed);
    }
    // In the order of removing.
    resources.reverse();
    Ok(DestroyReport {
        resources,
        data_dir: None,
        is_told: session.account.is_some(),
    })
}

/// Refuses to take away what something that stays needs.
fn check_dependents(
    session: &Session,
    chosen: &[bool],
    observations: &[Option<Observation>],
    remembered: &[String],
) -> Result<()> {
    for (position, resource) in session.graph.resources.iter().enumerate() {
        // Somebody else's does not stand on ours.
        let is_there = observations[position]
            .as_ref()
            .map_or_else(|| remembered.contains(&resource.key()), is_there_and_ours);
        if chosen[position] || !is_there {
            continue;
        }
        if let Some(need) = session
            .graph
            .depends_on(position)
            .iter()
            .find(|need| chosen[**need] && session.graph.resources[**need].is_removable())
        {
            let (need, key) = (session.graph.resources[*need].key(), resource.key());
            return Err(Error::failed(format!("`{need}` is needed by `{key}`, which is to stay"))
                .hint(format!("remove both (`--only {need},{key}`), or keep both (`--skip {need}`); nothing was removed")));
        }
    }
    Ok(())
}

fn is_there_and_ours(observation: &Observation) -> bool {
    observation.exists && observation.is_ours
}

async fn remove_data(config: &Config, yes: bool, lock: Option<FileLock>) -> Result<DestroyReport> {
    let folder = &config.data_dir;
    if !folder.exists() {
        return Ok(DestroyReport {
            resources: Vec::new(),
            data_dir: None,
            is_told: false,
        });
    }
    // A run that failed at once leaves it empty.
    let is_empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty && !MARKS.iter().any(|mark| folder.join(mark).is_file()) {
        return Err(Error::failed(format!(
            "`{}` does not look like a data folder of pinpipe",
            folder.display()
        ))
        .hint("check `data_dir` and `--data-dir`; nothing was removed"));
    }
    confirm(
        yes,
        &format!(
            "remove all data of pinpipe in `{}`: database, records, lake and tables",
            folder.display()
        ),
    )
    .await?;
    for entry in ENTRIES {
        let path = folder.join(entry);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path, error));
            }
            _ => {}
        }
    }
    // The lock goes last, and the folder only where nothing of somebody else's is in it.
    let _ = std::fs::remove_file(folder.join("local.lock"));
    drop(lock);
    let _ = std::fs::remove_dir(folder);
    Ok(DestroyReport {
        resources: Vec::new(),
        data_dir: Some(folder.clone()),
        is_told: false,
    })
}
