//! Output of all commands: results on stdout; notes, warnings, errors and progress on stderr.

pub mod progress;
pub mod table;

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use clap::ValueEnum;
use serde::Serialize;

use crate::base::error::Error;
use crate::base::output::progress::Progress;

/// Format of results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences
    Text,
    /// One JSON document
    Json,
}

/// Result of a subcommand: serialised for `--output json`, formatted as text otherwise.
pub trait Report: Serialize {
    /// Returns the report as text, without a trailing newline.
    fn text(&self) -> String;
}

/// Prints results, notes and progress according to the global options.
#[derive(Debug, Clone)]
pub struct Printer {
    format: Format,
    quiet: bool,
    progress: bool,
    colour: bool,
}

impl Printer {
    /// Creates a printer. Progress and colours are shown only if stderr is a terminal.
    pub fn new(format: Format, quiet: bool, no_progress: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { format, quiet, progress: terminal && !quiet && !no_progress, colour }
    }

    /// Prints a result to stdout, in the chosen format.
    pub fn report(&self, report: &impl Report) {
        let text = match self.format {
            Format::Text => report.text(),
            Format::Json => serde_json::to_string_pretty(report)
                .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")),
        };
        write_out(&text);
    }

    /// Prints a note to stderr, unless `--quiet` is set.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// Prints a warning to stderr, also with `--quiet`. The command continues.
    pub fn warn(&self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stderr(), "{} {}", self.paint("33", "warning:"), text.as_ref());
    }

    /// Prints the error that ends the process, and its hint.
    pub fn error(&self, error: &Error) {
        let mut stderr = std::io::stderr().lock();
        let _ = writeln!(stderr, "{} {error}", self.paint("1;31", "error:"));
        if let Some(hint) = error.hint_text() {
            let _ = writeln!(stderr, "{} {hint}", self.paint("36", "hint:"));
        }
    }

    /// Starts a progress bar over `total` steps, or a counter if the total is unknown.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        Progress::start(label, total, self.progress)
    }

    /// Starts a spinner with a label for the current action.
    pub fn activity(&self, label: &str) -> Progress {
        Progress::activity(label, self.progress)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Asks the user on a terminal to confirm an action ("delete …"); without a terminal, requires
/// `--yes`.
///
/// # Errors
/// The user did not confirm, or pressed Ctrl-C; stdin is not a terminal.
pub async fn confirm(yes: bool, action: &str) -> crate::base::error::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("confirmation required: this would {action}"))
            .hint("add `--yes` to skip the confirmation prompt"));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "This will {action}. Type yes to continue: ");
    let _ = stderr.flush();
    // Reads on a separate thread, which does not delay the exit of the process.
    let input = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
    let answer = tokio::select! {
        line = input => line.ok().flatten().and_then(Result::ok),
        () = crate::base::shutdown::shutdown_signal() => {
            let _ = writeln!(stderr);
            return Err(Error::failed("interrupted: nothing was changed"));
        }
    };
    if answer.is_some_and(|answer| answer.trim() == "yes") {
        Ok(())
    } else {
        Err(Error::failed("not confirmed: nothing was changed")
            .hint("type `yes` in full, or add `--yes`"))
    }
}

/// Last error of a write to stdout, if any.
static WRITE_ERROR: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Writes text to stdout (results, generated files, completions). A closed pipe is not an error.
pub fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let result = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(end.as_bytes()))
        .and_then(|()| stdout.flush());
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        *WRITE_ERROR.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
    }
}

/// Checks that every result was written.
///
/// # Errors
/// A write to stdout failed, most likely because the disk is full.
pub fn check_written() -> crate::base::error::Result<()> {
    match WRITE_ERROR.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
        Some(error) => {
            Err(Error::failed("cannot write the result to stdout").with_source(error).hint(
                "the operation itself succeeded; free space or redirect stdout to another disk, \
                 then re-run the command",
            ))
        }
        None => Ok(()),
    }
}
