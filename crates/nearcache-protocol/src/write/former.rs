//! What a journal knows of the versions of former starts: [`Former`].
//!
//! A sink compares versions, and the journal is the same after a restart: what is recorded now must have a later version than
//! all that was recorded before, or the newer write is the one that is left out (K4, R6). Waiting out the drift bound after a start
//! (decision 0008) does for a clock that goes right. Where the machine's clock was set back in between, the journal is the one who knows.

use std::time::Duration;

use nearcache_store::{Timestamp, Version};

use crate::clock::Hlc;
use crate::time::Time;

/// The newest version that former starts have recorded in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Former(Timestamp);

/// A former start of this node has recorded versions that lie further ahead of its clock than the drift bound allows: the clock was set
/// back, or was wrong then. What would be stamped now might lose against older writes in the system of record; to stamp as far ahead as
/// the former start did would let it win there over what other nodes write later, and no peer would take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock is {} ms behind what a former start of this node has recorded in the journal", .behind.as_millis()
)]
pub struct SetBack {
    /// How far behind.
    pub behind: Duration,
    /// When it has caught up so far that writes can be made, if nothing is done.
    pub wait: Duration,
}

impl Former {
    /// The newest version that a journal has recorded so far.
    #[must_use]
    pub const fn new(newest: Timestamp) -> Self {
        Self(newest)
    }

    /// Sees to it that what `clock` stamps from now on is later than what was recorded. Costs two loads where it is already.
    ///
    /// # Errors
    /// [`SetBack`]; the clock is unchanged.
    pub fn resume(self, clock: &Hlc, now: Time) -> Result<(), SetBack> {
        if clock.last() >= self.0 {
            return Ok(());
        }
        let behind_ms = self.0.millis().saturating_sub(clock.physical_ms(now));
        let behind = Duration::from_millis(behind_ms);
        if behind > clock.max_drift() {
            let wait = behind - clock.max_drift();
            return Err(SetBack { behind, wait });
        }
        // Within the bound by what was just compared; were it not, it would be counted there.
        let _ = clock.observe(now, self.0);
        Ok(())
    }

    /// Whether what was recorded may stand against this version in a sink that compares them.
    #[must_use]
    pub fn beats(self, version: Version) -> bool {
        version.time <= self.0
    }
}

#[cfg(test)]
mod tests {
    use nearcache_store::NodeId;

    use super::*;

    const WALL_MS: u64 = 1_700_000_000_000;

    fn clock(set_back_ms: u64) -> Hlc {
        Hlc::new(
            NodeId::from_u64(1),
            WALL_MS - set_back_ms,
            Hlc::DEFAULT_MAX_DRIFT,
        )
    }

    #[test]
    fn k4_r6_stamps_are_later_than_what_a_journal_holds_though_the_clock_was_set_back() {
        let recorded = clock(0).stamp(Time::ZERO).unwrap();
        let former = Former::new(recorded.time);
        for set_back_ms in [0, 1, 499, 500] {
            let clock = clock(set_back_ms);
            assert_eq!(former.resume(&clock, Time::ZERO), Ok(()));
            let stamp = clock.stamp(Time::from_millis(1)).unwrap();
            assert!(stamp > recorded && !former.beats(stamp), "{set_back_ms} ms");
        }
        assert!(former.beats(recorded));
    }

    #[test]
    fn k4_r5_beyond_the_drift_bound_nothing_is_stamped_until_the_clock_has_caught_up() {
        let former = Former::new(Timestamp::from_parts(WALL_MS, 7));
        let clock = clock(3_600_000);
        let wait = Duration::from_millis(3_600_000 - 500);
        let behind = Duration::from_secs(3_600);
        assert_eq!(
            former.resume(&clock, Time::ZERO),
            Err(SetBack { behind, wait })
        );
        assert_eq!(clock.last(), Timestamp::from_u64(0), "it is as it was");
        assert_eq!(clock.refused(), 0, "no peer is to blame");
        let then = Time::ZERO + wait;
        assert_eq!(former.resume(&clock, then), Ok(()));
        let stamp = clock.stamp(then + Duration::from_millis(1)).unwrap();
        assert!(!former.beats(stamp));
    }

    #[test]
    fn a_journal_that_has_recorded_nothing_asks_for_nothing() {
        let clock = clock(0);
        assert_eq!(Former::default().resume(&clock, Time::ZERO), Ok(()));
        assert_eq!(clock.last(), Timestamp::from_u64(0));
    }
}
