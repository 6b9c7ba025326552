//! The kinds of frames that carry messages of caches, and the numbers in their headers.

use crate::anti_entropy::AntiEntropy;
use crate::fetching::Fetching;
use crate::frame::Kind;
use crate::load::lease::LoadMessage;
use crate::message::CacheMessage;
use crate::probe::Probe;

pub(super) const UPDATES: Kind = Kind(0x40);
pub(super) const SUBSCRIBE: Kind = Kind(0x41);
pub(super) const SUBSCRIBED: Kind = Kind(0x42);
pub(super) const ACK: Kind = Kind(0x43);
pub(super) const ANNOUNCE: Kind = Kind(0x44);
pub(super) const HEARTBEAT: Kind = Kind(0x45);
pub(super) const ECHO: Kind = Kind(0x46);
pub(super) const LEAVE: Kind = Kind(0x47);
pub(super) const FIND: Kind = Kind(0x48);
pub(super) const FOUND: Kind = Kind(0x49);
pub(super) const MODIFY: Kind = Kind(0x4a);
pub(super) const MODIFIED: Kind = Kind(0x4b);
pub(super) const TRANSFER_REQUEST: Kind = Kind(0x4c);
pub(super) const TRANSFER_START: Kind = Kind(0x4d);
pub(super) const TRANSFER_CHUNK: Kind = Kind(0x4e);
pub(super) const TRANSFER_CREDIT: Kind = Kind(0x4f);
pub(super) const TRANSFER_REFUSED: Kind = Kind(0x50);
pub(super) const LOAD_ASK: Kind = Kind(0x51);
pub(super) const LOAD_ANSWER: Kind = Kind(0x52);
pub(super) const LOAD_END: Kind = Kind(0x53);
pub(super) const COMPARE: Kind = Kind(0x60);
pub(super) const DIFFERS: Kind = Kind(0x61);
pub(super) const LIST: Kind = Kind(0x62);
pub(super) const LISTED: Kind = Kind(0x63);
pub(super) const WANT: Kind = Kind(0x64);
pub(super) const ENTRIES: Kind = Kind(0x65);
pub(super) const FETCH: Kind = Kind(0x70);
pub(super) const FETCH_PIECE: Kind = Kind(0x71);
pub(super) const FETCH_REFUSED: Kind = Kind(0x72);
pub(super) const FETCH_STOP: Kind = Kind(0x73);
pub(super) const FETCH_KEEP: Kind = Kind(0x74);
pub(super) const FETCH_KEPT: Kind = Kind(0x75);
pub(super) const PROBE_ASK: Kind = Kind(0x80);
pub(super) const PROBE_HELD: Kind = Kind(0x81);
pub(super) const RELAYED: Kind = Kind(0x90);
pub(super) const WANT_PIECES: Kind = Kind(0x91);
pub(super) const ASK: Kind = Kind(0x92);
pub(super) const STATE: Kind = Kind(0x93);

const _: () = assert!(UPDATES.0 == Kind::FIRST_OF_CACHE.0);

/// Kind and number of a message's frame. The number is that of the request, or the last update covered.
pub(super) const fn of<V>(message: &CacheMessage<V>) -> (Kind, u64) {
    match message {
        CacheMessage::Updates(batch) => (UPDATES, batch.through),
        CacheMessage::Subscribe { .. } => (SUBSCRIBE, 0),
        CacheMessage::Subscribed { .. } => (SUBSCRIBED, 0),
        CacheMessage::Ack { .. } => (ACK, 0),
        CacheMessage::Announce(_) => (ANNOUNCE, 0),
        CacheMessage::Heartbeat { .. } => (HEARTBEAT, 0),
        CacheMessage::Echo { .. } => (ECHO, 0),
        CacheMessage::Leave { .. } => (LEAVE, 0),
        CacheMessage::Find { request, .. } => (FIND, request.0),
        CacheMessage::Found { request, .. } => (FOUND, request.0),
        CacheMessage::Modify { request, .. } => (MODIFY, request.0),
        CacheMessage::Modified { request, .. } => (MODIFIED, request.0),
        CacheMessage::TransferRequest { request, .. } => (TRANSFER_REQUEST, request.0),
        CacheMessage::TransferStart { request, .. } => (TRANSFER_START, request.0),
        CacheMessage::TransferChunk { request, .. } => (TRANSFER_CHUNK, request.0),
        CacheMessage::TransferCredit { request, .. } => (TRANSFER_CREDIT, request.0),
        CacheMessage::Relayed(_) => (RELAYED, 0),
        CacheMessage::Want(_) => (WANT_PIECES, 0),
        CacheMessage::Ask(_) => (ASK, 0),
        CacheMessage::State(_) => (STATE, 0),
        CacheMessage::TransferRefused { request } => (TRANSFER_REFUSED, request.0),
        CacheMessage::Probe { request, message } => {
            let kind = match message {
                Probe::Ask { .. } => PROBE_ASK,
                Probe::Held(_) => PROBE_HELD,
            };
            (kind, request.0)
        }
        CacheMessage::Load { request, message } => {
            let kind = match message {
                LoadMessage::Ask { .. } => LOAD_ASK,
                LoadMessage::Answer(_) => LOAD_ANSWER,
                LoadMessage::End { .. } => LOAD_END,
            };
            (kind, request.0)
        }
        CacheMessage::AntiEntropy { request, message } => {
            let kind = match message {
                AntiEntropy::Compare { .. } => COMPARE,
                AntiEntropy::Differs { .. } => DIFFERS,
                AntiEntropy::List { .. } => LIST,
                AntiEntropy::Listed { .. } => LISTED,
                AntiEntropy::Want { .. } => WANT,
                AntiEntropy::Entries { .. } => ENTRIES,
            };
            (kind, request.0)
        }
        CacheMessage::Fetching { request, message } => {
            let kind = match message {
                Fetching::Ask { .. } => FETCH,
                Fetching::Piece { .. } => FETCH_PIECE,
                Fetching::Refused { .. } => FETCH_REFUSED,
                Fetching::Stop => FETCH_STOP,
                Fetching::Keep { .. } => FETCH_KEEP,
                Fetching::Kept { .. } => FETCH_KEPT,
            };
            (kind, request.0)
        }
    }
}
