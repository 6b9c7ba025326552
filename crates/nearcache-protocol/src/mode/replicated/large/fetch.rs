//! The reader's side of fetching a long value: pieces arrive, until it is whole.

use bytes::Bytes;
use nearcache_store::{Change, Known, Merged, NodeId};

use super::wanted::Ended;
use crate::fetching::Piece;
use crate::ids::RequestId;
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::mode::stream::Receives as _;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

impl<V: Payload> Replicated<V> {
    /// The key that a peer was asked for by this request.
    fn fetched_key(&self, from: NodeId, request: RequestId) -> Option<Bytes> {
        let key = self.large.by_request.get(&request)?;
        let wanted = self.large.wanted.get(key)?;
        let is_asked = wanted.request == request && wanted.asked.contains(&from);
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
        self.large.sources.hear(now, from);
        if !self.wake(now, &key) {
            // Others have the room by now: it is asked for again when there is some.
            self.withdraw(now, &key, out);
            self.place(now, &key, out);
            self.start_fetches(now, out);
            return;
        }
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
            self.withdraw(now, &key, out);
            self.stats.fetches_moved += 1;
            self.ask_first(now, &key, from, out);
            return;
        }
        if bytes.is_empty() || bytes.len() > wanted.len() - held {
            // That is not the value that the stub is of.
            wanted.without.push(from);
            wanted.bytes = Vec::new();
            self.withdraw(now, &key, out);
            self.place(now, &key, out);
            self.start_fetches(now, out);
            return;
        }
        wanted.extend(bytes);
        if wanted.asked.len() > 1 {
            self.keep_source(&key, from, out);
        }
        let Some(wanted) = self.large.wanted.get(&key) else {
            return;
        };
        if wanted.bytes.len() == wanted.len() {
            self.complete(now, &key, out);
        }
    }

    /// The value comes from one of those that were asked: the others need not send it.
    fn keep_source(&mut self, key: &Bytes, from: NodeId, out: &mut Vec<Output<V>>) {
        let others = self.large.change(key, |wanted| {
            let asked = std::mem::take(&mut wanted.asked);
            wanted.asked.push(from);
            (wanted.request, asked)
        });
        if let Some((request, asked)) = others {
            for other in asked.into_iter().filter(|other| *other != from) {
                self.stop_fetch(other, request, out);
            }
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
        self.large.sources.hear(now, from);
        self.large.change(&key, |wanted| {
            wanted.without.push(from);
            wanted.asked.retain(|asked| *asked != from);
        });
        // C6: only what it says of this key.
        let known = known.filter(|known| known.key() == Some(&key));
        self.apply_all(now, from, known.into_iter().collect(), out);
        self.unless_asked(now, &key, request, out);
        self.look_on(now, &key, request, out);
        self.start_fetches(now, out);
    }
}
