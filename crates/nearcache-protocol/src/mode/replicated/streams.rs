//! Update streams between two nodes: subscribing, batches, gaps, acknowledgements.
//!
//! ```text
//! receiver                         origin
//!   Subscribe(after) ────────────▶   cursor := after, or latest if the ring no longer reaches back
//!                    ◀────────────   Subscribed(where it goes on)      more than asked for: a hole
//!                    ◀────────────   Updates (a, b], (b, c], ...        pulled when the connection has room
//!   Ack(applied)     ────────────▶
//! ```
//!
//! The receiver drives: a gap, or silence about numbers that are known to exist, makes it subscribe again.

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::{Agreed, Peer};
use crate::ids::{Epoch, StreamId};
use crate::lane::Lane;
use crate::message::{Batch, CacheMessage};
use crate::mode::link::PATIENCE_GROWS_MAX;
use crate::mode::{Ack, Event, Output, Published, Waiter};
use crate::payload::Payload;
use crate::progress::Step;
use crate::time::Time;
use crate::update::{Applied, Update};

impl<V: Payload> Replicated<V> {
    pub(super) fn append(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        let number = self.log.append(published);
        self.stats.published += 1;
        if let Some(waiter) = waiter {
            let lost = self
                .lost
                .iter()
                .filter(|(_, lost)| !lost.dead)
                .map(|(id, _)| *id);
            let connected = self
                .peers
                .iter()
                .filter(|(_, peer)| peer.may_hold_copies(now));
            let members = connected.map(|(id, _)| *id).chain(lost);
            let members = members.map(|id| (id, Time::MAX));
            let waiters_max = self.config.waiters_max;
            self.acks
                .wait(number, ack, waiter, members, waiters_max, out);
        }
        if self.any_asleep {
            self.wake_all(out);
        }
        number
    }

    fn wake_all(&mut self, out: &mut Vec<Output<V>>) {
        self.any_asleep = false;
        for (id, peer) in &mut self.peers {
            if peer.sending.cursor.is_some() && !peer.sending.awake {
                peer.sending.awake = true;
                out.push(Output::Transmit {
                    peer: *id,
                    lane: Lane::Data,
                });
            }
        }
    }

    /// What `to` gets next of our stream.
    pub(super) fn poll_data(&mut self, to: NodeId, budget_bytes: usize) -> Option<CacheMessage<V>> {
        let peer = self.peers.get_mut(&to)?;
        let value_bytes_max = peer.value_bytes_max;
        peer.sending.cursor?;
        let mut message = peer.sending.next(
            &mut self.log,
            self.epoch,
            &self.acks,
            budget_bytes,
            self.config.batch_updates_max,
        );
        self.any_asleep |= message.is_none();
        if let Some(CacheMessage::Updates(batch)) = &mut message {
            batch.fit(value_bytes_max);
        }
        message
    }

    /// Asks `to` for its stream, from where we stand.
    pub(super) fn subscribe(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let patience_max = self.config.replay_retry_after * PATIENCE_GROWS_MAX;
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let stream = StreamId {
            origin: to,
            epoch: peer.epoch,
        };
        // A joining node will get the past by a transfer: it asks only for what comes.
        let from_now_on = !self.progress.knows(stream) && !self.join.is_ready();
        let after = if from_now_on {
            None
        } else {
            Some(self.progress.wanted_after(stream))
        };
        peer.receiving.asked(now, patience_max);
        out.push(Output::Send {
            to,
            message: CacheMessage::Subscribe {
                epoch: peer.epoch,
                after,
            },
        });
    }

    pub(super) fn on_subscribe(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Option<u64>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if epoch != self.epoch {
            return;
        }
        match peer.agreement {
            Agreed::Yes => {}
            Agreed::Unknown => {
                peer.early.subscribe = Some(after);
                return;
            }
            Agreed::No(_) => return,
        }
        if peer.sending.subscribed(&self.log, after) {
            out.push(Output::Transmit {
                peer: from,
                lane: Lane::Data,
            });
        }
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if epoch != peer.epoch {
            return;
        }
        let stream = StreamId {
            origin: from,
            epoch,
        };
        let patience = self.config.replay_retry_after;
        peer.receiving.subscribed = true;
        peer.receiving.latest = peer.receiving.latest.max(after);
        if self.planted.resumes_past_a_hole() {
            let from = self.progress.applied(stream);
            self.progress.advance(stream, from, after);
        }
        let hole = self.progress.resume(stream, after);
        let complete = self.progress.wanted_after(stream) >= peer.receiving.latest;
        peer.receiving.moved(now, patience, complete);
        if hole {
            self.repair(now, out);
        }
        self.advanced(now, from, out);
    }

    pub(super) fn on_updates(
        &mut self,
        now: Time,
        from: NodeId,
        batch: Batch<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if batch.epoch != peer.epoch || !peer.agrees() {
            return;
        }
        let Batch {
            after,
            through,
            wants_ack,
            updates,
            ..
        } = batch;
        let stream = StreamId {
            origin: from,
            epoch: peer.epoch,
        };
        peer.receiving.latest = peer.receiving.latest.max(through);
        if wants_ack {
            peer.receiving.ack_wanted = peer.receiving.ack_wanted.max(through);
        }
        let after = if self.planted.tolerates_a_gap()
            && self.progress.step(stream, after, through) == (Step::Gap { missing: 1 })
        {
            after - 1
        } else {
            after
        };
        match self.progress.step(stream, after, through) {
            Step::Duplicate => {}
            Step::Gap { missing } => {
                self.on_gap(now, from, missing, out);
                return;
            }
            Step::Next => {
                if !self.apply_all(now, from, updates, out) {
                    // Refused by the drift bound, and asked for again when the patience is over.
                    peer_of(&mut self.peers, from, |peer| {
                        peer.receiving.expect_more(now)
                    });
                    return;
                }
                self.progress.advance(stream, after, through);
            }
        }
        let patience = self.config.replay_retry_after;
        let complete = |latest| self.progress.wanted_after(stream) >= latest;
        if let Some(peer) = self.peers.get_mut(&from) {
            let complete = complete(peer.receiving.latest);
            peer.receiving.moved(now, patience, complete);
        }
        self.advanced(now, from, out);
    }

    fn on_gap(&mut self, now: Time, from: NodeId, missing: u64, out: &mut Vec<Output<V>>) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if !peer.receiving.sees_new_gap() {
            return;
        }
        self.stats.gaps += 1;
        out.push(Output::Event(Event::Gap {
            origin: from,
            missing,
        }));
        self.subscribe(now, from, out);
    }

    /// Merges updates of a peer. `false` if any was refused by the drift bound; nothing of the batch is merged then.
    pub(super) fn apply_all(
        &mut self,
        now: Time,
        from: NodeId,
        updates: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let newest = updates.iter().map(|update| update.version().time).max();
        if let Some(newest) = newest
            && let Err(refused) = self.clock.observe(now, newest)
        {
            self.stats.drift_refused += 1;
            out.push(Output::Event(Event::DriftRefused {
                peer: from,
                ahead_ms: refused.ahead_ms,
            }));
            return false;
        }
        for update in updates {
            if let Update::Floor { scope, version } = &update {
                out.push(Output::Event(Event::Invalidated {
                    scope: scope.clone(),
                    version: *version,
                }));
            }
            if self.planted.drops_tombstones() && matches!(update, Update::Remove { .. }) {
                continue;
            }
            // A peer that has not heard our limit yet may exceed it.
            let update = update.for_reader(self.config.value_bytes_max as usize);
            self.stats.withheld += u64::from(matches!(update, Update::Withheld { .. }));
            match update.apply(&self.store) {
                Applied::Newer => self.stats.applied += 1,
                Applied::Superseded | Applied::Dropped => self.stats.superseded += 1,
            }
        }
        true
    }

    /// Progress in a connected peer's stream may have changed: acknowledge, count as fresh, go on joining.
    pub(super) fn advanced(&mut self, now: Time, origin: NodeId, out: &mut Vec<Output<V>>) {
        let Some(peer) = self.peers.get_mut(&origin) else {
            return;
        };
        let epoch = peer.epoch;
        let stream = StreamId { origin, epoch };
        peer.echoes.advanced(self.progress.applied(stream));
        let (after, applied) = self.progress.newest(stream);
        if peer.receiving.ack_wanted != 0 && applied >= peer.receiving.ack_wanted {
            peer.receiving.ack_wanted = 0;
            out.push(Output::Send {
                to: origin,
                message: CacheMessage::Ack {
                    epoch,
                    after,
                    applied,
                },
            });
        }
        if !self.join.is_ready() {
            self.check_joined(now, out);
        }
    }

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
            if self.progress.has_hole(StreamId { origin, epoch }) {
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

    /// The peer has applied our updates `(after, applied]`.
    pub(super) fn on_ack(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        applied: u64,
        out: &mut Vec<Output<V>>,
    ) {
        if epoch != self.epoch || applied > self.log.latest() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if let Some((news_from, news_through)) = peer.sending.acknowledged(after, applied) {
            self.acks.acked(from, news_from, news_through, out);
        }
    }

    /// Asks again where an origin has been silent for too long about what it is known to have.
    pub(super) fn tick_streams(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let due = |ask_at: Option<Time>| ask_at.is_some_and(|ask_at| ask_at <= now);
        let silent: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.agrees() && due(peer.receiving.ask_at))
            .map(|(id, _)| *id)
            .collect();
        for origin in silent {
            self.subscribe(now, origin, out);
        }
    }

    pub(super) fn next_ask(&self) -> Time {
        self.peers
            .values()
            .filter_map(|peer| peer.receiving.ask_at)
            .min()
            .unwrap_or(Time::MAX)
    }
}

fn peer_of(
    peers: &mut std::collections::BTreeMap<NodeId, Peer>,
    id: NodeId,
    change: impl FnOnce(&mut Peer),
) {
    if let Some(peer) = peers.get_mut(&id) {
        change(peer);
    }
}
