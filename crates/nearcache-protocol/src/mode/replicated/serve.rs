//! The serving side of a transfer.
//!
//! The receiver grants credit in bytes, the connection pulls a chunk when it has room: nothing is put together before it
//! can be sent, and at most the credit is on its way. First comes what this node has applied (that much is in its store, so
//! that much will have been transferred at the end), then the group floors, then a walk over the parts that were asked for, what is
//! read most first ([`PartWalk`]). The cursor in a chunk is the start of the page that the walk is in: a receiver that goes on there
//! gets some items twice and misses none.

use std::collections::VecDeque;

use bytes::Bytes;
use nearcache_store::{Item, NodeId, PartItem, PartWalk};

use super::Replicated;
use super::peer::Agreed;
use super::transfer::FLOOR_BYTES;
use crate::ids::RequestId;
use crate::lane::Lane;
use crate::message::{CacheMessage, Chunk, TransferCursor};
use crate::mode::Output;
use crate::parts::Parts;
use crate::payload::Payload;
use crate::update::Update;

/// Items that the store is asked for at a time: what the machine's lock is held for, at most (guess).
const PAGE_ITEMS: usize = 128;
/// Pages that are looked at for one chunk, which is empty then where nothing lies in the parts asked for: some 20,000 entries, a millisecond or
/// two under the machine's lock (guess).
const PAGES_PER_CHUNK: usize = 4;

/// A transfer that a peer gets from us.
#[derive(Debug)]
pub(super) struct Serving {
    request: RequestId,
    started: bool,
    done: bool,
    /// Whether the shell was told that there is something to pull.
    awake: bool,
    credit_bytes: u64,
    index: u32,
    walk: PartWalk,
    /// Where the current page starts.
    page: u64,
    /// How many group invalidations there had been when it was told of them.
    generation: u32,
}

impl Serving {
    /// Ends it, unless it has ended; whose request it was.
    pub(super) fn stop(&mut self) -> Option<RequestId> {
        let was_done = std::mem::replace(&mut self.done, true);
        (!was_done).then_some(self.request)
    }
}

/// Items of the current page that did not fit into the last chunk. Kept beside [`Serving`] because only it knows values.
pub(super) type Page<V> = VecDeque<PartItem<V>>;

/// What a peer asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransferAsked {
    pub(super) request: RequestId,
    pub(super) cursor: Option<TransferCursor>,
    pub(super) credit_bytes: u32,
    pub(super) parts: Parts,
}

impl<V: Payload> Replicated<V> {
    /// A peer asks for everything in some parts.
    pub(super) fn on_transfer_request(
        &mut self,
        from: NodeId,
        asked: TransferAsked,
        out: &mut Vec<Output<V>>,
    ) {
        let TransferAsked {
            request,
            cursor,
            credit_bytes,
            parts,
        } = asked;
        // Without a digest this node cannot tell which key lies in which part.
        let can_tell = parts == Parts::ALL || self.store.digest_bits().is_some();
        let leaves = parts.leaf_set().filter(|_| can_tell);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        match peer.agreement {
            Agreed::Yes => {}
            Agreed::Unknown => {
                peer.early.transfer = Some(asked);
                return;
            }
            Agreed::No(_) => {
                let message = CacheMessage::TransferRefused { request };
                out.push(Output::Send { to: from, message });
                return;
            }
        }
        // What was dropped must not be missing there too.
        let Some(leaves) = leaves.filter(|_| !self.split.has_dropped()) else {
            let message = CacheMessage::TransferRefused { request };
            out.push(Output::Send { to: from, message });
            return;
        };
        if peer
            .serving
            .as_ref()
            .is_some_and(|serving| serving.request >= request)
        {
            return;
        }
        let walk = PartWalk::new(leaves, cursor.map(|cursor| cursor.0));
        peer.serving = Some(Serving {
            request,
            started: false,
            done: false,
            awake: true,
            credit_bytes: u64::from(credit_bytes),
            index: 0,
            page: walk.cursor(),
            generation: 0,
            walk,
        });
        self.pages.remove(&from);
        out.push(Output::Transmit {
            peer: from,
            lane: Lane::Bulk,
        });
    }

    /// The receiver has taken in so much.
    pub(super) fn on_transfer_credit(
        &mut self,
        from: NodeId,
        request: RequestId,
        bytes: u32,
        out: &mut Vec<Output<V>>,
    ) {
        let credit_max = u64::from(self.config.transfer_credit_bytes) * 16;
        let Some(serving) = self
            .peers
            .get_mut(&from)
            .and_then(|peer| peer.serving.as_mut())
        else {
            return;
        };
        if serving.request != request || serving.done {
            return;
        }
        serving.credit_bytes = (serving.credit_bytes + u64::from(bytes)).min(credit_max);
        if !serving.awake && serving.credit_bytes > 0 {
            serving.awake = true;
            out.push(Output::Transmit {
                peer: from,
                lane: Lane::Bulk,
            });
        }
    }

    /// The next message of the transfer that `to` gets from us.
    pub(super) fn poll_bulk(&mut self, to: NodeId, budget_bytes: usize) -> Option<CacheMessage<V>> {
        let progress = self.progress.vector(self.own(), self.log.latest());
        let ready = self.may_fill_others();
        let peer = self.peers.get_mut(&to)?;
        let reader = peer.reader(&self.config);
        let serving = peer.serving.as_mut()?;
        if serving.done || (serving.started && serving.credit_bytes == 0) {
            serving.awake = false;
            return None;
        }
        if !serving.started {
            serving.started = true;
            serving.generation = self.store.generation();
            let floors = self
                .store
                .floors()
                .into_iter()
                .map(|(scope, version)| Update::Floor { scope, version });
            return Some(CacheMessage::TransferStart {
                request: serving.request,
                ready,
                progress,
                floors: floors.collect(),
            });
        }
        let page = self.pages.entry(to).or_default();
        let budget_bytes = budget_bytes.min(self.config.transfer_chunk_bytes);
        let (mut updates, mut evicted, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut looked = 0;
        while bytes < budget_bytes {
            if page.is_empty() {
                // Where little lies in these parts, others get the lock now and then.
                if serving.walk.is_done() || looked >= PAGES_PER_CHUNK {
                    break;
                }
                looked += 1;
                serving.page = serving.walk.cursor();
                page.extend(self.store.walk_part(&mut serving.walk, PAGE_ITEMS));
                continue;
            }
            let next = match page.front() {
                Some(PartItem::Held(item)) => Ok(item_update(item).for_reader(reader)),
                Some(PartItem::Evicted { key_hash, version }) => Err((*key_hash, *version)),
                None => break,
            };
            let next_bytes = next.as_ref().map_or(FLOOR_BYTES, Update::wire_bytes);
            if bytes > 0 && bytes + next_bytes > budget_bytes {
                break;
            }
            bytes += next_bytes;
            match next {
                Ok(update) => updates.push(update),
                Err(floor) => evicted.push(floor),
            }
            page.pop_front();
        }
        let next = if page.is_empty() {
            (!serving.walk.is_done()).then(|| serving.walk.cursor())
        } else {
            Some(serving.page)
        };
        serving.done = next.is_none();
        if serving.done && serving.generation != self.store.generation() {
            // What was left out because it was invalidated meanwhile must not be missing there without that being known.
            let floors = self.store.floors().into_iter();
            updates.extend(floors.map(|(scope, version)| Update::Floor { scope, version }));
        }
        serving.credit_bytes = serving.credit_bytes.saturating_sub(bytes as u64);
        let chunk = Chunk {
            index: serving.index,
            evicted,
            updates,
            next: next.map(TransferCursor),
        };
        serving.index += 1;
        let (request, done) = (serving.request, serving.done);
        if done {
            self.pages.remove(&to);
        }
        self.stats.transferred_bytes_sent += bytes as u64;
        Some(CacheMessage::TransferChunk { request, chunk })
    }
}

fn item_update<V: Payload>(item: &Item<V>) -> Update<V> {
    match item {
        Item::Entry(entry) => Update::Entry(entry.clone()),
        Item::Tombstone { key, version, .. } => Update::Remove {
            key: Bytes::copy_from_slice(key),
            version: *version,
        },
    }
}
