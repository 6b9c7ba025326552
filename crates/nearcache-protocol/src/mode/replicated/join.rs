//! Joining: subscribe first, then get everything from a peer, then be ready.
//!
//! A node is ready when it has all that the ready peers had, each of which brings a share, and the updates of the connected peers up to
//! what they had told of when that transfer ended (R9). Where no peer is ready (all of a cluster start together) it takes what each of them has; where
//! there is no peer at all it is ready with what it has, after a wait.

use std::collections::BTreeSet;

use nearcache_store::NodeId;

use super::Replicated;
use super::filling::Ahead;
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
    /// Until when to wait for more peers that are ready, once there is one.
    gather_ends: Option<Time>,
    /// What of streams that do not come by themselves must be here before this node is ready, and who has it.
    ahead: Vec<Ahead>,
    /// Only peers met from then on may fill this node: what the others hold may be as old as what it has just dropped.
    met_since: Time,
    /// It has dropped what it held, and has nothing of that again yet.
    has_dropped: bool,
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
            gather_ends: None,
            ahead: Vec::new(),
            met_since: Time::ZERO,
            has_dropped: false,
        }
    }

    /// Once more, from peers met at `met_since` or later.
    pub(super) fn again(patience_ends: Time, met_since: Time) -> Self {
        Self {
            met_since,
            has_dropped: true,
            ..Self::new(patience_ends)
        }
    }

    /// Whether all that a peer had is here, and streams still have to catch up with it.
    pub(super) fn is_catching_up(&self) -> bool {
        self.state == State::CatchingUp
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether what peers hold may have been dropped here, and is to come as a whole.
    pub(super) const fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// Only peers met from then on may fill this node.
    pub(super) const fn met_since(&self) -> Time {
        self.met_since
    }
}

impl<V: Payload> Replicated<V> {
    /// When to begin with those who are there.
    pub(super) fn gather_ends(&self) -> Time {
        let waits = self.join.state == State::Filling && !self.is_filling();
        self.join.gather_ends.filter(|_| waits).unwrap_or(Time::MAX)
    }

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
                let ready = usable.clone().filter(|(_, peer)| peer.ready);
                let ready: Vec<NodeId> = ready.map(|(id, _)| *id).collect();
                if let Some(first) = ready.first() {
                    let gather_for = self.config.join_gather_for;
                    let ends = *self.join.gather_ends.get_or_insert(now + gather_for);
                    if now < ends {
                        return;
                    }
                    self.join.gather_ends = None;
                    if self.has_data {
                        self.fill(now, *first, out);
                    } else {
                        self.start_filling(now, &ready, true, out);
                    }
                    return;
                }
                self.join.gather_ends = None;
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

    /// A transfer has ended. What its sources were `ahead` of each other must be here too before this node is ready.
    pub(super) fn joined_from(
        &mut self,
        now: Time,
        from: &[NodeId],
        ready: bool,
        ahead: Vec<Ahead>,
        out: &mut Vec<Output<V>>,
    ) {
        if self.join.state == State::Filling {
            self.join.fetched.extend(from);
            if ready {
                self.join.ahead = ahead;
                self.catch_up(now, out);
                return;
            }
        } else if let [only] = from {
            // All that it had is here, also of a start that it has forgotten meanwhile and so claims nothing of: nobody else would.
            self.join.ahead.retain(|(_, _, who)| who != only);
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
        let progress = &self.progress;
        self.join
            .ahead
            .retain(|(stream, number, _)| progress.lacks(*stream, *number));
        let ahead = self.join.ahead.iter();
        let mut ahead = ahead.filter(|(_, _, who)| self.peers.get(who).is_some_and(Peer::agrees));
        if let Some((_, _, who)) = ahead.next().copied() {
            if !self.repair.is_resting(now) {
                self.fill(now, who, out);
            }
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
        // By the tree neighbours were asked for the piece meanwhile, and nobody replays a stream by itself.
        let is_stuck = self.progress.has_hole(stream) || self.relay.is_on();
        if is_stuck && !self.repair.is_resting(now) {
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
