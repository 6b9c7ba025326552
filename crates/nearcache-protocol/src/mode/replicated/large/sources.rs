//! What is asked of each peer, what waits for its turn with it, and the room that all of it takes.
//!
//! Every source has a queue of its own, and they take turns: one that is slow or silent holds up nobody but those who wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::NodeId;
use smallvec::SmallVec;

use super::wanted::{State, Wanted};
use crate::payload::Payload;
use crate::time::Time;

/// Values that one peer may be asked for at a time, however short: as many questions fit into a connection's queue many times over.
pub(super) const FETCHES_MAX: usize = 128;

/// A peer that is asked for long values.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Keys that wait for their turn with it.
    pub(super) queue: VecDeque<Bytes>,
    /// Fetches that it is asked for.
    asked: usize,
    /// Room that they take.
    bytes: usize,
    /// Those of them of which nothing comes, and that it was asked for first.
    silent: usize,
    /// When anything of a fetch last came from it.
    heard: Time,
    /// It has said nothing since then, and what waited for its turn with it was sent elsewhere where possible.
    dispersed: Option<Time>,
}

impl Source {
    fn is_silent(&self, now: Time, patience: Duration) -> bool {
        self.silent > 0 && self.heard + patience <= now
    }
}

/// All of them, and the room that they share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    by_peer: BTreeMap<NodeId, Source>,
    /// Whose turn it was last.
    turn: Option<NodeId>,
    /// Room in use: the lengths of values that are arriving, and what has come of others.
    room_bytes: usize,
    /// What has come of values that are not arriving just now.
    partial_bytes: usize,
}

impl Sources {
    /// Counts a wanted value as it stands.
    pub(super) fn enter<V: Payload>(&mut self, wanted: &Wanted<V>) {
        self.room_bytes += wanted.room();
        self.partial_bytes += wanted.partial();
        let is_silent = matches!(wanted.state, State::Silent { .. });
        for (nth, peer) in wanted.asked.iter().enumerate() {
            let source = self.by_peer.entry(*peer).or_default();
            source.asked += 1;
            if nth == 0 {
                source.silent += usize::from(is_silent);
                source.bytes += wanted.room();
            }
        }
    }

    /// Takes back what was counted, before anything about it changes.
    pub(super) fn strike<V: Payload>(&mut self, wanted: &Wanted<V>) {
        self.room_bytes -= wanted.room();
        self.partial_bytes -= wanted.partial();
        let is_silent = matches!(wanted.state, State::Silent { .. });
        for (nth, peer) in wanted.asked.iter().enumerate() {
            let Some(source) = self.by_peer.get_mut(peer) else {
                continue;
            };
            source.asked -= 1;
            if nth == 0 {
                source.silent -= usize::from(is_silent);
                source.bytes -= wanted.room();
            }
        }
    }

    /// Something of a fetch has come from a peer.
    pub(super) fn hear(&mut self, now: Time, peer: NodeId) {
        self.by_peer.entry(peer).or_default().heard = now;
    }

    /// When something last came from one of these.
    pub(super) fn heard(&self, peers: &[NodeId]) -> Time {
        let heard = peers.iter().filter_map(|peer| self.by_peer.get(peer));
        heard.map(|source| source.heard).max().unwrap_or(Time::ZERO)
    }

    /// Whether nothing comes from a peer that was asked.
    pub(super) fn is_silent(&self, peer: NodeId, now: Time, patience: Duration) -> bool {
        let source = self.by_peer.get(&peer);
        source.is_some_and(|source| source.is_silent(now, patience))
    }

    /// Whether a peer may be asked for one more.
    pub(super) fn may_ask(&self, peer: NodeId) -> bool {
        let source = self.by_peer.get(&peer);
        source.is_none_or(|source| source.asked < FETCHES_MAX)
    }

    /// Whether a peer may be asked for so many bytes more: half of the room is for others.
    pub(super) fn has_share(&self, peer: NodeId, bytes: usize, room_max: usize) -> bool {
        self.by_peer
            .get(&peer)
            .is_none_or(|source| source.bytes == 0 || source.bytes + bytes <= room_max / 2)
    }

    /// Whether there is room for `lacking` more bytes of a value of which `own` are here. A value that is alone has room, however long.
    pub(super) const fn has_room(&self, own: usize, lacking: usize, room_max: usize) -> bool {
        self.room_bytes <= own || self.room_bytes + lacking <= room_max
    }

    /// What could be given up to make room.
    pub(super) const fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Has a key wait for its turn with a peer; first of all if some of its value is here.
    pub(super) fn queue(&mut self, peer: NodeId, key: Bytes, is_begun: bool) {
        let queue = &mut self.by_peer.entry(peer).or_default().queue;
        if is_begun {
            queue.push_front(key);
        } else {
            queue.push_back(key);
        }
    }

    pub(super) fn unqueue(&mut self, peer: NodeId, key: &Bytes) {
        if let Some(source) = self.by_peer.get_mut(&peer) {
            source.queue.retain(|queued| queued != key);
        }
    }

    /// Whether what waits for its turn with a peer that says nothing is to look for another: once each time that it falls silent.
    pub(super) fn disperses(&mut self, peer: NodeId) -> bool {
        let Some(source) = self.by_peer.get_mut(&peer) else {
            return false;
        };
        source.dispersed.replace(source.heard) != Some(source.heard)
    }

    /// Takes all that waits for its turn with a peer.
    pub(super) fn take_queue(&mut self, peer: NodeId) -> VecDeque<Bytes> {
        let source = self.by_peer.get_mut(&peer);
        source.map_or_else(VecDeque::new, |source| std::mem::take(&mut source.queue))
    }

    pub(super) fn first_of(&self, peer: NodeId) -> Option<&Bytes> {
        self.by_peer.get(&peer)?.queue.front()
    }

    /// The first that waits for its turn with a peer begins.
    pub(super) fn begin_first_of(&mut self, peer: NodeId) {
        self.turn = Some(peer);
        if let Some(source) = self.by_peer.get_mut(&peer) {
            source.queue.pop_front();
        }
    }

    /// Those that somebody waits for, whose turn it is first.
    pub(super) fn in_turn(&self) -> SmallVec<[NodeId; 8]> {
        let waited_for =
            |(id, source): (&NodeId, &Source)| (!source.queue.is_empty()).then_some(*id);
        let mut ids: SmallVec<[NodeId; 8]> = self.by_peer.iter().filter_map(waited_for).collect();
        let begun = ids.iter().take_while(|id| Some(**id) <= self.turn).count();
        ids.rotate_left(begun);
        ids
    }

    pub(super) fn forget(&mut self, peer: NodeId) {
        self.by_peer.remove(&peer);
    }

    pub(super) const fn room_bytes(&self) -> usize {
        self.room_bytes
    }
}
