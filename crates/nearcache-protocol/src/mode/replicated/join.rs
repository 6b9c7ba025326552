//! Joining: subscribe first, then get everything from a peer, then be ready.
//!
//! A node is ready when it has all that one ready peer had, and the updates of the connected peers up to what they had told
//! of when that transfer ended (R9). Where no peer is ready (all of a cluster start together) it takes what each of them has; where
//! there is no peer at all it is ready with what it has, after a wait.

use std::collections::BTreeSet;

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::Peer;
use crate::ids::StreamId;
use crate::mode::Output;
use crate::payload::Payload;
use crate::time::Time;

/// How far this node's joining is.
#[derive(Debug)]
pub(super) struct Join {
    state: State,
    /// Until when to wait for a peer that is ready; looked at with every heartbeat.
    patience_ends: Time,
    /// Peers, themselves not ready, whose all is here.
    fetched: BTreeSet<NodeId>,
    /// Only peers met from then on may fill this node: what the others hold may be as old as what it has just dropped.
    met_since: Time,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing is here that peers have.
    Filling,
    /// A transfer is complete; the streams still have to catch up with it.
    CatchingUp,
    Ready,
}

impl Join {
    pub(super) const fn new(patience_ends: Time) -> Self {
        Self {
            state: State::Filling,
            patience_ends,
            fetched: BTreeSet::new(),
            met_since: Time::ZERO,
        }
    }

    /// Once more, from peers met at `met_since` or later.
    pub(super) fn again(patience_ends: Time, met_since: Time) -> Self {
        Self {
            met_since,
            ..Self::new(patience_ends)
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }
}

impl<V: Payload> Replicated<V> {
    /// Chooses whom to be filled by; becomes ready if there is nobody.
    pub(super) fn join_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.planted.trusts_misses_while_joining() && self.join.state == State::Filling {
            self.become_ready(now, out);
            return;
        }
        match self.join.state {
            State::Filling => {
                let met_since = self.join.met_since;
                let may_fill = |peer: &Peer| peer.agrees() && peer.since >= met_since;
                let agreeing = self.peers.iter().filter(|(_, peer)| may_fill(peer));
                let usable = agreeing.filter(|(id, _)| !self.repair.avoids(now, **id));
                let source = usable
                    .clone()
                    .find(|(_, peer)| peer.ready)
                    .map(|(id, _)| *id);
                if let Some(source) = source {
                    self.fill(now, source, out);
                    return;
                }
                if now < self.join.patience_ends {
                    return;
                }
                let wanted = |id: &NodeId| !self.join.fetched.contains(id);
                let source = usable.map(|(id, _)| *id).find(wanted);
                let all_fetched = !self
                    .peers
                    .iter()
                    .any(|(id, peer)| may_fill(peer) && wanted(id));
                match source {
                    Some(source) => self.fill(now, source, out),
                    None if all_fetched => self.catch_up(now, out),
                    None => {}
                }
            }
            State::CatchingUp => self.check_joined(now, out),
            State::Ready => {}
        }
    }

    /// A transfer has ended.
    pub(super) fn joined_from(
        &mut self,
        now: Time,
        from: NodeId,
        ready: bool,
        out: &mut Vec<Output<V>>,
    ) {
        if self.join.state == State::Filling {
            self.join.fetched.insert(from);
            if ready {
                self.catch_up(now, out);
                return;
            }
        }
        self.repair(now, out);
    }

    fn catch_up(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.join.state = State::CatchingUp;
        for peer in self.peers.values_mut() {
            peer.join_target = peer.receiving.latest;
        }
        self.check_joined(now, out);
    }

    /// Ready, once every connected peer's stream has come far enough. Holes that remain are asked for again.
    pub(super) fn check_joined(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.join.state != State::CatchingUp || self.is_filling() {
            return;
        }
        let behind = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.agrees())
            .find(|(id, peer)| {
                let stream = StreamId {
                    origin: **id,
                    epoch: peer.epoch,
                };
                self.progress.applied(stream) < peer.join_target || self.progress.has_hole(stream)
            });
        match behind.map(|(id, _)| *id) {
            None => self.become_ready(now, out),
            Some(origin) => self.mend_join(now, origin, out),
        }
    }

    /// A stream is behind what the transfer brought. Its origin can replay the rest, or must be asked for everything.
    fn mend_join(&mut self, now: Time, origin: NodeId, out: &mut Vec<Output<V>>) {
        let Some(peer) = self.peers.get(&origin) else {
            return;
        };
        let stream = StreamId {
            origin,
            epoch: peer.epoch,
        };
        if self.progress.has_hole(stream) && !self.repair.is_resting(now) {
            self.fill(now, origin, out);
        }
    }

    fn become_ready(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.join.state = State::Ready;
        self.join.fetched.clear();
        self.has_data = true;
        out.push(Output::Ready);
        // Others may be waiting for somebody who is ready.
        self.heartbeat(now, out);
    }
}
