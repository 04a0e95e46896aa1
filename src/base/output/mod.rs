//! Output of all commands: results on stdout; notes, warnings, errors and progress on stderr.

pub mod progress;
pub mod table;
pub mod terminal;

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use clap::ValueEnum;
use serde::Serialize;

use crate::base::error::Error;
use crate::base::output::progress::Progress;
use crate::base::output::terminal::{ColorChoice, colour_line, is_utf8, printable, to_ascii};

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
    /// Colours on stderr.
    colour: bool,
    /// Colours on stdout.
    colour_results: bool,
    is_utf8: bool,
}

impl Printer {
    /// Creates a printer. Progress is shown only if stderr is a terminal.
    pub fn new(format: Format, color: ColorChoice, quiet: bool, no_progress: bool) -> Self {
        Self {
            format,
            quiet,
            progress: std::io::stderr().is_terminal() && !quiet && !no_progress,
            colour: color.is_enabled(&std::io::stderr()),
            colour_results: color.is_enabled(&std::io::stdout()),
            is_utf8: is_utf8(),
        }
    }

    /// Creates a printer that prints only warnings, for a step inside a command.
    pub fn silent() -> Self {
        Self::new(Format::Text, ColorChoice::Never, true, true)
    }

    /// Prints a result to stdout, in the chosen format.
    pub fn report(&self, report: &impl Report) {
        let text = match self.format {
            Format::Text => self.styled(&report.text()),
            Format::Json => serde_json::to_string_pretty(report)
                .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")),
        };
        write_out(&text);
    }

    /// Prints a note to stderr, unless `--quiet` is set.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", self.for_terminal(text.as_ref()));
        }
    }

    /// Prints a warning to stderr, also with `--quiet`. The command continues.
    pub fn warn(&self, text: impl AsRef<str>) {
        let text = self.for_terminal(text.as_ref());
        let _ = writeln!(std::io::stderr(), "{} {text}", self.paint("33", "warning:"));
    }

    /// Prints the error that ends the process, and its hint; with `--output json` as one line of
    /// JSON.
    pub fn error(&self, error: &Error) {
        let mut stderr = std::io::stderr().lock();
        if self.format == Format::Json {
            let document = serde_json::json!({
                "error": error.to_string(),
                "hint": error.hint_text(),
                "exit_code": error.exit_code(),
            });
            let _ = writeln!(stderr, "{document}");
            return;
        }
        let text = self.for_terminal(&error.to_string());
        let _ = writeln!(stderr, "{} {text}", self.paint("1;31", "error:"));
        if let Some(hint) = error.hint_text() {
            let _ = writeln!(stderr, "{} {}", self.paint("36", "hint:"), self.for_terminal(hint));
        }
    }

    /// Formats a text result with the colours and characters that the terminal can show.
    fn styled(&self, text: &str) -> String {
        let text = self.for_terminal(text);
        if self.colour_results {
            text.lines().map(colour_line).collect::<Vec<_>>().join("\n")
        } else {
            text
        }
    }

    /// A text of any origin, without control characters, in the characters of the locale.
    fn for_terminal(&self, text: &str) -> String {
        self.in_locale(&printable(text))
    }

    fn in_locale(&self, text: &str) -> String {
        if self.is_utf8 { text.to_string() } else { to_ascii(text) }
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
    let _ = write!(stderr, "This will {}. Type yes to continue: ", printable(action));
    let _ = stderr.flush();
    // Reads on a separate thread, so that a pending read does not delay the exit of the process.
    let input = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
    let answer = tokio::select! {
        line = input => line.ok().flatten().and_then(Result::ok),
        () = crate::base::shutdown::shutdown_signal() => {
            let _ = writeln!(stderr);
            return Err(Error::interrupted("interrupted: nothing was changed"));
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
