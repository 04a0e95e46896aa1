//! Ctrl-C and SIGTERM: one wait for every long-running command.

/// Returns when the user or the system asks the process to stop.
pub async fn stop_requested() {
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
