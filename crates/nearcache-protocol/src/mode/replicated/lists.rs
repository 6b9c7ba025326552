//! Lists of what is known where two nodes differ, one each way: each is told what the other knows, asks for what it lacks, and gets it.
//!
//! A list is made by going through the store in small steps, one per tick; its pieces are pulled when the connection has room, and
//! only a few are on their way unanswered. Going through a large store takes longer than a peer may be silent, and where little
//! differs nothing is found for most of that time: a piece goes out every so often all the same, with what there is. Who lacks what is
//! decided by the receiver, against all it knows, so that nothing is sent that it would refuse or has evicted (R10).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Known, LeafSet, ListCursor, Listed, NodeId, Version};

use super::Replicated;
use super::compare::{Comparison, anti_entropy};
use crate::anti_entropy::AntiEntropy;
use crate::ids::RequestId;
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::stream::Receives as _;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Things in the store looked at per tick: some tenths of a millisecond under the machine's lock.
const STEP: usize = 2_048;
/// The time between two such steps: others get the lock.
const STEP_EVERY: Duration = Duration::from_millis(1);
/// So many pieces at least go out, without keys if need be, in the time after which an exchange counts as stalled.
const SIGNS_PER_STALL: u32 = 5;
/// Pieces of a list that may be unanswered.
const WINDOW: u32 = 4;
/// A key's version and length in a piece.
const KEY_OVERHEAD: usize = 18;

/// The list that a peer gets from us.
#[derive(Debug)]
pub(super) struct Listing {
    request: RequestId,
    /// Whether we asked for the comparison.
    own: bool,
    leaves: LeafSet,
    /// Where the going through the store stands; nothing at its end.
    cursor: Option<ListCursor>,
    step_at: Time,
    /// When a piece is sent even if there is nothing in it.
    sign_at: Time,
    keys: VecDeque<(Box<[u8]>, Version)>,
    key_bytes: usize,
    /// Pieces sent, and answered.
    sent: u32,
    answered: u32,
    sent_all: bool,
    /// What the peer wants, by piece.
    wanted: VecDeque<VecDeque<Bytes>>,
    parts_sent: u32,
    /// The next part of what we wanted.
    parts_expected: u32,
    /// The next piece of the peer's list.
    expected: u32,
    /// The peer's list is complete, and so many pieces' entries are still to come.
    heard_all: bool,
    awaited: u32,
    /// The shell was told that there is something to pull.
    awake: bool,
    /// When something last happened.
    moved: Time,
}

impl Listing {
    fn has_something(&self, now: Time, piece_bytes: usize) -> bool {
        let piece = match self.cursor {
            Some(_) => self.key_bytes >= piece_bytes || self.sign_at <= now,
            None => !self.sent_all,
        };
        !self.wanted.is_empty() || (piece && self.sent - self.answered < WINDOW)
    }

    /// Whether there is more of the store to go through, and room for what is found.
    fn is_made(&self, room_below: usize) -> bool {
        self.cursor.is_some() && self.key_bytes < room_below
    }

    fn is_answered(&self) -> bool {
        self.sent_all && self.answered == self.sent && self.wanted.is_empty()
    }

    /// Both lists are exchanged, and all that was wanted of them.
    fn is_over(&self) -> bool {
        self.heard_all && self.awaited == 0 && self.is_answered()
    }
}

impl<V: Payload> Replicated<V> {
    /// Begins to list what is known in `leaves` to a peer.
    pub(super) fn start_list(
        &mut self,
        now: Time,
        peer: NodeId,
        request: RequestId,
        own: bool,
        leaves: LeafSet,
        out: &mut Vec<Output<V>>,
    ) {
        let listing = Listing {
            request,
            own,
            cursor: (!leaves.is_empty()).then(ListCursor::default),
            leaves,
            step_at: now,
            sign_at: now + self.sign_every(),
            keys: VecDeque::new(),
            key_bytes: 0,
            sent: 0,
            answered: 0,
            sent_all: false,
            wanted: VecDeque::new(),
            parts_sent: 0,
            parts_expected: 0,
            expected: 0,
            heard_all: false,
            awaited: 0,
            awake: false,
            moved: now,
        };
        self.lists.insert((peer, own), listing);
        self.step_lists(now, out);
    }

    fn sign_every(&self) -> Duration {
        self.config.transfer_stall_after / SIGNS_PER_STALL
    }

    /// A peer that found differences asks to exchange lists.
    pub(super) fn on_list(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (bits, leaves): (u8, Vec<u32>),
        floors: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let agrees = self.peers.get(&from).is_some_and(super::Peer::agrees);
        let former = self.lists.get(&(from, false));
        if !agrees || former.is_some_and(|listing| listing.request >= request) {
            return;
        }
        self.apply_floors(now, from, floors, out);
        if let Some(set) = LeafSet::new(u32::from(bits), leaves) {
            self.start_list(now, from, request, false, set, out);
        }
    }

    /// Goes on making lists, and wakes those who wait for pieces.
    pub(super) fn step_lists(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let piece_bytes = self.config.transfer_chunk_bytes;
        // An asker that no longer answers has given up; our own comparisons are cut where they are asked for.
        let patience = self.config.transfer_stall_after * 2;
        self.lists
            .retain(|(_, own), listing| *own || listing.moved + patience > now);
        // What was sent last may have been the end.
        let ended = self.lists.iter().filter(|(_, listing)| listing.is_over());
        let ended: Vec<_> = ended
            .map(|(key, listing)| (*key, listing.request))
            .collect();
        for ((peer, own), request) in ended {
            self.list_moved(now, peer, request, own, out);
        }
        for ((peer, _), listing) in &mut self.lists {
            if listing.step_at <= now
                && listing.is_made(piece_bytes * WINDOW as usize)
                && let Some(cursor) = listing.cursor
            {
                let (listed, next) = self.store.list(cursor, &listing.leaves, STEP);
                listing.cursor = next;
                listing.step_at = now + STEP_EVERY;
                for one in listed {
                    // An evicted key is not told: it is found out by who still lists an older version of it.
                    if let Listed::Held { key, version } = one {
                        listing.key_bytes += key.len() + KEY_OVERHEAD;
                        listing.keys.push_back((key, version));
                    }
                }
            }
            if !listing.awake && listing.has_something(now, piece_bytes) {
                listing.awake = true;
                let (peer, lane) = (*peer, Lane::Bulk);
                out.push(Output::Transmit { peer, lane });
            }
        }
    }

    /// Whether this node is going through its store, so that it should be ticked as often as it takes steps.
    pub(super) fn is_listing(&self) -> bool {
        let room_below = self.config.transfer_chunk_bytes * WINDOW as usize;
        self.lists.values().any(|list| list.is_made(room_below))
    }

    pub(super) fn next_list_step(&self) -> Time {
        let room_below = self.config.transfer_chunk_bytes * WINDOW as usize;
        let lists = self.lists.values();
        let steps = lists.filter(|listing| listing.is_over() || listing.is_made(room_below));
        steps
            .map(|listing| listing.step_at)
            .min()
            .unwrap_or(Time::MAX)
    }

    /// The next piece of a list, or of what is wanted from one, for `to`.
    pub(super) fn poll_lists(
        &mut self,
        now: Time,
        to: NodeId,
        budget_bytes: usize,
    ) -> Option<CacheMessage<V>> {
        let piece_bytes = self.config.transfer_chunk_bytes;
        let budget_bytes = budget_bytes.min(piece_bytes);
        let sign_at = now + self.sign_every();
        for own in [false, true] {
            let Some(listing) = self.lists.get_mut(&(to, own)) else {
                continue;
            };
            let request = listing.request;
            let message = if !listing.wanted.is_empty() {
                self.entries_of(now, (to, own), budget_bytes)
            } else if listing.has_something(now, piece_bytes) {
                listing.sign_at = sign_at;
                Some(next_piece(listing, budget_bytes))
            } else {
                listing.awake = false;
                None
            };
            if let Some(mut message) = message {
                self.add_floors(to, &mut message);
                if let Some(listing) = self.lists.get_mut(&(to, own)) {
                    listing.moved = now;
                }
                // Nobody answers entries: that the connection takes them is what tells that the peer does.
                if let AntiEntropy::Entries { own: true, .. } = message
                    && let Some(comparison) = self.exchanging(to, request)
                {
                    comparison.moves(now);
                }
                return Some(CacheMessage::AntiEntropy { request, message });
            }
        }
        None
    }

    /// What was invalidated since the peer was told how far we are is in no list, and must not be missing there without that being known.
    fn add_floors(&self, to: NodeId, message: &mut AntiEntropy<V>) {
        if let AntiEntropy::Listed {
            own: false,
            done: true,
            floors,
            ..
        } = message
            && let Some(peer) = self.peers.get(&to)
            && peer.told_generation.1 != self.store.generation()
        {
            *floors = self.floors_to_tell();
        }
    }

    /// Some of what the peer wants of our list.
    fn entries_of(
        &mut self,
        now: Time,
        (to, own): (NodeId, bool),
        budget_bytes: usize,
    ) -> Option<AntiEntropy<V>> {
        let reader = self.peers.get(&to)?.reader(&self.config);
        let listing = self.lists.get_mut(&(to, own))?;
        let keys = listing.wanted.front_mut()?;
        let (mut updates, mut bytes, mut invalidated) = (Vec::<Update<V>>::new(), 0, false);
        while bytes < budget_bytes
            && let Some(key) = keys.pop_front()
        {
            let update = match self.store.known(&key) {
                Known::Live(entry) => Update::Entry(entry).for_reader(reader),
                Known::Removed(version) => Update::Remove { key, version },
                Known::Absent { .. } => match self.store.evicted(&key) {
                    Some(version) => withheld(key, version),
                    // Gone since the list was sent: the peer must know why, or it keeps what it has and takes itself for complete.
                    None => {
                        invalidated = true;
                        continue;
                    }
                },
            };
            bytes += update.wire_bytes();
            updates.push(update);
        }
        let done = keys.is_empty();
        if done {
            listing.wanted.pop_front();
        }
        let part = listing.parts_sent;
        listing.parts_sent += 1;
        let (request, count) = (listing.request, updates.len() as u64);
        let versions = updates.iter().map(Update::version);
        let oldest = versions.min();
        if invalidated {
            updates.extend(self.floors_to_tell());
        }
        self.stats.reconciled_sent += count;
        let is_overdue = oldest.is_some_and(|version| self.is_overdue(now, version));
        if let Some(comparison) = self.exchanging(to, request).filter(|_| own) {
            comparison.sent += count;
            comparison.is_overdue |= is_overdue;
        }
        Some(AntiEntropy::Entries {
            own,
            part,
            done,
            updates,
        })
    }

    /// A piece of a peer's list: asks for what is missing here.
    pub(super) fn on_listed(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (theirs, index, done): (bool, u32, bool),
        (keys, floors): (Vec<(Bytes, Version)>, Vec<Update<V>>),
        out: &mut Vec<Output<V>>,
    ) {
        let Some(listing) = self.listing(from, request, !theirs) else {
            return;
        };
        if index < listing.expected {
            return;
        }
        // A piece was lost: what it named will be found by the next comparison, but nothing can be claimed by this one.
        let skipped = index > listing.expected;
        listing.expected = index.saturating_add(1);
        listing.heard_all |= done;
        let refused = !self.apply_floors(now, from, floors, out);
        let (mut lacking, mut outdated) = (Vec::new(), Vec::new());
        let old = self.forgotten_up_to(now);
        let takes_old = !self.join.is_ready();
        for (key, version) in keys {
            // What is so old and not here was evicted, or removed and nobody remembers it: better a miss than a key that comes back.
            let forgotten = |known| matches!(known, Known::Absent { .. });
            if version.time <= old && !takes_old && forgotten(self.store.known(&key)) {
                continue;
            }
            if self.store.lacks(&key, version) {
                lacking.push(key);
            } else if let Some(evicted) = self.store.evicted(&key).filter(|v| *v > version) {
                outdated.push(withheld(key, evicted));
            }
        }
        if let Some(listing) = self.listing(from, request, !theirs) {
            listing.awaited += u32::from(!lacking.is_empty());
        }
        if let Some(comparison) = self.exchanging(from, request).filter(|_| !theirs) {
            comparison.is_partial |= skipped || refused;
        }
        let message = AntiEntropy::Want {
            own: !theirs,
            index,
            outdated,
            keys: lacking,
        };
        out.push(anti_entropy(from, request, message));
        self.list_moved(now, from, request, !theirs, out);
    }

    /// A peer's answer to a piece of our list.
    pub(super) fn on_want(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (theirs, index): (bool, u32),
        (outdated, keys): (Vec<Update<V>>, Vec<Bytes>),
        out: &mut Vec<Output<V>>,
    ) {
        let Some(listing) = self.listing(from, request, !theirs) else {
            return;
        };
        if index < listing.answered || index >= listing.sent {
            return;
        }
        listing.answered = index + 1;
        if !keys.is_empty() {
            listing.wanted.push_back(keys.into());
        }
        self.apply_all(now, from, outdated, out);
        self.step_lists(now, out);
        self.list_moved(now, from, request, !theirs, out);
    }

    /// What we wanted of a peer's list.
    pub(super) fn on_entries(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (theirs, part, done): (bool, u32, bool),
        mut updates: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(listing) = self.listing(from, request, !theirs) else {
            return;
        };
        // A part that comes twice counts once; where one is missing nothing can be claimed.
        let (again, skipped) = (part < listing.parts_expected, part > listing.parts_expected);
        if !again {
            listing.parts_expected = part.saturating_add(1);
            listing.awaited = listing.awaited.saturating_sub(u32::from(done));
        }
        let is_floor = |update: &Update<V>| matches!(update, Update::Floor { .. });
        // Group invalidations that are about to be forgotten would be dug up again.
        updates.retain(|update| !is_floor(update) || self.store.is_remembered(update.version()));
        let versions = updates.iter().filter(|update| !is_floor(update));
        let versions = versions.map(Update::version);
        let count = versions.clone().count() as u64;
        let is_overdue = versions
            .min()
            .is_some_and(|version| self.is_overdue(now, version));
        self.stats.reconciled += count;
        let refused = !self.apply_all(now, from, updates, out);
        if let Some(comparison) = self.exchanging(from, request).filter(|_| !theirs) {
            comparison.updates += count;
            comparison.is_overdue |= is_overdue;
            comparison.is_partial |= refused || skipped;
        }
        self.list_moved(now, from, request, !theirs, out);
    }

    fn listing(&mut self, with: NodeId, request: RequestId, own: bool) -> Option<&mut Listing> {
        let listing = self.lists.get_mut(&(with, own))?;
        (listing.request == request).then_some(listing)
    }

    /// Something happened to an exchange: ends it if it is complete.
    fn list_moved(
        &mut self,
        now: Time,
        with: NodeId,
        request: RequestId,
        own: bool,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(listing) = self.listing(with, request, own) else {
            return;
        };
        listing.moved = now;
        let over = listing.is_over();
        if over {
            self.lists.remove(&(with, own));
        }
        let Some(comparison) = self.exchanging(with, request).filter(|_| own) else {
            return;
        };
        Comparison::moves(comparison, now);
        if over {
            self.finish_comparison(now, out);
        }
    }
}

fn next_piece<V>(listing: &mut Listing, budget_bytes: usize) -> AntiEntropy<V> {
    let (mut keys, mut bytes) = (Vec::new(), 0);
    while bytes < budget_bytes
        && let Some((key, version)) = listing.keys.pop_front()
    {
        bytes += key.len() + KEY_OVERHEAD;
        keys.push((Bytes::from(key), version));
    }
    listing.key_bytes -= bytes;
    listing.sent_all = listing.cursor.is_none() && listing.keys.is_empty();
    listing.sent += 1;
    AntiEntropy::Listed {
        own: listing.own,
        index: listing.sent - 1,
        done: listing.sent_all,
        keys,
        floors: Vec::new(),
    }
}

/// Of this key nothing older than `version` may be served: here it was the newest, until it was evicted.
fn withheld<V>(key: Bytes, version: Version) -> Update<V> {
    let value_bytes = 0;
    Update::Withheld {
        key,
        version,
        value_bytes,
    }
}
