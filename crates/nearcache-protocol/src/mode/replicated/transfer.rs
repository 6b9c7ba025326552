//! The receiving side of a transfer: everything a peer holds of some parts of the key space, merged here.
//!
//! ```text
//! TransferRequest ─▶            ◀─ TransferStart (progress, floors)
//!                               ◀─ TransferChunk 0, 1, 2, ...        (at most the credit on its way)
//! TransferCredit  ─▶            ◀─ TransferChunk n (last)
//! ```
//!
//! One per peer at a time; which peer brings which parts is decided in [`super::filling`]. A chunk that is missing makes us ask the same
//! peer again from the last cursor, which means something only to the store that gave it out. A peer that is silent or gone gives up
//! its share to others.

use nearcache_store::{NodeId, Version};

use super::Replicated;
use super::filling::{Brought, Filling};
use crate::ids::{Epoch, RequestId};
use crate::message::{CacheMessage, Chunk, ProgressVector, TransferCursor};
use crate::mode::stream::Receives as _;
use crate::mode::{Event, Output};
use crate::parts::Parts;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Without a chunk that fits, we ask to go on so many times before we wait for the stall to be noticed (guess).
const RESUMES_MAX: u32 = 4;

/// Bytes of an evicted key's floor in a chunk.
pub(super) const FLOOR_BYTES: usize = 24;

/// The transfer that this node gets from one peer.
#[derive(Debug)]
pub(super) struct Fetch {
    parts: Parts,
    epoch: Epoch,
    request: RequestId,
    started: Time,
    /// When something last came.
    moved: Time,
    /// What the peer had applied when the transfer began; nothing before its start message.
    progress: Option<ProgressVector>,
    ready: bool,
    expected: u32,
    /// How often we have asked to go on since a chunk last fitted.
    resumed: u32,
    cursor: Option<TransferCursor>,
    updates: u64,
    /// Something was refused by the drift bound: the end must not be claimed.
    refused: bool,
}

impl Fetch {
    fn is_unanswered(&self) -> bool {
        self.progress.is_none() && self.resumed < RESUMES_MAX
    }

    pub(super) const fn parts(&self) -> Parts {
        self.parts
    }
}

impl<V: Payload> Replicated<V> {
    /// Begins to get `parts` from `from`.
    pub(super) fn fetch(
        &mut self,
        now: Time,
        from: NodeId,
        parts: Parts,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(epoch) = self.peers.get(&from).map(|peer| peer.epoch) else {
            return;
        };
        let request = self.next_request();
        let fetch = Fetch {
            parts,
            epoch,
            request,
            started: now,
            moved: now,
            progress: None,
            ready: false,
            expected: 0,
            resumed: 0,
            cursor: None,
            updates: 0,
            refused: false,
        };
        self.fetches.insert(from, fetch);
        out.push(Output::Event(Event::TransferStarted { from }));
        self.request_transfer(from, (request, parts), None, out);
    }

    fn request_transfer(
        &self,
        to: NodeId,
        (request, parts): (RequestId, Parts),
        cursor: Option<TransferCursor>,
        out: &mut Vec<Output<V>>,
    ) {
        let credit_bytes = self.config.transfer_credit_bytes;
        out.push(Output::Send {
            to,
            message: CacheMessage::TransferRequest {
                request,
                cursor,
                credit_bytes,
                parts,
            },
        });
    }

    /// Asks the same peer to go on where the last good chunk ended.
    fn resume_fetch(&mut self, now: Time, from: NodeId, out: &mut Vec<Output<V>>) {
        let request = self.next_request();
        let resumable = |fetch: &&mut Fetch| fetch.resumed < RESUMES_MAX;
        let Some(fetch) = self.fetches.get_mut(&from).filter(resumable) else {
            return;
        };
        fetch.request = request;
        fetch.resumed += 1;
        fetch.moved = now;
        fetch.expected = 0;
        // Without the start message nothing could be claimed at the end.
        let cursor = if fetch.progress.is_some() {
            fetch.cursor
        } else {
            None
        };
        let parts = fetch.parts;
        self.request_transfer(from, (request, parts), cursor, out);
    }

    pub(super) fn on_transfer_start(
        &mut self,
        now: Time,
        from: NodeId,
        (request, ready): (RequestId, bool),
        progress: ProgressVector,
        floors: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        if self.current_fetch(from, request).is_none() {
            return;
        }
        if !ready && self.filling.as_ref().is_some_and(Filling::is_by_ready) {
            // It no longer is: others bring its share.
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.ready = false;
            }
            self.cut_fetch(now, from, out);
            return;
        }
        let refused = !self.apply_all(now, from, floors, out);
        if let Some(fetch) = self.fetches.get_mut(&from) {
            fetch.moved = now;
            fetch.refused |= refused;
            fetch.ready = ready;
            // A resumed transfer goes by what was promised at its first start.
            fetch.progress.get_or_insert(progress);
        }
    }

    pub(super) fn on_transfer_chunk(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        chunk: Chunk<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(fetch) = self.current_fetch(from, request) else {
            return;
        };
        if chunk.index < fetch.expected {
            return;
        }
        if chunk.index > fetch.expected || fetch.progress.is_none() {
            self.resume_fetch(now, from, out);
            return;
        }
        let (bytes, next) = (chunk.bytes(), chunk.next);
        let count = (chunk.updates.len() + chunk.evicted.len()) as u64;
        let refused = !self.take_chunk(now, from, chunk, out);
        let Some(fetch) = self.fetches.get_mut(&from) else {
            return;
        };
        fetch.moved = now;
        fetch.expected += 1;
        fetch.resumed = 0;
        fetch.updates += count;
        fetch.refused |= refused;
        fetch.cursor = next;
        self.stats.transferred += count;
        self.stats.transferred_bytes += bytes as u64;
        if let Some(filling) = &mut self.filling {
            filling.came(count, bytes as u64);
        }
        if next.is_some() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            out.push(Output::Send {
                to: from,
                message: CacheMessage::TransferCredit { request, bytes },
            });
            self.tell_filling(now, out);
        } else {
            self.finish_fetch(now, from, out);
        }
    }

    /// Merges what came. `false` if any of it was refused by the drift bound; then none of it is merged.
    fn take_chunk(
        &mut self,
        now: Time,
        from: NodeId,
        chunk: Chunk<V>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let Chunk {
            updates, evicted, ..
        } = chunk;
        let updates = self.without_forgotten(now, updates);
        let newest = evicted.iter().map(|(_, version)| version.time).max();
        if newest.is_some_and(|newest| self.clock.observe(now, newest).is_err())
            || !self.apply_all(now, from, updates, out)
        {
            return false;
        }
        self.take_floors(evicted);
        true
    }

    /// Keys that the peer has evicted: nothing older may come in here.
    fn take_floors(&self, evicted: Vec<(u64, Version)>) {
        for (key_hash, version) in evicted {
            self.store.tell_floor(key_hash, version);
        }
    }

    fn finish_fetch(&mut self, now: Time, from: NodeId, out: &mut Vec<Output<V>>) {
        let Some(fetch) = self.fetches.remove(&from) else {
            return;
        };
        out.push(Output::Event(Event::TransferDone {
            from,
            updates: fetch.updates,
            took: now - fetch.started,
        }));
        let brought = Brought {
            from,
            parts: fetch.parts,
            progress: fetch.progress.filter(|_| !fetch.refused),
            ready: fetch.ready,
        };
        self.brought(now, brought, out);
        self.tell_filling(now, out);
    }

    pub(super) fn on_transfer_refused(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        out: &mut Vec<Output<V>>,
    ) {
        if self.current_fetch(from, request).is_some() {
            self.cut_fetch(now, from, out);
        }
    }

    /// Gives the transfer from a peer up, if there is one.
    pub(super) fn cut_fetch(&mut self, now: Time, from: NodeId, out: &mut Vec<Output<V>>) {
        if let Some(fetch) = self.fetches.remove(&from) {
            self.share_cut(now, from, (fetch.parts, fetch.updates > 0), out);
            self.repair(now, out);
        }
    }

    /// Asks again where not even the start has come, and cuts transfers that stand still.
    pub(super) fn tick_fetches(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let due = self.fetches.iter();
        let due = due.filter(|(_, fetch)| self.deadline_of(fetch) <= now);
        let due: Vec<_> = due
            .map(|(id, fetch)| (*id, fetch.is_unanswered()))
            .collect();
        for (from, is_unanswered) in due {
            if is_unanswered {
                self.resume_fetch(now, from, out);
            } else {
                self.cut_fetch(now, from, out);
            }
        }
    }

    pub(super) fn fetch_deadline(&self) -> Time {
        let deadlines = self.fetches.values().map(|fetch| self.deadline_of(fetch));
        deadlines.min().unwrap_or(Time::MAX)
    }

    fn deadline_of(&self, fetch: &Fetch) -> Time {
        // The start message is small and nothing is before it; a chunk may take its time on a slow link.
        let patience = if fetch.is_unanswered() {
            self.config.replay_retry_after
        } else {
            self.config.transfer_stall_after
        };
        fetch.moved + patience
    }

    fn current_fetch(&self, from: NodeId, request: RequestId) -> Option<&Fetch> {
        let epoch = self.peers.get(&from)?.epoch;
        let fetch = self.fetches.get(&from)?;
        (fetch.request == request && fetch.epoch == epoch).then_some(fetch)
    }
}
