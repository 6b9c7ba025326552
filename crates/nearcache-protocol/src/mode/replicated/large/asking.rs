//! Whom a wanted value is asked of: it waits for its turn with the best source, is asked for when there is room, and another peer is asked
//! as well where one says nothing.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::NodeId;
use smallvec::smallvec;

use super::wanted::{Ended, State};
use crate::fetching::Fetching;
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::mode::replicated::peer::Agreed;
use crate::payload::Payload;
use crate::time::Time;

/// How soon a fetch for which nobody could be asked looks again whether a member is back (guess).
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Peers that one value is asked of at a time (guess): so many may be slow at once.
const ASKED_MAX: usize = 4;

impl<V: Payload> Replicated<V> {
    /// Has a value that nobody is asked for wait for its turn with the best source: the origin first, those that say nothing last.
    pub(super) fn place(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let (origin, patience) = (wanted.stub.version().origin, self.config.fetch_patience);
        let is_begun = !wanted.bytes.is_empty();
        let sources = &self.large.sources;
        let rank = |id: &NodeId| (sources.is_silent(*id, now, patience), *id != origin, *id);
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let candidates = agreeing.map(|(id, _)| *id);
        let candidates = candidates.filter(|id| !wanted.without.contains(id));
        let Some(at) = candidates.min_by_key(rank) else {
            self.strand(now, key, out);
            return;
        };
        let state = State::Queued { at };
        self.large.change(key, |wanted| wanted.state = state);
        self.large.sources.queue(at, key.clone(), is_begun);
    }

    /// Nobody can be asked: not yet, or nobody has it.
    fn strand(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let has_far = self.far_members().next().is_some();
        let mut peers = self.peers.values();
        let is_missing = has_far || peers.any(|peer| peer.agreement == Agreed::Unknown);
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        if !is_missing || wanted.is_unwanted() {
            self.stats.fetches_unheld += 1;
            self.end_fetch(now, key, Ended::Nowhere, out);
            return;
        }
        // Beyond the mesh: neighbours do not hold it, so others are met, the origin first.
        let origin = wanted.stub.version().origin;
        let far = self.far_runners();
        let far = far.filter(|id| !wanted.without.contains(id));
        let next = far.min_by_key(|id| (*id != origin, *id));
        let again_at = now + LOOK_AGAIN_AFTER;
        let state = State::Stranded { again_at };
        self.large.change(key, |wanted| wanted.state = state);
        if let Some(next) = next {
            self.needs(next, out);
        }
    }

    /// Begins what there is room for.
    pub(super) fn start_fetches(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        for (from, request) in std::mem::take(&mut self.large.stops) {
            self.stop_fetch(from, request, out);
        }
        self.large.freed = false;
        while let Some((from, key)) = self.next_fetch(now, out) {
            self.large.sources.begin_first_of(from);
            self.ask_first(now, &key, from, out);
        }
    }

    /// What begins next, and with whom: sources take turns. One that is silent, or has its share of the room, waits alone; for room
    /// of all, everybody behind waits too, or a long value would never have enough of it.
    fn next_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) -> Option<(NodeId, Bytes)> {
        let (patience, room_max) = (self.config.fetch_patience, self.config.fetch_bytes_max);
        for from in self.large.sources.in_turn() {
            if self.large.sources.is_silent(from, now, patience) {
                self.disperse(now, from, out);
            }
        }
        for from in self.large.sources.in_turn() {
            if self.large.sources.is_silent(from, now, patience) {
                continue;
            }
            let Some(key) = self.large.sources.first_of(from).cloned() else {
                continue;
            };
            let len = self.large.wanted.get(&key).map_or(0, super::Wanted::len);
            let sources = &self.large.sources;
            if !sources.may_ask(from) || !sources.has_share(from, len, room_max) {
                continue;
            }
            return self.large.make_room(&key, room_max).then_some((from, key));
        }
        None
    }

    /// What waits for its turn with a peer that says nothing waits for another, where one may have it.
    fn disperse(&mut self, now: Time, silent: NodeId, out: &mut Vec<Output<V>>) {
        if self.large.sources.disperses(silent) {
            for key in self.large.sources.take_queue(silent) {
                self.place(now, &key, out);
            }
        }
    }

    /// Asks for what is missing, under a new number.
    pub(super) fn ask_first(
        &mut self,
        now: Time,
        key: &Bytes,
        from: NodeId,
        out: &mut Vec<Output<V>>,
    ) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        let look_at = now + self.config.fetch_patience;
        self.large.change(key, |wanted| {
            let moved = now;
            wanted.state = State::Arriving { moved, look_at };
            wanted.request = request;
            wanted.asked = smallvec![from];
        });
        self.large.by_request.insert(request, key.clone());
        self.send_ask(key, from, out);
    }

    /// Asks under the number that it has. Who is asked twice and sends it already goes on; what is on its way counts whoever sent it.
    fn send_ask(&self, key: &Bytes, to: NodeId, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let message = Fetching::Ask {
            key: key.clone(),
            version: wanted.stub.version(),
            from_byte: u32::try_from(wanted.bytes.len()).unwrap_or(u32::MAX),
        };
        let request = wanted.request;
        let message = CacheMessage::Fetching { request, message };
        out.push(Output::Send { to, message });
    }

    /// Looks after a value that somebody was asked for: has it moved?
    pub(super) fn look_after(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let (State::Arriving { moved, look_at } | State::Silent { moved, look_at }) = wanted.state
        else {
            return;
        };
        if look_at > now {
            return;
        }
        let patience = self.config.fetch_patience;
        // Who sends other values will come to this one.
        let moved = moved.max(self.large.sources.heard(&wanted.asked));
        if moved + patience > now {
            self.looked(key, moved, moved + patience, None);
            return;
        }
        if let Some(other) = self.other_source(now, key) {
            self.stats.fetches_moved += 1;
            self.large.change(key, |wanted| wanted.asked.push(other));
            self.send_ask(key, other, out);
        }
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let (is_stalled, has_come) = (
            moved + self.config.fetch_stall_after <= now,
            !wanted.bytes.is_empty(),
        );
        if !is_stalled {
            self.looked(key, moved, now + patience, (!has_come).then_some(true));
        } else if wanted.is_unwanted() {
            self.withdraw(now, key, out);
            self.end_fetch(now, key, Ended::Late, out);
        } else {
            self.stats.fetches_moved += 1;
            for to in wanted.asked.clone() {
                self.send_ask(key, to, out);
            }
            self.looked(key, now, now + patience, Some(true));
        }
    }

    /// One of those that were asked does not have it. The others may be silent: then the next is asked now.
    pub(super) fn look_on(
        &mut self,
        now: Time,
        key: &Bytes,
        request: RequestId,
        out: &mut Vec<Output<V>>,
    ) {
        let is_asked =
            |wanted: &super::Wanted<V>| wanted.request == request && !wanted.asked.is_empty();
        if self.large.wanted.get(key).is_some_and(is_asked) {
            self.large.change(key, |wanted| {
                if let State::Arriving { look_at, .. } | State::Silent { look_at, .. } =
                    &mut wanted.state
                {
                    *look_at = now;
                }
            });
            self.look_after(now, key, out);
        }
    }

    /// Notes when a value moved, and when to look again; and that it does not, if so.
    fn looked(&mut self, key: &Bytes, moved: Time, look_at: Time, turns_silent: Option<bool>) {
        self.large.change(key, |wanted| {
            let is_silent = matches!(wanted.state, State::Silent { .. });
            wanted.state = if turns_silent.unwrap_or(is_silent) {
                State::Silent { moved, look_at }
            } else {
                State::Arriving { moved, look_at }
            };
        });
        self.large.freed |= turns_silent == Some(true);
    }

    /// Somebody else who may have it, and is not asked for it.
    fn other_source(&self, now: Time, key: &Bytes) -> Option<NodeId> {
        let wanted = self.large.wanted.get(key)?;
        if wanted.asked.len() >= ASKED_MAX {
            return None;
        }
        let (origin, patience) = (wanted.stub.version().origin, self.config.fetch_patience);
        let sources = &self.large.sources;
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let others = agreeing.map(|(id, _)| *id).filter(|id| {
            !wanted.without.contains(id)
                && !wanted.asked.contains(id)
                && sources.may_ask(*id)
                && !sources.is_silent(*id, now, patience)
        });
        others.min_by_key(|id| (*id != origin, *id))
    }

    /// A value moves, or is about to: it gets its room back. `false` if there is none.
    pub(super) fn wake(&mut self, now: Time, key: &Bytes) -> bool {
        let is_silent = |wanted: &super::Wanted<V>| matches!(wanted.state, State::Silent { .. });
        let room_max = self.config.fetch_bytes_max;
        if self.large.wanted.get(key).is_some_and(is_silent) && !self.large.make_room(key, room_max)
        {
            return false;
        }
        self.looked(key, now, now + self.config.fetch_patience, Some(false));
        true
    }

    /// Nobody is asked for it any more. What has come stays.
    pub(super) fn withdraw(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let is_asked = |wanted: &super::Wanted<V>| !wanted.asked.is_empty();
        if self.large.wanted.get(key).is_some_and(is_asked)
            && let Some((request, asked)) = self.large.close(now, key)
        {
            for to in asked {
                self.stop_fetch(to, request, out);
            }
        }
    }

    /// Who was asked last does not have it, or is gone: somebody else is to be asked, unless others are.
    pub(super) fn unless_asked(
        &mut self,
        now: Time,
        key: &Bytes,
        request: RequestId,
        out: &mut Vec<Output<V>>,
    ) {
        let is_over = |wanted: &super::Wanted<V>| {
            let is_asked_for =
                matches!(wanted.state, State::Arriving { .. } | State::Silent { .. });
            wanted.request == request && wanted.asked.is_empty() && is_asked_for
        };
        if self.large.wanted.get(key).is_some_and(is_over) {
            self.stats.fetches_moved += 1;
            self.large.close(now, key);
            self.place(now, key, out);
        }
    }

    pub(super) fn stop_fetch(&self, to: NodeId, request: RequestId, out: &mut Vec<Output<V>>) {
        let message = CacheMessage::Fetching {
            request,
            message: Fetching::Stop,
        };
        out.push(Output::Send { to, message });
    }
}
