//! What is missing here and no stream will bring: whom to ask for a transfer, and when.
//!
//! Two things are mended by a transfer. A **hole**: an origin's ring no longer had what we missed. And a **stranded** stream:
//! its origin is dead, restarted or out of our reach, and a peer has more of it (that is how a dead origin's last updates
//! spread). A stranded stream must have been seen for a few heartbeats before it counts, because a connection that breaks and
//! comes back looks the same for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_store::NodeId;

use super::Replicated;
use crate::config::ReplicationConfig;
use crate::ids::StreamId;
use crate::mode::Output;
use crate::payload::Payload;
use crate::time::Time;

/// A stream whose origin is alive and out of our reach stays stranded. The repair of such streams rests at least so many times
/// as long as the last transfer took, and so costs a tenth of the time at most (guess).
const REST_PER_TRANSFER: u32 = 9;

/// When to repair next, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Repair {
    not_before: Time,
    /// The same for streams whose origin is alive.
    not_before_alive: Time,
    /// How far a stream is known to be elsewhere, and since when.
    stranded: BTreeMap<StreamId, (u64, Time)>,
    /// Peers whose transfers were cut, and until when others are asked first. At most as many as there are peers.
    avoid: BTreeMap<NodeId, Time>,
}

impl Repair {
    /// A transfer has ended.
    pub(super) fn rest(&mut self, now: Time, took: Duration, config: &ReplicationConfig) {
        self.not_before = now + config.repair_every;
        self.not_before_alive = self.not_before + took.saturating_mul(REST_PER_TRANSFER);
    }

    /// A transfer from this peer was cut.
    pub(super) fn avoid(&mut self, now: Time, peer: NodeId, config: &ReplicationConfig) {
        self.avoid.retain(|_, until| now < *until);
        self.avoid.insert(peer, now + config.repair_every);
    }

    /// Whether the last transfer ended so recently that the next one must wait.
    pub(super) fn is_resting(&self, now: Time) -> bool {
        now < self.not_before
    }

    pub(super) fn avoids(&self, now: Time, peer: NodeId) -> bool {
        self.avoid.get(&peer).is_some_and(|until| now < *until)
    }
}

impl<V: Payload> Replicated<V> {
    /// Starts a transfer if one is needed and none runs.
    pub(super) fn repair(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.leave.has_begun() {
            return;
        }
        if self.filling.is_some() {
            self.go_on_filling(now, out);
        }
        if self.is_filling() {
            return;
        }
        if !self.join.is_ready() {
            self.join_fetch(now, out);
            return;
        }
        if self.repair.is_resting(now) {
            return;
        }
        if let Some(peer) = self.best_source(now) {
            self.fill(now, peer, out);
        }
    }

    /// The peer that can mend most, if any can mend anything.
    fn best_source(&mut self, now: Time) -> Option<NodeId> {
        let by_tree = self.relay.is_on();
        // By the tree all streams come over others: first neighbours are asked for the piece.
        let patience = if by_tree {
            self.config.heartbeat_every * 2 + self.config.relay_patience * 4
        } else {
            self.config.heartbeat_every * 2
        };
        let mut seen = BTreeMap::new();
        let mut best: Option<((bool, usize, bool), NodeId)> = None;
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.agrees()) {
            let mut mends = 0;
            let told = peer
                .branch
                .ahead()
                .map(|(stream, number, _)| (stream, number));
            let told = told.filter(|(stream, number)| self.progress.lacks(*stream, *number));
            for (stream, number) in self.progress.behind(&peer.progress).chain(told) {
                if stream == self.own() {
                    continue;
                }
                if self.progress.has_hole(stream) && !by_tree {
                    mends += 1;
                } else if !self.flows(stream) && !self.planted.keeps_dead_origins() {
                    // What has come since only now is not stranded.
                    let former = self.repair.stranded.get(&stream);
                    let former = former.filter(|(then, _)| *then > self.progress.applied(stream));
                    let (number, since) = *former.unwrap_or(&(number, now));
                    seen.insert(stream, (number, since));
                    let rests = now < self.repair.not_before_alive && self.is_alive(stream.origin);
                    mends += usize::from(now >= since + patience && !rests);
                }
            }
            let rank = (!self.repair.avoids(now, *id), mends, peer.ready);
            if mends > 0 && best.is_none_or(|(former, _)| rank > former) {
                best = Some((rank, *id));
            }
        }
        self.repair.stranded = seen;
        best.map(|(_, peer)| peer)
    }

    /// Whether the stream comes to us from its origin.
    pub(super) fn flows(&self, stream: StreamId) -> bool {
        !self.relay.is_on()
            && self
                .peers
                .get(&stream.origin)
                .is_some_and(|peer| peer.epoch == stream.epoch && peer.agrees())
    }

    /// Whether membership takes a node that we are not connected to for alive.
    fn is_alive(&self, node: NodeId) -> bool {
        !self.peers.contains_key(&node) && self.relay.is_alive(node)
    }

    /// Whether nothing that is known of is missing, apart from what is on its way.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_filling() && self.repair.stranded.is_empty() && !self.has_live_holes()
    }

    pub(super) fn has_live_holes(&self) -> bool {
        self.peers.iter().any(|(id, peer)| {
            self.progress.has_hole(StreamId {
                origin: *id,
                epoch: peer.epoch,
            })
        })
    }
}
