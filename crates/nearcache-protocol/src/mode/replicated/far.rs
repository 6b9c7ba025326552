//! Members that there is no session with.
//!
//! In the mesh those are the ones that are cut off, or about to be met. Beyond it they are most of them, and neighbours tell how fresh this
//! node is about them and whether they run the cache. Freshness counts each of them, whether it runs the cache or not: its neighbours
//! say of one that does not that nothing of it can be missing. So nobody need know who runs the cache in order not to overstate (C11).

use nearcache_store::NodeId;

use super::peer::Agreed;
use super::{Lost, Replicated};
use crate::message::Runs;
use crate::mode::Output;
use crate::mode::stream::link::ANNOUNCES_WITHIN;
use crate::mode::stream::tree::Talks as _;
use crate::payload::Payload;
use crate::time::Time;

impl<V: Payload> Replicated<V> {
    /// When this node last had all of a member that it is not connected to.
    pub(super) fn fresh_at_of_far(&self, id: NodeId) -> Option<Time> {
        let lost = self.lost.get(&id).and_then(|lost| lost.fresh_at);
        lost.max(self.relay.fresh_at(id))
    }

    /// Live members without a session that count for freshness.
    pub(super) fn far_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let by_tree = self.relay.is_on();
        let lost = self
            .lost
            .iter()
            .filter(|(_, lost)| lost.dead_since.is_none());
        let lost = lost.map(|(id, _)| *id).filter(move |_| !by_tree);
        self.strangers().filter(move |_| by_tree).chain(lost)
    }

    /// Live members without a session.
    pub(super) fn strangers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let living = self.relay.living();
        let counts =
            |id: &NodeId| !self.planted.leaves_out_strangers() || self.lost.contains_key(id);
        living.filter(move |id| !self.peers.contains_key(id) && counts(id))
    }

    /// Those of them that run the cache, as far as anybody has said. In the mesh: that may.
    pub(super) fn far_runners(&self) -> impl Iterator<Item = NodeId> + '_ {
        let by_tree = self.relay.is_on();
        self.far_members()
            .filter(move |id| !by_tree || self.relay.runs(*id) == Some(true))
    }

    /// Every live member whose updates may be missing here, and when this node last had all of them.
    pub(super) fn each_that_counts(&self) -> impl Iterator<Item = (NodeId, Option<Time>)> + '_ {
        let connected = self.peers.iter();
        let connected = connected.filter(|(_, peer)| peer.counts_for_freshness());
        let connected =
            connected.map(|(id, peer)| (*id, peer.echoes.fresh_at.max(self.relay.fresh_at(*id))));
        let far = self.far_members();
        connected.chain(far.map(|id| (id, self.fresh_at_of_far(id))))
    }

    /// A peer that did not run the cache, as far as it had said, is connected no longer. What it would have said of it may have been on its
    /// way for as long as a connection may be silent. After a pause of this node nobody knows for how long it was.
    pub(super) fn lose_silent(&mut self, now: Time, id: NodeId) {
        let nanos = u64::try_from(ANNOUNCES_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        if self.has_listened(now)
            && let Some(at) = now.as_nanos().checked_sub(nanos)
        {
            self.relay.knew(id, Time::from_nanos(at));
        }
    }

    /// Whether this node has run without a pause for as long as a peer may take to say that it runs the cache.
    pub(super) fn has_listened(&self, now: Time) -> bool {
        let every = self.config.heartbeat_every;
        self.relay.has_run(now, every, ANNOUNCES_WITHIN)
    }

    /// Marks the peers that have had the time to say that they run the cache: until then they count, whatever they will say.
    /// After a pause of this node what they have said may not be read yet.
    pub(super) fn judge_silent(&mut self, now: Time) {
        let has_listened = self.has_listened(now);
        for (id, peer) in &mut self.peers {
            peer.silent =
                has_listened && peer.agreement == Agreed::Unknown && !peer.may_hold_copies(now);
            if peer.silent || matches!(peer.agreement, Agreed::No(_)) {
                self.relay.hear_runs(*id, peer.epoch, Runs::No);
            } else if peer.agrees() {
                self.relay.hear_runs(*id, peer.epoch, Runs::Yes);
            }
        }
    }

    /// Where peers do not run the cache, others that do may be out of the tree's reach: whoever comes next on the ring is met.
    pub(super) fn meet_over_silent(&mut self, out: &mut Vec<Output<V>>) {
        let counts = self.peers.values().all(|peer| peer.counts_for_freshness());
        if !counts {
            self.meet_next(out);
        }
    }

    /// The mesh has come back: those that are about to be met count, unless they are known not to run the cache.
    pub(super) fn miss_strangers(&mut self) {
        let strangers = self.strangers();
        let missed = strangers.filter(|id| self.relay.runs(*id) != Some(false));
        for id in missed.collect::<Vec<_>>() {
            let fresh_at = self.fresh_at_of_far(id);
            let lost = self.lost.entry(id).or_insert(Lost {
                epoch: None,
                fresh_at: None,
                dead_since: None,
            });
            lost.fresh_at = lost.fresh_at.max(fresh_at);
        }
    }
}
