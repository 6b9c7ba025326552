//! What a node passes on and may be asked for again: the updates of all streams, in the order in which they came.
//!
//! One ring per cache with one cursor per peer, like the log of the own stream: a slow peer costs no memory of its own. Bounded in updates and
//! bytes; what has left it is found by anti-entropy.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::StreamId;
use crate::message::Batch;
use crate::overlay::Place;
use crate::payload::Payload;
use crate::update::Update;

/// A piece of a stream, and who is to get it from us.
#[derive(Debug)]
pub(super) struct Item<V> {
    pub(super) stream: StreamId,
    pub(super) after: u64,
    pub(super) through: u64,
    updates: Vec<Update<V>>,
    /// We pass it on to those whose distance ahead of us on the ring is less; 0: to nobody.
    pub(super) range: u64,
    bytes: usize,
}

/// The ring.
#[derive(Debug)]
pub(super) struct RelayLog<V> {
    items: VecDeque<Item<V>>,
    /// The position of the first item.
    base: u64,
    bytes: usize,
    bytes_max: usize,
    items_max: usize,
    by_stream: BTreeMap<StreamId, VecDeque<u64>>,
}

impl<V: Payload> RelayLog<V> {
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Self {
        Self {
            items: VecDeque::new(),
            base: 0,
            bytes: 0,
            bytes_max,
            items_max: items_max.max(1),
            by_stream: BTreeMap::new(),
        }
    }

    /// The position after the last item.
    pub(super) fn end(&self) -> u64 {
        self.base + self.items.len() as u64
    }

    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn get(&self, at: u64) -> Option<&Item<V>> {
        let index = usize::try_from(at.checked_sub(self.base)?).ok()?;
        self.items.get(index)
    }

    /// Appends an item; the oldest go if a bound is exceeded.
    pub(super) fn push(&mut self, stream: StreamId, batch: &Batch<V>, range: u64) {
        /// What an item costs beside its updates, about.
        const FIXED: usize = 96;
        let updates: Vec<_> = batch.updates.iter().map(Update::again).collect();
        let bytes = FIXED + updates.iter().map(Update::wire_bytes).sum::<usize>();
        let position = self.end();
        self.by_stream
            .entry(stream)
            .or_default()
            .push_back(position);
        self.bytes += bytes;
        self.items.push_back(Item {
            stream,
            after: batch.after,
            through: batch.through,
            updates,
            range,
            bytes,
        });
        while self.items.len() > self.items_max
            || (self.bytes > self.bytes_max && self.items.len() > 1)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(item) = self.items.pop_front() else {
            return;
        };
        self.bytes -= item.bytes;
        self.base += 1;
        if let Some(positions) = self.by_stream.get_mut(&item.stream) {
            positions.pop_front();
            if positions.is_empty() {
                self.by_stream.remove(&item.stream);
            }
        }
    }

    /// The piece of a stream that follows on `after`, as far as it is here without a gap, up to about `through` and the budget.
    pub(super) fn replay(
        &self,
        stream: StreamId,
        after: u64,
        through: u64,
        budget_bytes: usize,
    ) -> Option<Batch<V>> {
        let positions = self.by_stream.get(&stream)?;
        let mut items: Vec<&Item<V>> = positions
            .iter()
            .filter_map(|at| self.get(*at))
            .filter(|item| item.through > after && item.after < through)
            .collect();
        items.sort_by_key(|item| (item.after, item.through));
        let mut batch: Option<Batch<V>> = None;
        let mut bytes = 0;
        for item in items {
            let stands = batch.as_ref().map_or(after, |batch| batch.through);
            if item.through <= stands {
                continue;
            }
            // A piece that overlaps what is there begins the next batch: which of its updates are there cannot be told.
            let follows = item.after == stands || batch.is_none() && item.after <= after;
            if !follows || batch.is_some() && bytes + item.bytes > budget_bytes {
                break;
            }
            bytes += item.bytes;
            item.append_to(&mut batch);
        }
        batch
    }
}

impl<V: Payload> Item<V> {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts this after what is there, which must end where it begins.
    pub(super) fn append_to(&self, batch: &mut Option<Batch<V>>) {
        let batch = batch.get_or_insert_with(|| Batch {
            epoch: self.stream.epoch,
            after: self.after,
            through: self.after,
            wants_ack: false,
            updates: Vec::new(),
        });
        batch.through = self.through;
        batch.updates.extend(self.updates.iter().map(Update::again));
    }
}

/// Where a link's responsibility ends: a place on the ring.
pub(super) const fn until(here: Place, range: u64) -> Place {
    here.wrapping_add(range)
}

#[cfg(test)]
mod tests {
    use nearcache_store::NodeId;

    use super::*;
    use crate::ids::Epoch;
    use crate::testing::{Text, entry};

    fn stream() -> StreamId {
        StreamId {
            origin: NodeId::from_u64(7),
            epoch: Epoch::from_u64(1),
        }
    }

    fn piece(after: u64, through: u64) -> Batch<Text> {
        let updates = (after + 1..=through).map(|n| Update::Entry(entry(&n.to_string(), n, "v")));
        Batch {
            epoch: Epoch::from_u64(1),
            after,
            through,
            wants_ack: false,
            updates: updates.collect(),
        }
    }

    fn keys(batch: &Batch<Text>) -> Vec<String> {
        let keys = batch.updates.iter().filter_map(Update::key);
        keys.map(|key| String::from_utf8_lossy(key).into_owned())
            .collect()
    }

    #[test]
    fn i2_a_replay_of_pieces_that_overlap_leaves_nothing_out() {
        let mut log = RelayLog::new(100, 1 << 20);
        for (after, through) in [(3, 8), (0, 5), (8, 9)] {
            log.push(stream(), &piece(after, through), 0);
        }
        let (mut after, mut seen) = (0, Vec::new());
        while let Some(batch) = log.replay(stream(), after, 9, 1 << 20) {
            assert!(batch.after <= after && batch.through > after);
            assert_eq!(batch.updates.len() as u64, batch.through - batch.after);
            seen.extend(keys(&batch));
            after = batch.through;
        }
        assert_eq!(after, 9);
        assert!((1..=9).all(|n| seen.contains(&n.to_string())), "{seen:?}");
        assert!(log.replay(stream(), 9, 12, 1 << 20).is_none());
    }

    #[test]
    fn c9_what_is_kept_to_be_asked_for_again_is_bounded_in_pieces_and_bytes() {
        let mut log = RelayLog::new(4, 1 << 20);
        for n in 0..10 {
            log.push(stream(), &piece(n, n + 1), 0);
        }
        assert!(log.replay(stream(), 5, 10, 1 << 20).is_none());
        assert!(log.replay(stream(), 6, 10, 1 << 20).is_some());
        let mut log = RelayLog::new(1_000, 1_000);
        for n in 0..100 {
            log.push(stream(), &piece(n, n + 1), 0);
            assert!(log.bytes <= 1_000);
        }
    }
}
