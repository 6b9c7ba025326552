//! Leaving on purpose: first others get what only this node has, then it says goodbye.
//!
//! ```text
//! hand_over ─▶ nothing is decided here any more ─▶ every peer has it, or as many as there is time for ─▶ leave
//!                        progress in our stream, and in those of nodes that are gone ──┤
//!                        comparing digests: what no stream tells of ───────────────────┤
//!                        long values that only this node holds (`bequeath`) ────────────┘
//! ```
//!
//! A peer has everything if it says so of every stream that does not come to it from a live origin, or if a comparison with it found
//! nothing that it wants. The second is quick and sure where nobody else writes; under load the first comes with the next heartbeat. Where
//! something was forgotten for want of room, two nodes differ for ever and comparing proves nothing: there only the first counts.

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_store::NodeId;

use super::Replicated;
use super::compare::Purpose;
use super::peer::Peer;
use crate::mode::{HandedOver, Output};
use crate::payload::Payload;
use crate::time::Time;

/// Comparisons with one peer in which it still wanted something, until it is believed to have it: others write meanwhile (guess).
const ROUNDS_MAX: u32 = 4;

/// How often to look whom to compare with.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How far this node's leaving is.
#[derive(Debug, Default)]
pub(super) struct Leave {
    begun: bool,
    /// Peers that were compared with and wanted nothing.
    compared: BTreeSet<NodeId>,
    /// Peers that wanted nothing of what could be compared, which was not all: this says little about what they have.
    partly: BTreeSet<NodeId>,
    /// The peer that is compared with now or was last, and how often in a row.
    with: Option<(NodeId, u32)>,
    next_look: Option<Time>,
}

impl Leave {
    /// Nothing may be decided here any more: it might not be handed over.
    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn next_deadline(&self) -> Time {
        self.next_look.unwrap_or(Time::MAX)
    }

    /// A comparison has ended in which the peer wanted so many things: a partial one, because something was lost or because of what
    /// differs for ever (`is_lossy`).
    pub(super) fn compared(&mut self, with: NodeId, wanted: u64, is_partial: bool, is_lossy: bool) {
        let rounds = self.with.filter(|(last, _)| *last == with);
        let rounds = rounds.map_or(1, |(_, rounds)| rounds);
        if !is_partial && (wanted == 0 || rounds >= ROUNDS_MAX) {
            let whole = if is_lossy {
                &mut self.partly
            } else {
                &mut self.compared
            };
            whole.insert(with);
        }
    }

    /// Nothing more is found by comparing with this peer.
    fn is_done_with(&self, peer: &NodeId) -> bool {
        self.compared.contains(peer) || self.partly.contains(peer)
    }

    /// With somebody a comparison has ended: what no stream tells of is handed over, as far as it can be found.
    fn has_compared(&self) -> bool {
        !self.compared.is_empty() || !self.partly.is_empty()
    }
}

impl<V: Payload> Replicated<V> {
    pub(super) fn begin_hand_over(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.leave.begun {
            return;
        }
        self.leave.begun = true;
        self.leave.next_look = Some(now);
        // Who leaves needs nothing any more, and must not take for complete what it no longer asks for.
        self.give_up_filling(now);
        self.begin_bequest();
        self.heartbeat(now, out);
        self.tick_leave(now, out);
    }

    /// Compares with the next peer that is not known to have everything.
    pub(super) fn tick_leave(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.leave.next_look.is_none_or(|look| look > now) {
            return;
        }
        self.leave.next_look = Some(now + LOOK_EVERY);
        self.tick_bequest(now, out);
        let compares = self.compare.current.as_ref();
        if compares.is_some_and(super::compare::Comparison::hands_over)
            || self.store.digest_bits().is_none()
        {
            return;
        }
        let last = self.leave.with;
        let lacking = self.peers.iter().filter(|(id, peer)| {
            let needed = !self.leave.has_compared() || !self.covers(peer);
            peer.agrees() && !self.leave.is_done_with(id) && needed
        });
        // The same one until it wants nothing, then the next one; one that does not answer is not waited for.
        let next = match last {
            None => lacking.map(|(id, _)| *id).next(),
            Some((last, rounds)) => {
                let again = rounds < ROUNDS_MAX;
                let from = |id: &NodeId| if again { *id >= last } else { *id > last };
                let mut lacking: Vec<_> = lacking.map(|(id, _)| *id).collect();
                lacking.sort_by_key(|id| !from(id));
                lacking.first().copied()
            }
        };
        if let Some(with) = next {
            let rounds = last.filter(|(last, _)| *last == with);
            let rounds = rounds.map_or(0, |(_, rounds)| rounds % ROUNDS_MAX);
            self.leave.with = Some((with, rounds + 1));
            self.compare_with(now, with, Purpose::HandOver, out);
        }
    }

    /// Whether the peer says that it has all of our stream, and all that we have of those which no live origin sends.
    fn covers(&self, peer: &Peer) -> bool {
        let theirs = |stream| {
            let streams = peer.progress.0.iter();
            let mut numbers = streams.filter(|(theirs, _)| *theirs == stream);
            numbers.next().map_or(0, |(_, number)| *number)
        };
        if peer.sending.acked.max(theirs(self.own())) < self.log.latest() {
            return false;
        }
        let ours = self.progress.vector(self.own(), self.log.latest());
        let mut ours = ours.0.into_iter();
        ours.all(|(stream, number)| {
            stream == self.own() || self.flows(stream) || theirs(stream) >= number
        })
    }

    /// Who has everything that this node has.
    pub(super) fn handed_over_now(&self) -> HandedOver {
        if self.planted.leaves_without_hand_over() {
            return HandedOver::ToAll;
        }
        if !self.leave.begun || self.home.is_working() || !self.bequest.is_done() {
            return HandedOver::ToNobody;
        }
        let has_all =
            |id: &NodeId, peer: &Peer| self.leave.compared.contains(id) || self.covers(peer);
        let peers = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let (all, some) = peers.fold((true, false), |(all, some), (id, peer)| {
            let has_all = has_all(id, peer);
            (all && has_all, some || has_all)
        });
        let nobody_to_compare_with = !self.peers.values().any(Peer::agrees);
        let compared = self.leave.has_compared()
            || nobody_to_compare_with
            || self.store.digest_bits().is_none();
        match (all && compared, some) {
            (true, _) => HandedOver::ToAll,
            (false, true) => HandedOver::ToSome,
            (false, false) => HandedOver::ToNobody,
        }
    }
}
