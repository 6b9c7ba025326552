//! Passing on: who gets what from us, and taking in what comes.

use nearcache_store::NodeId;

use super::log::until;
use super::state::Branch;
use crate::ids::StreamId;
use crate::lane::Lane;
use crate::message::{Batch, CacheMessage, Relayed};
use crate::mode::stream::{Receives, Streaming};
use crate::mode::{Event, Output};
use crate::overlay;
use crate::payload::Payload;
use crate::progress::Step;
use crate::time::Time;
use crate::update::{Reader, Update};

/// A value of up to so many bytes goes to every neighbour, whether it keeps it or only passes it on: the smallest limit of a frame, 2 MiB, has
/// room for it.
const PASSED_ON_BYTES_MIN: usize = 1 << 20;

/// The whole ring but ourselves.
const WHOLE: u64 = u64::MAX;

/// The data's way through [`Streaming`] nodes beyond a full mesh.
pub(in crate::mode) trait Forwards<V: Payload>: Streaming<V> {
    /// A local write has this number: sends it down the tree, to whom takes it.
    fn relay_own(&mut self, number: u64, out: &mut Vec<Output<V>>) {
        let shared = self.shared();
        if shared.relay.ring.is_empty() && !shared.relay.on {
            return;
        }
        let stream = shared.own_stream();
        if let Some(batch) = shared.log.batch(number - 1, 0, 1) {
            self.pass_on(stream, &batch, WHOLE, out);
        }
    }

    /// Remembers a piece of a stream, and wakes those in the range.
    fn pass_on(
        &mut self,
        stream: StreamId,
        batch: &Batch<V>,
        range: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let shared = self.shared();
        shared.relay.log.push(stream, batch, range);
        let ring = &shared.relay.ring;
        let reach = ring.partition_point(|(ahead, _)| *ahead < range);
        let children: smallvec::SmallVec<[NodeId; 16]> =
            ring.iter().take(reach).map(|(_, node)| *node).collect();
        for peer in children {
            if peer != stream.origin
                && let Some((_, pair)) = self.pair(peer)
                && !std::mem::replace(&mut pair.sending.awake, true)
            {
                let lane = Lane::Data;
                out.push(Output::Transmit { peer, lane });
            }
        }
    }

    /// What `to` gets next by the tree: first what it asked for, then what came since. Values that are longer than it keeps are among
    /// it, up to 1 MiB: it passes on what it got, and those behind it may take them. Longer ones it could not read: the whole frame
    /// would be refused.
    fn poll_branch(&mut self, to: NodeId, budget_bytes: usize) -> Option<CacheMessage<V>> {
        let (shared, pair) = self.pair(to)?;
        let own = shared.own_stream();
        let there = overlay::place_of(to);
        let (relay, branch) = (shared.relay, pair.branch);
        while let Some((stream, after, through)) = branch.replays.pop_front() {
            let batch = if stream == own {
                let updates_max = through.saturating_sub(after);
                shared.log.batch(after, budget_bytes, updates_max)
            } else {
                relay.log.replay(stream, after, through, budget_bytes)
            };
            let Some(mut batch) = batch else { continue };
            if batch.through < through {
                branch.replays.push_front((stream, batch.through, through));
            }
            batch.fit(passed_on_to(pair.value_bytes_max));
            shared.stats.relay_replayed += batch.updates.len() as u64;
            // For itself alone.
            return Some(CacheMessage::Relayed(vec![Relayed {
                origin: stream.origin,
                until: there,
                batch,
            }]));
        }
        let ahead = overlay::distance(relay.here, there);
        let Some(cursor) = branch.cursor else {
            // It has left the tree since it was woken: its next subscription must be able to wake it again.
            pair.sending.awake = false;
            return None;
        };
        let mut cursor = cursor.max(relay.log.base());
        let mut relayed: Vec<Relayed<V>> = Vec::new();
        let mut bytes = 0;
        while let Some(item) = relay.log.get(cursor) {
            if ahead < item.range && item.stream.origin != to {
                if !relayed.is_empty() && bytes + item.bytes() > budget_bytes {
                    break;
                }
                bytes += item.bytes();
                let end = until(relay.here, relay.end_of(ahead, item.range));
                match relayed.last_mut() {
                    Some(last)
                        if last.origin == item.stream.origin
                            && last.until == end
                            && last.batch.epoch == item.stream.epoch
                            && last.batch.through == item.after =>
                    {
                        let former = Batch {
                            updates: std::mem::take(&mut last.batch.updates),
                            ..last.batch
                        };
                        let mut batch = Some(former);
                        item.append_to(&mut batch);
                        if let Some(batch) = batch {
                            last.batch = batch;
                        }
                    }
                    _ => {
                        let mut batch = None;
                        item.append_to(&mut batch);
                        relayed.extend(batch.map(|batch| Relayed {
                            origin: item.stream.origin,
                            until: end,
                            batch,
                        }));
                    }
                }
            }
            cursor += 1;
        }
        branch.cursor = Some(cursor);
        if relayed.is_empty() {
            pair.sending.awake = false;
            return None;
        }
        for one in &mut relayed {
            if one.origin == own.origin && one.batch.epoch == own.epoch {
                one.batch.wants_ack = shared.acks.waits_in(one.batch.after, one.batch.through);
            }
            one.batch.fit(passed_on_to(pair.value_bytes_max));
            shared.stats.relayed += one.batch.updates.len() as u64;
        }
        shared.stats.relayed_bytes += bytes as u64;
        Some(CacheMessage::Relayed(relayed))
    }

    /// Pieces of streams came by the tree.
    fn on_relayed(
        &mut self,
        now: Time,
        from: NodeId,
        relayed: Vec<Relayed<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        if !self.pair(from).is_some_and(|(_, pair)| pair.met) {
            return;
        }
        for one in relayed {
            self.take_relayed(now, from, one, out);
        }
    }

    /// One of them. It is passed on also where we have it already: those in the range may not.
    fn take_relayed(
        &mut self,
        now: Time,
        from: NodeId,
        relayed: Relayed<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Relayed {
            origin,
            until,
            mut batch,
        } = relayed;
        let shared = self.shared();
        if origin == shared.clock.origin() {
            return;
        }
        let stream = StreamId {
            origin,
            epoch: batch.epoch,
        };
        let range = overlay::distance(shared.relay.here, until);
        let step = shared.progress.step(stream, batch.after, batch.through);
        if step == Step::Duplicate {
            if range > 0 {
                self.pass_on(stream, &batch, range, out);
            }
            return;
        }
        let kept: Vec<_> = batch.updates.iter().map(Update::again).collect();
        let updates = std::mem::replace(&mut batch.updates, kept);
        if !self.apply_all(now, from, updates, out) {
            // Refused by the drift bound: nobody else would take it either. It comes again when a neighbour has taken it.
            return;
        }
        let shared = self.shared();
        if let Step::Gap { missing } = step {
            // It is in the store, and counts when what is missing before it has come.
            if !shared.progress.has_hole(stream) {
                shared.stats.gaps += 1;
                out.push(Output::Event(Event::Gap { origin, missing }));
            }
            shared.progress.resume(stream, batch.after);
            if shared.config.planted.claims_past_a_gap() {
                let applied = shared.progress.applied(stream);
                shared.progress.advance(stream, applied, batch.after);
            }
        }
        shared.progress.advance(stream, batch.after, batch.through);
        self.pass_on(stream, &batch, range, out);
        self.has_come(now, stream, batch.wants_ack.then_some(batch.through), out);
    }

    /// Progress in a stream may have changed.
    fn has_come(
        &mut self,
        now: Time,
        stream: StreamId,
        ack_wanted: Option<u64>,
        out: &mut Vec<Output<V>>,
    ) {
        let shared = self.shared();
        let applied = shared.progress.applied(stream);
        if let Some(far) = shared.relay.far.get_mut(&stream.origin) {
            far.advanced(stream, applied);
        }
        let direct = self
            .pair(stream.origin)
            .filter(|(_, pair)| pair.epoch == stream.epoch);
        if let Some((_, pair)) = direct {
            if let Some(through) = ack_wanted {
                pair.receiving.ack_wanted = pair.receiving.ack_wanted.max(through);
            }
            self.advanced(now, stream.origin, out);
        } else {
            self.on_progress(now, out);
        }
    }

    /// Who takes the tree has changed.
    fn rebuild_ring(&mut self) {
        let mut ring = Vec::new();
        self.each_pair(|peer, pair| {
            if pair.met && pair.branch.cursor.is_some() {
                ring.push(peer);
            }
        });
        let relay = self.shared().relay;
        let here = relay.here;
        relay.ring = ring
            .into_iter()
            .map(|peer| (overlay::distance(here, overlay::place_of(peer)), peer))
            .collect();
        relay.ring.sort_unstable();
    }

    /// The peer takes our stream in the ordinary way from now on.
    fn leaves_tree(&mut self, peer: NodeId) {
        if let Some((_, pair)) = self.pair(peer) {
            let branch: &mut Branch = pair.branch;
            branch.replays.clear();
            if branch.cursor.take().is_some() {
                self.rebuild_ring();
            }
        }
    }
}

impl<V: Payload, M: Streaming<V>> Forwards<V> for M {}

/// What a neighbour that keeps values of up to so many bytes can be sent.
const fn passed_on_to(keeps_bytes_max: usize) -> Reader {
    let value_bytes_max = if keeps_bytes_max < PASSED_ON_BYTES_MIN {
        PASSED_ON_BYTES_MIN
    } else {
        keeps_bytes_max
    };
    Reader {
        value_bytes_max,
        inline_bytes_max: usize::MAX,
    }
}
