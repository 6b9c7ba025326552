//! Filling a node that has nothing: which peer brings which part of the key space, what is still missing, and what may be claimed
//! at the end.
//!
//! ```text
//! parts ─▶ shares ─▶ one transfer from each source ─▶ all here: progress = max(ours, the least of the sources')
//!             ▲            └── cut: what has come of its share stays; the rest is found out by comparing digests
//!             └─────────────────── with another peer, or got from it if nothing has come ◀──┘
//! ```
//!
//! Every source tells how far it was when it began to send, and brings its share as of then or later. So for all keys together no more
//! can be claimed than what the source that was furthest behind had applied. Where another source was ahead in a stream that does
//! not come to this node by itself, this node may still lack what that source has: it gets that before it is ready ([`super::join`]).

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_store::NodeId;

use super::Replicated;
use super::compare::Purpose;
use super::peer::Peer;
use crate::ids::StreamId;
use crate::message::ProgressVector;
use crate::mode::{Event, Output};
use crate::parts::Parts;
use crate::payload::Payload;
use crate::time::Time;

/// Peers that fill a node together at most: more would only add to what all of them go through (guess).
const SOURCES_MAX: usize = 8;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A filling from one peer or several.
#[derive(Debug)]
pub(super) struct Filling {
    started: Time,
    /// All sources must be ready themselves.
    by_ready: bool,
    /// Parts that are neither here nor on their way.
    missing: Parts,
    /// Those of them of which something has come.
    begun: Parts,
    /// How far the source was that was furthest behind, of those whose share is here.
    least: Option<ProgressVector>,
    /// Per stream how far the source was that was furthest ahead, and which that is.
    most: BTreeMap<StreamId, (u64, NodeId)>,
    all_ready: bool,
    sources: Vec<NodeId>,
    updates: u64,
    bytes: u64,
    told: Time,
}

/// Somebody has more of a stream than what may be claimed, and its origin is not there to ask: the stream, how much, and who has it.
pub(super) type Ahead = (StreamId, u64, NodeId);

/// What came of a share.
pub(super) struct Brought {
    pub(super) from: NodeId,
    pub(super) parts: Parts,
    /// How far `from` was when it began, unless the end must not be claimed.
    pub(super) progress: Option<ProgressVector>,
    pub(super) ready: bool,
}

impl Filling {
    fn new(now: Time, by_ready: bool) -> Self {
        Self {
            started: now,
            by_ready,
            missing: Parts::NONE,
            begun: Parts::NONE,
            least: None,
            most: BTreeMap::new(),
            all_ready: true,
            sources: Vec::new(),
            updates: 0,
            bytes: 0,
            told: now,
        }
    }

    /// All sources must be ready themselves.
    pub(super) const fn is_by_ready(&self) -> bool {
        self.by_ready
    }

    /// A share is here as of `progress` of its source.
    fn claim(&mut self, from: NodeId, progress: ProgressVector) {
        for (stream, number) in &progress.0 {
            let most = self.most.entry(*stream).or_insert((0, from));
            if *number > most.0 {
                *most = (*number, from);
            }
        }
        self.least = Some(match self.least.take() {
            None => progress,
            Some(least) => {
                let theirs: BTreeMap<_, _> = progress.0.into_iter().collect();
                let both = least.0.into_iter().filter_map(|(stream, number)| {
                    Some((stream, number.min(*theirs.get(&stream)?)))
                });
                ProgressVector(both.collect())
            }
        });
    }

    /// A part of a share that is on its way has come.
    pub(super) fn came(&mut self, updates: u64, bytes: u64) {
        self.updates += updates;
        self.bytes += bytes;
    }

    /// A share will not be completed by its source.
    pub(super) fn gave_up(&mut self, parts: Parts, has_begun: bool) {
        self.missing = self.missing.with(parts);
        if has_begun {
            self.begun = self.begun.with(parts);
        }
    }
}

impl<V: Payload> Replicated<V> {
    /// Begins to be filled by these peers together, each with its share.
    pub(super) fn start_filling(
        &mut self,
        now: Time,
        sources: &[NodeId],
        by_ready: bool,
        out: &mut Vec<Output<V>>,
    ) {
        // Without a digest hashes are each node's own, and mean nothing to another.
        let most = if self.store.digest_bits().is_some() {
            SOURCES_MAX
        } else {
            1
        };
        let sources = sources.get(..sources.len().min(most)).unwrap_or_default();
        self.filling = Some(Filling::new(now, by_ready));
        for (source, parts) in sources.iter().zip(Parts::ALL.split(sources.len())) {
            self.fetch(now, *source, parts, out);
            if let Some(filling) = &mut self.filling {
                filling.sources.push(*source);
            }
        }
    }

    /// Peers that may bring a share now, those first that were not cut lately.
    fn idle_sources(&self, now: Time, by_ready: bool) -> Vec<NodeId> {
        let met_since = self.join.met_since();
        let may_fill = |peer: &Peer| peer.agrees() && peer.since >= met_since;
        let usable = self.peers.iter().filter(|(id, peer)| {
            may_fill(peer)
                && (peer.ready || !by_ready)
                && !self.fetches.contains_key(id)
                && !self.repair.avoids(now, **id)
        });
        usable.map(|(id, _)| *id).collect()
    }

    /// Has others bring what is missing and on nobody's way; ends the filling once all is here.
    pub(super) fn go_on_filling(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(filling) = &self.filling else { return };
        let (missing, by_ready) = (filling.missing, filling.by_ready);
        let mut begun = filling.begun;
        if missing.is_empty() {
            if self.fetches.is_empty() && !self.compare.is_mending() {
                self.finish_filling(now, out);
            }
            return;
        }
        let mut idle = self.idle_sources(now, by_ready);
        // What was dropped here stands in the digest as evicted: only a transfer brings it back.
        if self.store.digest_bits().is_none() || self.join.has_dropped() {
            begun = Parts::NONE;
        }
        if !begun.is_empty()
            && !self.compare.is_mending()
            && let Some(source) = idle.pop()
        {
            self.note_source(source, begun);
            self.compare_with(now, source, Purpose::Mend(begun), out);
        }
        let untouched = missing.without(begun);
        if !untouched.is_empty() {
            for (source, parts) in idle.iter().zip(untouched.split(idle.len())) {
                self.note_source(*source, parts);
                self.fetch(now, *source, parts, out);
            }
        }
        let stands_still = self.fetches.is_empty() && !self.compare.is_mending();
        let none_ready = !self.peers.values().any(|peer| peer.agrees() && peer.ready);
        if stands_still && (!by_ready || none_ready) && self.filling.is_some() {
            // Nobody is left of the kind that was asked: begins anew with whoever is there, and keeps what has come.
            self.give_up_filling(now);
        }
    }

    fn note_source(&mut self, source: NodeId, parts: Parts) {
        if let Some(filling) = &mut self.filling {
            filling.missing = filling.missing.without(parts);
            filling.begun = filling.begun.without(parts);
            if !filling.sources.contains(&source) {
                filling.sources.push(source);
            }
        }
    }

    /// Ends the filling without a claim: what has come stays.
    pub(super) fn give_up_filling(&mut self, now: Time) {
        if let Some(filling) = self.filling.take() {
            // What has come need not come again, and nobody may know that it is here. But a comparison takes what this node has dropped for
            // evicted, and never asks for it.
            self.has_data |= filling.updates > 0 && !self.join.has_dropped();
            self.hurry_checks(now);
        }
    }

    /// A share is complete, or as complete as it will be.
    pub(super) fn brought(&mut self, now: Time, brought: Brought, out: &mut Vec<Output<V>>) {
        let Brought {
            from,
            parts,
            progress,
            ready,
        } = brought;
        let Some(filling) = &mut self.filling else {
            return;
        };
        match progress {
            Some(progress) => {
                filling.claim(from, progress);
                filling.all_ready &= ready;
                self.go_on_filling(now, out);
            }
            None => {
                // Refused by the drift bound: asked for again with the next heartbeat.
                filling.gave_up(parts, true);
                let by_ready = filling.by_ready;
                self.repair.avoid(now, from, &self.config);
                out.push(Output::Event(Event::TransferCut { from }));
                if !by_ready {
                    self.give_up_filling(now);
                }
            }
        }
    }

    /// A source is gone or silent: others bring what is missing of its share.
    pub(super) fn share_cut(
        &mut self,
        now: Time,
        from: NodeId,
        (parts, has_begun): (Parts, bool),
        out: &mut Vec<Output<V>>,
    ) {
        self.repair.avoid(now, from, &self.config);
        // What has come of it may be here only.
        self.hurry_checks(now);
        out.push(Output::Event(Event::TransferCut { from }));
        if let Some(filling) = &mut self.filling {
            if !filling.by_ready {
                // Another that is not ready either has something else.
                self.give_up_filling(now);
                return;
            }
            if self.planted.resumes_past_a_missing_part() && has_begun {
                // What has come is taken for all of it.
                self.go_on_filling(now, out);
                return;
            }
            filling.gave_up(parts, has_begun);
            self.go_on_filling(now, out);
        }
    }

    fn finish_filling(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(filling) = self.filling.take() else {
            return;
        };
        let Filling {
            started,
            least,
            most,
            all_ready,
            sources,
            updates,
            bytes,
            ..
        } = filling;
        let took = now - started;
        self.repair.rest(now, took, &self.config);
        let Some(least) = least else { return };
        self.progress.raise(&least, self.own());
        self.has_data = true;
        self.stats.transfers += 1;
        let parts_left = 0;
        out.push(Output::Event(Event::Filled {
            sources: sources.len(),
            updates,
            bytes,
            took,
        }));
        self.stats.parts_left = parts_left;
        let most = most.into_iter();
        let ahead = most.map(|(stream, (number, who))| (stream, number, who));
        let ahead: Vec<Ahead> = ahead
            .filter(|(stream, number, _)| {
                *stream != self.own()
                    && self.progress.lacks(*stream, *number)
                    && !self.flows(*stream)
            })
            .collect();
        self.advanced_everywhere(now, out);
        self.joined_from(now, &sources, all_ready, ahead, out);
    }

    /// Tells how far the filling is, once a second.
    pub(super) fn tell_filling(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let on_the_way = self
            .fetches
            .values()
            .fold(Parts::NONE, |parts, fetch| parts.with(fetch.parts()));
        let Some(filling) = &mut self.filling else {
            return;
        };
        let parts_left = filling.missing.with(on_the_way).count();
        self.stats.parts_left = u64::from(parts_left);
        if now - filling.told < PROGRESS_EVERY {
            return;
        }
        filling.told = now;
        out.push(Output::Event(Event::TransferProgress {
            updates: filling.updates,
            bytes: filling.bytes,
            took: now - filling.started,
            parts_left,
        }));
    }

    /// The peer that is bringing the key with this hash, if any is.
    pub(super) fn source_of(&self, key_hash: Option<u64>) -> Option<NodeId> {
        let brings = |parts: Parts| key_hash.is_none_or(|hash| parts.contains(hash));
        let fetch = self.fetches.iter().find(|(_, fetch)| brings(fetch.parts()));
        fetch.map(|(id, _)| *id)
    }
}
