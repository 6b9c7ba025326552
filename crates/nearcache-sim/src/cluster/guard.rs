//! What stands between callers and the system of record in some runs: few places and a bounded wait for them, a circuit breaker, refresh ahead of
//! expiry; and a system of record that is down for a while. The rules are the shipped ones, put together as the library's shell does it.

use std::time::Duration;

use nearcache_protocol::load::breaker::{Admitted, Breaker, BreakerConfig, BreakerState};
use nearcache_protocol::load::early;
use nearcache_protocol::load::flights::FlightConfig;
use nearcache_protocol::planted::PlantedBug;
use nearcache_protocol::time::Time;
use nearcache_store::Expiry;
use rand::RngExt as _;

use super::Cluster;
use crate::bug::Bug;
use crate::plan::Plan;
use crate::sometimes::Place;
use crate::violation::Violation;

/// Calls of the loader at once.
pub(crate) const RUNNING_MAX: usize = 4;
/// Calls that wait for a place.
pub(crate) const QUEUED_MAX: usize = 3;
/// How long a call waits for its place.
pub(super) const QUEUE_WAIT: Duration = Duration::from_millis(300);
/// From the first load that succeeds to all loads.
pub(crate) const RAMP: Duration = Duration::from_millis(2_000);
/// How long a breaker stays open, the first time and at most.
pub(crate) const OPEN_FOR: (Duration, Duration) =
    (Duration::from_millis(300), Duration::from_millis(1_200));
/// Loads below which it does not open, and how long they count.
pub(crate) const LOADS_MIN: u32 = 3;
/// How long loads count.
pub(crate) const WINDOW: Duration = Duration::from_millis(2_000);

/// How long the system of record is down.
const DOWN_FOR: Duration = Duration::from_millis(5_000);

/// Whether loads of this run are guarded.
pub(crate) fn is_guarded(plan: &Plan) -> bool {
    plan.loads && matches!(plan.seed % 8, 0 | 3 | 7)
}

/// Bounds of the flights of a guarded run.
pub(super) fn flights(planted: PlantedBug) -> FlightConfig {
    FlightConfig {
        running_max: RUNNING_MAX,
        queued_max: QUEUED_MAX,
        planted,
        ..FlightConfig::default()
    }
}

/// What a node has that guards the system of record.
pub(super) struct Guard {
    breaker: Breaker,
    /// How long a load takes: a moving average.
    takes: Duration,
}

impl Guard {
    pub(super) fn new(planted: PlantedBug) -> Self {
        let config = BreakerConfig {
            failed_share: 0.5,
            loads_min: LOADS_MIN,
            window: WINDOW,
            open_for: OPEN_FOR.0,
            open_for_max: OPEN_FOR.1,
            ramp: RAMP,
            running_max: RUNNING_MAX,
            planted,
        };
        Self {
            breaker: Breaker::new(config),
            takes: Duration::ZERO,
        }
    }

    /// Whether the system of record is not to be asked at all.
    pub(super) fn is_open(&self, own: Time) -> bool {
        self.breaker.state(own) == BreakerState::Open
    }

    pub(super) fn admit(&mut self, own: Time) -> Option<Admitted> {
        self.breaker.admit(own)
    }

    pub(super) fn ended(&mut self, own: Time, admitted: Admitted, took: Option<Duration>) {
        self.breaker.ended(own, admitted, took.is_some());
        if let Some(took) = took {
            self.takes = if self.takes.is_zero() {
                took
            } else {
                self.takes - self.takes / 8 + took / 8
            };
        }
    }
}

impl Cluster {
    /// Whether the system of record fails: in a guarded run it does so once, for a while, and at no other time.
    pub(super) fn is_record_down(&self) -> Option<bool> {
        let begins = Time::from_millis(3_000 + self.plan.seed % 2_000);
        let is_down = self.now >= begins && self.now < begins + DOWN_FOR;
        is_guarded(&self.plan).then_some(is_down)
    }

    /// Whether a reader of an entry that expires then loads it anew.
    pub(super) fn draws_refresh(&mut self, host: usize, own: Time, expiry: Expiry) -> bool {
        let Some(node) = self.hosts[host].node.as_ref() else {
            return false;
        };
        let Some(guard) = &node.loads.guard else {
            return false;
        };
        let takes = guard.takes;
        let Some(remaining) = expiry.remaining(node.clock.physical_ms(own)) else {
            return false;
        };
        let counted = match self.bug {
            Some(Bug::RefreshesEarly) => takes * 8,
            Some(Bug::RefreshesLate) => takes / 8,
            _ => takes,
        };
        let refreshes = remaining <= early::window(counted, 1.0)
            && early::is_due(remaining, counted, 1.0, self.rng.random());
        self.checkers.refreshes.read(remaining, takes, refreshes);
        refreshes
    }

    /// A flight's time in the queue is over: without a place it ends.
    pub(super) fn waited(&mut self, host: usize, life: u32, place: u64) -> Result<(), Violation> {
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let waits = (node.loads.flying.get(&place)).is_some_and(|flying| flying.asked.is_none());
        if !waits {
            return Ok(());
        }
        let (running, queued) = node.loads.count();
        let judged = crate::check::guard::waited(running, queued);
        judged.map_err(|(rule, what)| self.violation(rule, format!("n{host} {what}")))?;
        self.sometimes.reach(Place::LoaderOverloaded);
        self.land(host, place, None)?;
        self.settle(host)
    }
}
