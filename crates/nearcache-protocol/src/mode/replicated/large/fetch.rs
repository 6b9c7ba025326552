//! The reader's side of fetching a long value: a holder is asked, pieces arrive, and another is asked to go on where one stopped.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, Known, Merged, NodeId};

use super::wanted::{Ended, State, Wanted};
use crate::fetching::{Fetching, Piece};
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::mode::replicated::peer::Agreed;
use crate::mode::stream::Receives as _;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// How soon a fetch for which nobody could be asked looks again whether a member is back (guess).
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
impl<V: Payload> Replicated<V> {
    /// Begins what there is room for.
    pub(super) fn start_fetches(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        while let Some(key) = self.large.queue.front() {
            let len = self.large.wanted.get(key).map_or(0, Wanted::len);
            let arriving = self.large.arriving_bytes;
            if arriving > 0 && arriving + len > self.config.fetch_bytes_max {
                return;
            }
            if let Some(key) = self.large.queue.pop_front() {
                self.large.arriving_bytes += len;
                self.ask_next(now, &key, out);
            }
        }
    }

    /// Asks the next peer that may hold the value to send what is missing.
    pub(super) fn ask_next(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let has_far = self.far_members().next().is_some();
        let far: Vec<NodeId> = self.far_runners().collect();
        let Some(wanted) = self.large.wanted.get_mut(key) else {
            return;
        };
        let version = wanted.stub.version();
        let may_hold = |id: &NodeId, asked: &[NodeId]| !asked.contains(id);
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let candidates = agreeing
            .map(|(id, _)| *id)
            .filter(|id| may_hold(id, &wanted.without));
        // The origin first; those that did not go on come last, and once more.
        let rank = |id: &NodeId| (wanted.silent.contains(id), *id != version.origin, *id);
        let source = candidates.min_by_key(rank);
        if let State::Arriving { request, .. } = wanted.state {
            self.large.by_request.remove(&request);
        }
        let Some(from) = source else {
            let missing = has_far
                || self
                    .peers
                    .values()
                    .any(|peer| peer.agreement == Agreed::Unknown);
            if missing && !wanted.is_unwanted() {
                let again_at = now + LOOK_AGAIN_AFTER;
                wanted.state = State::Stranded { again_at };
                // Beyond the mesh: neighbours do not hold it, so others are met, the origin first.
                let far = far.into_iter();
                let far = far.filter(|id| may_hold(id, &wanted.without));
                let next = far.min_by_key(|id| (*id != version.origin, *id));
                if let Some(next) = next {
                    self.needs(next, out);
                }
            } else {
                wanted.state = State::Stranded { again_at: now };
                self.stats.fetches_unheld += 1;
                self.end_fetch(now, key, Ended::Nowhere, out);
            }
            return;
        };
        if wanted.silent.contains(&from) {
            wanted.silent.clear();
        }
        self.last_request += 1;
        let request = RequestId(self.last_request);
        wanted.state = State::Arriving {
            request,
            from,
            moved: now,
        };
        let from_byte = u32::try_from(wanted.bytes.len()).unwrap_or(u32::MAX);
        self.large.by_request.insert(request, key.clone());
        let message = Fetching::Ask {
            key: key.clone(),
            version,
            from_byte,
        };
        out.push(Output::Send {
            to: from,
            message: CacheMessage::Fetching { request, message },
        });
    }

    /// The key that a peer was asked for by this request.
    fn fetched_key(&self, from: NodeId, request: RequestId) -> Option<Bytes> {
        let key = self.large.by_request.get(&request)?;
        let wanted = self.large.wanted.get(key)?;
        let is_asked = matches!(
            wanted.state,
            State::Arriving { request: asked, from: source, .. }
                if asked == request && source == from
        );
        is_asked.then(|| key.clone())
    }

    pub(super) fn on_piece(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        (at, piece): (u32, Piece<V>),
        out: &mut Vec<Output<V>>,
    ) {
        let Some(key) = self.fetched_key(from, request) else {
            return;
        };
        let any_order = self.planted.takes_pieces_in_any_order();
        let Some(wanted) = self.large.wanted.get_mut(&key) else {
            return;
        };
        let (bytes, held) = (piece.bytes(), wanted.bytes.len());
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at < held && !any_order {
            return;
        }
        self.stats.fetched_bytes += bytes.len() as u64;
        if at > held && !any_order {
            // A piece was lost: from where it is missing, once more.
            self.stop_fetch(from, request, out);
            self.stats.fetches_moved += 1;
            self.ask_next(now, &key, out);
            return;
        }
        if bytes.is_empty() || bytes.len() > wanted.len() - held {
            // That is not the value that the stub is of.
            wanted.without.push(from);
            wanted.bytes = Vec::new();
            self.stop_fetch(from, request, out);
            self.ask_next(now, &key, out);
            return;
        }
        wanted.extend(bytes);
        if wanted.bytes.len() == wanted.len() {
            self.complete(now, &key, out);
        } else if let State::Arriving { moved, .. } = &mut wanted.state {
            *moved = now;
        }
    }

    /// The value is whole.
    fn complete(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let planted = self.planted.takes_late_values_for_newer();
        let held = self.store.known(key);
        let Some(wanted) = self.large.wanted.get_mut(key) else {
            return;
        };
        let stub = match held {
            Known::Live(newer) if planted && newer.is_stub() => newer,
            _ => wanted.stub.clone(),
        };
        let bytes = std::mem::take(&mut wanted.bytes);
        let change = Change::Put {
            value: V::from_assembled(stub.value().codec(), bytes),
            expiry: stub.expiry(),
            tags: stub.tags().clone(),
        };
        // Whatever has come meanwhile, the store decides by version.
        let merged = self.store.merge(key, stub.version(), change);
        let here = matches!(merged, Ok(Merged::Applied { entry: Some(_), .. }));
        self.stats.fetched += u64::from(here);
        let ended = if here { Ended::Here } else { Ended::Nowhere };
        self.end_fetch(now, key, ended, out);
    }

    /// The peer does not hold it, and may know something newer.
    pub(super) fn on_fetch_refused(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        known: Option<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(key) = self.fetched_key(from, request) else {
            return;
        };
        if let Some(wanted) = self.large.wanted.get_mut(&key) {
            wanted.without.push(from);
        }
        // C6: only what it says of this key.
        let known = known.filter(|known| known.key() == Some(&key));
        self.apply_all(now, from, known.into_iter().collect(), out);
        if self.fetched_key(from, request).is_some() {
            self.stats.fetches_moved += 1;
            self.ask_next(now, &key, out);
        }
    }

    pub(super) fn stop_fetch(&self, to: NodeId, request: RequestId, out: &mut Vec<Output<V>>) {
        let message = CacheMessage::Fetching {
            request,
            message: Fetching::Stop,
        };
        out.push(Output::Send { to, message });
    }
}
