//! The signals that ask this process to stop.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Starts to catch the signals; call inside the runtime.
    ///
    /// # Errors
    /// When the system does not let them be caught.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot catch signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Waits for one of them and tells its name. Cancel-safe.
    pub(crate) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
