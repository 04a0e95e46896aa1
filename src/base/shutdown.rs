//! Ctrl-C and SIGTERM: one wait for every long-running command.

use crate::base::error::{Error, Result};

/// Does some work, but not longer than until it is asked to stop, which ends it with this error.
pub async fn run_until_shutdown<T>(
    work: impl Future<Output = Result<T>>,
    stopped: impl FnOnce() -> Error,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown_signal() => Err(stopped()),
    }
}

/// Returns when the user or the system asks the process to stop.
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
            // Without a handler SIGTERM ends the process at once, which every stage survives.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
