//! The task that advances a node's coarse clock under turmoil, where a thread would see no time pass.

use std::io;
use std::sync::Arc;

use nearcache_store::CoarseClock;
use tokio::task::AbortHandle;

use crate::clock::{NodeClock, TICK};
use crate::quick_clock::QuickClock;

/// The task; it ends with the value.
#[derive(Debug)]
pub(crate) struct Ticker {
    task: AbortHandle,
}

impl Ticker {
    /// Starts the task.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "as the thread, which may not start"
    )]
    pub(crate) fn spawn(
        clock: NodeClock,
        coarse: CoarseClock,
        _: Arc<QuickClock>,
    ) -> io::Result<Self> {
        coarse.set(clock.now_ms());
        let ticking = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                coarse.set(clock.now_ms());
            }
        });
        Ok(Self {
            task: ticking.abort_handle(),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
