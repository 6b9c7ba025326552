//! When peers' clocks are measured besides the heartbeats: [`Clocks`].
//!
//! A measurement counts for the drift bound, because a peer that was started again, unnoticed, waits as long before it writes (R6).
//! Heartbeats may be as far apart, so that each would come too late for the next, and until its echo the clock bound would be the drift bound.
//! Who loads needs it narrow: while there are loads, peers are asked more often.

use std::time::Duration;

use crate::clock::Hlc;
use crate::time::Time;

/// Peers' clocks are measured for so long after a load has begun (guess: loads come in rows).
const MEASURED_FOR: Duration = Duration::from_secs(10);

/// So many times within the drift bound: one lost or late answer leaves the last one valid.
const TIMES_IN_BOUND: u32 = 3;

/// When peers' clocks are to be measured.
#[derive(Debug, Default)]
pub(in crate::mode) struct Clocks {
    next: Option<Time>,
    until: Time,
}

impl Clocks {
    /// Somebody loads, and allows for the clock bound.
    pub(in crate::mode) fn wanted(&mut self, now: Time) {
        self.until = now + MEASURED_FOR;
        self.next.get_or_insert(now);
    }

    /// How far measurements are apart.
    pub(in crate::mode) fn every(&self, clock: &Hlc) -> Duration {
        clock.max_drift() / TIMES_IN_BOUND
    }

    /// Whether it is time; the next time is later then, or never if nobody loads any more.
    pub(in crate::mode) fn is_due(&mut self, now: Time, every: Duration) -> bool {
        if now < self.next() {
            return false;
        }
        let is_wanted = now < self.until;
        self.next = is_wanted.then(|| now + every);
        is_wanted
    }

    /// When to look again.
    pub(in crate::mode) fn next(&self) -> Time {
        self.next.unwrap_or(Time::MAX)
    }
}
