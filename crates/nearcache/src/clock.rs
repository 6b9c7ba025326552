//! Cluster time on this node.
//!
//! The physical clock of a node is its wall clock when it started plus the boot time elapsed
//! since: it never follows a later step of the wall clock, and it counts the time a machine was
//! suspended. A [`NodeClock`] reads it; a [`Ticker`] thread writes it once a millisecond into the
//! store's coarse clock, so that a read of the cache never makes a system call to learn the time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearcache_protocol::time::Time;
use nearcache_store::CoarseClock;
use rustix::time::{ClockId, clock_gettime};

use crate::quick_clock::QuickClock;

/// How often the coarse clock advances. Entries expire at most this much late, plus scheduling.
const TICK: Duration = Duration::from_millis(1);

/// Reads this node's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeClock {
    wall_ms_at_start: u64,
    boot_ns_at_start: u64,
}

impl NodeClock {
    /// Starts at the wall clock's time of day.
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ms_at_start = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Self {
            wall_ms_at_start,
            boot_ns_at_start: boot_ns(),
        }
    }

    /// Milliseconds of the Unix epoch at which this clock started.
    pub(crate) const fn wall_ms_at_start(&self) -> u64 {
        self.wall_ms_at_start
    }

    /// Time since the start. Cost: one vDSO call.
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(boot_ns().saturating_sub(self.boot_ns_at_start))
    }

    /// Cluster time in milliseconds of the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.wall_ms_at_start
            .saturating_add(self.now().as_nanos() / 1_000_000)
    }
}

/// Boot time: monotonic, and it counts suspend.
fn boot_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The thread that advances a node's coarse clock; it ends with the value.
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
    use super::*;

    #[test]
    fn boot_time_never_runs_backwards() {
        let clock = NodeClock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.now_ms() >= clock.wall_ms_at_start());
    }

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
