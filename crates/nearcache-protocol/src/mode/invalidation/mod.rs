//! Mode `invalidation`: entries live on the nodes that loaded or wrote them, and values never travel. A write, a removal and a group
//! invalidation send key (or group) and version to all; whoever holds something older drops it (I4).
//!
//! ```text
//! origin    put ─ merge ─ publish ─▶ stream of (key, version) ─▶ every peer
//! receiver  in order, no gap ─▶ tombstone in the store ─▶ progress ─▶ lease
//! reader    now ≤ lease? ─▶ store                    else: a miss
//! ```
//!
//! What a missed invalidation would do here, serve something stale for ever, is kept out by two rules. **Nothing is skipped**: a gap
//! is replayed from the origin's ring, and where that is impossible (the ring has moved on, the origin was started again or is gone)
//! everything held here is dropped ([`FlushCause`](crate::mode::FlushCause)). **No reading without a lease**: a node serves its copies only for so long after
//! it last was known to have all of every peer's invalidations, counted from its own clock when it asked (design §6.4).
//!
//! | file | concept |
//! |---|---|
//! | `members` | whom this node must hear to be allowed to serve; meeting, losing and giving up peers |
//! | `lease` | until when copies may be served, freshness, and what a writer knows of others' leases |
//! | `far` | members that there is no session with, beyond the mesh |
//! | `holes` | what no neighbour brings there |
//! | `streams` | what an invalidation and a hole in a stream mean here |
//! | `heartbeat` | meeting a peer, and telling it how far we are |

mod far;
mod heartbeat;
mod holes;
mod lease;
mod members;
mod streams;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tree_tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Store};

use self::holes::Holes;
use self::members::Member;
use super::refresh::Refreshes;
use super::replicated::home::decide;
use super::stream::acks::Acks;
use super::stream::tree::{Forwards as _, Mends as _, Relay};
use super::stream::{Beats as _, Receives as _, Sends as _};
use super::{
    Ack, Freshness, Held, Mode, ModeStats, Outcome, Output, Published, ReadBound, Status, Waiter,
};
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, StreamId, WaiterId};
use crate::lane::Lane;
use crate::log::Log;
use crate::message::CacheMessage;
use crate::modify::{ModifyError, ModifyOp};
use crate::payload::Payload;
use crate::progress::Progress;
use crate::time::Time;

/// The strategy of mode `invalidation`.
pub struct Invalidation<V: Payload> {
    store: Arc<Store<V>>,
    clock: Arc<Hlc>,
    epoch: Epoch,
    config: ReplicationConfig,
    log: Log<V>,
    progress: Progress,
    /// Everybody whose invalidations may be missed.
    members: BTreeMap<NodeId, Member>,
    acks: Acks,
    relay: Relay<V>,
    holes: Holes,
    refreshes: Refreshes,
    next_heartbeat: Time,
    /// When a node that has met nobody takes itself for alone.
    alone_at: Time,
    ready: bool,
    /// Some peer has pulled all it could and must be woken by the next update.
    any_asleep: bool,
    /// What follows from `members`; kept so that asking costs nothing.
    bound: ReadBound,
    /// When that was worked out.
    settled_at: Time,
    /// Everybody who counts was heard to the end at least once.
    heard: bool,
    /// The copies of a lease that ran out were dropped already.
    lapsed: bool,
    stats: ModeStats,
}

impl<V: Payload> Invalidation<V> {
    /// A cache that starts at `now` with nothing in it.
    #[must_use]
    pub fn new(
        now: Time,
        store: Arc<Store<V>>,
        clock: Arc<Hlc>,
        epoch: Epoch,
        config: ReplicationConfig,
    ) -> Self {
        Self {
            relay: Relay::new(clock.origin(), &config),
            store,
            clock,
            epoch,
            log: Log::new(epoch, config.replay_updates_max, config.replay_bytes_max),
            progress: Progress::new(config.streams_max),
            members: BTreeMap::new(),
            acks: Acks::default(),
            holes: Holes::default(),
            settled_at: now,
            refreshes: Refreshes::default(),
            next_heartbeat: now,
            alone_at: now + config.join_alone_after,
            ready: false,
            any_asleep: false,
            bound: ReadBound::ALONE,
            heard: true,
            lapsed: false,
            stats: ModeStats::default(),
            config,
        }
    }

    fn me(&self) -> NodeId {
        self.clock.origin()
    }

    fn own(&self) -> StreamId {
        StreamId {
            origin: self.me(),
            epoch: self.epoch,
        }
    }

    /// Ready: the first lease is here, or there is nobody to get one from.
    fn check_ready(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let alone = self.members.is_empty() && now >= self.alone_at;
        let heard = !self.members.is_empty() && self.heard;
        if !self.ready && (alone || heard || now >= self.alone_at + self.config.link_timeout) {
            self.ready = true;
            out.push(Output::Ready);
        }
    }
}

impl<V: Payload> Mode<V> for Invalidation<V> {
    fn publish(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        self.append_invalidation(now, published, ack, waiter, out)
    }

    fn peer_up(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>) {
        self.meet(now, peer, epoch, out);
        self.settle(now, out);
    }

    fn peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.lose(now, peer, out);
        self.settle(now, out);
    }

    fn member_up(&mut self, now: Time, peer: NodeId, epoch: Epoch) {
        self.hear_of(now, peer, epoch);
        self.update_bound(now);
    }

    fn peer_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.part(now, peer, out);
        self.settle(now, out);
    }

    fn peer_dead(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.lose(now, peer, out);
        self.mourn(now, peer);
        self.settle(now, out);
    }

    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    ) {
        if !self.is_connected(from) {
            return;
        }
        match message {
            CacheMessage::Announce(announcement) => self.on_announce(now, from, announcement, out),
            CacheMessage::Heartbeat {
                asked,
                epoch,
                latest,
                progress,
                ..
            } => {
                self.on_heartbeat(now, from, (asked, epoch, latest), &progress, out);
            }
            CacheMessage::Echo {
                asked,
                epoch,
                latest,
                physical_ms,
            } => {
                self.on_echo(now, from, (asked, epoch, latest), physical_ms);
            }
            CacheMessage::Leave { epoch, latest } => self.on_leave(from, epoch, latest),
            CacheMessage::Subscribe { epoch, after } => self.on_subscribe(from, epoch, after, out),
            CacheMessage::Subscribed { epoch, after } => {
                self.on_subscribed(now, from, epoch, after, out);
            }
            CacheMessage::Updates(batch) => self.on_updates(now, from, batch, out),
            CacheMessage::Ack {
                epoch,
                after,
                applied,
            } => self.on_ack(from, epoch, after, applied, out),
            // Values are no business of others in this mode: whoever asks for one is told that there is none.
            CacheMessage::Find { request, .. } => {
                let message = CacheMessage::Found {
                    request,
                    update: None,
                };
                out.push(Output::Send { to: from, message });
            }
            CacheMessage::Modify { request, .. } => {
                let message = CacheMessage::Modified {
                    request,
                    result: Err(ModifyError::NotHome),
                };
                out.push(Output::Send { to: from, message });
            }
            CacheMessage::TransferRequest { request, .. } => {
                let message = CacheMessage::TransferRefused { request };
                out.push(Output::Send { to: from, message });
            }
            CacheMessage::Relayed(relayed) => {
                self.on_relayed(now, from, relayed, out);
                return self.settle_data(now, out);
            }
            CacheMessage::Want(wants) => self.on_want_pieces(from, wants, out),
            CacheMessage::Ask(ask) => self.on_neighbour_asks(now, from, ask, out),
            CacheMessage::State(state) => self.on_neighbour_says(now, from, state, out),
            CacheMessage::Found { .. }
            | CacheMessage::Modified { .. }
            // Loads are each node's own: nobody asks, and nobody is answered.
            | CacheMessage::Load { .. }
            | CacheMessage::TransferStart { .. }
            | CacheMessage::TransferChunk { .. }
            | CacheMessage::TransferCredit { .. }
            | CacheMessage::TransferRefused { .. }
            | CacheMessage::Fetching { .. }
            | CacheMessage::AntiEntropy { .. }
            // Not the mode's.
            | CacheMessage::Probe { .. } => {}
        }
        self.settle(now, out);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.acks.tick(now, out);
        self.refreshes.tick(now, out);
        self.tick_streams(now, out);
        self.tick_tree(now, out);
        self.skip_holes(now, out);
        self.give_up_dead(now, out);
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.config.heartbeat_every;
            self.heartbeat(now, out);
        }
        self.settle(now, out);
    }

    fn next_tick(&self) -> Time {
        [
            self.next_heartbeat,
            self.acks.next_deadline(),
            self.refreshes.next_deadline(),
            self.next_ask(),
            self.next_given_up(),
            self.next_lapse(),
            self.relay.look_at(),
            self.holes.next_look(holes::patience(&self.config)),
        ]
        .into_iter()
        .fold(Time::MAX, Time::min)
    }

    fn poll_transmit(
        &mut self,
        _: Time,
        peer: NodeId,
        lane: Lane,
        budget_bytes: usize,
        _: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>> {
        match lane {
            Lane::Data => self.poll_data(peer, budget_bytes),
            Lane::Control | Lane::Bulk => None,
        }
    }

    /// Decided on what this node holds: values live here and there, and nobody has them all. Refused without a lease, when what is
    /// held may be stale.
    fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        let decided = if now <= self.bound.serve_until {
            decide(now, &self.store, &self.clock, &key, &op)
        } else {
            Err(ModifyError::HomeUnreachable)
        };
        let result = decided.map(|(modified, published)| {
            if let Some(published) = published {
                self.append_invalidation(now, published, Ack::Local, None, out);
            }
            modified
        });
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Modified(result),
        });
    }

    fn refresh(&mut self, now: Time, since: Time, waiter: Waiter, out: &mut Vec<Output<V>>) {
        let waiters_max = self.config.waiters_max;
        self.refreshes.wait(since, waiter, waiters_max, out);
        self.settle(now, out);
    }

    fn read_bound(&self) -> ReadBound {
        self.bound
    }

    fn clock_bound(&self, now: Time) -> Duration {
        self.clock_bound_now(now)
    }

    fn finds(&self) -> bool {
        false
    }

    fn find(&mut self, _: Time, _: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>) {
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Found(false),
        });
    }

    fn forget(&mut self, waiter: WaiterId) {
        if !self.acks.forget(waiter) {
            self.refreshes.forget(waiter);
        }
    }

    fn leave(&mut self, _: Time, out: &mut Vec<Output<V>>) {
        for to in self.connected() {
            let message = CacheMessage::Leave {
                epoch: self.epoch,
                latest: self.log.latest(),
            };
            out.push(Output::Send { to, message });
        }
    }

    fn freshness(&self, now: Time) -> Freshness {
        self.freshness_now(now)
    }

    fn status(&self, now: Time) -> Status {
        self.status_now(now)
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn is_by_tree(&self) -> bool {
        self.relay.is_on()
    }

    fn held(&self) -> Held {
        Held {
            replay_updates: self.log.updates(),
            replay_bytes: self.log.bytes(),
            waiters: self.acks.len() + self.refreshes.len(),
            streams: self.progress.streams(),
            serving: 0,
            ..Held::default()
        }
    }

    fn stats(&self) -> ModeStats {
        ModeStats {
            coalesced: self.log.coalesced(),
            ..self.stats
        }
    }
}

impl<V: Payload> fmt::Debug for Invalidation<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidation")
            .field("me", &self.me())
            .field("epoch", &self.epoch)
            .field("latest", &self.log.latest())
            .field("progress", &self.progress)
            .field("members", &self.members)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}
