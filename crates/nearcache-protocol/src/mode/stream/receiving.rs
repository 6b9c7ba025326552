//! The peers' streams on their way to us.
//!
//! The receiver drives: a gap, or silence about numbers that are known to exist, makes it subscribe again from where it stands.

use nearcache_store::NodeId;

use super::Streaming;
use super::link::PATIENCE_GROWS_MAX;
use crate::ids::{Epoch, StreamId};
use crate::message::{Batch, CacheMessage};
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::progress::Step;
use crate::time::Time;
use crate::update::{Applied, Update};

/// The receiver's side of [`Streaming`].
pub(in crate::mode) trait Receives<V: Payload>: Streaming<V> {
    /// Asks `to` for its stream, from where we stand.
    fn subscribe(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let needs_no_past = self.needs_no_past();
        let Some((shared, pair)) = self.pair(to) else {
            return;
        };
        let (origin, epoch) = (to, pair.epoch);
        let stream = StreamId { origin, epoch };
        let from_now_on = needs_no_past && !shared.progress.knows(stream);
        let after = (!from_now_on).then(|| shared.progress.wanted_after(stream));
        let patience_max = shared.config.replay_retry_after * PATIENCE_GROWS_MAX;
        pair.receiving.asked(now, patience_max);
        let message = CacheMessage::Subscribe { epoch, after };
        out.push(Output::Send { to, message });
    }

    /// The peer says where its stream goes on.
    fn on_subscribed(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if epoch != pair.epoch {
            return;
        }
        let origin = from;
        let stream = StreamId { origin, epoch };
        pair.receiving.subscribed = true;
        pair.receiving.latest = pair.receiving.latest.max(after);
        if shared.config.planted.resumes_past_a_hole() {
            let applied = shared.progress.applied(stream);
            shared.progress.advance(stream, applied, after);
        }
        if shared.progress.resume(stream, after) {
            self.on_hole(now, stream, after, out);
        }
        self.moved(now, from);
        self.advanced(now, from, out);
    }

    /// A batch of the peer's stream.
    fn on_updates(&mut self, now: Time, from: NodeId, batch: Batch<V>, out: &mut Vec<Output<V>>) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        let Batch {
            epoch,
            after,
            through,
            wants_ack,
            updates,
        } = batch;
        if epoch != pair.epoch || !pair.met {
            return;
        }
        let origin = from;
        let stream = StreamId { origin, epoch };
        pair.receiving.latest = pair.receiving.latest.max(through);
        if wants_ack {
            pair.receiving.ack_wanted = pair.receiving.ack_wanted.max(through);
        }
        let mut after = after;
        if shared.config.planted.tolerates_a_gap()
            && shared.progress.step(stream, after, through) == (Step::Gap { missing: 1 })
        {
            after -= 1;
        }
        match shared.progress.step(stream, after, through) {
            Step::Duplicate => {}
            Step::Gap { missing } => {
                if pair.receiving.sees_new_gap() {
                    shared.stats.gaps += 1;
                    out.push(Output::Event(Event::Gap { origin, missing }));
                    self.subscribe(now, from, out);
                }
                return;
            }
            Step::Next => {
                if !self.apply_all(now, from, updates, out) {
                    // Refused by the drift bound, and asked for again when the patience is over. A lease ends meanwhile.
                    if let Some((_, pair)) = self.pair(from) {
                        pair.receiving.expect_more(now);
                    }
                    return;
                }
                self.shared().progress.advance(stream, after, through);
            }
        }
        self.moved(now, from);
        self.advanced(now, from, out);
    }

    /// Takes in updates of a peer. `false` if any was refused by the drift bound; nothing is changed then.
    fn apply_all(
        &mut self,
        now: Time,
        from: NodeId,
        updates: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let newest = updates.iter().map(|update| update.version().time).max();
        let shared = self.shared();
        if let Some(newest) = newest
            && let Err(refused) = shared.clock.observe(now, newest)
        {
            shared.stats.drift_refused += 1;
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
            let applied = self.apply(now, update);
            let stats = self.shared().stats;
            match applied {
                Some(Applied::Newer) => stats.applied += 1,
                Some(Applied::Superseded | Applied::Dropped) => stats.superseded += 1,
                None => {}
            }
        }
        self.on_applied(now, out);
        true
    }

    /// Something of the peer's stream came: what is still missing may take its time again.
    fn moved(&mut self, now: Time, from: NodeId) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        let (origin, epoch) = (from, pair.epoch);
        let wanted = shared.progress.wanted_after(StreamId { origin, epoch });
        let complete = wanted >= pair.receiving.latest;
        let patience = shared.config.replay_retry_after;
        pair.receiving.moved(now, patience, complete);
    }

    /// Progress in a connected peer's stream may have changed: acknowledge, count as fresh, go on.
    fn advanced(&mut self, now: Time, origin: NodeId, out: &mut Vec<Output<V>>) {
        let Some((shared, pair)) = self.pair(origin) else {
            return;
        };
        let epoch = pair.epoch;
        let stream = StreamId { origin, epoch };
        pair.echoes.advanced(shared.progress.applied(stream));
        let (after, applied) = shared.progress.newest(stream);
        if pair.receiving.ack_wanted != 0 && applied >= pair.receiving.ack_wanted {
            pair.receiving.ack_wanted = 0;
            out.push(Output::Send {
                to: origin,
                message: CacheMessage::Ack {
                    epoch,
                    after,
                    applied,
                },
            });
        }
        self.on_progress(now, out);
    }

    /// The peer says that its stream has come so far.
    fn learn_latest(&mut self, now: Time, from: NodeId, latest: u64) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        let (origin, epoch) = (from, pair.epoch);
        pair.receiving.latest = pair.receiving.latest.max(latest);
        let wanted = shared.progress.wanted_after(StreamId { origin, epoch });
        if !pair.receiving.subscribed || wanted < pair.receiving.latest {
            pair.receiving.expect_more(now);
        }
    }

    /// Asks again where an origin has been silent for too long about what it is known to have.
    fn tick_streams(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.shared().relay.is_on() {
            return;
        }
        let mut silent = Vec::new();
        self.each_pair(|peer, pair| {
            if pair.met && pair.receiving.ask_at.is_some_and(|at| at <= now) {
                silent.push(peer);
            }
        });
        for origin in silent {
            self.subscribe(now, origin, out);
        }
    }
}

impl<V: Payload, M: Streaming<V>> Receives<V> for M {}
