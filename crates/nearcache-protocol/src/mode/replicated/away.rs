//! Whether this node was away: cut off from most of its cluster for longer than removals are remembered.
//!
//! Whoever was away may hold what others have removed since, and they no longer know that they did (R4). It therefore starts
//! clean: what is older than a removal can be remembered is dropped, and fetched again from the first peer it meets. Dropping is
//! always safe in a cache.
//!
//! Who is away is decided by each node for itself: it is whoever is not with most of those that were together last. Half of
//! them count as most if the smallest id is among them. So of two parts of a cluster at most one keeps all it has.

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_store::{Item, Known, NodeId, Timestamp, WalkCursor};

use super::Replicated;
use super::join::Join;
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Peers that were not heard of for so many heartbeats are not with us (guess).
const SILENT_HEARTBEATS: u32 = 4;

/// Entries looked at under one lock of a shard.
const PAGE_ITEMS: usize = 256;

/// When this node was last with most of its cluster.
#[derive(Debug)]
pub(super) struct Contact {
    at: Time,
    /// Who was together then, this node included.
    together: BTreeSet<NodeId>,
}

impl Contact {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            at: now,
            together: BTreeSet::new(),
        }
    }

    /// These, this node included, hear each other now; `alive` are those and the members that are not known to be dead.
    fn note(&mut self, now: Time, hear: &BTreeSet<NodeId>, alive: BTreeSet<NodeId>) {
        let still = self.together.intersection(hear).count();
        let half = self.together.len() / 2;
        let smallest = self.together.first();
        let most = still > half
            || (still * 2 == self.together.len() && smallest.is_none_or(|id| hear.contains(id)));
        if most {
            self.at = now;
            self.together = alive;
        }
    }
}

impl<V: Payload> Replicated<V> {
    /// Looks who is there; with every heartbeat.
    pub(super) fn note_contact(&mut self, now: Time) {
        let silence_max = self.config.heartbeat_every * SILENT_HEARTBEATS;
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let mut hear: BTreeSet<NodeId> = agreeing
            .clone()
            .filter(|(_, peer)| {
                peer.echoes
                    .fresh_at
                    .is_some_and(|at| now - at <= silence_max)
            })
            .map(|(id, _)| *id)
            .collect();
        hear.insert(self.me());
        let absent = self.lost.iter().filter(|(_, lost)| !lost.dead);
        let mut alive: BTreeSet<NodeId> = agreeing.map(|(id, _)| *id).collect();
        alive.extend(absent.map(|(id, _)| *id));
        alive.insert(self.me());
        self.contact.note(now, &hear, alive);
    }

    fn tombstone_ttl(&self) -> Duration {
        Duration::from_millis(self.config.agreement.tombstone_ttl_ms)
    }

    /// What is not newer than this may have been removed without anybody remembering it. A removal is remembered from when it
    /// arrives, which may be the drift bound before its own time.
    pub(super) fn forgotten_up_to(&self, now: Time) -> Timestamp {
        let ttl = self.tombstone_ttl().saturating_sub(self.clock.max_drift());
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_parts(self.clock.physical_ms(now).saturating_sub(ttl_ms), 0)
    }

    /// Of a transfer that repairs this node: not what is so old that it may have been removed without anybody remembering it, and
    /// that is not here. It was evicted here, or removed.
    pub(super) fn without_forgotten(&self, now: Time, updates: Vec<Update<V>>) -> Vec<Update<V>> {
        if !self.join.is_ready() || self.planted.keeps_state_when_away() {
            return updates;
        }
        let old = self.forgotten_up_to(now);
        let is_forgotten = |update: &Update<V>| {
            matches!(update, Update::Put { .. } | Update::Entry(_))
                && update.version().time <= old
                && update
                    .key()
                    .is_some_and(|key| matches!(self.store.known(key), Known::Absent { .. }))
        };
        updates
            .into_iter()
            .filter(|update| !is_forgotten(update))
            .collect()
    }

    /// A peer is met. Starts clean if this node was away too long; only peers met from `since` on will fill it.
    pub(super) fn start_clean_if_away(&mut self, now: Time, since: Time, out: &mut Vec<Output<V>>) {
        let away = now - self.contact.at;
        if away <= self.tombstone_ttl() || self.planted.keeps_state_when_away() {
            return;
        }
        self.contact = Contact::new(now);
        let old = self.forgotten_up_to(now);
        let (mut cursor, mut dropped) = (Some(WalkCursor::START), 0);
        while let Some(from) = cursor {
            let (items, next) = self.store.walk(from, PAGE_ITEMS);
            for item in items {
                if let Item::Entry(entry) = item
                    && entry.version().time <= old
                    && self.store.forget(entry.key(), entry.version())
                {
                    dropped += 1;
                }
            }
            cursor = next;
        }
        // What it said meanwhile is told by a transfer, if it is not too old itself.
        self.log.forget();
        self.fetch = None;
        self.compare.current = None;
        self.lists.retain(|(_, own), _| !*own);
        // What was dropped may come back as it was, which a comparison would not ask for.
        self.has_data = false;
        self.join = Join::again(now + self.config.join_alone_after, since);
        out.push(Output::Event(Event::StartedClean { away, dropped }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId::from_u64).collect()
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// Nodes 1 to `n` were together at 10 ms.
    fn together(n: u64) -> Contact {
        let mut contact = Contact::new(Time::ZERO);
        let all: Vec<u64> = (1..=n).collect();
        contact.note(at(10), &ids(&all), ids(&all));
        contact
    }

    #[test]
    fn r4_whoever_is_with_most_of_its_cluster_is_not_away() {
        let mut five = together(5);
        five.note(at(20), &ids(&[3, 4]), ids(&[3, 4]));
        assert_eq!(five.at, at(10));
        five.note(at(30), &ids(&[3, 4, 5]), ids(&[3, 4, 5]));
        assert_eq!(five.at, at(30));
        five.note(at(40), &ids(&[4, 5]), ids(&[4, 5]));
        assert_eq!(five.at, at(40), "the dead no longer count");
    }

    #[test]
    fn r4_of_two_halves_the_one_with_the_smallest_id_is_not_away() {
        let (mut left, mut right) = (together(4), together(4));
        left.note(at(20), &ids(&[1, 4]), ids(&[1, 4]));
        right.note(at(20), &ids(&[2, 3]), ids(&[2, 3]));
        assert_eq!((left.at, right.at), (at(20), at(10)));
    }

    #[test]
    fn r4_a_node_that_never_met_anybody_is_not_away() {
        let mut alone = Contact::new(Time::ZERO);
        alone.note(at(10), &ids(&[7]), ids(&[7]));
        alone.note(at(9_000), &ids(&[7]), ids(&[7]));
        assert_eq!(alone.at, at(9_000));
    }
}
