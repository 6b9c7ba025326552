//! Whether this node was away: cut off from most of its cluster for longer than removals are remembered.
//!
//! Whoever was away may hold what others have removed since, and they no longer know that they did (R4). It therefore starts
//! clean: what is older than a removal can be remembered is dropped, and fetched again from the first peer it meets. Dropping is
//! always safe in a cache.
//!
//! Who is away is decided by each node for itself, by its [`View`](super::view::View): of two parts of a cluster at most one keeps all
//! it has.

use std::time::Duration;

use nearcache_store::{Item, Known, NodeId, Timestamp, Version, WalkCursor};

use super::Replicated;
use super::join::Join;
use super::serve::Serving;
use crate::message::CacheMessage;
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Entries looked at under one lock of a shard.
const PAGE_ITEMS: usize = 256;

impl<V: Payload> Replicated<V> {
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
            matches!(
                update,
                Update::Put { .. } | Update::Stub { .. } | Update::Entry(_)
            ) && update.version().time <= old
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
        let away = now - self.view.with_most_at();
        if away <= self.tombstone_ttl() || self.planted.keeps_state_when_away() {
            return;
        }
        self.view.begin_again(now);
        let dropped = self.drop_up_to(self.forgotten_up_to(now), out);
        // What it said meanwhile is told by a transfer, if it is not too old itself.
        self.log.forget();
        self.fill_again(now, since);
        out.push(Output::Event(Event::StartedClean { away, dropped }));
    }

    /// Drops the entries whose versions are not newer than `old`, so that they are lacking here; returns how many. Cost: O(entries).
    pub(super) fn drop_up_to(&mut self, old: Timestamp, out: &mut Vec<Output<V>>) -> u64 {
        self.stop_serving(out);
        let (mut cursor, mut dropped) = (Some(WalkCursor::START), 0);
        while let Some(from) = cursor {
            let (items, next) = self.store.walk(from, PAGE_ITEMS);
            for item in items {
                if let Item::Entry(entry) = item
                    && entry.version().time <= old
                    && self.store.withdraw(entry.key(), entry.version())
                {
                    dropped += 1;
                }
            }
            cursor = next;
        }
        // What is that old has long been everywhere: whoever fills this node again has nothing older of it.
        let newest = Version::new(old, NodeId::from_u64(u64::MAX));
        self.store.drop_common_floors(newest);
        dropped
    }

    /// What those were promised who are being filled by this node is no longer here: others have to bring it.
    fn stop_serving(&mut self, out: &mut Vec<Output<V>>) {
        for (id, peer) in &mut self.peers {
            if let Some(request) = peer.serving.as_mut().and_then(Serving::stop) {
                let message = CacheMessage::TransferRefused { request };
                out.push(Output::Send { to: *id, message });
            }
        }
        self.pages.clear();
    }

    /// Much was dropped: this node is not ready before a peer met from `since` on has filled it.
    pub(super) fn fill_again(&mut self, now: Time, since: Time) {
        self.filling = None;
        self.fetches.clear();
        self.compare.current = None;
        self.lists.retain(|(_, own), _| !*own);
        // There is little to compare: a transfer brings what was dropped at a smaller cost.
        self.has_data = false;
        self.join = Join::again(now + self.config.join_alone_after, since);
    }
}
