//! O6, O11: bounded loads, and the circuit breaker, seen from outside.
//!
//! Nobody is refused while there is room, and never more loads have their place than may. In these runs loads fail during one outage of the system of
//! record, and only then. When enough have failed it is asked by one load at a time, with a rest after each that fails; when it answers again, loads come
//! back in proportion; nobody is refused when nothing has failed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nearcache_protocol::time::Time;

use super::Broken;
use crate::cluster::guard::{LOADS_MIN, OPEN_FOR, QUEUED_MAX, RAMP, RUNNING_MAX, WINDOW};

/// By how much a node's clock may differ from ours meanwhile.
const SLACK: Duration = Duration::from_millis(5);

/// What is known of the loads of one start of a node.
#[derive(Debug, Default)]
struct Loads {
    /// Those that run, and when they began.
    running: BTreeMap<u64, Time>,
    /// When those ended that failed since the last success, the last few.
    failed: VecDeque<Time>,
    last_failed: Option<Time>,
    last_success: Option<Time>,
    /// When the last one failed that began after the breaker must have opened.
    probed: Option<Time>,
    /// Since when its breaker must have opened.
    must_be_open: Option<Time>,
    /// Since when loads come back.
    ramp: Option<Time>,
}

/// The loads of guarded runs, by host.
#[derive(Debug, Default)]
pub(crate) struct Guards(BTreeMap<usize, Loads>);

/// Somebody is refused at once for want of room in the queue.
pub(crate) fn overloaded(running: usize, queued: usize) -> Result<(), Broken> {
    if queued < QUEUED_MAX {
        let what = format!("refuses a load while {running} run and {queued} wait");
        return Err(("O6", what));
    }
    Ok(())
}

/// Somebody has waited for a place in vain.
pub(crate) fn waited(running: usize, queued: usize) -> Result<(), Broken> {
    if running < RUNNING_MAX {
        let what = format!("lets a load wait in vain while {running} run and {queued} wait");
        return Err(("O6", what));
    }
    Ok(())
}

/// Somebody gets a place.
pub(crate) fn placed(running: usize) -> Result<(), Broken> {
    if running > RUNNING_MAX {
        return Err(("O6", format!("lets {running} loads run at once")));
    }
    Ok(())
}

impl Guards {
    pub(crate) fn forget(&mut self, host: usize) {
        self.0.remove(&host);
    }

    /// A load asks the system of record.
    pub(crate) fn began(&mut self, now: Time, host: usize, place: u64) -> Result<(), Broken> {
        let loads = self.0.entry(host).or_default();
        // A probe of which nothing was heard for so long counts no more: its node was paused.
        let heard_by = OPEN_FOR.1 - SLACK;
        let counts = |at: Time| now.saturating_since(at) < heard_by;
        let running = || loads.running.values().copied();
        let beside = |since: Time| running().filter(|at| *at > since && counts(*at)).count();
        if let Some(since) = loads.must_be_open {
            let rests = loads.probed.map_or(Time::ZERO, |at| at + OPEN_FOR.0);
            if beside(since) > 0 || now + SLACK < rests {
                let what = format!("n{host} asks a system of record that is down: {loads:?}");
                return Err(("O11 (open)", what));
            }
        }
        if let Some(since) = loads.ramp {
            let elapsed = now.saturating_since(since);
            let share = RUNNING_MAX as u128 * (elapsed + SLACK).as_millis() / RAMP.as_millis();
            let allowed = usize::try_from(share).unwrap_or(usize::MAX).max(1);
            if elapsed < RAMP && beside(since) >= allowed {
                let what = format!(
                    "n{host} asks a system of record that is back for {elapsed:?}, where {allowed} may: {loads:?}"
                );
                return Err(("O11 (ramp)", what));
            }
        }
        loads.running.insert(place, now);
        Ok(())
    }

    /// It has answered, or not. Returns whether loads come back from now on.
    pub(crate) fn ended(&mut self, now: Time, host: usize, place: u64, answered: bool) -> bool {
        let loads = self.0.entry(host).or_default();
        let Some(began) = loads.running.remove(&place) else {
            return false;
        };
        if answered {
            loads.failed.clear();
            loads.last_success = Some(now);
            // One that began before it opened stands for no probe.
            let probe = loads.must_be_open.is_some_and(|since| began > since);
            if probe {
                (loads.must_be_open, loads.ramp) = (None, Some(now));
            }
            return probe;
        }
        loads.last_failed = Some(now);
        if loads.must_be_open.is_some_and(|since| began > since) {
            loads.probed = Some(now);
        }
        loads.failed.push_back(now);
        if loads.failed.len() > LOADS_MIN as usize {
            loads.failed.pop_front();
        }
        // Loads count for at least half of the window, and at most for one and a half.
        let enough = loads.failed.len() == LOADS_MIN as usize
            && (loads.failed.front()).is_some_and(|at| *at + WINDOW / 2 > now + SLACK);
        let all = loads
            .last_success
            .is_none_or(|at| at + WINDOW * 3 / 2 + SLACK < now);
        if enough && all && loads.must_be_open.is_none() && loads.ramp.is_none() {
            loads.must_be_open = Some(now);
        }
        false
    }

    /// Somebody is refused because the circuit is open, or not closed yet.
    pub(crate) fn refused(&self, host: usize) -> Result<(), Broken> {
        let Some(loads) = self.0.get(&host) else {
            return Err(("O11 (closed)", format!("n{host} refuses its first load")));
        };
        // It may open as late as with the next success, if half have failed until then, so that nothing can be said of when it must have closed.
        if loads.last_failed.is_some() {
            return Ok(());
        }
        let what = format!("n{host} refuses a load although none has failed: {loads:?}");
        Err(("O11 (closed)", what))
    }
}
