//! The one error type that reaches a person: what failed, on what, why, and what to do next.

use std::error::Error as StdError;
use std::fmt;

/// `Result` of everything that can end a subcommand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How the process ends because of this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exit code 1: the work itself failed.
    Failed,
    /// Exit code 2: the command line or the configuration is wrong.
    Usage,
    /// Exit code 1: the user interrupted the work.
    Interrupted,
}

/// An error for people. `message` is lower case, without a full stop, literals in backticks.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    /// The hint is general advice: a hint of another error is more helpful.
    is_generic_hint: bool,
    kind: Kind,
    is_retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Work that failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            is_generic_hint: false,
            kind: Kind::Failed,
            is_retryable: false,
            source: None,
        }
    }

    /// Wrong usage or configuration: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            ..Self::failed(message)
        }
    }

    /// Work that the user interrupted, by Ctrl-C or a signal: exit code 1.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Interrupted,
            ..Self::failed(message)
        }
    }

    /// General advice, for errors about which nothing better is known.
    pub fn generic_hint(mut self, hint: impl Into<String>) -> Self {
        self.is_generic_hint = true;
        self.hint = Some(hint.into());
        self
    }

    /// Whether the user interrupted the work.
    pub fn is_interrupted(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Whether there is a hint about this very error.
    pub fn has_specific_hint(&self) -> bool {
        self.hint.is_some() && !self.is_generic_hint
    }

    /// What the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// More that stands after the message and its causes, each on a line of its own.
    pub fn with_note(mut self, more: impl AsRef<str>) -> Self {
        self.message = format!("{self}{}", more.as_ref());
        self.source = None;
        self
    }

    /// The same without a secret that the text may quote.
    pub fn redact(mut self, secret: &str) -> Self {
        let text = self.to_string();
        if !secret.is_empty() && text.contains(secret) {
            self.message = text.replace(secret, "<secret>");
            self.source = None;
        }
        self
    }

    /// What caused it, shown after the message.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The other side was not there, or too busy: the same call may do later.
    pub fn retryable(mut self, is_retryable: bool) -> Self {
        self.is_retryable = is_retryable;
        self
    }

    /// Whether trying the same again later may do.
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }

    /// The process exit code this error stands for.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed | Kind::Interrupted => 1,
            Kind::Usage => 2,
        }
    }

    /// The hint, where there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// The message and, after colons, every cause that says something new.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.message.clone();
        let mut cause: Option<&(dyn StdError + 'static)> = match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        };
        while let Some(error) = cause {
            let reason = error.to_string();
            let reason = reason.trim_end_matches(['.', '\n']);
            if !reason.is_empty() && !text.contains(reason) {
                text.push_str(": ");
                text.push_str(reason);
            }
            cause = error.source();
        }
        formatter.write_str(&text)
    }
}

impl StdError for Error {}

/// Turns any error into an [`Error`] that says what was being done.
pub trait ErrorContext<T> {
    /// The error becomes the cause of a failure (exit code 1) with this message.
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ErrorContext<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Error::failed(message()).with_source(error))
    }
}

/// Explains an input or output error on a path: no space, no permission, not there.
pub fn io_error(action: &str, path: &std::path::Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::StorageFull => Some(
            "free some space on that disk, then run the same command again: nothing acknowledged was lost",
        ),
        ErrorKind::PermissionDenied if action.starts_with("read") => {
            Some("give yourself permission to read it, then run the same command again")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(
            "give yourself write permission there, or choose another folder (`--data-dir` for local state)",
        ),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            Some("there is a file where a folder is needed: move it, or choose another folder")
        }
        ErrorKind::NotFound => {
            Some("check the path; relative paths start at the folder the command runs in")
        }
        _ => None,
    };
    let failure = Error::failed(format!("cannot {action} `{}`", path.display())).with_source(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_message_and_are_not_repeated() {
        let io = std::io::Error::other("disk on fire");
        let inner = Error::failed("cannot write `x`").with_source(io);
        let outer = Error::failed("seed failed")
            .with_source(inner)
            .hint("use water");
        assert_eq!(
            outer.to_string(),
            "seed failed: cannot write `x`: disk on fire"
        );
        assert_eq!(outer.hint_text(), Some("use water"));
        assert_eq!(outer.exit_code(), 1);
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        assert_eq!(Error::usage("no such key").exit_code(), 2);
    }
}
