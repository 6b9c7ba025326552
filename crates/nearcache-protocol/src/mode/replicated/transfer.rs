//! The receiving side of a transfer: everything a peer holds, merged here.
//!
//! ```text
//! TransferRequest ─▶            ◀─ TransferStart (progress, floors)
//!                               ◀─ TransferChunk 0, 1, 2, ...        (at most the credit on its way)
//! TransferCredit  ─▶            ◀─ TransferChunk n (last): progress = max(ours, that of the start)
//! ```
//!
//! One at a time. A chunk that is missing makes us ask again from the last cursor; a peer that is silent or gone makes us ask
//! another one, from the start, because a cursor means something only to the store that gave it out.

use nearcache_store::NodeId;

use super::Replicated;
use crate::ids::{Epoch, RequestId};
use crate::message::{CacheMessage, ProgressVector, TransferCursor};
use crate::mode::stream::Receives as _;
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Without a chunk that fits, we ask to go on so many times before we wait for the stall to be noticed (guess).
const RESUMES_MAX: u32 = 4;

/// The transfer that this node gets.
#[derive(Debug)]
pub(super) struct Fetch {
    from: NodeId,
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

    pub(super) const fn from(&self) -> NodeId {
        self.from
    }
}

impl<V: Payload> Replicated<V> {
    /// Begins a transfer from `from`.
    pub(super) fn fetch(&mut self, now: Time, from: NodeId, out: &mut Vec<Output<V>>) {
        let Some(epoch) = self.peers.get(&from).map(|peer| peer.epoch) else {
            return;
        };
        let request = self.next_request();
        self.fetch = Some(Fetch {
            from,
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
        });
        out.push(Output::Event(Event::TransferStarted { from }));
        self.request_transfer(from, request, None, out);
    }

    fn request_transfer(
        &self,
        to: NodeId,
        request: RequestId,
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
            },
        });
    }

    /// Asks the same peer to go on where the last good chunk ended.
    fn resume_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let request = self.next_request();
        let resumable = |fetch: &&mut Fetch| fetch.resumed < RESUMES_MAX;
        let Some(fetch) = self.fetch.as_mut().filter(resumable) else {
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
        let from = fetch.from;
        self.request_transfer(from, request, cursor, out);
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
        if !self.is_fetch(from, request) {
            return;
        }
        let refused = !self.apply_all(now, from, floors, out);
        if let Some(fetch) = &mut self.fetch {
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
        (request, index): (RequestId, u32),
        updates: Vec<Update<V>>,
        next: Option<TransferCursor>,
        out: &mut Vec<Output<V>>,
    ) {
        if !self.is_fetch(from, request) {
            return;
        }
        let Some(fetch) = &self.fetch else { return };
        if index < fetch.expected {
            return;
        }
        if index > fetch.expected || fetch.progress.is_none() {
            self.resume_fetch(now, out);
            return;
        }
        let bytes = updates.iter().map(Update::wire_bytes).sum::<usize>();
        let count = updates.len() as u64;
        let updates = self.without_forgotten(now, updates);
        let refused = !self.apply_all(now, from, updates, out);
        let Some(fetch) = &mut self.fetch else { return };
        fetch.moved = now;
        fetch.expected += 1;
        fetch.resumed = 0;
        fetch.updates += count;
        fetch.refused |= refused;
        fetch.cursor = next;
        if next.is_some() {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            out.push(Output::Send {
                to: from,
                message: CacheMessage::TransferCredit { request, bytes },
            });
        } else {
            self.finish_fetch(now, out);
        }
    }

    fn finish_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(fetch) = self.fetch.take() else {
            return;
        };
        let progress = fetch.progress.filter(|_| !fetch.refused);
        let filled = (fetch.updates, fetch.started, fetch.ready);
        self.filled(now, fetch.from, progress, filled, out);
    }

    /// A transfer, or a comparison in its place, has ended: all that `from` had applied is here, if it says how much that was.
    pub(super) fn filled(
        &mut self,
        now: Time,
        from: NodeId,
        progress: Option<ProgressVector>,
        (updates, started, ready): (u64, Time, bool),
        out: &mut Vec<Output<V>>,
    ) {
        let took = now - started;
        self.repair.rest(now, took, &self.config);
        let Some(progress) = progress else {
            out.push(Output::Event(Event::TransferCut { from }));
            return;
        };
        self.progress.raise(&progress, self.own());
        self.has_data = true;
        self.stats.transfers += 1;
        out.push(Output::Event(Event::TransferDone {
            from,
            updates,
            took,
        }));
        self.advanced_everywhere(now, out);
        self.joined_from(now, from, ready, out);
    }

    pub(super) fn on_transfer_refused(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        out: &mut Vec<Output<V>>,
    ) {
        if self.is_fetch(from, request) {
            self.cut_fetch(now, out);
        }
    }

    /// Gives the current transfer up; another peer is preferred for the next one.
    pub(super) fn cut_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if let Some(fetch) = self.fetch.take() {
            self.repair.avoid(now, fetch.from, &self.config);
            // What has come need not come again.
            self.has_data |= fetch.updates > 0;
            // And nobody may know that it is here.
            self.hurry_checks(now);
            out.push(Output::Event(Event::TransferCut { from: fetch.from }));
            self.repair(now, out);
        }
    }

    /// Asks again where not even the start has come, and cuts a transfer that stands still.
    pub(super) fn tick_fetch(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.fetch_deadline() > now {
            return;
        }
        match &self.fetch {
            Some(fetch) if fetch.is_unanswered() => self.resume_fetch(now, out),
            Some(_) | None => self.cut_fetch(now, out),
        }
    }

    pub(super) fn fetch_deadline(&self) -> Time {
        let Some(fetch) = &self.fetch else {
            return Time::MAX;
        };
        // The start message is small and nothing is before it; a chunk may take its time on a slow link.
        let patience = if fetch.is_unanswered() {
            self.config.replay_retry_after
        } else {
            self.config.transfer_stall_after
        };
        fetch.moved + patience
    }

    fn is_fetch(&self, from: NodeId, request: RequestId) -> bool {
        let epoch = self.peers.get(&from).map(|peer| peer.epoch);
        self.fetch.as_ref().is_some_and(|fetch| {
            fetch.from == from && fetch.request == request && Some(fetch.epoch) == epoch
        })
    }
}
