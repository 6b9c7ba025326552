//! The versions of removed and expired keys of a shard: [`Tombstones`].
//!
//! A table by key, and a queue in the order of recording. A hand goes round the queue and collects those whose *version* is
//! too old: age counts from the removal and not from when this node heard of it, so that all nodes forget it at about the same time
//! and do not bring it back to each other for ever. When there are too many, those with the lowest versions are folded into the
//! shard's floor, whenever they were recorded, so that the floor rises no further than it must: a node that joins records removals of
//! now first and those of long ago after them. A heap, made when room is first short, knows which those are. A tombstone that is
//! recorded again or dropped leaves its old place in queue and heap behind; either is cleaned when too much of it is such places.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashTable;
use triomphe::ThinArc;

use crate::{Timestamp, Version};

pub(crate) struct Tombstones {
    table: HashTable<Tombstone>,
    queue: VecDeque<Queued>,
    /// Those with the lowest versions first; nothing before room was short.
    ranks: Option<BinaryHeap<Reverse<Rank>>>,
    next_number: u64,
    /// The number in the queue that is looked at next.
    hand: u64,
    key_bytes: u64,
}

pub(crate) struct Tombstone {
    /// Hash and bytes of the key.
    key: ThinArc<u64, u8>,
    pub(crate) version: Version,
    number: u64,
}

#[derive(Clone, Copy)]
struct Queued {
    number: u64,
    hash: u64,
}

/// A place by age. Which of several with one timestamp comes first does not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time: Timestamp,
    number: u64,
}

impl Tombstone {
    fn rank(&self) -> Reverse<Rank> {
        Reverse(Rank {
            time: self.version.time,
            number: self.number,
        })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key.slice
    }
}

impl Tombstones {
    /// Bytes counted per tombstone besides its key: the allocation's header, table at seven sixteenths full, queue, heap.
    const OVERHEAD_BYTES: u64 = 24 + 76 + 32 + 36;

    pub(crate) fn new() -> Self {
        Self {
            table: HashTable::new(),
            queue: VecDeque::new(),
            ranks: None,
            next_number: 1,
            hand: 0,
            key_bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes counted against the bound.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.key_bytes + self.table.len() as u64 * Self::OVERHEAD_BYTES
    }

    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<Version> {
        if self.table.is_empty() {
            return None;
        }
        self.table.find(hash, |t| t.key() == key).map(|t| t.version)
    }

    /// Records that `key` was removed at `version`; the caller has made sure that nothing newer is known. Returns the version
    /// that was recorded before.
    pub(crate) fn record(&mut self, hash: u64, key: &[u8], version: Version) -> Option<Version> {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push_back(Queued { number, hash });
        if let Some(ranks) = &mut self.ranks {
            let time = version.time;
            ranks.push(Reverse(Rank { time, number }));
        }
        let mut former = None;
        if let Some(known) = self.table.find_mut(hash, |t| t.key() == key) {
            former = Some(std::mem::replace(&mut known.version, version));
            known.number = number;
        } else {
            let key = ThinArc::from_header_and_slice(hash, key);
            self.key_bytes += key.slice.len() as u64;
            let tombstone = Tombstone {
                key,
                version,
                number,
            };
            self.table
                .insert_unique(hash, tombstone, |t| t.key.header.header);
        }
        self.clean();
        former
    }

    /// Drops the tombstone of `key`: an entry has taken its place. Returns its version.
    #[inline]
    pub(crate) fn drop_key(&mut self, hash: u64, key: &[u8]) -> Option<Version> {
        if self.table.is_empty() {
            return None;
        }
        let place = self.table.find_entry(hash, |t| t.key() == key).ok()?;
        self.key_bytes -= key.len() as u64;
        let (tombstone, _) = place.remove();
        self.clean();
        Some(tombstone.version)
    }

    /// Takes out the one with the lowest version. Cost: logarithmic, and linear the first time.
    pub(crate) fn take_lowest(&mut self) -> Option<Tombstone> {
        let table = &self.table;
        let ranks = self
            .ranks
            .get_or_insert_with(|| table.iter().map(Tombstone::rank).collect());
        while let Some(Reverse(rank)) = ranks.pop() {
            let place = self
                .queue
                .binary_search_by_key(&rank.number, |queued| queued.number);
            let Some(queued) = place.ok().and_then(|place| self.queue.get(place)) else {
                continue;
            };
            let number = queued.number;
            if let Ok(place) = self.table.find_entry(queued.hash, |t| t.number == number) {
                let (tombstone, _) = place.remove();
                self.key_bytes -= tombstone.key().len() as u64;
                return Some(tombstone);
            }
        }
        None
    }

    /// Looks at the next `budget` in turn and drops those whose version is of `before_ms` or earlier, each told to `gone`.
    pub(crate) fn collect(
        &mut self,
        before_ms: u64,
        budget: usize,
        mut gone: impl FnMut(&Tombstone),
    ) {
        if self.queue.is_empty() {
            return;
        }
        let start = self.queue.partition_point(|q| q.number < self.hand);
        for place in start..self.queue.len().min(start + budget) {
            let queued = self.queue[place];
            self.hand = queued.number + 1;
            if self
                .find(queued)
                .is_some_and(|t| t.version.time.millis() <= before_ms)
                && let Some(tombstone) = self.take(queued)
            {
                gone(&tombstone);
            }
        }
        if start + budget >= self.queue.len() {
            self.hand = 0;
        }
        self.clean();
    }

    /// Drops all that `covered` says yes to. Cost: linear.
    pub(crate) fn drop_covered(&mut self, mut covered: impl FnMut(&Tombstone) -> bool) {
        let key_bytes = &mut self.key_bytes;
        self.table.retain(|t| {
            let gone = covered(t);
            if gone {
                *key_bytes -= t.key().len() as u64;
            }
            !gone
        });
        self.clean();
    }

    /// Tombstones in the order of recording from number `from` on, each with its number.
    pub(crate) fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, &Tombstone)> {
        let start = self.queue.partition_point(|q| q.number < from);
        self.queue
            .range(start..)
            .filter_map(|q| Some((q.number, self.find(*q)?)))
    }

    fn find(&self, queued: Queued) -> Option<&Tombstone> {
        self.table.find(queued.hash, |t| t.number == queued.number)
    }

    fn take(&mut self, queued: Queued) -> Option<Tombstone> {
        let place = self
            .table
            .find_entry(queued.hash, |t| t.number == queued.number)
            .ok()?;
        let (tombstone, _) = place.remove();
        self.key_bytes -= tombstone.key().len() as u64;
        Some(tombstone)
    }

    /// Forgets places whose tombstone is gone, once they are half of the queue or a third of the heap.
    fn clean(&mut self) {
        if self.queue.len() > 2 * self.table.len() + 64 {
            let table = &self.table;
            self.queue
                .retain(|q| table.find(q.hash, |t| t.number == q.number).is_some());
        }
        let most = self.table.len() + self.table.len() / 2 + 64;
        if let Some(ranks) = &mut self.ranks
            && ranks.len() > most
        {
            *ranks = self.table.iter().map(Tombstone::rank).collect();
        }
        if self.table.is_empty() {
            self.ranks = None;
        }
        if self.table.is_empty() && self.table.capacity() > 64 {
            self.table.shrink_to(0, |t| t.key.header.header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Timestamp};

    fn version(n: u64) -> Version {
        Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
    }

    fn at(ms: u64) -> Version {
        Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1))
    }

    #[test]
    fn r4_age_counts_from_the_removal_and_not_from_when_it_was_heard_of() {
        let mut tombstones = Tombstones::new();
        for ms in [30, 10, 20] {
            tombstones.record(ms, &ms.to_be_bytes(), at(ms));
        }
        let mut gone = Vec::new();
        // Two at a time: the hand comes round.
        for _ in 0..4 {
            tombstones.collect(20, 2, |t| gone.push(t.version));
        }
        assert_eq!(gone, [at(10), at(20)]);
        assert_eq!(tombstones.len(), 1);
    }

    #[test]
    fn the_lowest_version_makes_room_first_whenever_it_was_recorded() {
        let mut tombstones = Tombstones::new();
        for (hash, key, n) in [(1, b"a", 1), (2, b"b", 9), (3, b"c", 4)] {
            tombstones.record(hash, key, version(n));
        }
        assert_eq!(tombstones.record(1, b"a", version(6)), Some(version(1)));
        let lowest = |tombstones: &mut Tombstones| tombstones.take_lowest().map(|t| t.version);
        assert_eq!(lowest(&mut tombstones), Some(version(4)));
        tombstones.record(4, b"d", version(7));
        tombstones.record(5, b"e", version(2));
        tombstones.record(5, b"e", version(8));
        tombstones.drop_key(4, b"d");
        assert_eq!(lowest(&mut tombstones), Some(version(6)));
        assert_eq!(lowest(&mut tombstones), Some(version(8)));
        assert_eq!(lowest(&mut tombstones), Some(version(9)));
        assert_eq!(lowest(&mut tombstones), None);
        assert_eq!(tombstones.weight_bytes(), 0);
    }

    #[test]
    fn c9_heap_and_queue_stay_within_what_is_counted_while_room_is_short() {
        let mut tombstones = Tombstones::new();
        for n in 0..50_000_u64 {
            // Half are keys that are removed again and again.
            let key = if n % 2 == 0 { n } else { n % 301 };
            tombstones.record(key, &key.to_be_bytes(), version(n));
            while tombstones.len() > 1_000 {
                tombstones.take_lowest();
            }
            let len = tombstones.len();
            assert!(tombstones.queue.len() <= 2 * len + 66);
            let ranks = tombstones.ranks.as_ref().map_or(0, BinaryHeap::len);
            assert!(ranks <= len + len / 2 + 66, "{ranks} for {len}");
        }
    }

    #[test]
    fn c9_recording_and_dropping_the_same_keys_does_not_grow_the_queue() {
        let mut tombstones = Tombstones::new();
        for n in 0..10_000 {
            tombstones.record(1, b"a", version(n));
            tombstones.drop_key(1, b"a");
        }
        assert!(
            tombstones.queue.len() <= 65,
            "{} places",
            tombstones.queue.len()
        );
    }

    #[test]
    fn keys_with_the_same_hash_are_told_apart() {
        let mut tombstones = Tombstones::new();
        tombstones.record(7, b"a", version(1));
        tombstones.record(7, b"b", version(2));
        tombstones.drop_key(7, b"a");
        assert_eq!(
            (tombstones.get(7, b"a"), tombstones.get(7, b"b")),
            (None, Some(version(2)))
        );
    }
}
