//! Cluster time on this node.
//!
//! The physical clock of a node is its wall clock when it started plus the boot time elapsed
//! since: it never follows a later step of the wall clock, and it counts the time a machine was
//! suspended. A [`NodeClock`] reads it; a [`Ticker`] thread writes it once a millisecond into the
//! store's coarse clock, so that a read of the cache never makes a system call to learn the time.
//!
//! `source` is the one place where time comes in: the system's clocks, or under turmoil (a feature for tests of this crate) the
//! simulation's, which stand still while nothing happens.

#[cfg(not(feature = "turmoil"))]
mod source;
#[cfg(not(feature = "turmoil"))]
mod ticker;

use std::time::Duration;

use nearcache_protocol::time::Time;

#[cfg(feature = "turmoil")]
use crate::simulated::{self as source, ticker};

pub(crate) use ticker::Ticker;

/// How often the coarse clock advances. Entries expire at most this much late, plus scheduling.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Reads this node's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeClock {
    wall_ms_at_start: u64,
    boot_ns_at_start: u64,
}

impl NodeClock {
    /// Starts at the wall clock's time of day.
    pub(crate) fn start() -> Self {
        let wall_ms_at_start = u64::try_from(source::wall().as_millis()).unwrap_or(u64::MAX);
        Self {
            wall_ms_at_start,
            boot_ns_at_start: source::boot_ns(),
        }
    }

    /// Milliseconds of the Unix epoch at which this clock started.
    pub(crate) const fn wall_ms_at_start(&self) -> u64 {
        self.wall_ms_at_start
    }

    /// Time since the start. Cost: one vDSO call.
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(source::boot_ns().saturating_sub(self.boot_ns_at_start))
    }

    /// Cluster time in milliseconds of the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.wall_ms_at_start
            .saturating_add(self.now().as_nanos() / 1_000_000)
    }
}

#[cfg(all(test, not(feature = "turmoil")))]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_runs_backwards() {
        let clock = NodeClock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.now_ms() >= clock.wall_ms_at_start());
    }
}
