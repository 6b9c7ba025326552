//! What the checkers see of a node after each event.

use super::Cluster;
use crate::check::{Broken, bounds};
use crate::sometimes::Place;
use crate::violation::Violation;

/// By how much an answer may come after its deadline (C10).
const LATE_MS: u64 = 100;
/// R5: how far versions may be ahead of the clock.
const DRIFT_MS_MAX: u64 = 500;

impl Cluster {
    pub(super) fn observe(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let own = node.time(now);
        let heard = node.take_heard();
        if self.meter.alone {
            for change in heard {
                self.meter.holds(now, host, node.started, &change.key);
            }
            return Ok(());
        }
        for change in &heard {
            self.trace.step(
                now,
                &[17, host as u64, change.version.time.as_u64()],
                || format!("n{host} holds {:?} of {}", change.version, change.name()),
            );
        }
        let life = self.hosts[host].life;
        if self.plan.rolling_from.is_some() {
            let result = self.checkers.lives.observe((host, life), node, &heard);
            self.judge(result)?;
        }
        let result = self.checkers.observe(now, host, node, heard);
        self.judge(result)?;
        let done = self.hosts[host].node.as_mut();
        let done = done.map(|node| std::mem::take(&mut node.done));
        for done in done.unwrap_or_default() {
            let Some(node) = self.hosts[host].node.as_ref() else {
                return Ok(());
            };
            self.checkers.expiry.done(&done);
            let result = self
                .checkers
                .own_writes
                .done(now, host, node, &self.plan, done);
            self.judge(result)?;
        }
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let result = bounds::check(&self.plan, host, node);
        self.judge(result)?;
        if self.hosts[host].life == 1 && !self.healed && self.plan.late.is_empty() {
            let apart = &self.checkers.apart;
            let result = apart.check(now, (host, node), &self.plan);
            self.judge(result)?;
        }
        let ahead_ms = node
            .clock
            .last()
            .millis()
            .saturating_sub(node.clock.physical_ms(own));
        if ahead_ms > DRIFT_MS_MAX {
            let what = format!("n{host}'s versions are {ahead_ms} ms ahead of its clock");
            return Err(self.violation("R5", what));
        }
        let overdue = node
            .waiting
            .values()
            .find(|(deadline, _)| own.as_millis() > deadline.as_millis() + LATE_MS);
        // A node that was paused answers as soon as it runs again.
        let rested = self.hosts[host].paused_until.as_millis() + LATE_MS < now.as_millis();
        if let Some((deadline, awaited)) = overdue.filter(|_| rested) {
            let what = format!("n{host} at {own:?}: {awaited:?} was due at {deadline:?}");
            return Err(self.violation("C10", what));
        }
        Ok(())
    }

    /// What a checker has found, unless a bug is planted that other rules are to find: they must have the time to do so.
    pub(super) fn judge(&self, result: Result<(), Broken>) -> Result<(), Violation> {
        let (rule, what) = match result {
            Ok(()) => return Ok(()),
            Err(broken) => broken,
        };
        if self.bug.is_some_and(|bug| !bug.rules().contains(&rule)) {
            return Ok(());
        }
        Err(self.violation(rule, what))
    }

    /// Counts what the machines' own counters say was reached.
    pub(crate) fn count_stats(&mut self) {
        let stats: Vec<_> = self
            .running()
            .map(|(_, node)| (node.core.stats(), node.store.stats().evictions > 0))
            .collect();
        for (stats, evicted) in stats {
            if stats.coalesced > 0 {
                self.sometimes.reach(Place::Coalesced);
            }
            if evicted {
                self.sometimes.reach(Place::Eviction);
            }
            if stats.comparisons > 0 {
                self.sometimes.reach(Place::Compared);
            }
            if stats.reconciled > 0 {
                self.sometimes.reach(Place::Reconciled);
            }
            if stats.fetched > 0 {
                self.sometimes.reach(Place::LongFetched);
            }
            if stats.fetches_moved > 0 {
                self.sometimes.reach(Place::LongFetchMoved);
            }
            if stats.fetches_unheld > 0 {
                self.sometimes.reach(Place::LongUnheld);
            }
            if stats.relayed > stats.published {
                self.sometimes.reach(Place::Relayed);
            }
            if stats.relay_wanted > 0 {
                self.sometimes.reach(Place::NeighbourAsked);
            }
            if stats.superseded > 0 {
                self.sometimes.reach(Place::Superseded);
            }
        }
    }
}
