//! The serving side of a transfer.
//!
//! The receiver grants credit in bytes, the connection pulls a chunk when it has room: nothing is put together before it
//! can be sent, and at most the credit is on its way. First comes what this node has applied (that much is in its store, so
//! that much will have been transferred at the end), then the floors, then a walk over the store. The cursor in a chunk is the
//! start of the page that the walk is in: a receiver that goes on there gets a few items twice and misses none.

use std::collections::VecDeque;

use bytes::Bytes;
use nearcache_store::{Item, NodeId, WalkCursor};

use super::Replicated;
use super::peer::Agreed;
use crate::ids::RequestId;
use crate::lane::Lane;
use crate::message::{CacheMessage, TransferCursor};
use crate::mode::Output;
use crate::payload::Payload;
use crate::update::Update;

/// Items that the store is asked for at a time: what the machine's lock is held for, at most (guess).
const PAGE_ITEMS: usize = 128;

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
    /// Where the current page starts, and where the next one does.
    page: WalkCursor,
    next_page: Option<WalkCursor>,
}

/// Items of the current page that did not fit into the last chunk. Kept beside [`Serving`] because only it knows values.
pub(super) type Page<V> = VecDeque<Item<V>>;

impl<V: Payload> Replicated<V> {
    /// A peer asks for everything.
    pub(super) fn on_transfer_request(
        &mut self,
        from: NodeId,
        request: RequestId,
        cursor: Option<TransferCursor>,
        credit_bytes: u32,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        match peer.agreement {
            Agreed::Yes => {}
            Agreed::Unknown => {
                peer.early.transfer = Some((request, cursor, credit_bytes));
                return;
            }
            Agreed::No(_) => {
                let message = CacheMessage::TransferRefused { request };
                out.push(Output::Send { to: from, message });
                return;
            }
        }
        if peer
            .serving
            .as_ref()
            .is_some_and(|serving| serving.request >= request)
        {
            return;
        }
        let page = cursor.map_or(WalkCursor::START, |cursor| WalkCursor::from_u64(cursor.0));
        peer.serving = Some(Serving {
            request,
            started: false,
            done: false,
            awake: true,
            credit_bytes: u64::from(credit_bytes),
            index: 0,
            page,
            next_page: Some(page),
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
        let peer = self.peers.get_mut(&to)?;
        let value_bytes_max = peer.value_bytes_max;
        let serving = peer.serving.as_mut()?;
        if serving.done || (serving.started && serving.credit_bytes == 0) {
            serving.awake = false;
            return None;
        }
        if !serving.started {
            serving.started = true;
            let floors = self
                .store
                .floors()
                .into_iter()
                .map(|(scope, version)| Update::Floor { scope, version });
            return Some(CacheMessage::TransferStart {
                request: serving.request,
                ready: self.join.is_ready(),
                progress,
                floors: floors.collect(),
            });
        }
        let page = self.pages.entry(to).or_default();
        let budget_bytes = budget_bytes.min(self.config.transfer_chunk_bytes);
        let mut updates = Vec::new();
        let mut bytes = 0;
        while bytes < budget_bytes {
            if page.is_empty() {
                let Some(next) = serving.next_page else { break };
                let (items, after) = self.store.walk(next, PAGE_ITEMS);
                serving.page = next;
                serving.next_page = after;
                page.extend(items);
                continue;
            }
            let Some(update) = page.front().map(item_update) else {
                break;
            };
            let update = update.for_reader(value_bytes_max);
            let update_bytes = update.wire_bytes();
            if bytes > 0 && bytes + update_bytes > budget_bytes {
                break;
            }
            bytes += update_bytes;
            updates.push(update);
            page.pop_front();
        }
        let next = if page.is_empty() {
            serving.next_page
        } else {
            Some(serving.page)
        };
        serving.done = next.is_none();
        serving.credit_bytes = serving.credit_bytes.saturating_sub(bytes as u64);
        let index = serving.index;
        serving.index += 1;
        let (request, done) = (serving.request, serving.done);
        if done {
            self.pages.remove(&to);
        }
        let next = next.map(|cursor| TransferCursor(cursor.as_u64()));
        Some(CacheMessage::TransferChunk {
            request,
            index,
            updates,
            next,
        })
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
