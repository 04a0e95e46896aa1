//! Everything that is printed goes through here: results to stdout, the rest to stderr.

pub mod progress;
pub mod table;

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use clap::ValueEnum;
use serde::Serialize;

use crate::base::error::Error;
use crate::base::output::progress::Progress;

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences for people.
    Text,
    /// One JSON document for programs.
    Json,
}

/// What a subcommand hands back: data for `--output json`, words for people.
pub trait Report: Serialize {
    /// The report as people read it, without a final newline.
    fn text(&self) -> String;
}

/// Prints results, notes and progress the way the global options ask for.
#[derive(Debug, Clone)]
pub struct Printer {
    format: Format,
    quiet: bool,
    progress: bool,
    colour: bool,
}

impl Printer {
    /// Progress and colour show only where stderr is a terminal.
    pub fn new(format: Format, quiet: bool, no_progress: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            format,
            quiet,
            progress: terminal && !quiet && !no_progress,
            colour,
        }
    }

    /// A result: the only thing that goes to stdout.
    pub fn report(&self, report: &impl Report) {
        let text = match self.format {
            Format::Text => report.text(),
            Format::Json => serde_json::to_string_pretty(report)
                .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")),
        };
        write_out(&text);
    }

    /// A short remark for people; `--quiet` drops it.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// Something is wrong but the work goes on; never dropped.
    pub fn warn(&self, text: impl AsRef<str>) {
        let _ = writeln!(
            std::io::stderr(),
            "{} {}",
            self.paint("33", "warning:"),
            text.as_ref()
        );
    }

    /// The error that ends the process.
    pub fn error(&self, error: &Error) {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "{} {error}", self.paint("1;31", "error:"));
        if let Some(hint) = error.hint_text() {
            let _ = writeln!(stderr, "{} {hint}", self.paint("36", "hint:"));
        }
    }

    /// A progress bar over `total` steps, or a counter where the total is not known.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        Progress::start(label, total, self.progress)
    }

    /// A spinner beside a text that says what is being done.
    pub fn activity(&self, label: &str) -> Progress {
        Progress::activity(label, self.progress)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

/// Asks on a terminal; elsewhere only `--yes` will do.
///
/// # Errors
/// Nobody confirmed; Ctrl-C.
pub async fn confirm(yes: bool, what: &str) -> crate::base::error::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("this would {what}"))
            .hint("say `--yes` to do it without being asked"));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "This will {what}. Type yes to go on: ");
    let _ = stderr.flush();
    // On a thread of its own, which the end of the process does not wait for.
    let answered = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
    let answer = tokio::select! {
        answer = answered => answer.ok().flatten().and_then(Result::ok),
        () = crate::base::shutdown::shutdown_signal() => {
            let _ = writeln!(stderr);
            return Err(Error::failed("stopped: nothing was changed"));
        }
    };
    if answer.is_some_and(|answer| answer.trim() == "yes") {
        Ok(())
    } else {
        Err(Error::failed("not confirmed: nothing was changed")
            .hint("type `yes` in full, or say `--yes`"))
    }
}

/// Why stdout could not be written, if it could not.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Raw text to stdout (generated files, completions). A reader that went away is no failure.
pub fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end.as_bytes()))
        .and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        *LOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
    }
}

/// Whether every result could be written.
///
/// # Errors
/// Stdout took something not: a full disk, most likely.
pub fn check_written() -> crate::base::error::Result<()> {
    match LOST
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take()
    {
        Some(error) => Err(Error::failed("the result could not be written to stdout")
            .with_source(error)
            .hint("the work itself is done; free some space or write elsewhere, and ask again")),
        None => Ok(()),
    }
}
