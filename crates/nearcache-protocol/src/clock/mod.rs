//! The hybrid logical clock that stamps versions.
//!
//! One atomic word holds 48 bits of milliseconds and a 16-bit counter. Local writes take a stamp from it without any lock
//! ([`Hlc::stamp`]); everything that arrives is shown to it ([`Hlc::observe`]), so that a write made after reading a
//! value is newer than that value. Physical time is the wall clock at start plus boot time elapsed: it never follows a
//! later step of the wall clock.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks", OPODIS 2014, figure 5. Differences: the
//! two parts share one word, so a full counter carries into the milliseconds (the clock advances, it never wraps), and
//! what is too far ahead of physical time is refused instead of adopted (rule R5).
//!
//! How far peers' clocks are, as an exchange with each tells, is in [`offset`] and `peers`.

pub mod offset;
mod peers;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nearcache_store::{NodeId, Timestamp, Version};

use self::offset::OffsetRange;
use self::peers::PeerClocks;
use crate::ids::Epoch;
use crate::time::Time;

/// A hybrid logical clock; shared by all caches of a node.
#[derive(Debug)]
pub struct Hlc {
    origin: NodeId,
    wall_ms_at_start: u64,
    max_drift_ms: u64,
    /// The last stamp given or observed.
    last: AtomicU64,
    refused: AtomicU64,
    /// No stamp before physical time is past this, in milliseconds since the Unix epoch (R6).
    held_until_ms: AtomicU64,
    /// How far the peers' clocks are from this one.
    peers: Mutex<PeerClocks>,
    /// Their median while it is too far away to make stamps (R5), else 0.
    skew_ms: AtomicI64,
    /// Whether some session must end because of the peer's clock.
    some_apart: AtomicBool,
}

/// A stamp lies further ahead of this node's physical clock than the drift bound allows (R5). The clock is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("stamp is {ahead_ms} ms ahead of this node's clock, more than {max_drift_ms} ms")]
pub struct DriftExceeded {
    /// How far ahead, in milliseconds.
    pub ahead_ms: u64,
    /// The bound in force.
    pub max_drift_ms: u64,
}

/// Why the clock gives no stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The clock is ahead of physical time by the drift bound: peers would refuse further stamps. The clock is
    /// unchanged; wait a millisecond and try again.
    #[error("clock is {ahead_ms} ms ahead of physical time, more than {max_drift_ms} ms")]
    TooFarAhead {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
        /// The bound in force.
        max_drift_ms: u64,
    },
    /// The node has just started and may have run before under the same id: its first stamps must be above all that its
    /// former self can have made (R6). The clock is unchanged; wait and try again.
    #[error("node has just started: its first stamp can be made in {wait_ms} ms")]
    JustStarted {
        /// For how long, in milliseconds; at most the drift bound.
        wait_ms: u64,
    },
    /// This node's clock is too far from most of its peers' clocks (R5). The clock is unchanged; nothing will change
    /// before the wall clock of this machine is set right and this node started again, or those of the peers.
    #[error("clock is {skew_ms} ms away from most peers' clocks, more than {limit_ms} ms")]
    Skewed {
        /// The peers' median minus this node's clock, in milliseconds, as far as that is certain.
        skew_ms: i64,
        /// The bound in force: four fifths of the drift bound.
        limit_ms: u64,
    },
}

impl Hlc {
    /// The default drift bound: 500 ms (reliability R5, as CockroachDB).
    pub const DEFAULT_MAX_DRIFT: Duration = Duration::from_millis(500);

    /// A clock for node `origin`, whose wall clock read `wall_ms_at_start` at [`Time::ZERO`].
    #[must_use]
    pub fn new(origin: NodeId, wall_ms_at_start: u64, max_drift: Duration) -> Self {
        Self {
            origin,
            wall_ms_at_start,
            max_drift_ms: u64::try_from(max_drift.as_millis()).unwrap_or(u64::MAX),
            last: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            held_until_ms: AtomicU64::new(0),
            peers: Mutex::default(),
            skew_ms: AtomicI64::new(0),
            some_apart: AtomicBool::new(false),
        }
    }

    /// A clock of the same node for what it shares with nobody: its stamps meet no former self's and no peer's, so it is neither
    /// held after a start (R6) nor stopped by peers' clocks (R5).
    #[must_use]
    pub fn unshared(&self) -> Self {
        Self::new(self.origin, self.wall_ms_at_start, self.max_drift())
    }

    /// Makes no stamps before physical time is past what a former self of this node, ended before this one began, can have
    /// stamped: that is the drift bound after the start (R6). For a node whose id lasts longer than its memory.
    pub fn hold_after_start(&self) {
        self.hold_after_start_for(self.max_drift());
    }

    /// The same for another time than the drift bound.
    pub fn hold_after_start_for(&self, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let held_until_ms = self.wall_ms_at_start.saturating_add(time_ms);
        self.held_until_ms.store(held_until_ms, Ordering::Relaxed);
    }

    /// For how long no stamp will be made because the node has just started; zero if it may.
    #[must_use]
    pub fn held_for(&self, now: Time) -> Duration {
        let held_until_ms = self.held_until_ms.load(Ordering::Relaxed);
        let left_ms = (held_until_ms + 1).saturating_sub(self.physical_ms(now));
        Duration::from_millis(if held_until_ms == 0 { 0 } else { left_ms })
    }

    /// The node whose stamps it makes.
    #[must_use]
    pub const fn origin(&self) -> NodeId {
        self.origin
    }

    /// The drift bound in force.
    #[must_use]
    pub const fn max_drift(&self) -> Duration {
        Duration::from_millis(self.max_drift_ms)
    }

    /// Physical time at `now`: milliseconds since the Unix epoch, by the wall clock at start plus boot time elapsed.
    #[must_use]
    pub const fn physical_ms(&self, now: Time) -> u64 {
        self.wall_ms_at_start.saturating_add(now.as_millis())
    }

    /// The last stamp given or observed.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        Timestamp::from_u64(self.last.load(Ordering::Acquire))
    }

    /// How many stamps of others were refused by the drift bound.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The next version: later than every stamp given or observed before, also if `now` is not (R6).
    ///
    /// Lock-free; allocates nothing. More than 65,536 stamps in a millisecond carry into the next one.
    ///
    /// # Errors
    /// [`ClockError`]; the clock is unchanged.
    pub fn stamp(&self, now: Time) -> Result<Version, ClockError> {
        let physical_ms = self.physical_ms(now);
        let held_until_ms = self.held_until_ms.load(Ordering::Relaxed);
        if physical_ms <= held_until_ms {
            return Err(ClockError::JustStarted {
                wait_ms: held_until_ms + 1 - physical_ms,
            });
        }
        let skew_ms = self.stopped_by_skew_ms(now);
        if skew_ms != 0 {
            return Err(ClockError::Skewed {
                skew_ms,
                limit_ms: self.skew_limit_ms(),
            });
        }
        let physical = Timestamp::from_parts(physical_ms, 0).as_u64();
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = physical.max(last.saturating_add(1));
            let ahead_ms = Timestamp::from_u64(next)
                .millis()
                .saturating_sub(physical_ms);
            if next == last || ahead_ms > self.max_drift_ms {
                return Err(ClockError::TooFarAhead {
                    ahead_ms,
                    max_drift_ms: self.max_drift_ms,
                });
            }
            match self
                .last
                .compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Version::new(Timestamp::from_u64(next), self.origin)),
                Err(current) => last = current,
            }
        }
    }

    /// Takes notice of a stamp of another node: later stamps of this one will be higher.
    ///
    /// # Errors
    /// [`DriftExceeded`] if it lies more than the drift bound ahead of physical time (R5); it is counted, and the
    /// clock is unchanged.
    pub fn observe(&self, now: Time, time: Timestamp) -> Result<(), DriftExceeded> {
        let ahead_ms = time.millis().saturating_sub(self.physical_ms(now));
        if ahead_ms > self.max_drift_ms {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(DriftExceeded {
                ahead_ms,
                max_drift_ms: self.max_drift_ms,
            });
        }
        // The common case, a stamp of the past, costs one load.
        if self.last.load(Ordering::Relaxed) < time.as_u64() {
            self.last.fetch_max(time.as_u64(), Ordering::AcqRel);
        }
        Ok(())
    }

    /// The clock of a peer that there is a session with was read.
    ///
    /// While the median of all clocks that were read within the last 90 s is certainly more than four fifths of the drift bound away, no
    /// stamps are made (R5): peers would soon refuse them, or they would win over all that others write. A peer that is certainly
    /// beyond the drift bound is one of [`take_apart`](Self::take_apart). Takes a lock; cost O(peers).
    pub fn peer_read(&self, now: Time, peer: NodeId, range: OffsetRange) {
        let mut peers = self.peers();
        peers.read(now, peer, range, self.max_drift_ms);
        if range.is_beyond(self.max_drift_ms) {
            self.some_apart.store(true, Ordering::Relaxed);
        }
        self.judge(now, &mut peers);
    }

    /// The clock of a node was read in a handshake, whatever came of that: this start of it, at this address. Only of who has proven to be
    /// of the cluster: what is read here can keep this node from writing. Takes a lock; cost O(peers).
    pub fn peer_met(
        &self,
        now: Time,
        peer: NodeId,
        start: (Epoch, SocketAddr),
        range: OffsetRange,
    ) {
        let mut peers = self.peers();
        peers.met(now, peer, start, range, self.max_drift_ms);
        self.judge(now, &mut peers);
    }

    /// The peers whose clocks have turned out to be certainly beyond the drift bound since the last call: sessions with them are to be
    /// ended (R5). Costs one load if there are none.
    #[must_use]
    pub fn take_apart(&self) -> Vec<NodeId> {
        if !self.some_apart.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        self.peers().take_apart()
    }

    /// How far a peer's clock may be from this one where it was not measured just now: by the drift bound, or by what the handshake left open, if that
    /// was more and nothing since has shown it to be within the bound. Takes a lock.
    #[must_use]
    pub fn farthest(&self, peer: NodeId) -> Duration {
        Duration::from_millis(self.peers().farthest_ms(peer, self.max_drift_ms))
    }

    /// The peers' median minus this clock while it is too far away to make stamps (R5), in milliseconds; else 0. Costs one load unless it is.
    #[must_use]
    pub fn stopped_by_skew_ms(&self, now: Time) -> i64 {
        if self.skew_ms.load(Ordering::Relaxed) != 0 {
            // What was read long ago counts no more.
            self.judge(now, &mut self.peers());
        }
        self.skew_ms.load(Ordering::Relaxed)
    }

    /// How far this node's clock is from most peers', if that is too far to write: what its loads must allow for in any case.
    #[must_use]
    pub fn skew(&self, now: Time) -> Duration {
        Duration::from_millis(self.stopped_by_skew_ms(now).unsigned_abs())
    }

    /// How far away the median of the peers' clocks may be, in milliseconds.
    #[must_use]
    pub const fn skew_limit_ms(&self) -> u64 {
        self.max_drift_ms / 5 * 4
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, PeerClocks> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, now: Time, peers: &mut PeerClocks) {
        let median_ms = peers.median_ms(now);
        let is_far = median_ms.unsigned_abs() > self.skew_limit_ms();
        let skew_ms = if is_far { median_ms } else { 0 };
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// How far a reading of the wall clock has moved away from this clock's physical time, in milliseconds; positive
    /// if the wall clock is ahead. A step of the wall clock shows here and nowhere else.
    #[must_use]
    pub fn skew_ms(&self, now: Time, wall_ms: u64) -> i64 {
        let physical_ms = self.physical_ms(now);
        let distance = i64::try_from(wall_ms.abs_diff(physical_ms)).unwrap_or(i64::MAX);
        if wall_ms >= physical_ms {
            distance
        } else {
            -distance
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_MS: u64 = 1_700_000_000_000;

    fn clock() -> Hlc {
        Hlc::new(NodeId::from_u64(1), WALL_MS, Hlc::DEFAULT_MAX_DRIFT)
    }

    #[test]
    fn r5_a_stamp_beyond_the_drift_bound_is_refused_and_counted() {
        let clock = clock();
        let now = Time::from_millis(10);
        assert_eq!(
            clock.observe(now, Timestamp::from_parts(WALL_MS + 510, 7)),
            Ok(())
        );
        let refused = clock.observe(now, Timestamp::from_parts(WALL_MS + 511, 0));
        assert_eq!(
            refused,
            Err(DriftExceeded {
                ahead_ms: 501,
                max_drift_ms: 500
            })
        );
        assert_eq!(clock.refused(), 1);
        assert_eq!(clock.last(), Timestamp::from_parts(WALL_MS + 510, 7));
    }

    #[test]
    fn r6_what_is_shared_with_nobody_need_not_wait_for_a_former_self() {
        let clock = clock();
        clock.hold_after_start();
        assert!(matches!(
            clock.stamp(Time::ZERO),
            Err(ClockError::JustStarted { .. })
        ));
        assert!(clock.unshared().stamp(Time::ZERO).is_ok());
    }

    #[test]
    fn r6_stamps_never_run_backwards_when_time_does() {
        let clock = clock();
        let first = clock.stamp(Time::from_millis(100)).unwrap();
        let second = clock.stamp(Time::from_millis(50)).unwrap();
        assert!(second > first);
        clock
            .observe(
                Time::from_millis(50),
                Timestamp::from_parts(WALL_MS + 300, 5),
            )
            .unwrap();
        let third = clock.stamp(Time::from_millis(60)).unwrap();
        assert_eq!(third.time, Timestamp::from_parts(WALL_MS + 300, 6));
    }

    #[test]
    fn r6_a_full_counter_advances_the_clock_and_never_wraps() {
        let clock = clock();
        clock
            .observe(Time::ZERO, Timestamp::from_parts(WALL_MS, u16::MAX))
            .unwrap();
        let stamp = clock.stamp(Time::ZERO).unwrap();
        assert_eq!(stamp.time, Timestamp::from_parts(WALL_MS + 1, 0));
    }

    #[test]
    fn r5_a_clock_that_ran_ahead_waits_instead_of_making_stamps_that_peers_refuse() {
        let clock = clock();
        clock
            .observe(Time::ZERO, Timestamp::from_parts(WALL_MS + 500, u16::MAX))
            .unwrap();
        assert!(clock.stamp(Time::ZERO).is_err());
        let later = clock.stamp(Time::from_millis(1)).unwrap();
        assert_eq!(later.time, Timestamp::from_parts(WALL_MS + 501, 0));
    }

    #[test]
    fn stamps_of_two_threads_differ() {
        let clock = clock();
        let stamps = || {
            (0..10_000)
                .map(|_| clock.stamp(Time::ZERO).unwrap())
                .collect::<Vec<_>>()
        };
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(stamps);
            (stamps(), other.join().unwrap())
        });
        let mut all: Vec<_> = a.into_iter().chain(b).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_reported_as_skew() {
        let clock = clock();
        assert_eq!(clock.skew_ms(Time::from_millis(10), WALL_MS + 3_010), 3_000);
        assert_eq!(clock.skew_ms(Time::from_millis(10), WALL_MS - 990), -1_000);
    }

    #[test]
    fn r6_a_node_that_may_have_run_before_makes_no_stamp_that_its_former_self_can_have_made() {
        let former = clock();
        former
            .observe(Time::ZERO, Timestamp::from_parts(WALL_MS + 499, 0))
            .unwrap();
        let last = former.stamp(Time::ZERO).unwrap();
        let again = clock();
        again.hold_after_start();
        assert_eq!(
            again.stamp(Time::from_millis(500)),
            Err(ClockError::JustStarted { wait_ms: 1 })
        );
        assert_eq!(
            again.held_for(Time::from_millis(400)),
            Duration::from_millis(101)
        );
        assert_eq!(again.held_for(Time::from_millis(501)), Duration::ZERO);
        assert!(again.stamp(Time::from_millis(501)).unwrap() > last);
        assert_eq!(clock().held_for(Time::ZERO), Duration::ZERO);
    }
}
