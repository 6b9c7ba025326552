//! Which part of the mode a peer's message is for.

use nearcache_store::NodeId;

use super::Replicated;
use super::compare::Differs;
use super::peer::Agreed;
use super::serve::TransferAsked;
use crate::anti_entropy::AntiEntropy;
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::stream::tree::{Forwards as _, Mends as _, Talks as _};
use crate::mode::stream::{Beats as _, Receives as _, Sends as _};
use crate::payload::Payload;
use crate::time::Time;

impl<V: Payload> Replicated<V> {
    /// A message of a connected peer.
    pub(super) fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    ) {
        match message {
            CacheMessage::Announce(announcement) => {
                self.on_announce(now, from, announcement, out);
                if matches!(self.peers.get(&from), Some(peer) if matches!(peer.agreement, Agreed::No(_)))
                {
                    self.view.left(from);
                }
            }
            CacheMessage::Heartbeat {
                asked,
                epoch,
                latest,
                ready,
                progress,
            } => {
                self.on_heartbeat(now, from, (asked, epoch, latest), ready, progress, out);
            }
            CacheMessage::Echo {
                asked,
                epoch,
                latest,
                physical_ms,
            } => {
                self.on_echo(now, from, (asked, epoch, latest), physical_ms);
                self.note_answer(now, from, epoch, asked);
            }
            CacheMessage::Leave { epoch, .. } => self.start_left(now, from, epoch, out),
            CacheMessage::Subscribe { epoch, after } => self.on_subscribe(from, epoch, after, out),
            CacheMessage::Subscribed { epoch, after } => {
                self.on_subscribed(now, from, epoch, after, out)
            }
            CacheMessage::Updates(batch) => self.on_updates(now, from, batch, out),
            CacheMessage::Ack {
                epoch,
                after,
                applied,
            } => self.on_ack(from, epoch, after, applied, out),
            CacheMessage::Relayed(relayed) => self.on_relayed(now, from, relayed, out),
            CacheMessage::Want(wants) => self.on_want_pieces(from, wants, out),
            CacheMessage::Ask(ask) => self.on_ask(now, from, ask, out),
            CacheMessage::State(state) => {
                self.note_answer(now, from, state.epoch, state.asked);
                self.on_state(now, from, state, out);
                self.repair(now, out);
            }
            CacheMessage::Find { request, key } => self.on_find(from, request, key, out),
            CacheMessage::Found { request, update } => {
                self.on_found(now, from, request, update, out)
            }
            CacheMessage::Modify {
                request,
                wait_ms,
                known,
                key,
                op,
            } => {
                self.on_modify(now, from, (request, wait_ms, known), key, op, out);
            }
            CacheMessage::Modified { request, result } => {
                self.on_modified(now, from, request, result, out)
            }
            CacheMessage::Load { request, message } => {
                self.on_load(now, from, request, message, out);
            }
            CacheMessage::TransferRequest {
                request,
                cursor,
                credit_bytes,
                parts,
            } => {
                let asked = TransferAsked {
                    request,
                    cursor,
                    credit_bytes,
                    parts,
                };
                self.on_transfer_request(from, asked, out);
            }
            CacheMessage::TransferStart {
                request,
                ready,
                progress,
                floors,
            } => {
                self.on_transfer_start(now, from, (request, ready), progress, floors, out);
            }
            CacheMessage::TransferChunk { request, chunk } => {
                self.on_transfer_chunk(now, from, request, chunk, out);
            }
            CacheMessage::TransferCredit { request, bytes } => {
                self.on_transfer_credit(from, request, bytes, out)
            }
            CacheMessage::TransferRefused { request } => {
                self.on_transfer_refused(now, from, request, out)
            }
            CacheMessage::Fetching { request, message } => {
                self.on_fetching(now, from, request, message, out);
            }
            CacheMessage::AntiEntropy { request, message } => {
                self.on_anti_entropy(now, from, request, message, out);
            }
            // Not the mode's.
            CacheMessage::Probe { .. } => {}
        }
    }

    fn on_anti_entropy(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        message: AntiEntropy<V>,
        out: &mut Vec<Output<V>>,
    ) {
        match message {
            AntiEntropy::Compare {
                batch,
                depth,
                part_bits,
                floors_digest,
                ranges,
                ..
            } => {
                let asked = (batch, depth, part_bits);
                self.on_compare(from, request, asked, floors_digest, &ranges, out);
            }
            AntiEntropy::Differs {
                batch,
                own_bits,
                ready,
                progress,
                floors_differ,
                floors,
                parts,
            } => {
                let answer = Differs {
                    batch,
                    own_bits: u32::from(own_bits),
                    ready,
                    progress,
                    floors_differ,
                    floors,
                    parts,
                };
                self.on_differs(now, from, request, answer, out);
            }
            AntiEntropy::List {
                bits,
                leaves,
                floors,
            } => self.on_list(now, from, request, (bits, leaves), floors, out),
            AntiEntropy::Listed {
                own,
                index,
                done,
                keys,
                floors,
            } => self.on_listed(now, from, request, (own, index, done), (keys, floors), out),
            AntiEntropy::Want {
                own,
                index,
                outdated,
                keys,
            } => self.on_want(now, from, request, (own, index), (outdated, keys), out),
            AntiEntropy::Entries {
                own,
                part,
                done,
                updates,
            } => self.on_entries(now, from, request, (own, part, done), updates, out),
        }
    }
}
