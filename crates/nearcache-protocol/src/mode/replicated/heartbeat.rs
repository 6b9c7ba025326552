//! Meeting a peer, telling all of them how far we are ([`stream`](crate::mode::stream) tells how), and how fresh we are by their answers.

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::{Agreed, Early, Peer};
use crate::announce::Announcement;
use crate::ids::{Epoch, StreamId};
use crate::message::{ProgressVector, Runs};
use crate::mode::stream::tree::{Mends as _, Talks as _, Turns as _};
use crate::mode::stream::{Beats as _, Sends as _, Verdict};
use crate::mode::{Freshness, Output, PeerFreshness, ReadBound, Status};
use crate::payload::Payload;
use crate::time::Time;

/// A peer that was not heard of for so many heartbeats leaves the cache `CatchingUp` (guess).
const STALE_HEARTBEATS: u32 = 4;

impl<V: Payload> Replicated<V> {
    pub(super) fn announce(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        self.send_announcement(now, to, self.may_fill_others(), 0, out);
    }

    pub(super) fn on_announce(
        &mut self,
        now: Time,
        from: NodeId,
        theirs: Announcement,
        out: &mut Vec<Output<V>>,
    ) {
        let verdict = self.judge(from, &theirs, out);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        match verdict {
            Verdict::Stale => return,
            Verdict::Differs { news } => {
                peer.agreement = Agreed::No(theirs.agreement);
                if news {
                    let early = std::mem::take(&mut peer.early);
                    self.serve_early(from, early, out);
                }
                return;
            }
            Verdict::Alike => {}
        }
        let (met, since) = (!peer.agrees(), peer.since);
        peer.agreement = Agreed::Yes;
        peer.ready = theirs.ready;
        peer.takes_values_of(theirs.value_bytes_max);
        self.relay.hear_runs(from, peer.epoch, Runs::Yes);
        if met {
            self.start_clean_if_away(now, since, out);
            let Some(peer) = self.peers.get_mut(&from) else {
                return;
            };
            let early = std::mem::take(&mut peer.early);
            // What we said when the session began was lost on a peer that opened the cache later.
            self.announce(now, from, out);
            self.begin(now, from, out);
            self.serve_early(from, early, out);
            self.repair(now, out);
        }
    }

    /// Answers what overtook the announcement that has come now.
    fn serve_early(&mut self, from: NodeId, early: Early, out: &mut Vec<Output<V>>) {
        if let Some(after) = early.subscribe {
            self.on_subscribe(from, self.epoch, after, out);
        }
        if let Some(asked) = early.transfer {
            self.on_transfer_request(from, asked, out);
        }
        self.wake_pieces(from, out);
    }

    /// Tells every peer how far we are, and asks.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.relay.beats(now, self.config.heartbeat_every);
        self.set_by_tree(now, out);
        let by_tree = self.relay.is_on();
        if by_tree {
            self.meet_over_silent(out);
        }
        let progress = if by_tree {
            ProgressVector::default()
        } else {
            self.progress.vector(self.own(), self.log.latest())
        };
        let ready = self.may_fill_others();
        let peers = self.peers.iter();
        let peers: Vec<_> = peers
            .map(|(id, peer)| (*id, peer.gets_updates(), peer.agrees()))
            .collect();
        for (to, has_subscribed, agrees) in peers {
            if !has_subscribed {
                // Our announcement may be lost.
                self.announce(now, to, out);
            }
            if agrees && by_tree {
                self.ask_state(now, to, out);
            } else if agrees {
                self.ask(now, to, ready, progress.clone(), out);
            }
        }
        // The tree may have come on, or gone.
        self.work_out_bound(now);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        told: (Time, Epoch, u64),
        ready: bool,
        progress: ProgressVector,
        out: &mut Vec<Output<V>>,
    ) {
        if !self.answer(now, from, told, &progress, out) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.ready = ready;
            peer.progress = progress;
        }
        self.repair(now, out);
    }

    pub(super) fn freshness_now(&self, now: Time) -> Freshness {
        let by_tree = self.relay.is_on();
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let per_peer: Vec<_> = agreeing
            .map(|(id, peer)| {
                let applied = self.progress.applied(StreamId {
                    origin: *id,
                    epoch: peer.epoch,
                });
                PeerFreshness {
                    peer: *id,
                    age: peer.echoes.fresh_at.map(|fresh_at| now - fresh_at),
                    round_trip: peer.echoes.round_trip,
                    clock_offset_ms: peer.echoes.clock_offset_ms,
                    missing: peer.receiving.latest.saturating_sub(applied),
                    unacknowledged: self.log.latest().saturating_sub(peer.sending.acked),
                }
            })
            .chain(
                self.far_members()
                    .filter(|id| !by_tree || self.relay.runs(*id) != Some(false))
                    .map(|id| PeerFreshness {
                        peer: id,
                        age: self.fresh_at_of_far(id).map(|at| now - at),
                        round_trip: None,
                        clock_offset_ms: None,
                        missing: 0,
                        unacknowledged: 0,
                    }),
            )
            .collect();
        let worst = self.read_bound_now().worst_age(now);
        Freshness { worst, per_peer }
    }

    /// A peer has answered what we asked: it is here.
    pub(super) fn note_answer(&mut self, now: Time, from: NodeId, epoch: Epoch, asked: Time) {
        let agrees = |peer: &Peer| peer.epoch == epoch && peer.agrees();
        if asked <= now && self.peers.get(&from).is_some_and(agrees) {
            self.view.heard(now, from, asked);
        }
    }

    /// Beyond the mesh most members are heard through others, and later.
    pub(super) fn note_far(&mut self) {
        let window = super::split::window(&self.config) * self.relay.hops_max();
        self.view.set_window(window);
        if !self.relay.is_on() {
            return;
        }
        for id in self.far_runners().collect::<Vec<_>>() {
            if let Some(at) = self.fresh_at_of_far(id) {
                self.view.heard_by_others(id, at);
            }
        }
    }

    /// No lease is needed: what is here is as old as the slowest peer's freshness.
    pub(super) const fn read_bound_now(&self) -> ReadBound {
        ReadBound {
            serve_until: Time::MAX,
            fresh_since: self.bound.fresh_since,
        }
    }

    /// Tells those who wait for freshness, and asks for them.
    pub(super) fn serve_refreshes(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.refreshes.is_empty() {
            return;
        }
        self.refreshes
            .advanced(self.read_bound_now().fresh_since, out);
        if self.refreshes.must_ask(now) {
            self.refreshes.asked(now);
            self.heartbeat(now, out);
        }
    }

    pub(super) fn status_now(&self, now: Time) -> Status {
        if !self.peers.values().any(Peer::agrees) && !self.lost.is_empty() {
            return Status::Isolated;
        }
        let stale_after = self.config.heartbeat_every * STALE_HEARTBEATS * self.relay.hops_max();
        let fresh = self
            .freshness_now(now)
            .worst
            .is_some_and(|worst| worst <= stale_after);
        if self.join.is_ready() && fresh && self.is_complete() {
            Status::Synced
        } else {
            Status::CatchingUp
        }
    }
}
