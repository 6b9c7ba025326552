//! Looking at one key on every node, and the coherence audit.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::probe::Held;
use nearcache_protocol::probe::audit::AuditReport;
use nearcache_protocol::probe::inspect::NoAnswer;
use nearcache_store::NodeId;

use super::Cache;
use super::errors::ReadError;
use crate::codec::Codec;
use crate::codec::key::KeyFor;

/// How one key stands on every member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Per member, this one included; for one that did not answer, why.
    pub nodes: BTreeMap<NodeId, Result<Held, NoAnswer>>,
    mode: ModeKind,
}

impl Inspection {
    /// Whether all members answered and agree: what they serve is the same value, and where every node holds every entry, all serve the
    /// same version or none. Without a write under way a `false` is worth a second look.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let served = self.nodes.values().flatten().map(|held| {
            let entry = held.entry.filter(|_| held.leased);
            entry.map(|entry| (entry.value_hash, entry.version))
        });
        let all_answered = self.nodes.values().all(Result::is_ok);
        let agree = if self.mode == ModeKind::Replicated {
            let mut versions = served.map(|held| held.map(|(_, version)| version));
            let first = versions.next();
            versions.all(|version| Some(version) == first)
        } else {
            let mut values = served.flatten().map(|(hash, _)| hash);
            let first = values.next();
            values.all(|hash| Some(hash) == first)
        };
        all_answered && agree
    }
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// How `key` stands on every member: version, expiry and size of what a reader there would be given, or what is known of it otherwise.
    /// Values do not travel. Asks all members at once and waits for at most 1 s.
    ///
    /// Beyond `mesh_max` members those without a session are asked over short-lived connections, of which it has at most half of
    /// `probe_connections` at a time, each member up to three times; at most four inspections of a cache at once ask them. That takes a few
    /// milliseconds a connection, at most 10 s. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub async fn inspect<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<Inspection, ReadError> {
        let key = self.owned_key(key)?;
        Ok(Inspection {
            nodes: self.shell.inspect(key).await,
            mode: self.mode(),
        })
    }

    /// Writes a probe every so often (once a second at most) for so long, or until the node stops, and asks up to 16 peers in turn what they
    /// have of it after 1, 5 and 60 s. A probe is a write of a key that no caller can name or sees, of some 100 bytes.
    ///
    /// Beyond `mesh_max` members it asks up to 16 of the others too, over short-lived connections, about three each and probe; everybody
    /// has its turn.
    ///
    /// Off until it is called. A later call replaces a former one; [`stop_audit`](Self::stop_audit) ends it. Never waits.
    pub fn audit(&self, every: Duration, lasts: Option<Duration>) {
        self.shell.audit(Some(every), lasts);
    }

    /// Writes no more probes. Those on their way are followed to their end.
    pub fn stop_audit(&self) {
        self.shell.audit(None, None);
    }

    /// What came of this node's probes so far. Cost: O(peers) under a short lock.
    #[must_use]
    pub fn audit_report(&self) -> AuditReport {
        self.shell.audit_report()
    }
}
