//! Boot time for the read path, at a quarter of what asking for it costs.
//!
//! A lease must be compared with a clock that counts pauses and suspends, on every read, before any timer of this process has run
//! (rule I9). The clock thread's last tick will not do: it sleeps as long as the process does. So a read looks at the kernel's coarse
//! wall clock, which the kernel advances whatever this process does and sets right after a suspend, and takes off how far the wall
//! clock was ahead of boot time at the last tick. Where that disagrees with the last tick by more than a few ticks, because the
//! process slept or the wall clock was set, boot time itself is read. A pause stays unseen only if the wall clock is set back during it
//! by as much as it lasts, to within a tenth of a second, and the reader runs before the clock thread.

use std::sync::atomic::{AtomicU64, Ordering};

use nearcache_protocol::time::Time;
use rustix::time::{ClockId, clock_getres, clock_gettime};

use crate::clock::NodeClock;

/// By how much, in nanoseconds, a reading may be later than the last tick and still be believed: a clock thread that is late on a busy machine.
const LATE_MAX_NS: u64 = 100_000_000;
/// By how much it may be earlier, in nanoseconds: the wall clock's resolution, and a step of it that is being smeared.
const EARLY_MAX_NS: u64 = 20_000_000;

/// How many of the kernel's ticks its coarse clock may be behind: on a virtual machine whose ticks come late, 5.1 ms of 4 ms were seen.
const TICKS_LATE_MAX: u64 = 4;

/// What the clock thread last saw, for readers of any thread.
#[derive(Debug)]
pub(crate) struct QuickClock {
    clock: NodeClock,
    /// Nanoseconds of the node's time at the last tick.
    ticked_at: AtomicU64,
    /// The wall clock minus the node's time, in nanoseconds, at the last tick.
    wall_ahead: AtomicU64,
    /// How late the coarse clock may be, in nanoseconds.
    resolution: u64,
}

impl QuickClock {
    /// Ready for readers.
    pub(crate) fn new(clock: NodeClock) -> Self {
        let quick = Self {
            clock,
            ticked_at: AtomicU64::new(0),
            wall_ahead: AtomicU64::new(0),
            resolution: nanos(clock_getres(ClockId::RealtimeCoarse)).saturating_mul(TICKS_LATE_MAX),
        };
        quick.tick();
        quick
    }

    /// Compares the two clocks; called by the clock thread once a millisecond.
    pub(crate) fn tick(&self) {
        // In this order: an interruption in between makes readings late and never early.
        let wall = nanos(clock_gettime(ClockId::Realtime));
        let now = self.clock.now().as_nanos();
        self.wall_ahead
            .store(wall.saturating_sub(now), Ordering::Relaxed);
        self.ticked_at.store(now, Ordering::Relaxed);
    }

    /// A time that is not before the present one, and after it by four of the kernel's ticks (16 ms or so); by more only after
    /// a tick of the clock thread that was interrupted half way.
    ///
    /// Cost: one vDSO call of the cheap kind, two loads.
    #[inline]
    pub(crate) fn at_latest(&self) -> Time {
        let wall = nanos(clock_gettime(ClockId::RealtimeCoarse));
        let now = wall.wrapping_sub(self.wall_ahead.load(Ordering::Relaxed));
        let ticked_at = self.ticked_at.load(Ordering::Relaxed);
        let since_tick = now.wrapping_add(EARLY_MAX_NS).wrapping_sub(ticked_at);
        if since_tick > EARLY_MAX_NS + LATE_MAX_NS {
            return self.exact();
        }
        // In the first milliseconds the coarse clock may be behind the start of this one.
        Time::from_nanos(now.wrapping_add(self.resolution))
    }

    /// Boot time itself.
    #[cold]
    pub(crate) fn exact(&self) -> Time {
        self.clock.now()
    }
}

#[inline]
fn nanos(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn i9_a_reading_is_never_early_and_hardly_late() {
        let quick = QuickClock::new(NodeClock::start());
        // Until then the coarse clock may be behind the start of this one.
        std::thread::sleep(Duration::from_millis(30));
        quick.tick();
        let mut close = 0;
        for _ in 0..1_000 {
            let before = quick.exact();
            let read = quick.at_latest();
            let after = quick.exact();
            assert!(read >= before, "{read:?} is before {before:?}");
            close += usize::from(read - after <= Duration::from_millis(60));
            quick.tick();
        }
        // All but those after a tick that was interrupted between its two looks.
        assert!(close > 900, "{close} of 1,000");
    }

    #[test]
    fn i9_after_a_pause_the_first_reading_counts_it_although_no_tick_came() {
        let quick = QuickClock::new(NodeClock::start());
        std::thread::sleep(Duration::from_millis(150));
        let before = quick.exact();
        assert!(quick.at_latest() >= before);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_not_believed() {
        let quick = QuickClock::new(NodeClock::start());
        // As if the wall clock had been set back by an hour since the last tick.
        quick
            .wall_ahead
            .fetch_add(3_600_000_000_000, Ordering::Relaxed);
        let before = quick.exact();
        assert!(quick.at_latest() >= before);
    }
}
