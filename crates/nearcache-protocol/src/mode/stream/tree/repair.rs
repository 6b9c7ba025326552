//! What the tree did not bring: a neighbour that is further is asked for the piece that is missing here.

use nearcache_store::NodeId;

use super::state::REPLAYS_MAX;
use super::talk::Talks;
use crate::ids::StreamId;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::stream::{Receives as _, Streaming};
use crate::payload::Payload;
use crate::time::Time;

/// Pieces asked of one neighbour at a time.
const WANTS_MAX: usize = 64;

/// So many times `relay_patience` nobody is asked again for the same stream.
const REST: u32 = 2;

/// Repair between neighbours.
pub(in crate::mode) trait Mends<V: Payload>: Streaming<V> {
    /// Asks for what has been missing for longer than the patience.
    fn tick_tree(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if now < self.shared().relay.look_at {
            return;
        }
        let may_ask = self.takes_replays();
        let mut asks = Vec::new();
        let mut peers = Vec::new();
        self.each_pair(|peer, pair| {
            if pair.met {
                peers.push(peer);
            }
        });
        let mut lacking = false;
        for peer in peers {
            let Some((shared, pair)) = self.pair(peer) else {
                continue;
            };
            let (progress, relay) = (shared.progress, shared.relay);
            let patience = shared.config.relay_patience;
            pair.branch
                .ahead
                .retain(|stream, (number, _)| progress.lacks(*stream, *number));
            lacking |= !pair.branch.ahead.is_empty();
            if !may_ask {
                continue;
            }
            let mut wants = Vec::new();
            for (stream, (number, since)) in &mut pair.branch.ahead {
                let asked = relay.wanted.get(stream).is_some_and(|until| *until > now);
                if asked || now < *since + patience || wants.len() == WANTS_MAX {
                    continue;
                }
                let after = progress.applied(*stream);
                let hole_ends = progress.hole(*stream).map_or(*number, |(_, end)| end);
                wants.push((*stream, after, hole_ends.min(*number)));
                relay.wanted.insert(*stream, now + patience * REST);
                // If it cannot help, another one is asked next.
                *since = now + patience * REST;
            }
            shared.stats.relay_wanted += wants.len() as u64;
            if !wants.is_empty() {
                asks.push((peer, wants));
            }
        }
        let shared = self.shared();
        shared.relay.wanted.retain(|_, until| *until > now);
        shared.relay.look_at = if lacking {
            now + shared.config.relay_patience / 2
        } else {
            Time::MAX
        };
        for (to, wants) in asks {
            let message = CacheMessage::Want(wants);
            out.push(Output::Send { to, message });
        }
    }

    /// A neighbour lacks these. What is no longer here it finds by anti-entropy.
    fn on_want_pieces(
        &mut self,
        from: NodeId,
        wants: Vec<(StreamId, u64, u64)>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some((_, pair)) = self.pair(from) else {
            return;
        };
        if !pair.met {
            return;
        }
        for want in wants {
            let (_, after, through) = want;
            let replays = &mut pair.branch.replays;
            if after < through && replays.len() < REPLAYS_MAX && !replays.contains(&want) {
                replays.push_back(want);
            }
        }
        self.wake(from, out);
    }

    /// A peer is met: by the tree or directly, as the number of members demands.
    fn begin(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        if self.shared().relay.on {
            self.ask_state(now, peer, out);
        } else {
            self.subscribe(now, peer, out);
        }
    }
}

impl<V: Payload, M: Streaming<V>> Mends<V> for M {}
