//! What update streams ([`stream`](crate::mode::stream)) mean in this mode: updates are merged, and a hole is repaired.

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::{Agreed, Peer};
use crate::ids::{Epoch, StreamId};
use crate::message::CacheMessage;
use crate::mode::stream::{Awaited, Pair, Receives as _, Shared, Streaming, shared};
use crate::mode::{BeyondMesh, Output};
use crate::payload::Payload;
use crate::probe::is_reserved;
use crate::time::Time;
use crate::update::{Applied, Reader, Update};

impl Peer {
    fn pair(&mut self) -> Pair<'_> {
        Pair {
            epoch: self.epoch,
            met: self.agrees(),
            agreement: self.agreement,
            value_bytes_max: self.value_bytes_max,
            sending: &mut self.sending,
            receiving: &mut self.receiving,
            echoes: &mut self.echoes,
            branch: &mut self.branch,
            early_subscribe: &mut self.early.subscribe,
        }
    }
}

impl<V: Payload> Streaming<V> for Replicated<V> {
    fn shared(&mut self) -> Shared<'_, V> {
        shared!(self)
    }

    fn pair(&mut self, peer: NodeId) -> Option<(Shared<'_, V>, Pair<'_>)> {
        let pair = self.peers.get_mut(&peer)?.pair();
        Some((shared!(self), pair))
    }

    fn each_pair(&mut self, mut see: impl FnMut(NodeId, Pair<'_>)) {
        for (id, peer) in &mut self.peers {
            see(*id, peer.pair());
        }
    }

    fn awaited(&self, now: Time) -> Awaited {
        let connected = self.peers.iter();
        let connected = connected.filter(|(_, peer)| peer.may_hold_copies(now));
        let members = connected.map(|(id, _)| *id).chain(self.far_runners());
        members.map(|id| (id, Time::MAX)).collect()
    }

    fn beyond_mesh(&self) -> Option<BeyondMesh> {
        self.relay.is_on().then(|| BeyondMesh {
            members: self.relay.alive() + 1,
            mesh_max: self.config.mesh_max,
        })
    }

    /// A joining node will get the past by a transfer: it asks only for what comes.
    fn needs_no_past(&self) -> bool {
        !self.join.is_ready()
    }

    fn apply(&mut self, _: Time, update: Update<V>) -> Option<Applied> {
        if self.planted.drops_tombstones() && matches!(update, Update::Remove { .. }) {
            return None;
        }
        let is_probe = update.key().is_some_and(is_reserved);
        let millis = update.version().time.millis();
        if self.planted.skips_probe(is_probe, millis) {
            return None;
        }
        // A peer that has not heard our limit yet may exceed it.
        let update = update.for_reader(Reader {
            value_bytes_max: self.config.value_bytes_max as usize,
            inline_bytes_max: usize::MAX,
        });
        if self.planted.keeps_what_a_stub_supersedes() && matches!(update, Update::Stub { .. }) {
            return None;
        }
        self.large.touched(&update);
        self.stats.withheld += u64::from(matches!(update, Update::Withheld { .. }));
        Some(update.apply(&self.store))
    }

    fn on_applied(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.settle_touched(now, out);
    }

    fn on_hole(&mut self, now: Time, _: StreamId, _: u64, out: &mut Vec<Output<V>>) {
        self.repair(now, out);
    }

    fn each_origin(
        &self,
        now: Time,
        asks: impl Fn(NodeId) -> bool,
        mut see: impl FnMut(NodeId, Option<Time>),
    ) {
        let has_listened = self.has_listened(now);
        for (id, peer) in self.peers.iter().filter(|(id, _)| asks(**id)) {
            let fresh_at = peer.echoes.fresh_at.max(self.relay.fresh_at(*id));
            let is_known = has_listened || peer.agreement != Agreed::Unknown;
            let runs_nothing = is_known && !peer.counts_for_freshness();
            see(*id, if runs_nothing { Some(now) } else { fresh_at });
        }
        for id in self.strangers().filter(|id| asks(*id)) {
            see(id, self.fresh_at_of_far(id));
        }
    }

    fn on_crossing(&mut self, _: Time, by_tree: bool, _: &mut Vec<Output<V>>) {
        if !by_tree {
            self.miss_strangers();
        }
    }

    fn says_ready(&self) -> bool {
        self.may_fill_others()
    }

    fn peer_says_ready(&mut self, peer: NodeId, ready: bool) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.ready = ready;
            // It tells changes from now on, and no more the whole.
            peer.progress.0.clear();
        }
    }

    fn takes_replays(&self) -> bool {
        !self.is_filling() && (self.join.is_ready() || self.join.is_catching_up())
    }

    fn on_progress(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if !self.join.is_ready() {
            self.check_joined(now, out);
        }
    }
}

impl<V: Payload> Replicated<V> {
    /// A transfer may have changed progress in every stream. What is missing after a hole that is not closed may still be in
    /// its origin's ring.
    pub(super) fn advanced_everywhere(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| (*id, peer.epoch))
            .collect();
        for (origin, epoch) in peers {
            self.advanced(now, origin, out);
            // By the tree what is missing is asked for in pieces, of whoever has it.
            if !self.relay.is_on() && self.progress.has_hole(StreamId { origin, epoch }) {
                self.subscribe_to_hole(origin, epoch, out);
            }
        }
    }

    fn subscribe_to_hole(&self, origin: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>) {
        let after = Some(self.progress.applied(StreamId { origin, epoch }));
        out.push(Output::Send {
            to: origin,
            message: CacheMessage::Subscribe { epoch, after },
        });
    }

    pub(super) fn next_ask(&self) -> Time {
        if self.relay.is_on() {
            return Time::MAX;
        }
        let met = self.peers.values().filter(|peer| peer.agrees());
        let asks = met.filter_map(|peer| peer.receiving.ask_at);
        asks.min().unwrap_or(Time::MAX)
    }
}
