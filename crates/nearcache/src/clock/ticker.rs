//! The thread that advances a node's coarse clock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nearcache_store::CoarseClock;

use super::{NodeClock, TICK};
use crate::quick_clock::QuickClock;

/// The thread; it ends with the value.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which shows up under the name `nearcache-clock`.
    pub(crate) fn spawn(
        clock: NodeClock,
        coarse: CoarseClock,
        quick: Arc<QuickClock>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        coarse.set(clock.now_ms());
        let thread = std::thread::Builder::new()
            .name("nearcache-clock".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    coarse.set(clock.now_ms());
                    quick.tick();
                    std::thread::sleep(TICK);
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Waits for one tick at most. A panic of the thread has nothing to tell us here.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_thread_ends_with_its_owner() {
        let coarse = CoarseClock::default();
        let clock = NodeClock::start();
        let quick = Arc::new(QuickClock::new(clock));
        let ticker = Ticker::spawn(clock, coarse.clone(), quick).unwrap();
        assert!(coarse.now_ms() > 0);
        drop(ticker);
        let stopped_at = coarse.now_ms();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(coarse.now_ms(), stopped_at);
    }
}
