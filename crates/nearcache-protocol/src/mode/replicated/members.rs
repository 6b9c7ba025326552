//! What this node does when a member comes, is connected, cut off, leaves or dies.

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::Peer;
use crate::ids::Epoch;
use crate::mode::Output;
use crate::mode::stream::tree::Forwards as _;
use crate::payload::Payload;
use crate::time::Time;

/// A member that is not connected.
#[derive(Debug)]
pub(super) struct Lost {
    /// The start of it that was connected; unknown if none was.
    pub(super) epoch: Option<Epoch>,
    pub(super) fresh_at: Option<Time>,
    /// Since when membership takes it for dead.
    pub(super) dead_since: Option<Time>,
}

impl<V: Payload> Replicated<V> {
    /// A connection to a member was opened.
    pub(super) fn connected(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        out: &mut Vec<Output<V>>,
    ) {
        if peer == self.me() {
            return;
        }
        self.drop_peer(now, peer, out);
        let lost = self.lost.remove(&peer);
        self.view.alive(peer);
        self.relay.member(peer, true);
        self.progress.member(peer, true);
        self.acks.joined(peer);
        let mut met = Peer::new(now, epoch, self.config.replay_retry_after);
        // What was here of the same start still is.
        let former = lost.filter(|lost| lost.epoch == Some(epoch));
        met.echoes.fresh_at = former.and_then(|lost| lost.fresh_at);
        self.peers.insert(peer, met);
        self.work_out_bound(now);
        self.announce(now, peer, out);
        self.comparison_peer_up(now);
        self.home.reconnected(peer);
        self.modify_peer_up(now, peer, epoch, out);
    }

    /// The connection to a member was cut.
    pub(super) fn disconnected(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        if let Some(dropped) = self.drop_peer(now, peer, out) {
            let risen = dropped.risen_since();
            if dropped.may_hold_copies(now) {
                let lost = Lost {
                    epoch: Some(dropped.epoch),
                    fresh_at: dropped.echoes.fresh_at,
                    dead_since: None,
                };
                self.lost.insert(peer, lost);
            } else {
                self.lose_silent(now, peer);
            }
            if let Some(risen) = risen {
                self.member_found(now, peer, risen);
            }
        }
        self.work_out_bound(now);
        if !self.join.is_ready() {
            self.check_joined(now, out);
        }
    }

    /// Somebody is a member.
    pub(super) fn member_found(&mut self, now: Time, peer: NodeId, epoch: Epoch) {
        self.view.alive(peer);
        if let Some(connected) = self.peers.get_mut(&peer) {
            connected.risen = connected.risen.max(Some(epoch));
        } else if peer != self.me() {
            self.acks.joined(peer);
            self.relay.member(peer, true);
            self.progress.member(peer, true);
            let lost = self.lost.entry(peer).or_insert(Lost {
                epoch: None,
                fresh_at: None,
                dead_since: None,
            });
            lost.dead_since = None;
            self.worsen_bound(now);
        }
    }

    /// This start of a peer says that it leaves. Should membership know a newer one, that one stays a member.
    pub(super) fn start_left(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        out: &mut Vec<Output<V>>,
    ) {
        let connected = self.peers.get(&peer);
        let Some(connected) = connected.filter(|connected| connected.epoch == epoch) else {
            return;
        };
        if connected.risen_since().is_some() {
            self.disconnected(now, peer, out);
        } else {
            self.member_left(now, peer, out);
        }
    }

    /// A member has left.
    pub(super) fn member_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.disconnected(now, peer, out);
        self.view.left(peer);
        self.lost.remove(&peer);
        self.relay.member(peer, false);
        self.progress.member(peer, false);
        self.work_out_bound(now);
        self.acks.gone(peer, out);
    }

    /// Membership takes a member for dead.
    pub(super) fn member_died(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.disconnected(now, peer, out);
        self.view.died(now, peer);
        if let Some(lost) = self.lost.get_mut(&peer) {
            lost.dead_since.get_or_insert(now);
        }
        self.forget_lost(now);
        self.relay.member(peer, false);
        self.progress.member(peer, false);
        self.work_out_bound(now);
        self.acks.gone(peer, out);
    }

    /// Forgets how far it is in streams of starts that are over, and of which no removal is remembered any more.
    pub(super) fn forget_dead_streams(&mut self, now: Time) {
        let old_ms = self.forgotten_up_to(now).millis();
        self.progress.forget_dead(now, Epoch::from_u64(old_ms));
    }

    /// Forgets all that concerned the connection to a peer.
    fn drop_peer(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) -> Option<Peer> {
        let dropped = self.peers.remove(&peer)?;
        self.rebuild_ring();
        self.pages.remove(&peer);
        self.pace.forget(peer);
        self.cut_fetch(now, peer, out);
        self.comparison_peer_down(now, peer, out);
        self.find_peer_down(now, peer, out);
        self.fetches_peer_down(now, peer, out);
        self.modify_peer_down(now, peer);
        self.load_peer_down(now, peer, out);
        Some(dropped)
    }
}
