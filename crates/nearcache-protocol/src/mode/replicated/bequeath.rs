//! Leaving: a long value that only this node holds is fetched by somebody before it goes.
//!
//! ```text
//! leaver ─ Keep ─▶ one peer after the other ─ Kept(no) ─▶ none holds it: Keep(fetch) ─▶ one fetches it, as for a reader ─ Kept(yes)
//!                                           └ Kept(yes) ─▶ nothing to do
//! ```
//!
//! What is read most goes first, so many at a time, and no faster than `fetch_bytes_per_second`. What is not fetched when the time for
//! leaving is over is lost, as it would be by a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, Item, Known, NodeId, PartItem, PartWalk, Version};

use super::Replicated;
use crate::fetching::Fetching;
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::parts::Parts;
use crate::payload::Payload;
use crate::time::Time;

/// Values that peers are asked about at a time (guess: enough that a round trip each does not count).
const ASKED_MAX: usize = 32;
/// Items that the store is asked for at a time.
const PAGE_ITEMS: usize = 128;
/// So many times at each tick, so that nothing else waits for long: a million items take about a second of ticks (guess).
const PAGES_A_TICK: u32 = 64;
/// How long an answer is waited for that is there at once. Who does not give it is asked for nothing more.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a peer may fetch before another is asked (guess: a part of the time for leaving).
const FETCH_MAX: Duration = Duration::from_secs(3);
/// A value that nobody took is offered again: its stub may have been on its way.
const ROUNDS_MAX: u32 = 4;
/// After so long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Values that this node fetches for others that leave; more are refused.
const KEPT_MAX: usize = 256;

/// What the node that leaves still has to hand over of long values.
#[derive(Debug, Default)]
pub(super) struct Bequest {
    walk: Option<PartWalk>,
    found: VecDeque<Willed>,
    asked: BTreeMap<RequestId, Asked>,
    /// Where to begin among the peers: each value elsewhere.
    turn: usize,
    /// Peers that have not answered in time.
    silent: BTreeSet<NodeId>,
}

/// A value that somebody shall hold.
#[derive(Debug)]
struct Willed {
    key: Bytes,
    version: Version,
    /// Who is still to be asked, the next one last.
    left: Vec<NodeId>,
    /// Who has said that it does not hold it.
    lacking: Vec<NodeId>,
    /// Nobody holds it: it is to be fetched.
    fetch: bool,
    round: u32,
    not_before: Time,
}

#[derive(Debug)]
struct Asked {
    peer: NodeId,
    at: Time,
    willed: Willed,
}

impl Asked {
    fn is_overdue(&self, now: Time) -> bool {
        let max = if self.willed.fetch {
            FETCH_MAX
        } else {
            ANSWER_MAX
        };
        self.at + max <= now
    }
}

impl Bequest {
    /// Whether nothing is left to be handed over, or nobody to take it.
    pub(super) fn is_done(&self) -> bool {
        let walked = self.walk.as_ref().is_none_or(PartWalk::is_done);
        walked && self.found.is_empty() && self.asked.is_empty()
    }
}

impl<V: Payload> Replicated<V> {
    pub(super) fn begin_bequest(&mut self) {
        if self.planted.leaves_long_values_behind() {
            return;
        }
        let all = Parts::ALL.leaf_set();
        self.bequest.walk = all.map(|all| PartWalk::new(all, None));
    }

    /// Asks on, and for more.
    pub(super) fn tick_bequest(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if !self.peers.values().any(super::Peer::agrees) {
            // Nobody is there to take anything.
            self.bequest = Bequest::default();
            return;
        }
        let overdue = self
            .bequest
            .asked
            .values()
            .filter(|asked| asked.is_overdue(now));
        let overdue: Vec<NodeId> = overdue.map(|asked| asked.peer).collect();
        self.bequest.silent.extend(overdue);
        self.unkept_by(now, |_, asked| asked.is_overdue(now), out);
        self.find_willed();
        while self.bequest.asked.len() < ASKED_MAX {
            let mut found = self.bequest.found.iter();
            let Some(next) = found.position(|willed| willed.not_before <= now) else {
                return;
            };
            if let Some(willed) = self.bequest.found.remove(next) {
                self.bequeath(now, willed, out);
            }
        }
    }

    /// Looks for long values, what is read most first.
    fn find_willed(&mut self) {
        for _ in 0..PAGES_A_TICK {
            if self.bequest.found.len() >= ASKED_MAX {
                return;
            }
            let Some(walk) = self.bequest.walk.as_mut().filter(|walk| !walk.is_done()) else {
                return;
            };
            for item in self.store.walk_part(walk, PAGE_ITEMS) {
                if let PartItem::Held(Item::Entry(entry)) = item {
                    self.will(&entry);
                }
            }
        }
    }

    /// This node leaves, and somebody else shall hold this entry if its value is long.
    pub(super) fn will(&mut self, entry: &Handle<V>) {
        if entry.is_stub() || entry.value().bytes().len() <= self.config.inline_limit {
            return;
        }
        let mut left = self.takers();
        self.bequest.turn = self.bequest.turn.wrapping_add(1);
        let by = self.bequest.turn.checked_rem(left.len()).unwrap_or(0);
        left.rotate_left(by);
        self.bequest.found.push_back(Willed {
            key: Bytes::copy_from_slice(entry.key()),
            version: entry.version(),
            left,
            lacking: Vec::new(),
            fetch: false,
            round: 0,
            not_before: Time::ZERO,
        });
    }

    /// Who can be asked.
    fn takers(&self) -> Vec<NodeId> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let answering = peers.filter(|(id, _)| !self.bequest.silent.contains(id));
        answering.map(|(id, _)| *id).collect()
    }

    /// Asks the next peer.
    fn bequeath(&mut self, now: Time, mut willed: Willed, out: &mut Vec<Output<V>>) {
        if self.holder_of(&willed.key, willed.version).is_none() {
            // Superseded or gone meanwhile.
            return;
        }
        if willed.left.is_empty() && !willed.fetch {
            willed.fetch = true;
            willed.left = std::mem::take(&mut willed.lacking);
        }
        let takers = self.takers();
        willed.left.retain(|id| takers.contains(id));
        let Some(peer) = willed.left.pop() else {
            willed.round += 1;
            if willed.round < ROUNDS_MAX {
                willed.left = takers;
                willed.fetch = false;
                willed.not_before = now + AGAIN_AFTER;
                self.bequest.found.push_back(willed);
            }
            return;
        };
        self.last_request += 1;
        let request = RequestId(self.last_request);
        let message = Fetching::Keep {
            key: willed.key.clone(),
            version: willed.version,
            fetch: willed.fetch,
        };
        out.push(send(peer, request, message));
        let asked = Asked {
            peer,
            at: now,
            willed,
        };
        self.bequest.asked.insert(request, asked);
    }

    /// A peer holds the value now, or does not.
    pub(super) fn on_kept(
        &mut self,
        now: Time,
        from: NodeId,
        (request, held): (RequestId, bool),
        out: &mut Vec<Output<V>>,
    ) {
        let asked = self.bequest.asked.get(&request);
        if asked.is_none_or(|asked| asked.peer != from) {
            return;
        }
        if held {
            self.bequest.asked.remove(&request);
        } else {
            self.unkept_by(now, |asked, _| *asked == request, out);
        }
        self.tick_bequest(now, out);
    }

    /// The session with a peer is gone: it keeps nothing, and nothing is to be kept for it.
    pub(super) fn bequest_peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.bequest.silent.remove(&peer);
        self.unkept_by(now, |_, asked| asked.peer == peer, out);
    }

    fn unkept_by(
        &mut self,
        now: Time,
        is_meant: impl Fn(&RequestId, &Asked) -> bool,
        out: &mut Vec<Output<V>>,
    ) {
        let asked = self.bequest.asked.iter();
        let meant = asked.filter(|(request, asked)| is_meant(request, asked));
        let meant: Vec<RequestId> = meant.map(|(request, _)| *request).collect();
        for request in meant {
            if let Some(Asked {
                peer, mut willed, ..
            }) = self.bequest.asked.remove(&request)
            {
                if !willed.fetch {
                    willed.lacking.push(peer);
                }
                self.bequeath(now, willed, out);
            }
        }
    }

    /// A peer that leaves asks whether this node holds a value, or shall.
    pub(super) fn on_keep(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (key, version, fetch): (Bytes, Version, bool),
        out: &mut Vec<Output<V>>,
    ) {
        let stays = !self.leave.has_begun();
        let held = match self.store.known(&key) {
            Known::Live(stub) if stub.version() == version && stub.is_stub() => {
                if fetch && stays && self.large.kept() < KEPT_MAX {
                    self.fetch_to_keep(now, (from, request), (key, stub), out);
                    return;
                }
                false
            }
            Known::Live(entry) if entry.version() == version => stays,
            // Nobody needs it any more.
            Known::Live(newer) => newer.version() > version,
            Known::Removed(newer) => newer > version,
            Known::Absent { .. } => false,
        };
        out.push(send(from, request, Fetching::Kept { held }));
    }
}

pub(super) fn send<V>(to: NodeId, request: RequestId, message: Fetching<V>) -> Output<V> {
    let message = CacheMessage::Fetching { request, message };
    Output::Send { to, message }
}
