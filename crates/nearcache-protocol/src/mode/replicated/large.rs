//! Long values: only key, version and length travel with the update; the value is fetched when somebody reads it.
//!
//! ```text
//! read of a stub ─▶ Wanted ─ room? ─▶ Ask the origin ─▶ pieces ─▶ merge in the stub's version ─▶ all who wait are told
//!                     ▲                   │ refused, silent, gone
//!                     │                   └▶ ask another peer to go on from here; none left: a miss
//!                     └── a newer stub came: what has arrived is dropped, who waits waits for the newer
//! ```
//!
//! However many wait for a key, its value is fetched once. A caller's deadline ends its wait and not the fetch, so that a value
//! which takes longer than anybody waits does arrive; when the last caller gives up on its own, the fetch is stopped. A miss is
//! told only when every live member has said that it does not hold the value.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, Handle, Known, Merged, NodeId};
use smallvec::SmallVec;

use super::home::WorkId;
use super::peer::Agreed;
use super::{Replicated, bequeath};
use crate::fetching::{Fetching, Piece};
use crate::ids::{RequestId, WaiterId};
use crate::message::CacheMessage;
use crate::mode::stream::{Receives as _, Sends as _};
use crate::mode::{Ack, Outcome, Output, Published, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// How soon a fetch for which nobody could be asked looks again whether a member is back (guess).
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The room that a value gets at first, bytes; it doubles with what has come, and never goes by what was announced.
const ROOM_MIN: usize = 1 << 20;

/// Values that somebody here waits for.
#[derive(Debug)]
pub(super) struct Large<V> {
    wanted: BTreeMap<Bytes, Wanted<V>>,
    by_request: BTreeMap<RequestId, Bytes>,
    /// Those that wait for room, first come first served.
    queue: VecDeque<Bytes>,
    /// Lengths of the values that are arriving.
    arriving_bytes: usize,
    /// Callers that wait, of all keys.
    callers: usize,
    /// Keys of updates that have just been applied.
    touched: SmallVec<[Bytes; 2]>,
    touched_all: bool,
    /// Requests whose last caller has gone.
    stops: Vec<(NodeId, RequestId)>,
}

#[derive(Debug)]
struct Wanted<V> {
    stub: Handle<V>,
    readers: Vec<Waiter>,
    works: Vec<(WorkId, Time)>,
    /// Holders that leave, to be told when it is here.
    keeps: Vec<(NodeId, RequestId)>,
    state: State,
    /// What has arrived.
    bytes: Vec<u8>,
    /// Who does not hold it.
    without: SmallVec<[NodeId; 4]>,
    /// Who was asked and did not go on.
    silent: SmallVec<[NodeId; 4]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the queue.
    Queued,
    /// On its way.
    Arriving {
        request: RequestId,
        from: NodeId,
        moved: Time,
    },
    /// Nobody can be asked just now.
    Stranded { again_at: Time },
}

/// How the wait for a value ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// It is here.
    Here,
    /// The key holds something else now, or nobody has the value.
    Nowhere,
    /// Not in time.
    Late,
}

impl<V> Default for Large<V> {
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            by_request: BTreeMap::new(),
            queue: VecDeque::new(),
            arriving_bytes: 0,
            callers: 0,
            touched: SmallVec::new(),
            touched_all: false,
            stops: Vec::new(),
        }
    }
}

impl<V: Payload> Large<V> {
    /// An update is about to be applied.
    pub(super) fn touched(&mut self, update: &Update<V>) {
        match update.key() {
            _ if self.wanted.is_empty() => {}
            Some(key) => {
                if let Some((key, _)) = self.wanted.get_key_value(key) {
                    self.touched.push(key.clone());
                }
            }
            None => self.touched_all = true,
        }
    }

    /// Something was written on this node.
    pub(super) fn published(&mut self, published: &Published<V>) {
        let key = match published {
            _ if self.wanted.is_empty() => return,
            Published::Entry(entry) | Published::Fill(entry) => entry.key(),
            Published::Removal { key, .. } => key,
            Published::Floor { .. } => {
                self.touched_all = true;
                return;
            }
        };
        if let Some((key, _)) = self.wanted.get_key_value(key) {
            self.touched.push(key.clone());
        }
    }

    /// A caller has gone. Returns whether it was one of these.
    pub(super) fn forget(&mut self, waiter: WaiterId) -> bool {
        let waits = |wanted: &Wanted<V>| wanted.readers.iter().any(|reader| reader.id == waiter);
        let Some((key, wanted)) = self.wanted.iter_mut().find(|(_, wanted)| waits(wanted)) else {
            return false;
        };
        let key = key.clone();
        wanted.readers.retain(|reader| reader.id != waiter);
        self.callers -= 1;
        if wanted.is_unwanted()
            && let Some(Wanted {
                state: State::Arriving { request, from, .. },
                ..
            }) = self.take(&key)
        {
            self.stops.push((from, request));
        }
        true
    }

    /// Values that are fetched because their holder leaves.
    pub(super) fn kept(&self) -> usize {
        self.wanted.values().map(|wanted| wanted.keeps.len()).sum()
    }

    /// Takes a wish off all lists.
    fn take(&mut self, key: &Bytes) -> Option<Wanted<V>> {
        let wanted = self.wanted.remove(key)?;
        self.callers -= wanted.readers.len() + wanted.works.len() + wanted.keeps.len();
        match wanted.state {
            State::Queued => self.queue.retain(|queued| queued != key),
            State::Arriving { request, .. } => {
                self.by_request.remove(&request);
                self.arriving_bytes -= wanted.len();
            }
            State::Stranded { .. } => self.arriving_bytes -= wanted.len(),
        }
        Some(wanted)
    }

    pub(super) fn next_tick(&self, patience: Duration) -> Time {
        let may_start = self.arriving_bytes == 0 && !self.queue.is_empty();
        if may_start || !self.stops.is_empty() {
            return Time::ZERO;
        }
        let due = self.wanted.values().map(|wanted| {
            let moves = match wanted.state {
                State::Queued => Time::MAX,
                State::Arriving { moved, .. } => moved + patience,
                State::Stranded { again_at } => again_at,
            };
            wanted.deadline().min(moves)
        });
        due.min().unwrap_or(Time::MAX)
    }
}

impl<V: Payload> Wanted<V> {
    fn len(&self) -> usize {
        crate::update::value_len(&self.stub)
    }

    /// When the first of those who wait gives up.
    fn deadline(&self) -> Time {
        let readers = self.readers.iter().map(|reader| reader.deadline);
        let works = self.works.iter().map(|(_, deadline)| *deadline);
        readers.chain(works).min().unwrap_or(Time::MAX)
    }

    fn is_unwanted(&self) -> bool {
        self.readers.is_empty() && self.works.is_empty() && self.keeps.is_empty()
    }

    /// Takes in what has come, with room for at most as much again.
    fn extend(&mut self, bytes: &[u8]) {
        let (held, left) = (self.bytes.len(), self.len() - self.bytes.len());
        if self.bytes.capacity() - held < bytes.len() {
            let room = held.max(ROOM_MIN).max(bytes.len()).min(left);
            self.bytes.reserve_exact(room);
        }
        self.bytes.extend_from_slice(bytes);
    }
}

impl<V: Payload> Replicated<V> {
    /// Of an entry with a long value, what the log keeps and peers are told: the stub.
    fn stubbed(&self, published: Published<V>) -> Published<V> {
        let is_long = |entry: &Handle<V>| {
            !entry.is_stub() && entry.value().bytes().len() > self.config.inline_limit
        };
        match published {
            Published::Entry(entry) | Published::Fill(entry) if is_long(&entry) => {
                let value_bytes = u32::try_from(entry.value().bytes().len()).unwrap_or(u32::MAX);
                let placeholder = V::from_wire(entry.value().codec(), &[]);
                let (expiry, tags) = (entry.expiry(), entry.tags().clone());
                Published::Entry(Handle::stub(
                    entry.key(),
                    entry.version(),
                    expiry,
                    tags,
                    placeholder,
                    value_bytes,
                ))
            }
            other => other,
        }
    }

    /// Tells the peers of a local write.
    pub(super) fn append_stubbed(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        if self.leave.has_begun()
            && let Published::Entry(entry) = &published
        {
            // What is decided here last is handed over too.
            self.will(entry);
        }
        let published = self.stubbed(published);
        self.large.published(&published);
        let number = self.append(now, published, ack, waiter, out);
        self.settle_touched(now, out);
        number
    }

    /// A read has found a stub.
    pub(super) fn fetch_for_read(
        &mut self,
        now: Time,
        key: Bytes,
        stub: Handle<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if self.large.callers >= self.config.waiters_max {
            out.push(found(waiter.id, false));
            return;
        }
        let wanted = self.want(&key, stub);
        wanted.readers.push(waiter);
        self.start_fetches(now, out);
    }

    /// A modify of which this node is the home needs the value of a stub. It is told by `fetched_for_home`.
    pub(super) fn fetch_for_home(
        &mut self,
        now: Time,
        key: Bytes,
        stub: Handle<V>,
        (work, deadline): (WorkId, Time),
        out: &mut Vec<Output<V>>,
    ) {
        let wanted = self.want(&key, stub);
        wanted.works.push((work, deadline));
        self.start_fetches(now, out);
    }

    /// A holder of the value leaves, and nobody else has it.
    pub(super) fn fetch_to_keep(
        &mut self,
        now: Time,
        keep: (NodeId, RequestId),
        (key, stub): (Bytes, Handle<V>),
        out: &mut Vec<Output<V>>,
    ) {
        let wanted = self.want(&key, stub);
        wanted.keeps.push(keep);
        self.start_fetches(now, out);
    }

    fn want(&mut self, key: &Bytes, stub: Handle<V>) -> &mut Wanted<V> {
        let Large {
            wanted,
            queue,
            callers,
            ..
        } = &mut self.large;
        *callers += 1;
        wanted.entry(key.clone()).or_insert_with(|| {
            queue.push_back(key.clone());
            Wanted {
                stub,
                readers: Vec::new(),
                works: Vec::new(),
                keeps: Vec::new(),
                state: State::Queued,
                bytes: Vec::new(),
                without: SmallVec::new(),
                silent: SmallVec::new(),
            }
        })
    }

    /// Begins what there is room for.
    fn start_fetches(&mut self, now: Time, out: &mut Vec<Output<V>>) {
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
    fn ask_next(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
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

    pub(super) fn on_fetching(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        message: Fetching<V>,
        out: &mut Vec<Output<V>>,
    ) {
        self.needs(from, out);
        match message {
            Fetching::Ask {
                key,
                version,
                from_byte,
            } => self.on_fetch(from, request, (key, version, from_byte), out),
            Fetching::Piece { at, bytes } => self.on_piece(now, from, request, (at, bytes), out),
            Fetching::Refused { known } => self.on_fetch_refused(now, from, request, known, out),
            Fetching::Stop => self.on_fetch_stop(from, request),
            Fetching::Keep {
                key,
                version,
                fetch,
            } => self.on_keep(now, from, request, (key, version, fetch), out),
            Fetching::Kept { held } => self.on_kept(now, from, (request, held), out),
        }
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

    fn on_piece(
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
    fn on_fetch_refused(
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

    fn stop_fetch(&self, to: NodeId, request: RequestId, out: &mut Vec<Output<V>>) {
        let message = CacheMessage::Fetching {
            request,
            message: Fetching::Stop,
        };
        out.push(Output::Send { to, message });
    }

    /// Tells all who wait for the key, and goes on with the next.
    fn end_fetch(&mut self, now: Time, key: &Bytes, ended: Ended, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.take(key) else {
            return;
        };
        for reader in wanted.readers {
            out.push(found(reader.id, ended == Ended::Here));
        }
        for (work, _) in wanted.works {
            self.fetched_for_home(now, work, ended, out);
        }
        let held = ended == Ended::Here || self.is_superseded(key, &wanted.stub);
        for (to, request) in wanted.keeps {
            out.push(bequeath::send(to, request, Fetching::Kept { held }));
        }
        self.start_fetches(now, out);
    }

    /// Whether something newer is known of the key than this stub, so that nobody needs its value.
    fn is_superseded(&self, key: &Bytes, stub: &Handle<V>) -> bool {
        match self.store.known(key) {
            Known::Live(entry) => entry.version() > stub.version(),
            Known::Removed(version) => version > stub.version(),
            Known::Absent { .. } => false,
        }
    }

    /// Updates were applied, or something was written here: what is fetched may be superseded.
    pub(super) fn settle_touched(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if std::mem::take(&mut self.large.touched_all) {
            self.large.touched = self.large.wanted.keys().cloned().collect();
        }
        for key in std::mem::take(&mut self.large.touched) {
            self.settle(now, &key, out);
        }
    }

    /// The key has changed here: those who wait for an older value get the newer one, or wait for it.
    fn settle(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get(key) else {
            return;
        };
        let version = wanted.stub.version();
        let newer = match self.store.known(key) {
            Known::Live(entry) if !entry.is_stub() => Err(Ended::Here),
            Known::Live(stub) if stub.version() > version => Ok(stub),
            // The stub itself, or it was evicted, which is no reason not to bring the value.
            Known::Live(_) => return,
            Known::Absent { floor, .. } if floor <= version => return,
            Known::Removed(_) | Known::Absent { .. } => Err(Ended::Nowhere),
        };
        if newer.is_ok() && self.planted.takes_late_values_for_newer() {
            return;
        }
        if let State::Arriving { request, from, .. } = wanted.state {
            self.stop_fetch(from, request, out);
        }
        match newer {
            Err(ended) => self.end_fetch(now, key, ended, out),
            Ok(stub) => {
                let Some(former) = self.large.take(key) else {
                    return;
                };
                self.large.callers += former.readers.len() + former.works.len();
                for (to, request) in former.keeps {
                    out.push(bequeath::send(to, request, Fetching::Kept { held: true }));
                }
                let wanted = Wanted {
                    stub,
                    readers: former.readers,
                    works: former.works,
                    keeps: Vec::new(),
                    state: State::Queued,
                    bytes: Vec::new(),
                    without: SmallVec::new(),
                    silent: SmallVec::new(),
                };
                self.large.wanted.insert(key.clone(), wanted);
                self.large.queue.push_back(key.clone());
                self.start_fetches(now, out);
            }
        }
    }

    pub(super) fn fetches_peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.pieces.peer_down(peer);
        let asked = |wanted: &Wanted<V>| matches!(wanted.state, State::Arriving { from, .. } if from == peer);
        let cut = self.large.wanted.iter().filter(|(_, wanted)| asked(wanted));
        let cut: Vec<Bytes> = cut.map(|(key, _)| key.clone()).collect();
        for wanted in self.large.wanted.values_mut() {
            // Started again it may hold what it did not.
            wanted.without.retain(|id| *id != peer);
            let keeps = wanted.keeps.len();
            wanted.keeps.retain(|(holder, _)| *holder != peer);
            self.large.callers -= keeps - wanted.keeps.len();
        }
        self.bequest_peer_down(now, peer, out);
        for key in cut {
            self.stats.fetches_moved += 1;
            self.ask_next(now, &key, out);
        }
    }

    /// Tells those whose time is over, and moves fetches that stand still.
    pub(super) fn tick_wanted(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        for (from, request) in std::mem::take(&mut self.large.stops) {
            self.stop_fetch(from, request, out);
        }
        self.start_fetches(now, out);
        let patience = self.config.replay_retry_after;
        if self.large.next_tick(patience) > now {
            return;
        }
        let keys: Vec<Bytes> = self.large.wanted.keys().cloned().collect();
        for key in keys {
            self.tell_late(now, &key, out);
            let Some(wanted) = self.large.wanted.get_mut(&key) else {
                continue;
            };
            match wanted.state {
                // Nobody waits, and nothing has come yet.
                State::Queued | State::Stranded { .. } if wanted.is_unwanted() => {
                    self.end_fetch(now, &key, Ended::Late, out);
                }
                State::Arriving {
                    request,
                    from,
                    moved,
                } if moved + patience <= now => {
                    let gives_up = wanted.is_unwanted() && wanted.silent.contains(&from);
                    wanted.silent.push(from);
                    self.stats.fetches_moved += 1;
                    self.stop_fetch(from, request, out);
                    if gives_up {
                        self.end_fetch(now, &key, Ended::Late, out);
                    } else {
                        self.ask_next(now, &key, out);
                    }
                }
                State::Stranded { again_at } if again_at <= now => self.ask_next(now, &key, out),
                State::Queued | State::Arriving { .. } | State::Stranded { .. } => {}
            }
        }
    }

    fn tell_late(&mut self, now: Time, key: &Bytes, out: &mut Vec<Output<V>>) {
        let Some(wanted) = self.large.wanted.get_mut(key) else {
            return;
        };
        let late: Vec<_> = wanted
            .readers
            .extract_if(.., |reader| reader.deadline <= now)
            .collect();
        let works: Vec<_> = wanted
            .works
            .extract_if(.., |(_, deadline)| *deadline <= now)
            .collect();
        self.large.callers -= late.len() + works.len();
        for reader in late {
            out.push(found(reader.id, false));
        }
        for (work, _) in works {
            self.fetched_for_home(now, work, Ended::Late, out);
        }
    }
}

const fn found<V>(waiter: WaiterId, found: bool) -> Output<V> {
    Output::Done {
        waiter,
        result: Outcome::Found(found),
    }
}

#[cfg(test)]
#[path = "large_test.rs"]
mod tests;
