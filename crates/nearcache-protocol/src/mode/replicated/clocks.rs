//! How far the clocks of all who may write are from this node's: what a load's version allows for (design §6.2, C1).
//!
//! It is as wide as the drift bound while somebody may write whose clock was not measured just now: members without a session, those of
//! a tree, and members that were declared dead. Those may live beyond a netsplit, and what they invalidate there must win here when it has
//! ended. So they count for [`DEAD_COUNT_FOR`]; if they did for ever, a process that was killed once would cost every load its place for half a second after an
//! invalidation, for ever. The price: after a netsplit that was longer, an invalidation of the other side loses to a load of this side that
//! began at most as long before it as that side's clocks are behind, by more than those of this side are apart.
//!
//! While there are loads, peers' clocks are measured more often than with heartbeats ([`Clocks`](crate::mode::stream::clocks::Clocks)).

use std::time::Duration;

use super::Replicated;
use super::peer::Peer;
use crate::mode::Output;
use crate::mode::stream::Beats as _;
use crate::payload::Payload;
use crate::time::Time;

/// For how long a member that was declared dead is taken to be writing beyond a netsplit (guess: longer than most of them last).
pub(super) const DEAD_COUNT_FOR: Duration = Duration::from_secs(600);

/// Dead members remembered. Beyond it those that died first are forgotten.
pub(super) const DEAD_MAX: usize = 1_024;

impl<V: Payload> Replicated<V> {
    pub(super) fn clock_bound_now(&self, now: Time) -> Duration {
        // A node that is far from most may be as far from those that it does not know.
        let max_drift = self.clock.max_drift().max(self.clock.skew(now));
        let may_write = |dead_since: Option<Time>| {
            dead_since.is_none_or(|since| now.saturating_since(since) < DEAD_COUNT_FOR)
        };
        let unheard = self.lost.values().any(|lost| may_write(lost.dead_since));
        // Those it is about to meet; those beyond a netsplit; beyond the mesh most members.
        if !self.join.is_ready() || unheard || self.relay.is_on() {
            return max_drift;
        }
        let may_write = self.peers.iter();
        let may_write = may_write.filter(|(_, peer)| peer.counts_for_freshness());
        let bounds = may_write.map(|(id, peer)| {
            if peer.agrees() {
                peer.echoes.clock_bound(now, &self.clock, *id)
            } else {
                self.clock.farthest(*id)
            }
        });
        bounds.max().unwrap_or_default().max(self.clock.skew(now))
    }

    /// Asks the peers for their clocks, while there are loads.
    pub(super) fn measure_clocks(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let every = self.clocks.every(&self.clock);
        // Beyond the mesh nothing is gained by it.
        if !self.clocks.is_due(now, every) || self.relay.is_on() {
            return;
        }
        let ready = self.may_fill_others();
        let progress = self.progress.vector(self.own(), self.log.latest());
        let peers = self.peers.iter();
        let peers = peers.filter(|(_, peer)| peer.agrees() && !peer.echoes.is_measured(now, every));
        for to in peers.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask(now, to, ready, progress.clone(), out);
        }
    }

    /// Forgets the members that have been dead for long, and the first of too many. Not while this node is alone: then they are what it is
    /// isolated from.
    pub(super) fn forget_lost(&mut self, now: Time) {
        if self.peers.values().any(Peer::agrees) {
            self.lost.retain(|_, lost| {
                let is_over = |since| now.saturating_since(since) >= DEAD_COUNT_FOR;
                !lost.dead_since.is_some_and(is_over)
            });
        }
        let dead = || {
            self.lost
                .iter()
                .filter_map(|(id, lost)| Some((lost.dead_since?, *id)))
        };
        let surplus = dead().count().saturating_sub(DEAD_MAX);
        if surplus > 0 {
            let mut oldest: Vec<_> = dead().collect();
            oldest.sort_unstable();
            for (_, id) in oldest.into_iter().take(surplus) {
                self.lost.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nearcache_store::NodeId;

    use super::*;
    use crate::clock::Hlc;
    use crate::config::ReplicationConfig;
    use crate::ids::Epoch;
    use crate::mode::{Mode as _, Status};
    use crate::rendezvous::PlacementKey;
    use crate::testing::{Text, store};

    const DRIFT: Duration = Hlc::DEFAULT_MAX_DRIFT;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// A node that is ready alone, and has met and lost so many others, one a millisecond from its second second on.
    fn node(dead: u64) -> Replicated<Text> {
        let clock = Arc::new(Hlc::new(NodeId::from_u64(1), 1_000_000, DRIFT));
        let (epoch, config) = (Epoch::from_u64(1), ReplicationConfig::default());
        let placement = PlacementKey::of_cluster("test");
        let mut node = Replicated::new(at(0), store(), clock, epoch, placement, config);
        let mut out = Vec::new();
        for ms in (0..60_000).step_by(100) {
            node.tick(at(ms), &mut out);
        }
        assert!(node.is_ready());
        for n in 0..dead {
            let (now, peer) = (at(60_000 + n), NodeId::from_u64(10 + n));
            node.peer_up(now, peer, epoch, &mut out);
            node.peer_dead(now, peer, &mut out);
        }
        node
    }

    #[test]
    fn c1_a_dead_member_counts_for_the_clock_bound_as_long_as_a_netsplit_may_last_and_no_longer() {
        let mut node = node(1);
        let counts_ms = u64::try_from(DEAD_COUNT_FOR.as_millis()).unwrap();
        let ends = at(60_000 + counts_ms);
        assert_eq!(node.clock_bound(at(60_001)), DRIFT);
        assert_eq!(node.clock_bound(at(59_999 + counts_ms)), DRIFT);
        assert_eq!(node.clock_bound(ends), Duration::ZERO);
        // It is still what this node, which has nobody, is isolated from.
        node.tick(ends + DEAD_COUNT_FOR, &mut Vec::new());
        assert_eq!(node.status(ends + DEAD_COUNT_FOR), Status::Isolated);
        // Membership hears of it again: it is cut off, and may write.
        node.member_up(ends, NodeId::from_u64(10), Epoch::from_u64(1));
        assert_eq!(node.clock_bound(ends), DRIFT);
    }

    #[test]
    fn c9_dead_members_are_bounded_and_those_that_died_first_are_forgotten() {
        let node = node(DEAD_MAX as u64 + 100);
        assert_eq!(node.lost.len(), DEAD_MAX);
        assert!(!node.lost.contains_key(&NodeId::from_u64(10)));
        assert!(node.lost.contains_key(&NodeId::from_u64(110)));
    }
}
