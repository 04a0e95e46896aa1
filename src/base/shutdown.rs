//! Ctrl-C and SIGTERM, for every long-running command.

use crate::base::error::{Error, Result};

/// Runs `work` to its end. On Ctrl-C or SIGTERM, aborts it and returns the error that
/// `interrupted` creates.
pub async fn run_until_shutdown<T>(
    work: impl Future<Output = Result<T>>,
    interrupted: impl FnOnce() -> Error,
) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        () = shutdown_signal() => Err(interrupted()),
    }
}

/// Returns on Ctrl-C or SIGTERM.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            // Without a handler, SIGTERM kills the process at once; the next run recovers.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
