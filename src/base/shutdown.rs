//! Ctrl-C and SIGTERM, for every long-running command.

use crate::base::error::{Error, Result};

/// Runs `work` to its end, or until Ctrl-C or SIGTERM; returns the error of `interrupted` then.
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
            // Without a handler, SIGTERM kills the process at once, and every stage recovers.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
