//! Inspection and audit, as the shell drives them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Outcome, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::probe::audit::AuditReport;
use nearcache_protocol::probe::{Held, probe_key};
use nearcache_store::NodeId;

use super::Shell;

/// How long an inspection waits for other nodes (as a read that demands freshness).
const INSPECT_TIMEOUT: Duration = Duration::from_secs(1);

impl<V: Payload> Shell<V> {
    /// How a key stands on every member. Empty if the node stops first.
    pub(crate) async fn inspect(&self, key: Bytes) -> BTreeMap<NodeId, Option<Held>> {
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + INSPECT_TIMEOUT,
        };
        self.step(|core, out| core.inspect(now, &key, waiter, out));
        match self.outcome(waiting).await {
            Some(Outcome::Inspected(nodes)) => nodes,
            _ => BTreeMap::new(),
        }
    }

    pub(crate) fn audit(&self, every: Option<Duration>, lasts: Option<Duration>) {
        let now = self.node.now();
        self.sees_probes();
        self.step(|core, _| core.audit(now, every, lasts.map(|lasts| now + lasts)));
    }

    pub(crate) fn audit_report(&self) -> AuditReport {
        self.machine.lock().core.audit_report()
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
