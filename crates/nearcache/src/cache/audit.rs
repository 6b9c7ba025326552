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
    /// Whether all members answered and agree: what they serve is the same value, none serves what is older than a write or a removal that
    /// another knows of, and where every node holds every entry, all serve the same version or none. Without a write under way a
    /// `false` is worth a second look.
    ///
    /// Values are compared by their length and first 64 KiB.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let held = || self.nodes.values().flatten();
        let served = held().map(|held| held.entry.filter(|_| held.leased));
        let all_answered = self.nodes.values().all(Result::is_ok);
        let agree = if self.mode == ModeKind::Replicated {
            let mut versions = served.map(|entry| entry.map(|entry| entry.version));
            let first = versions.next();
            versions.all(|version| Some(version) == first)
        } else {
            let written = held().filter_map(Held::written).max();
            let mut entries = served.flatten();
            let first = entries.clone().next();
            entries.all(|entry| {
                let is_current = written.is_none_or(|written| entry.version >= written);
                is_current && first.is_some_and(|first| first.value_hash == entry.value_hash)
            })
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
    /// Off until it is called. What lasts until the node stops goes on beside and after what lasts for some time; otherwise a later call
    /// replaces a former one. [`stop_audit`](Self::stop_audit) ends both. Never waits.
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

#[cfg(test)]
mod tests {
    use nearcache_protocol::probe::HeldEntry;
    use nearcache_store::{Expiry, Timestamp, Version};

    use super::*;

    fn version(ms: u64, counter: u16) -> Version {
        Version::new(Timestamp::from_parts(ms, counter), NodeId::from_u64(9))
    }

    fn nothing() -> Held {
        Held {
            known: Version::ZERO,
            floor: Version::ZERO,
            entry: None,
            removed: false,
            leased: true,
            ready: true,
        }
    }

    fn removed(at: Version) -> Held {
        Held {
            known: at,
            floor: at,
            removed: true,
            ..nothing()
        }
    }

    fn entry(version: Version, value_hash: Option<u64>) -> Held {
        let entry = HeldEntry {
            version,
            expiry: Expiry::NEVER,
            value_bytes: 1,
            value_hash,
        };
        Held {
            known: version,
            floor: version,
            entry: Some(entry),
            ..nothing()
        }
    }

    fn agree(mode: ModeKind, held: &[Held]) -> bool {
        let nodes = (1..)
            .map(NodeId::from_u64)
            .zip(held.iter().copied().map(Ok));
        let nodes = nodes.collect();
        Inspection { nodes, mode }.agrees()
    }

    #[test]
    fn i1_who_serves_what_is_older_than_a_removal_does_not_agree() {
        let agree = |held: &[Held]| agree(ModeKind::Invalidation, held);
        let (old, write, new) = (version(5, 0), version(6, 0), version(7, 0));
        assert!(!agree(&[
            entry(old, Some(1)),
            removed(write),
            removed(write)
        ]));
        assert!(!agree(&[
            entry(old, Some(1)),
            entry(write, Some(1)),
            removed(write)
        ]));
        assert!(agree(&[
            entry(write, Some(1)),
            removed(write),
            removed(write)
        ]));
        assert!(agree(&[entry(new, Some(1)), removed(write), nothing()]));
        assert!(!agree(&[entry(new, Some(1)), entry(new, Some(2))]));
        // It serves nothing without a lease.
        let mut unleased = entry(old, Some(1));
        unleased.leased = false;
        assert!(agree(&[unleased, removed(write)]));
        // Who has loaded later, and let it expire or evicted it, says nothing of the others' copies.
        let load = version(6, u16::MAX);
        assert!(agree(&[
            entry(old, Some(1)),
            removed(load),
            entry(load, Some(1))
        ]));
        let evicted = Held {
            known: write,
            ..nothing()
        };
        assert!(agree(&[entry(old, Some(1)), evicted]));
    }

    #[test]
    fn c6_replicas_agree_by_versions_and_whether_a_long_value_was_fetched_makes_no_difference() {
        let agree = |held: &[Held]| agree(ModeKind::Replicated, held);
        let (old, write) = (version(5, 0), version(6, 0));
        assert!(agree(&[entry(write, Some(1)), entry(write, None)]));
        assert!(!agree(&[entry(write, Some(1)), entry(old, Some(1))]));
        assert!(!agree(&[entry(write, Some(1)), removed(write)]));
    }
}
