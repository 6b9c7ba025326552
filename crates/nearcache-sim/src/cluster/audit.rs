//! The audit: once the faults have ended and all has come right, what nodes report of each other must be that all are coherent.
//!
//! It is the shipped auditor, beyond the mesh over short-lived connections as shipped, judged by what it reports.

use std::time::Duration;

use nearcache_protocol::announce::SplitPolicy;
use nearcache_protocol::mode::Output;
use nearcache_protocol::probe::audit::AuditReport;
use nearcache_protocol::time::Time;

use super::Cluster;
use crate::plan::After;
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// For how long each node writes a probe every second.
const WRITES_FOR: Duration = Duration::from_secs(6);
/// By then what was asked after 1 and 5 s is answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(9);
/// The looks that are judged: those after 1 and 5 s. The one after a minute would make a run five times as long.
const LOOKS: usize = 2;

impl Cluster {
    /// Has every node audit, and judges by what they report.
    pub(crate) fn judge_by_audit(&mut self) -> Result<(), Violation> {
        // Who is apart may not write, or does not answer: that is told by other checkers.
        let is_whole = matches!(self.plan.after, After::Whole) && self.outside.is_empty();
        let all_run = self.running().count() == self.hosts.len();
        if !is_whole || !all_run || self.plan.split != SplitPolicy::Serve {
            return Ok(());
        }
        for host in 0..self.hosts.len() {
            self.audit(host, Some(WRITES_FOR))?;
        }
        self.run_until(self.now + WRITES_FOR)?;
        for host in 0..self.hosts.len() {
            self.audit(host, None)?;
        }
        self.run_until(self.now + ANSWERED_WITHIN)?;
        for host in 0..self.hosts.len() {
            let Some(node) = self.hosts[host].node.as_ref() else {
                continue;
            };
            let report = node.core.audit_report(node.time(self.now));
            if let Some(what) = found(&report) {
                return Err(self.violation("audit", format!("n{host} reports {what}")));
            }
            self.sometimes.reach(Place::Audited);
        }
        Ok(())
    }

    fn audit(&mut self, host: usize, lasts: Option<Duration>) -> Result<(), Violation> {
        let now = self.now;
        if let Some(node) = self.hosts[host].node.as_mut() {
            let own = node.time(now);
            let until: Option<Time> = lasts.map(|lasts| own + lasts);
            let every = lasts.map(|_| Duration::from_secs(1));
            node.core.audit(own, every, until);
        }
        self.carry_cache(host, Vec::<Output<Value>>::new())?;
        self.settle(host)
    }
}

/// What is wrong by this report.
fn found(report: &AuditReport) -> Option<String> {
    for peer in &report.peers {
        for verdicts in &peer.within[..LOOKS] {
            if verdicts.coherent != verdicts.total() {
                return Some(format!("{peer:?}"));
            }
        }
    }
    let nothing = report.probes == 0 && report.skipped == 0;
    let all = report.covered == report.members || report.probes == 0;
    (nothing || !all).then(|| format!("{report:?}"))
}
