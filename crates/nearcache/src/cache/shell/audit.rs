//! Inspection and audit, as the shell drives them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Outcome, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::probe::audit::AuditReport;
use nearcache_protocol::probe::inspect::Inspected;
use nearcache_protocol::probe::probe_key;

use super::Shell;
use crate::limits::{INSPECT_MAX, INSPECT_MAX_BEYOND_MESH};

/// How long an inspection may take at most.
const fn longest_inspection(by_tree: bool) -> Duration {
    if by_tree {
        INSPECT_MAX_BEYOND_MESH
    } else {
        INSPECT_MAX
    }
}

impl<V: Payload> Shell<V> {
    /// How a key stands on every member. Empty if the node stops first.
    pub(crate) async fn inspect(&self, key: Bytes) -> Inspected {
        let by_tree = self.node.cluster_state().is_by_tree();
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + longest_inspection(by_tree),
        };
        self.step(|core, out| core.inspect(now, &key, waiter, out));
        match self.outcome(waiting).await {
            Some(Outcome::Inspected(nodes)) => nodes,
            _ => Inspected::new(),
        }
    }

    pub(crate) fn audit(&self, every: Option<Duration>, lasts: Option<Duration>) {
        let now = self.node.now();
        self.sees_probes();
        self.step(|core, _| core.audit(now, every, lasts.map(|lasts| now + lasts)));
    }

    pub(crate) fn audit_report(&self) -> AuditReport {
        self.machine.lock().core.audit_report(self.node.now())
    }

    /// There may be keys of the audit here from now on.
    pub(super) fn sees_probes(&self) {
        self.has_probes.store(true, Ordering::Relaxed);
    }

    /// Entries held, without the audit's. Cost: O(members) where there was ever an audit.
    pub(crate) fn len(&self) -> usize {
        let len = self.store.len();
        if !self.has_probes.load(Ordering::Relaxed) {
            return len;
        }
        let writers = self.node.cluster_state().others(&self.node);
        let writers = writers.into_iter().map(|member| member.id);
        let probes = writers
            .chain([self.node.id()])
            .filter(|writer| self.store.peek(&probe_key(*writer)).is_some());
        len.saturating_sub(probes.count())
    }
}
