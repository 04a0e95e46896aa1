//! The error type of all subcommands: the failed action, its object, the cause and a hint.

use std::error::Error as StdError;
use std::fmt;

/// Result of a function whose error can end a subcommand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of an error, which determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exit code 1: the operation failed.
    Failed,
    /// Exit code 2: the command line or the configuration is invalid.
    Usage,
    /// Exit code 1: the user interrupted the work.
    Interrupted,
}

/// Error response of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceError {
    code: String,
    message: String,
}

/// An error as it is shown to the user. The message is lower case, has no full stop, and encloses
/// names and values in backticks.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    /// The hint is general advice: a specific hint of another error is preferred.
    is_generic_hint: bool,
    kind: Kind,
    is_retryable: bool,
    service: Option<ServiceError>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of a failed operation: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            is_generic_hint: false,
            kind: Kind::Failed,
            is_retryable: false,
            service: None,
            source: None,
        }
    }

    /// Creates an error of the command line or the configuration: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::failed(message) }
    }

    /// Creates an error of work that the user interrupted, by Ctrl-C or a signal: exit code 1.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { kind: Kind::Interrupted, ..Self::failed(message) }
    }

    /// Sets general advice as the hint, for an error without a known remedy.
    pub fn generic_hint(mut self, hint: impl Into<String>) -> Self {
        self.is_generic_hint = true;
        self.hint = Some(hint.into());
        self
    }

    /// Sets the hint: one action that the user can take.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Appends a note to the message and its causes. The note begins with a line break.
    pub fn with_note(mut self, note: impl AsRef<str>) -> Self {
        self.message = format!("{self}{}", note.as_ref());
        self.source = None;
        self
    }

    /// Replaces a secret in the message and its causes by `<secret>`.
    pub fn redact(mut self, secret: &str) -> Self {
        let text = self.to_string();
        if !secret.is_empty() && text.contains(secret) {
            self.message = text.replace(secret, "<secret>");
            self.source = None;
        }
        self
    }

    /// Sets the cause, which is displayed after the message.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets whether a retry may succeed: the service could not be reached or was overloaded.
    pub fn retryable(mut self, is_retryable: bool) -> Self {
        self.is_retryable = is_retryable;
        self
    }

    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }

    /// Sets code and message of a service's error response. Decisions depend on them, never on the
    /// text of the error, which is only displayed.
    pub fn with_service_error(mut self, code: &str, message: &str) -> Self {
        self.service = Some(ServiceError { code: code.into(), message: message.into() });
        self
    }

    /// Whether a service rejected the call with one of these codes.
    pub fn has_service_code(&self, codes: &[&str]) -> bool {
        self.service.as_ref().is_some_and(|service| codes.contains(&service.code.as_str()))
    }

    /// Returns the message of the service that rejected the call; empty if no service did. Decide
    /// by the message only if the service has no code for the cause.
    pub fn service_message(&self) -> &str {
        self.service.as_ref().map_or("", |service| &service.message)
    }

    /// Whether the user interrupted the work.
    pub fn is_interrupted(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// Whether the error has a hint that is not general advice.
    pub fn has_specific_hint(&self) -> bool {
        self.hint.is_some() && !self.is_generic_hint
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed | Kind::Interrupted => 1,
            Kind::Usage => 2,
        }
    }

    /// Returns the hint, if any.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// Writes the message and, after colons, every cause that it does not already contain.
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

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Converts any error into an [`Error`] with a message about the failed action.
pub trait ErrorContext<T> {
    /// Wraps the error as the cause of a failure (exit code 1) with this message.
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ErrorContext<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Error::failed(message()).with_source(error))
    }
}

/// Returns the kind of the I/O error that caused an error, if there is one among its causes.
pub fn io_error_kind(error: &(dyn StdError + 'static)) -> Option<std::io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // An I/O error may contain another error that caused it.
            return io.get_ref().and_then(|inner| io_error_kind(inner)).or(Some(io.kind()));
        }
        cause = error.source();
    }
    None
}

/// Converts an I/O error on a path into `cannot ACTION PATH`, with a hint for a full disk, a
/// denied permission or a missing path.
pub fn io_error(action: &str, path: &std::path::Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::StorageFull => Some(
            "free space on the disk, then re-run the command; acknowledged records are not lost",
        ),
        ErrorKind::PermissionDenied if action.starts_with("read") => {
            Some("grant read permission on the path, then re-run the command")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(
            "grant write permission on the path, or choose another folder (`--data-dir` for local \
             state)",
        ),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            Some("a file exists where a folder is required: move it, or choose another folder")
        }
        ErrorKind::NotFound => Some("check the path; relative paths start at the current folder"),
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
    fn appends_causes_to_the_message_without_repeating_them() {
        let io = std::io::Error::other("disk on fire");
        let inner = Error::failed("cannot write `x`").with_source(io);
        let outer = Error::failed("seed failed").with_source(inner).hint("use water");
        assert_eq!(outer.to_string(), "seed failed: cannot write `x`: disk on fire");
        assert_eq!(outer.hint_text(), Some("use water"));
        assert_eq!(outer.exit_code(), 1);
    }

    #[test]
    fn the_io_error_is_found_among_the_causes() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let wrapped = std::io::Error::other(Error::failed("cannot write").with_source(full));
        let outer = Error::failed("cannot commit").with_source(wrapped);
        assert_eq!(io_error_kind(&outer), Some(std::io::ErrorKind::StorageFull));
        assert_eq!(io_error_kind(&Error::failed("no reason")), None);
    }

    #[test]
    fn usage_errors_exit_with_two() {
        assert_eq!(Error::usage("no such key").exit_code(), 2);
    }
}
