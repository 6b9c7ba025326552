//! What readers and writers know of leases, freshness and netsplits: numbers that the machine's shell writes and every call loads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearcache_protocol::mode::ReadBound;
use nearcache_protocol::time::Time;

use crate::quick_clock::QuickClock;

/// The machine's [`ReadBound`], for readers, and until when writes may be made.
#[derive(Debug)]
pub(crate) struct Gate {
    serve_until: AtomicU64,
    fresh_since: AtomicU64,
    write_until: AtomicU64,
}

impl Gate {
    pub(super) fn new(bound: ReadBound, write_until: Time) -> Self {
        let gate = Self {
            serve_until: AtomicU64::new(0),
            fresh_since: AtomicU64::new(0),
            write_until: AtomicU64::new(0),
        };
        gate.set(bound, write_until);
        gate
    }

    /// Called under the machine's lock, before anybody is told of what the machine did.
    pub(super) fn set(&self, bound: ReadBound, write_until: Time) {
        self.serve_until
            .store(bound.serve_until.as_nanos(), Ordering::Release);
        self.fresh_since
            .store(bound.fresh_since.as_nanos(), Ordering::Release);
        self.write_until
            .store(write_until.as_nanos(), Ordering::Release);
    }

    /// Whether a write of this node may be made now. Without that policy, one comparison.
    #[inline]
    pub(super) fn may_write(&self, clock: &QuickClock) -> bool {
        let until = Time::from_nanos(self.write_until.load(Ordering::Acquire));
        until == Time::MAX || clock.at_latest() <= until || clock.exact() <= until
    }

    /// The bound that holds for whatever is read from the store from now on. Taken before the store is read, and compared with the
    /// clock afterwards: a pause in between then counts.
    #[inline]
    pub(crate) fn bound(&self) -> ReadBound {
        ReadBound {
            serve_until: Time::from_nanos(self.serve_until.load(Ordering::Acquire)),
            fresh_since: Time::from_nanos(self.fresh_since.load(Ordering::Acquire)),
        }
    }
}

/// Whether what was read under `bound` may be served now. Without leases, one comparison.
#[inline]
pub(crate) fn is_leased(bound: ReadBound, clock: &QuickClock) -> bool {
    bound.serve_until == Time::MAX
        || clock.at_latest() <= bound.serve_until
        || clock.exact() <= bound.serve_until
}

/// Whether what was read under `bound` is at most `age_max` old.
#[inline]
pub(crate) fn is_fresh(bound: ReadBound, age_max: Duration, clock: &QuickClock) -> bool {
    // Zero: some peer was never heard to the end, however short a time ago this node began.
    if bound.fresh_since == Time::ZERO {
        return false;
    }
    // In nanoseconds: a `Duration` in between would be divided into seconds.
    let fresh_until = bound.fresh_since.as_nanos().saturating_add(nanos(age_max));
    bound.fresh_since == Time::MAX
        || clock.at_latest().as_nanos() <= fresh_until
        || clock.exact().as_nanos() <= fresh_until
}

/// Saturates after five centuries.
#[inline]
const fn nanos(duration: Duration) -> u64 {
    (duration.as_secs())
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos() as u64)
}
