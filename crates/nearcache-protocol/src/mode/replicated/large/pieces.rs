//! The holder's side of fetching long values: pieces are cut when the connection has room.
//!
//! Nothing is put together and nothing is held for a peer but key, version and place: each piece looks its value up again, and one
//! that has gone or was superseded meanwhile is refused with what is known instead. Requests of one peer take turns, and all pieces of
//! this node together keep to `fetch_bytes_per_second`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nearcache_store::{Handle, Known, NodeId, Version};

use crate::fetching::{Fetching, Piece};
use crate::ids::RequestId;
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::mode::replicated::pace::Pace;
use crate::mode::replicated::peer::Agreed;
use crate::payload::Payload;
use crate::time::Time;

/// Fetches that one peer may have under way here; more are not answered. An honest peer has at most
/// [`FETCHES_MAX`](super::sources::FETCHES_MAX), so that there is room for as many whose end it has not heard of.
const SERVED_MAX: usize = 256;

/// Values that peers get from us.
#[derive(Debug)]
pub(in crate::mode::replicated) struct Pieces {
    by_peer: BTreeMap<NodeId, VecDeque<Serve>>,
    pace: Pace,
    /// Whose turn it is on a bulk lane: that of pieces, or of all else.
    turn: bool,
}

/// One fetch of a peer.
#[derive(Debug)]
struct Serve {
    request: RequestId,
    key: Bytes,
    version: Version,
    /// The next byte to be sent.
    at: usize,
}

impl Pieces {
    pub(in crate::mode::replicated) const fn new(bytes_per_second: u64) -> Self {
        Self {
            by_peer: BTreeMap::new(),
            pace: Pace::new(bytes_per_second),
            turn: false,
        }
    }

    pub(in crate::mode::replicated) fn peer_down(&mut self, peer: NodeId) {
        self.by_peer.remove(&peer);
        self.pace.forget(peer);
    }

    pub(in crate::mode::replicated) fn next_tick(&self) -> Time {
        self.pace.next_deadline()
    }

    pub(in crate::mode::replicated) fn is_paced(&self, now: Time) -> bool {
        self.pace.is_in_use(now)
    }
}

impl<V: Payload> Replicated<V> {
    /// A peer asks for a value.
    pub(in crate::mode::replicated) fn on_fetch(
        &mut self,
        from: NodeId,
        request: RequestId,
        (key, version, from_byte): (Bytes, Version, u32),
        out: &mut Vec<Output<V>>,
    ) {
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        let agreement = peer.agreement;
        let serves = self.pieces.by_peer.entry(from).or_default();
        // "Not now" must not be taken for "not here", which makes a miss.
        if serves.len() >= SERVED_MAX || serves.iter().any(|serve| serve.request == request) {
            return;
        }
        // A peer that was just met may have to start clean before it tells what it holds: the question waits for the announcement,
        // which travels on another lane.
        let refusal = match agreement {
            Agreed::Unknown => None,
            Agreed::Yes if self.holder_of(&key, version).is_some() => None,
            Agreed::Yes => Some(self.newer_than(from, key.clone(), version)),
            Agreed::No(_) => Some(None),
        };
        if let Some(known) = refusal {
            self.refuse_fetch(from, request, known, out);
            return;
        }
        let at = usize::try_from(from_byte).unwrap_or(usize::MAX);
        let serves = self.pieces.by_peer.entry(from).or_default();
        serves.push_back(Serve {
            request,
            key,
            version,
            at,
        });
        self.wake_pieces(from, out);
    }

    /// A peer that was just met has announced the cache: what it asked for before is served now.
    pub(in crate::mode::replicated) fn wake_pieces(
        &mut self,
        peer: NodeId,
        out: &mut Vec<Output<V>>,
    ) {
        if self
            .pieces
            .by_peer
            .get(&peer)
            .is_some_and(|serves| !serves.is_empty())
        {
            let lane = Lane::Bulk;
            out.push(Output::Transmit { peer, lane });
        }
    }

    /// The peer no longer wants it.
    pub(in crate::mode::replicated) fn on_fetch_stop(&mut self, from: NodeId, request: RequestId) {
        if let Some(serves) = self.pieces.by_peer.get_mut(&from) {
            serves.retain(|serve| serve.request != request);
        }
    }

    fn refuse_fetch(
        &self,
        to: NodeId,
        request: RequestId,
        known: Option<crate::update::Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let message = Fetching::Refused { known };
        let message = CacheMessage::Fetching { request, message };
        out.push(Output::Send { to, message });
    }

    /// The entry, if its value is here in that very version.
    pub(in crate::mode::replicated) fn holder_of(
        &self,
        key: &[u8],
        version: Version,
    ) -> Option<Handle<V>> {
        match self.store.known(key) {
            Known::Live(entry) if entry.version() == version && !entry.is_stub() => Some(entry),
            Known::Live(_) | Known::Removed(_) | Known::Absent { .. } => None,
        }
    }

    /// What is known of the key, if it is news for somebody who knows `version`.
    fn newer_than(
        &self,
        reader: NodeId,
        key: Bytes,
        version: Version,
    ) -> Option<crate::update::Update<V>> {
        let reader = self.peers.get(&reader)?.reader(&self.config);
        let held = self.held(key).filter(|held| held.version() > version)?;
        Some(held.for_reader(reader))
    }

    /// What goes to `to` next on the bulk lane: pieces take turns with transfers and comparisons.
    pub(in crate::mode::replicated) fn poll_bulk_lane(
        &mut self,
        now: Time,
        to: NodeId,
        budget_bytes: usize,
    ) -> Option<CacheMessage<V>> {
        self.pieces.turn = !self.pieces.turn;
        if self.pieces.turn
            && let Some(message) = self.poll_pieces(now, to)
        {
            return Some(message);
        }
        self.poll_paced(now, to, budget_bytes)
            .or_else(|| self.poll_pieces(now, to))
    }

    fn poll_pieces(&mut self, now: Time, to: NodeId) -> Option<CacheMessage<V>> {
        if !self.peers.get(&to)?.agrees() || self.pieces.by_peer.get(&to)?.is_empty() {
            return None;
        }
        if !self.pieces.pace.lets(now, to) {
            return None;
        }
        let mut serve = self.pieces.by_peer.get_mut(&to)?.pop_front()?;
        let request = serve.request;
        let entry = self.holder_of(&serve.key, serve.version);
        let len = entry
            .as_ref()
            .map_or(0, |entry| entry.value().bytes().len());
        let message = match entry.filter(|_| serve.at < len) {
            Some(entry) => {
                let end = len.min(serve.at + self.config.transfer_chunk_bytes.max(1));
                let range = serve.at..end;
                self.pieces.pace.sent(range.len());
                self.stats.fetch_sent_bytes += range.len() as u64;
                let at = u32::try_from(serve.at).unwrap_or(u32::MAX);
                serve.at = end;
                if end < len
                    && let Some(serves) = self.pieces.by_peer.get_mut(&to)
                {
                    serves.push_back(serve);
                }
                let bytes = Piece::Held { entry, range };
                Fetching::Piece { at, bytes }
            }
            None => Fetching::Refused {
                known: self.newer_than(to, serve.key, serve.version),
            },
        };
        Some(CacheMessage::Fetching { request, message })
    }

    /// Wakes those whose pieces were put off.
    pub(in crate::mode::replicated) fn tick_pieces(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let woken = self.pieces.pace.woken(now).into_iter();
        out.extend(woken.map(|peer| Output::Transmit {
            peer,
            lane: Lane::Bulk,
        }));
    }
}
