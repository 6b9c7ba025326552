//! Faults at the full strength of `reliability.md` §2.1.
//!
//! Most runs are short and their faults mild, so that there can be thousands of them. With `--full` each draws two to four of these in
//! addition, and lasts as long as they do: minutes of cuts and stops, clocks that are a day off, every third message lost, links of
//! 10 kB/s, somebody coming or going every second.

use std::time::Duration;

use nearcache_protocol::time::Time;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::faults::{self, Fault};
use super::{Chaos, FIRST_FAULT_MS, HEAL_MS, KEYS, Plan, Tail, operations};

/// Stops (F16), in milliseconds.
const STOPS_MS: [u64; 4] = [1_000, 5_000, 30_000, 120_000];
/// How far a wall clock may be set wrong (F15), in milliseconds: a second, an hour, a day.
const JUMPS_MS: [i64; 3] = [1_000, 3_600_000, 86_400_000];
/// How fast or slow clocks run (F15), in millionths.
const DRIFT_PPM: i64 = 1_000;
/// The least time that a cut lasts (F1), in milliseconds, and how often that is doubled at most: five minutes and a half.
const CUT_MS: u64 = 160;
const CUT_DOUBLED: u32 = 10;
/// The longest that a message takes (F4).
const DELAY_MS_MAX: u64 = 2_000;
/// How many are lost (F6).
const LOSS: f64 = 0.3;
/// Bytes per second of a narrow link (F7).
const NARROW: [u64; 4] = [10_000, 30_000, 100_000, 1_000_000];
/// For how long somebody comes or goes every second (F18).
const CHURN_MS: u64 = 60_000;
/// Between the end of the last of these faults and the healing.
const REST: Duration = Duration::from_secs(3);
/// Operations while they last, one in so many milliseconds, and how many at most.
const OPERATION_EVERY_MS: u64 = 400;

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strong {
    Cut,
    Stop,
    Jump,
    Drift,
    Tail,
    Loss,
    Narrow,
    Lag,
    Churn,
    Together,
}

impl Strong {
    const ALL: [Self; 10] = [
        Self::Cut,
        Self::Stop,
        Self::Jump,
        Self::Drift,
        Self::Tail,
        Self::Loss,
        Self::Narrow,
        Self::Lag,
        Self::Churn,
        Self::Together,
    ];
}

impl Plan {
    /// Adds them, if `all` seeds are to have them.
    pub(super) fn at_full_strength(&mut self, all: bool) {
        // Those are about times of their own, in which nothing else goes wrong.
        let is_other = self.forgets() || self.rolling_from.is_some();
        if is_other || !all {
            return;
        }
        // Drawn apart, so that the plans of all other seeds stay as they are.
        let rng = &mut StdRng::seed_from_u64(self.seed ^ 0x6675_6c6c);
        let mut kinds = Strong::ALL;
        kinds.shuffle(rng);
        let count = rng.random_range(2..=4);
        let from_ms = self.heal.as_millis();
        for kind in kinds.into_iter().take(count) {
            self.add(rng, kind);
        }
        self.faults.sort_by_key(|(at, _)| *at);
        let ends = self.faults.iter().map(|(at, fault)| fault.until(*at));
        let ends = ends.max().unwrap_or(self.heal);
        self.heal = self.heal.max(ends + REST);
        let heal_ms = self.heal.as_millis();
        let mut at_ms = from_ms;
        while at_ms < heal_ms {
            let operation = operations::operation(rng, KEYS);
            let host = rng.random_range(0..self.nodes);
            self.operations
                .push((Time::from_millis(at_ms), host, operation));
            at_ms += rng.random_range(1..OPERATION_EVERY_MS * 2);
        }
        self.operations.sort_by_key(|(at, ..)| *at);
    }

    fn add(&mut self, rng: &mut StdRng, kind: Strong) {
        let nodes = self.nodes;
        let at_ms = rng.random_range(FIRST_FAULT_MS..HEAL_MS);
        let at = Time::from_millis(at_ms);
        let node = rng.random_range(0..nodes);
        let after = |ms: u64| Time::from_millis(at_ms + ms);
        let some_seconds = after(rng.random_range(2_000..15_000));
        match kind {
            Strong::Cut => {
                // Doubled as often as it may be, and some more: each order of magnitude is as likely as any.
                let doubled = CUT_MS << rng.random_range(0..=CUT_DOUBLED);
                let until = after(doubled + rng.random_range(0..=doubled));
                self.faults.extend(faults::cut(rng, nodes, (at, until)));
            }
            Strong::Stop => {
                let until = after(*STOPS_MS.choose(rng).unwrap_or(&1_000));
                self.faults.push((at, Fault::Pause { node, until }));
            }
            Strong::Jump => self.jump(rng, node, at_ms),
            Strong::Drift => {
                let ppm = |_| *[-DRIFT_PPM, 0, DRIFT_PPM].choose(rng).unwrap_or(&0);
                self.clock_ppm = (0..nodes).map(ppm).collect();
            }
            Strong::Tail => {
                self.weather.tail = Some(Tail {
                    share: rng.random_range(0.002..0.05),
                    most: Duration::from_millis(DELAY_MS_MAX),
                });
            }
            Strong::Loss => {
                let duplicate = rng.random_range(0.0..0.2);
                let reorder = rng.random_range(0.0..0.2);
                self.weather.chaos = Some(Chaos {
                    loss: LOSS,
                    duplicate,
                    reorder,
                });
                self.weather.membership_astray = true;
            }
            Strong::Narrow => {
                let bytes_per_second = *NARROW.choose(rng).unwrap_or(&10_000);
                let until = some_seconds;
                let fault = Fault::Narrow {
                    node,
                    bytes_per_second,
                    until,
                };
                self.faults.push((at, fault));
            }
            Strong::Lag => {
                let (from, to) = faults::pair(rng, nodes);
                let delay = Duration::from_millis(rng.random_range(100..=DELAY_MS_MAX));
                let until = some_seconds;
                let fault = Fault::Lag {
                    from,
                    to,
                    delay,
                    until,
                };
                self.faults.push((at, fault));
            }
            Strong::Churn => self.churn(rng, at_ms),
            Strong::Together => {
                let restart = Some(after(rng.random_range(1..3_000)));
                let silent = rng.random_bool(0.5);
                for node in (0..nodes).filter(|_| rng.random_bool(0.7)) {
                    let clock_offset_ms = self.clock_offset_ms[node];
                    let fault = Fault::Crash {
                        node,
                        silent,
                        restart,
                        clock_offset_ms,
                    };
                    self.faults.push((at, fault));
                }
            }
        }
    }

    /// A node is started again with a clock that is far off, or stood still meanwhile; in half of the runs its clock is set right later, which it learns
    /// when it is started once more.
    fn jump(&mut self, rng: &mut StdRng, node: usize, at_ms: u64) {
        let right_ms = self.clock_offset_ms[node];
        let down_ms = rng.random_range(1..4_000);
        let far_ms = *JUMPS_MS.choose(rng).unwrap_or(&1_000);
        let wrong_ms = match rng.random_range(0..5) {
            0..=1 => right_ms + far_ms,
            2..=3 => right_ms - far_ms,
            // It stood from the first start on.
            _ => -i64::try_from(at_ms + down_ms).unwrap_or(0),
        };
        let mut crash = |at_ms: u64, down_ms: u64, clock_offset_ms| {
            let silent = rng.random_bool(0.4);
            let fault = Fault::Crash {
                node,
                silent,
                restart: Some(Time::from_millis(at_ms + down_ms)),
                clock_offset_ms,
            };
            (Time::from_millis(at_ms), fault)
        };
        let first = crash(at_ms, down_ms, wrong_ms);
        let second = crash(at_ms + down_ms + 6_000, down_ms, right_ms);
        // What else would start it anew would set its clock.
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::Crash { node: of, .. } if *of == node));
        self.faults.push(first);
        if rng.random_bool(0.5) {
            self.faults.push(second);
        }
    }

    /// Every second somebody goes, in one way or another, or comes back.
    fn churn(&mut self, rng: &mut StdRng, from_ms: u64) {
        let mut at_ms = from_ms;
        while at_ms < from_ms + CHURN_MS {
            let (node, down_ms) = (rng.random_range(0..self.nodes), rng.random_range(1..1_900));
            let fault = if rng.random_bool(0.3) {
                Fault::Leave {
                    node,
                    down: Duration::from_millis(down_ms),
                }
            } else {
                Fault::Crash {
                    node,
                    silent: rng.random_bool(0.4),
                    restart: Some(Time::from_millis(at_ms + down_ms)),
                    clock_offset_ms: self.clock_offset_ms[node],
                }
            };
            self.faults.push((Time::from_millis(at_ms), fault));
            // Whoever goes comes back: two changes.
            at_ms += 2_000;
        }
    }
}
