//! Nodes that open the cache only after the tree has ended their sessions with most others.
//!
//! What such a node writes at once may be unknown to those who do not run to hear of it, for as long as its announcement takes; it is
//! not held against them ([`COUNTS_AFTER`]).

use std::time::Duration;

use nearcache_protocol::announce::SplitPolicy;
use nearcache_protocol::time::Time;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{After, Fault, HEAL_MS, KEYS, Plan, operations};

/// From when to when they are opened.
const OPENED_MS: std::ops::Range<u64> = 8_000..9_500;
/// When all faults end in such runs but the weather.
const LATE_HEAL_MS: u64 = 18_000;
/// Operations from the end of the faults on.
const LATE_OPERATIONS: usize = 90;

/// What is written so long after the cache was opened is known to be there: announcements have arrived, or the sessions are broken.
pub(crate) const COUNTS_AFTER: Duration = Duration::from_secs(5);

impl Plan {
    /// In one of four plans a node or two open the cache late.
    pub(super) fn open_late(&mut self) {
        // Drawn apart, so that the plans of all other seeds stay as they are.
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x6c61_7465);
        let is_other = self.forgets() || self.is_small() || self.rolling_from.is_some();
        let is_longer = self.heal > Time::from_millis(HEAL_MS);
        if is_other || is_longer || !rng.random_bool(0.25) {
            return;
        }
        let count = rng.random_range(1..=2);
        let first = rng.random_range(0..self.nodes);
        for n in 0..count {
            let at = Time::from_millis(rng.random_range(OPENED_MS));
            self.late.push(((first + n) % self.nodes, at));
        }
        self.split = SplitPolicy::Serve;
        self.after = After::Whole;
        self.heal = Time::from_millis(LATE_HEAL_MS);
        // What is changed behind the back of a node that does not run the cache would be there when it opens it.
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::Diverge { .. }));
        for _ in 0..LATE_OPERATIONS {
            let at = Time::from_millis(rng.random_range(HEAL_MS..LATE_HEAL_MS));
            let host = if rng.random_bool(0.5) {
                first
            } else {
                rng.random_range(0..self.nodes)
            };
            let operation = operations::operation(&mut rng, KEYS);
            self.operations.push((at, host, operation));
        }
        self.operations.sort_by_key(|(at, ..)| *at);
    }

    /// When a node that starts on the host at `now` opens the cache.
    pub(crate) fn opens_at(&self, host: usize, now: Time) -> Time {
        let late = self.late.iter().find(|(late, _)| *late == host);
        late.map_or(now, |(_, at)| now.max(*at))
    }
}
