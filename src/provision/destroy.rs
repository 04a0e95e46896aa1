//! `pinpipe destroy`: takes back what `provision` made.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use super::resource::{Clients, Resource};
use crate::config::{Config, Runtime};
use crate::error::{Error, Result, on_path};
use crate::files::FileLock;
use crate::output::{Printer, Report};

/// What `destroy` is told.
#[derive(Debug, Args)]
pub struct DestroyArguments {
    /// Remove the data folder too: database, lake, tables and all
    #[arg(long)]
    pub data: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
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
}

impl Report for DestroyReport {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .resources
            .iter()
            .map(|removed| format!("{} {} {}", if removed.removed { "deleted" } else { "not there:" }, removed.type_name, removed.name))
            .collect();
        lines.extend(self.data_dir.iter().map(|folder| format!("removed {}", folder.display())));
        if lines.is_empty() { "nothing to remove".into() } else { lines.join("\n") }
    }
}

/// Files that show that a folder is a data folder of this program.
const MARKS: [&str; 2] = ["local.lock", "source.db"];

/// All that the program puts into its data folder; nothing else is removed.
const ENTRIES: [&str; 19] = [
    "answers",
    "api.json",
    "checkpoints",
    "connectors.json",
    "dead-letters",
    "kafka",
    "kinesis.db",
    "kinesis.db-shm",
    "kinesis.db-wal",
    "lake",
    "local.json",
    "source.db",
    "spark",
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
pub async fn destroy(config: &Config, arguments: &DestroyArguments, printer: &Printer) -> Result<DestroyReport> {
    let lock_path = Runtime::lock_path(&config.data_dir);
    // Without the file nothing can be running, and none is left behind by looking.
    let lock = if lock_path.exists() { FileLock::take(&lock_path)? } else { None };
    let runs = lock_path.exists() && lock.is_none();
    if !runs && !arguments.data && config.target == crate::config::Target::Local {
        return Err(Error::failed(format!("the local stack is not running in `{}`", config.data_dir.display()))
            .hint("start it with `pinpipe local` to remove what it serves, or remove everything with `--data`"));
    }
    if runs && arguments.data {
        return Err(Error::failed(format!("the local stack still runs in `{}`", config.data_dir.display()))
            .hint("stop it with Ctrl-C first, then run `pinpipe destroy --data` again"));
    }
    if arguments.data {
        // Held until everything is gone: nothing may start in there meanwhile.
        return remove_data(config, arguments.yes, lock);
    }
    confirm(arguments.yes, "delete the topics with their records, the streams, the connector and the routes")?;
    let clients = Clients::new(config).await?;
    let mut resources = Vec::new();
    let progress = printer.progress("removing", None);
    for resource in Resource::all().into_iter().rev() {
        let removed = resource.delete(&clients).await?;
        progress.add(1);
        resources.push(Removed { type_name: resource.type_name(), name: resource.name(config), removed });
    }
    Ok(DestroyReport { resources, data_dir: None })
}

fn remove_data(config: &Config, yes: bool, lock: Option<FileLock>) -> Result<DestroyReport> {
    let folder = &config.data_dir;
    if !folder.exists() {
        return Ok(DestroyReport { resources: Vec::new(), data_dir: None });
    }
    if !MARKS.iter().any(|mark| folder.join(mark).is_file()) {
        return Err(Error::failed(format!("`{}` does not look like a data folder of pinpipe", folder.display()))
            .hint("check `data_dir` and `--data-dir`; nothing was removed"));
    }
    confirm(yes, &format!("remove all data of pinpipe in `{}`: database, records, lake and tables", folder.display()))?;
    for entry in ENTRIES {
        let path = folder.join(entry);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(on_path("remove", &path, error)),
            _ => {}
        }
    }
    // The lock goes last, and the folder only where nothing of somebody else's is in it.
    let _ = std::fs::remove_file(folder.join("local.lock"));
    drop(lock);
    let _ = std::fs::remove_dir(folder);
    Ok(DestroyReport { resources: Vec::new(), data_dir: Some(folder.clone()) })
}

/// Asks on a terminal; elsewhere only `--yes` will do.
fn confirm(yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("this would {what}")).hint("say `--yes` to do it without being asked"));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "This will {what}. Type yes to go on: ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(Error::failed("not confirmed: nothing was removed")) }
}
