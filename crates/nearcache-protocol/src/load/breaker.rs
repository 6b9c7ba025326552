//! Whether the system of record is asked at all: [`Breaker`] (O11).
//!
//! ```text
//! closed ── many of the last loads failed ──▶ open ── its time is over ──▶ probing: one load at a time
//!   ▲                                          ▲                             │ fails      │ succeeds
//!   │                                          └─────────────────────────────┘            ▼
//!   └────────────────── the ramp's time is over ──────────────────── ramp: more and more at a time
//!                                              (a failure in four opens again)
//! ```
//!
//! Failing quickly while the system of record is down gives callers their answer and it room to come back; the ramp keeps
//! the misses that have piled up from knocking it over again. The time that it stays open doubles with each relapse.

use std::time::Duration;

use crate::planted::PlantedBug;
use crate::time::Time;

/// When a breaker opens and how it closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Share of failed loads that opens it, 0 to 1. Default 0.5.
    pub failed_share: f64,
    /// Loads within `window` below which it does not open. Default 20.
    pub loads_min: u32,
    /// How long loads count, roughly: at least half as long, and at most half as long again. Default 10 s.
    pub window: Duration,
    /// How long it stays open the first time. Default 1 s.
    pub open_for: Duration,
    /// How long at most, after relapses. Default 30 s.
    pub open_for_max: Duration,
    /// How long it takes from the first load that succeeds to all loads. Default 5 s (reliability specification, O11).
    pub ramp: Duration,
    /// Loads that run at once when it is closed: where the ramp ends.
    pub running_max: usize,
    /// A rule to break on purpose.
    #[doc(hidden)]
    pub planted: PlantedBug,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failed_share: 0.5,
            loads_min: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(30),
            ramp: Duration::from_secs(5),
            running_max: 64,
            planted: PlantedBug::None,
        }
    }
}

/// What a breaker lets through, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// One load at a time.
    Probing,
    /// More and more.
    Ramp,
}

/// Counts loads and their failures, and says whether another may begin.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Loads and failures of the window's current half and of the one before.
    halves: [(u32, u32); 2],
    half_since: Time,
    /// Times that it opened without having closed.
    relapses: u32,
    /// How often the state has changed.
    phase: u64,
    /// Loads that were admitted since the ramp began and have not ended.
    ramping: usize,
}

/// That a load may begin: names the phase in which it did, so that it counts in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    phase: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Time },
    Probing { since: Option<Time> },
    Ramp { since: Time },
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub const fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed,
            halves: [(0, 0); 2],
            half_since: Time::ZERO,
            relapses: 0,
            phase: 0,
            ramping: 0,
        }
    }

    /// May a load begin? Each that does is followed by [`ended`](Self::ended) or [`unasked`](Self::unasked), once.
    pub fn admit(&mut self, now: Time) -> Option<Admitted> {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::Probing { since: None });
        }
        match self.state {
            State::Closed => {}
            State::Open { .. } => return None,
            State::Probing { since } => {
                // A probe of which nothing was heard is one that failed quietly.
                if since.is_some_and(|since| now.saturating_since(since) < self.patience()) {
                    return None;
                }
                self.enter(State::Probing { since: Some(now) });
            }
            State::Ramp { since } => {
                let elapsed = now.saturating_since(since);
                if elapsed >= self.config.ramp {
                    self.close(now);
                } else if self.ramping < self.allowed(elapsed) {
                    self.ramping += 1;
                } else {
                    return None;
                }
            }
        }
        Some(Admitted { phase: self.phase })
    }

    /// A load has ended; whether the system of record answered. One that began before the state last changed tells of a time that
    /// is over, and counts for nothing: neither opens it again nor stands for the probe.
    pub fn ended(&mut self, now: Time, admitted: Admitted, answered: bool) {
        if admitted.phase != self.phase {
            return;
        }
        self.ramping = self.ramping.saturating_sub(1);
        match (self.state, answered) {
            (State::Closed, _) => {
                self.count(now, answered);
                let (loads, failed) = self.counted();
                let share = f64::from(failed) >= f64::from(loads) * self.config.failed_share;
                let opens = !self.config.planted.stays_closed();
                if opens && failed > 0 && loads >= self.config.loads_min && share {
                    self.open(now);
                }
            }
            (State::Probing { .. }, true) => {
                self.halves = [(0, 0); 2];
                self.half_since = now;
                self.enter(State::Ramp { since: now });
            }
            (State::Probing { .. }, false) => self.open(now),
            (State::Ramp { .. }, _) => {
                self.count(now, answered);
                let (loads, failed) = self.counted();
                if failed > 0 && failed * 4 >= loads {
                    self.open(now);
                }
            }
            // Nothing begins in it.
            (State::Open { .. }, _) => {}
        }
    }

    /// A load that was admitted did not come to ask the system of record.
    pub fn unasked(&mut self, admitted: Admitted) {
        if admitted.phase != self.phase {
            return;
        }
        self.ramping = self.ramping.saturating_sub(1);
        if let State::Probing { .. } = self.state {
            self.enter(State::Probing { since: None });
        }
    }

    /// What it lets through at `now`.
    #[must_use]
    pub fn state(&self, now: Time) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::Probing { .. } => BreakerState::Probing,
            State::Ramp { .. } => BreakerState::Ramp,
        }
    }

    /// How long a probe may take before the next is let through.
    fn patience(&self) -> Duration {
        self.config.open_for_max
    }

    /// Loads that may run at once so long after the first that succeeded: one, then in proportion.
    fn allowed(&self, elapsed: Duration) -> usize {
        let ramp_ms = self.config.ramp.as_millis().max(1);
        if self.config.planted.ramps_at_once() {
            return self.config.running_max;
        }
        let share = self.config.running_max as u128 * elapsed.as_millis() / ramp_ms;
        usize::try_from(share).unwrap_or(usize::MAX).max(1)
    }

    fn open(&mut self, now: Time) {
        let factor = 1_u32 << self.relapses.min(16);
        let for_long = self.config.open_for.saturating_mul(factor);
        self.relapses += 1;
        self.enter(State::Open {
            until: now + for_long.min(self.config.open_for_max),
        });
    }

    /// What was admitted before counts no more.
    const fn enter(&mut self, state: State) {
        self.state = state;
        self.phase += 1;
        self.ramping = 0;
    }

    const fn close(&mut self, now: Time) {
        self.enter(State::Closed);
        self.halves = [(0, 0); 2];
        self.half_since = now;
        self.relapses = 0;
    }

    fn count(&mut self, now: Time, answered: bool) {
        let half = self.config.window / 2;
        let elapsed = now.saturating_since(self.half_since);
        if elapsed >= half * 2 {
            self.halves = [(0, 0); 2];
            self.half_since = now;
        } else if elapsed >= half {
            self.halves = [(0, 0), self.halves[0]];
            self.half_since = now;
        }
        self.halves[0].0 += 1;
        self.halves[0].1 += u32::from(!answered);
    }

    const fn counted(&self) -> (u32, u32) {
        let [new, old] = self.halves;
        (new.0.saturating_add(old.0), new.1.saturating_add(old.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig::default())
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn broken() -> Breaker {
        let mut breaker = breaker();
        (0..20).for_each(|ms| load(&mut breaker, ms, false));
        breaker
    }

    /// A load that begins and ends then.
    fn load(breaker: &mut Breaker, ms: u64, answered: bool) {
        let admitted = breaker.admit(at(ms)).expect("it may begin");
        breaker.ended(at(ms), admitted, answered);
    }

    #[test]
    fn o11_it_opens_when_half_of_the_loads_fail_and_not_before_there_were_enough() {
        let mut breaker = breaker();
        for ms in 0..19 {
            load(&mut breaker, ms, false);
            assert_eq!(breaker.state(at(ms)), BreakerState::Closed);
        }
        load(&mut breaker, 19, false);
        assert_eq!(breaker.state(at(20)), BreakerState::Open);
        assert!(breaker.admit(at(20)).is_none());
    }

    #[test]
    fn failures_of_long_ago_do_not_count() {
        let mut breaker = breaker();
        (0..19).for_each(|ms| load(&mut breaker, ms, false));
        (0..19).for_each(|ms| load(&mut breaker, 20_000 + ms, true));
        load(&mut breaker, 20_020, false);
        assert_eq!(breaker.state(at(20_021)), BreakerState::Closed);
    }

    #[test]
    fn o11_after_an_outage_loads_come_back_one_by_one_and_then_in_proportion() {
        let mut breaker = broken();
        assert!(breaker.admit(at(1_018)).is_none());
        let probe = breaker.admit(at(1_020)).expect("one probe");
        assert!(breaker.admit(at(1_021)).is_none(), "and no second");
        breaker.ended(at(1_030), probe, true);
        let first = breaker.admit(at(1_030)).expect("one at a time");
        assert!(breaker.admit(at(1_030)).is_none());
        breaker.ended(at(1_031), first, true);
        let running: Vec<_> = (0..33).filter_map(|_| breaker.admit(at(3_530))).collect();
        assert_eq!(running.len(), 32, "half of 64");
        breaker.unasked(running[0]);
        assert!(breaker.admit(at(3_530)).is_some(), "its place is free");
        assert!(breaker.admit(at(6_030)).is_some(), "the ramp is over");
        assert_eq!(breaker.state(at(6_030)), BreakerState::Closed);
    }

    #[test]
    fn it_stays_open_twice_as_long_after_each_relapse_up_to_its_limit() {
        let mut breaker = broken();
        let mut now = 1_020;
        for expected in [2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            load(&mut breaker, now, false);
            assert!(breaker.admit(at(now + expected - 1)).is_none());
            now += expected;
        }
    }

    #[test]
    fn a_probe_that_never_ends_or_was_not_made_blocks_nobody_for_ever() {
        let mut breaker = broken();
        let probe = breaker.admit(at(1_020)).unwrap();
        breaker.unasked(probe);
        let silent = breaker.admit(at(1_021)).unwrap();
        assert!(breaker.admit(at(31_020)).is_none());
        let probe = breaker.admit(at(31_021)).expect("another");
        // It is another's turn now.
        breaker.ended(at(31_022), silent, false);
        breaker.ended(at(31_023), probe, true);
        assert_eq!(breaker.state(at(31_023)), BreakerState::Ramp);
    }

    #[test]
    fn o11_loads_of_before_the_outage_neither_fail_nor_stand_for_the_probe_and_do_not_end_the_ramp()
    {
        let mut breaker = breaker();
        let old: Vec<_> = (0..3).filter_map(|_| breaker.admit(at(0))).collect();
        (0..20).for_each(|ms| load(&mut breaker, ms, false));
        let probe = breaker.admit(at(1_020)).expect("its time is over");
        breaker.ended(at(1_030), old[0], false);
        breaker.ended(at(1_031), old[1], true);
        assert_eq!(breaker.state(at(1_032)), BreakerState::Probing);
        breaker.ended(at(1_040), probe, true);
        breaker.ended(at(1_050), old[2], false);
        assert_eq!(breaker.state(at(1_060)), BreakerState::Ramp);
        assert!(breaker.admit(at(1_060)).is_some());
    }
}
