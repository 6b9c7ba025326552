//! The book of long values that somebody here waits for: who waits for what, what has arrived, and who holds it not.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId};
use smallvec::SmallVec;

use super::sources::Sources;
use crate::ids::{RequestId, WaiterId};
use crate::mode::replicated::home::WorkId;
use crate::mode::{Published, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// The room that a value gets at first, bytes; it doubles with what has come, and never goes by what was announced.
const ROOM_MIN: usize = 1 << 20;

/// Values that somebody here waits for.
#[derive(Debug)]
pub(in crate::mode::replicated) struct Large<V> {
    pub(super) wanted: BTreeMap<Bytes, Wanted<V>>,
    pub(super) by_request: BTreeMap<RequestId, Bytes>,
    /// Who is asked for them, those that wait for their turn, and the room that they take.
    pub(super) sources: Sources,
    /// Callers that wait, of all keys.
    pub(super) callers: usize,
    /// Keys of updates that have just been applied.
    pub(super) touched: SmallVec<[Bytes; 2]>,
    pub(super) touched_all: bool,
    /// Requests whose last caller has gone.
    pub(super) stops: Vec<(NodeId, RequestId)>,
    /// Room was given back since fetches were last begun.
    pub(super) freed: bool,
}

#[derive(Debug)]
pub(super) struct Wanted<V> {
    pub(super) stub: Handle<V>,
    pub(super) readers: Vec<Waiter>,
    pub(super) works: Vec<(WorkId, Time)>,
    /// Holders that leave, to be told when it is here.
    pub(super) keeps: Vec<(NodeId, RequestId)>,
    pub(super) state: State,
    /// Under which number it is asked for.
    pub(super) request: RequestId,
    /// Who is asked for it under that number; the first is the one that it takes room from.
    pub(super) asked: SmallVec<[NodeId; 2]>,
    /// What has arrived.
    pub(super) bytes: Vec<u8>,
    /// Who does not hold it.
    pub(super) without: SmallVec<[NodeId; 4]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Waits for its turn with a source.
    Queued { at: NodeId },
    /// On its way: room is kept for all of it.
    Arriving {
        /// When anything of it last came, or it was asked for.
        moved: Time,
        look_at: Time,
    },
    /// Asked for, and nothing comes: it takes no more room than what has come.
    Silent { moved: Time, look_at: Time },
    /// Nobody can be asked just now.
    Stranded { again_at: Time },
}

/// How the wait for a value ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mode::replicated) enum Ended {
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
            sources: Sources::default(),
            callers: 0,
            touched: SmallVec::new(),
            touched_all: false,
            stops: Vec::new(),
            freed: false,
        }
    }
}

impl<V: Payload> Large<V> {
    /// An update is about to be applied.
    pub(in crate::mode::replicated) fn touched(&mut self, update: &Update<V>) {
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
    pub(in crate::mode::replicated) fn published(&mut self, published: &Published<V>) {
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
    pub(in crate::mode::replicated) fn forget(&mut self, waiter: WaiterId) -> bool {
        let waits = |wanted: &Wanted<V>| wanted.readers.iter().any(|reader| reader.id == waiter);
        let Some((key, wanted)) = self.wanted.iter_mut().find(|(_, wanted)| waits(wanted)) else {
            return false;
        };
        let key = key.clone();
        wanted.readers.retain(|reader| reader.id != waiter);
        self.callers -= 1;
        if wanted.is_unwanted()
            && let Some(wanted) = self.take(&key)
        {
            let request = wanted.request;
            let stops = wanted.asked.iter().map(|from| (*from, request));
            self.stops.extend(stops);
        }
        true
    }

    /// Values that are fetched because their holder leaves.
    pub(in crate::mode::replicated) fn kept(&self) -> usize {
        self.wanted.values().map(|wanted| wanted.keeps.len()).sum()
    }

    /// How many are wanted.
    pub(in crate::mode::replicated) fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// Room that they take.
    pub(in crate::mode::replicated) const fn room_bytes(&self) -> usize {
        self.sources.room_bytes()
    }

    /// Takes a wish off all lists.
    pub(super) fn take(&mut self, key: &Bytes) -> Option<Wanted<V>> {
        let wanted = self.wanted.remove(key)?;
        self.callers -= wanted.readers.len() + wanted.works.len() + wanted.keeps.len();
        self.sources.strike(&wanted);
        self.by_request.remove(&wanted.request);
        if let State::Queued { at } = wanted.state {
            self.sources.unqueue(at, key);
        }
        self.freed = true;
        Some(wanted)
    }

    /// Changes how a wanted value stands, and counts it anew.
    pub(super) fn change<R>(
        &mut self,
        key: &Bytes,
        change: impl FnOnce(&mut Wanted<V>) -> R,
    ) -> Option<R> {
        let wanted = self.wanted.get_mut(key)?;
        self.sources.strike(wanted);
        let result = change(wanted);
        self.sources.enter(wanted);
        Some(result)
    }

    /// It is asked of nobody any more: who was, and under which number. What has come stays.
    pub(super) fn close(
        &mut self,
        now: Time,
        key: &Bytes,
    ) -> Option<(RequestId, SmallVec<[NodeId; 2]>)> {
        let (request, asked) = self.change(key, |wanted| {
            wanted.state = State::Stranded { again_at: now };
            (wanted.request, std::mem::take(&mut wanted.asked))
        })?;
        self.by_request.remove(&request);
        self.freed = true;
        Some((request, asked))
    }

    /// Whether there is room for all of the value. What has come of others that stand still is given up for it.
    pub(super) fn make_room(&mut self, key: &Bytes, room_max: usize) -> bool {
        let Some(wanted) = self.wanted.get(key) else {
            return false;
        };
        let (own, lacking) = (wanted.bytes.len(), wanted.len() - wanted.bytes.len());
        if self.sources.has_room(own, lacking, room_max) {
            return true;
        }
        if self.sources.partial_bytes() > own {
            let others = self.wanted.iter_mut().filter(|(other, _)| *other != key);
            for (_, other) in others.filter(|(_, other)| other.partial() > 0) {
                self.sources.strike(other);
                other.bytes = Vec::new();
                self.sources.enter(other);
            }
        }
        self.sources.has_room(own, lacking, room_max)
    }

    pub(in crate::mode::replicated) fn next_tick(&self) -> Time {
        if self.freed || !self.stops.is_empty() {
            return Time::ZERO;
        }
        let due = self.wanted.values().map(|wanted| {
            let moves = match wanted.state {
                State::Queued { .. } => Time::MAX,
                State::Arriving { look_at, .. } | State::Silent { look_at, .. } => look_at,
                State::Stranded { again_at } => again_at,
            };
            wanted.deadline().min(moves)
        });
        due.min().unwrap_or(Time::MAX)
    }
}

impl<V: Payload> Wanted<V> {
    pub(super) fn new(stub: Handle<V>, readers: Vec<Waiter>, works: Vec<(WorkId, Time)>) -> Self {
        Self {
            stub,
            readers,
            works,
            keeps: Vec::new(),
            state: State::Stranded {
                again_at: Time::ZERO,
            },
            request: RequestId(0),
            asked: SmallVec::new(),
            bytes: Vec::new(),
            without: SmallVec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        crate::update::value_len(&self.stub)
    }

    /// Room that it takes.
    pub(super) fn room(&self) -> usize {
        match self.state {
            State::Arriving { .. } => self.len(),
            State::Queued { .. } | State::Silent { .. } | State::Stranded { .. } => {
                self.bytes.len()
            }
        }
    }

    /// What has come of it, unless it is arriving.
    pub(super) fn partial(&self) -> usize {
        match self.state {
            State::Arriving { .. } => 0,
            State::Queued { .. } | State::Silent { .. } | State::Stranded { .. } => {
                self.bytes.len()
            }
        }
    }

    /// When the first of those who wait gives up.
    fn deadline(&self) -> Time {
        let readers = self.readers.iter().map(|reader| reader.deadline);
        let works = self.works.iter().map(|(_, deadline)| *deadline);
        readers.chain(works).min().unwrap_or(Time::MAX)
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.readers.is_empty() && self.works.is_empty() && self.keeps.is_empty()
    }

    /// Takes in what has come, with room for at most as much again.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let (held, left) = (self.bytes.len(), self.len() - self.bytes.len());
        if self.bytes.capacity() - held < bytes.len() {
            let room = held.max(ROOM_MIN).max(bytes.len()).min(left);
            self.bytes.reserve_exact(room);
        }
        self.bytes.extend_from_slice(bytes);
    }
}
