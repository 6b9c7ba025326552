//! The book of long values that somebody here waits for: who waits for what, what has arrived, and who holds it not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId};
use smallvec::SmallVec;

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
    /// Those that wait for room, first come first served.
    pub(super) queue: VecDeque<Bytes>,
    /// Lengths of the values that are arriving.
    pub(super) arriving_bytes: usize,
    /// Callers that wait, of all keys.
    pub(super) callers: usize,
    /// Keys of updates that have just been applied.
    pub(super) touched: SmallVec<[Bytes; 2]>,
    pub(super) touched_all: bool,
    /// Requests whose last caller has gone.
    pub(super) stops: Vec<(NodeId, RequestId)>,
}

#[derive(Debug)]
pub(super) struct Wanted<V> {
    pub(super) stub: Handle<V>,
    pub(super) readers: Vec<Waiter>,
    pub(super) works: Vec<(WorkId, Time)>,
    /// Holders that leave, to be told when it is here.
    pub(super) keeps: Vec<(NodeId, RequestId)>,
    pub(super) state: State,
    /// What has arrived.
    pub(super) bytes: Vec<u8>,
    /// Who does not hold it.
    pub(super) without: SmallVec<[NodeId; 4]>,
    /// Who was asked and did not go on.
    pub(super) silent: SmallVec<[NodeId; 4]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
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
    pub(in crate::mode::replicated) fn kept(&self) -> usize {
        self.wanted.values().map(|wanted| wanted.keeps.len()).sum()
    }

    /// Takes a wish off all lists.
    pub(super) fn take(&mut self, key: &Bytes) -> Option<Wanted<V>> {
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

    pub(in crate::mode::replicated) fn next_tick(&self, patience: Duration) -> Time {
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
    pub(super) fn len(&self) -> usize {
        crate::update::value_len(&self.stub)
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
