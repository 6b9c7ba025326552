//! Time to idle: [`Idle`], coarse enough to be nearly free on reads.

use std::time::Duration;

use crate::sync::{AtomicU32, Ordering};

/// Entries not read for a time are over. Time is counted in sixteenths of it, so an entry's stamp is written at most
/// sixteen times per period however often it is read, and an entry may live a sixteenth too long, never too short.
///
/// Stamps are kept modulo 2^32 steps, which is 2^28 periods.
pub(crate) struct Idle {
    step_ms: u64,
}

impl Idle {
    const STEPS: u32 = 16;

    pub(crate) fn new(time_to_idle: Duration) -> Self {
        let ms = u64::try_from(time_to_idle.as_millis()).unwrap_or(u64::MAX);
        Self {
            step_ms: ms.div_ceil(u64::from(Self::STEPS)).max(1),
        }
    }

    /// The stamp of `now_ms`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "stamps are modulo 2^32")]
    pub(crate) fn stamp(&self, now_ms: u64) -> u32 {
        (now_ms / self.step_ms) as u32
    }

    /// Writes a read at `now_ms` into `last`, if it makes a difference.
    #[inline]
    pub(crate) fn touch(&self, last: &AtomicU32, now_ms: u64) {
        let stamp = self.stamp(now_ms);
        if last.load(Ordering::Relaxed) != stamp {
            last.store(stamp, Ordering::Relaxed);
        }
    }

    /// Is an entry last read at stamp `last` over?
    #[inline]
    pub(crate) fn is_over(&self, last: u32, now_ms: u64) -> bool {
        self.stamp(now_ms).wrapping_sub(last) > Self::STEPS
    }

    /// When an entry last read at stamp `last` is over if it is not read again, given that it is `now_ms`.
    pub(crate) fn deadline_ms(&self, last: u32, now_ms: u64) -> u64 {
        let age = u64::from(self.stamp(now_ms).wrapping_sub(last));
        let over_step = (now_ms / self.step_ms).saturating_sub(age) + u64::from(Self::STEPS) + 1;
        over_step.saturating_mul(self.step_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_lives_for_the_whole_period_and_a_sixteenth_more_at_most() {
        let idle = Idle::new(Duration::from_millis(1600));
        for read_at in [0, 50, 99, 12_345] {
            let last = idle.stamp(read_at);
            assert!(!idle.is_over(last, read_at + 1600));
            assert!(idle.is_over(last, read_at + 1700));
            assert!(idle.is_over(last, idle.deadline_ms(last, read_at)));
            assert!(!idle.is_over(last, idle.deadline_ms(last, read_at) - 1));
        }
    }
}
