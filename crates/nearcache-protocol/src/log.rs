//! A node's own update stream: one ring, one cursor per peer.
//!
//! ```text
//!            base                                   latest
//!   ───gone──┤ n │ n+1 │ n+2 │ ...             │  m │◀── append
//!                     ▲             ▲               ▲
//!                  cursor B      cursor C        cursor D (nothing to send)
//! ```
//!
//! The ring is the replay buffer, and what lies between a peer's cursor and the latest number is that peer's outbox: a slow
//! peer costs no memory of its own. A cursor that the ring has left behind means that the peer must be resynced.
//! Why one ring: `docs/decisions/0003-one-ring-per-stream.md`.
//!
//! **Coalescing.** A slot knows the number of the update that superseded it (same key, newer version). A batch that covers
//! `(a, b]` leaves a slot out if that number is at most `b`: whoever gets the batch gets the newer one in it.

use std::collections::VecDeque;

use bytes::Bytes;
use nearcache_store::{Handle, Scope, Version};

use crate::ids::Epoch;
use crate::message::Batch;
use crate::mode::Published;
use crate::payload::Payload;
use crate::update::Update;

/// The slots that look up "where did I last see this key" start with so many places and double.
const INDEX_PLACES_MIN: usize = 256;

/// A slot's superseder when there is none.
const NOT_SUPERSEDED: u64 = u64::MAX;

/// The ring of one node's updates to one cache.
#[derive(Debug)]
pub struct Log<V> {
    epoch: Epoch,
    slots: VecDeque<Slot<V>>,
    /// The number of the last update that is gone from the ring (or never was in it).
    base: u64,
    bytes: usize,
    updates_max: usize,
    bytes_max: usize,
    index: KeyIndex,
    coalesced: u64,
}

#[derive(Debug)]
struct Slot<V> {
    change: Change<V>,
    version: Version,
    key_hash: u64,
    bytes: u32,
    /// The update that made this one superfluous.
    superseded_by: u64,
    /// The update that this one made superfluous; 0 if none.
    supersedes: u64,
}

/// What a slot holds, shared with the store.
#[derive(Debug)]
enum Change<V> {
    Entry(Handle<V>),
    Removal(Bytes),
    Floor(Scope),
}

impl<V> Change<V> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Entry(entry) => Some(entry.key()),
            Self::Removal(key) => Some(key),
            Self::Floor(_) => None,
        }
    }
}

impl<V: Payload> Log<V> {
    /// An empty stream that keeps at most so many updates and bytes for replay (at least one update, whatever its size).
    #[must_use]
    pub fn new(epoch: Epoch, updates_max: usize, bytes_max: usize) -> Self {
        Self {
            epoch,
            slots: VecDeque::new(),
            base: 0,
            bytes: 0,
            updates_max: updates_max.max(1),
            bytes_max,
            index: KeyIndex::new(updates_max),
            coalesced: 0,
        }
    }

    /// The number of the latest update; 0 before the first.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Whether everything after `after` is still here.
    #[must_use]
    pub fn can_replay(&self, after: u64) -> bool {
        after >= self.base && after <= self.latest()
    }

    /// Updates held for replay.
    #[must_use]
    pub fn updates(&self) -> usize {
        self.slots.len()
    }

    /// Bytes held for replay.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Updates that batches have left out so far.
    #[must_use]
    pub const fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// Appends an update and returns its number. The oldest ones go if a bound is exceeded.
    ///
    /// Cost: O(1); allocates only when the ring grows.
    pub fn append(&mut self, published: Published<V>) -> u64 {
        let (change, version) = match published {
            Published::Entry(entry) | Published::Fill(entry) => {
                let version = entry.version();
                (Change::Entry(entry), version)
            }
            Published::Removal { key, version } => (Change::Removal(key), version),
            Published::Floor { scope, version } => (Change::Floor(scope), version),
        };
        let number = self.latest() + 1;
        let bytes = slot_bytes(&change);
        let mut slot = Slot {
            change,
            version,
            key_hash: 0,
            bytes,
            superseded_by: NOT_SUPERSEDED,
            supersedes: 0,
        };
        self.link(number, &mut slot);
        self.bytes += bytes as usize;
        self.slots.push_back(slot);
        while self.slots.len() > self.updates_max
            || (self.bytes > self.bytes_max && self.slots.len() > 1)
        {
            self.drop_oldest();
        }
        number
    }

    /// Finds the key's last update and marks it, or this one, as superfluous.
    fn link(&mut self, number: u64, slot: &mut Slot<V>) {
        let Some(key) = slot.change.key() else { return };
        slot.key_hash = key_hash(key);
        if self.index.needs_growth(self.slots.len()) {
            self.grow_index();
        }
        let former = self.index.number(slot.key_hash);
        if former > self.base
            && let Some(former_slot) = usize::try_from(former - self.base - 1)
                .ok()
                .and_then(|at| self.slots.get_mut(at))
            && former_slot.change.key() == Some(key)
        {
            if former_slot.version > slot.version {
                // Two writers published out of order: the newer version has the lower number. Whoever is past it has it.
                slot.superseded_by = number;
                return;
            }
            former_slot.superseded_by = number;
            slot.supersedes = former;
        }
        self.index.set(slot.key_hash, number);
    }

    fn grow_index(&mut self) {
        self.index.grow();
        let mut number = self.base;
        for slot in &self.slots {
            number += 1;
            if slot.change.key().is_some() && slot.superseded_by == NOT_SUPERSEDED {
                self.index.set(slot.key_hash, number);
            }
        }
    }

    /// Keeps nothing for replay: whoever is behind must be told by a transfer.
    pub fn forget(&mut self) {
        while !self.slots.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.base += 1;
            self.bytes -= slot.bytes as usize;
        }
    }

    /// The next batch for somebody who has everything up to `after`: about `budget_bytes` and at most `updates_max`
    /// numbers, at least one. `None` if there is nothing after it, or if it is no longer here ([`can_replay`](Self::can_replay)).
    ///
    /// Cost: O(numbers covered); shares keys and values.
    pub fn batch(&mut self, after: u64, budget_bytes: usize, updates_max: u64) -> Option<Batch<V>> {
        if !self.can_replay(after) || after == self.latest() {
            return None;
        }
        let from = usize::try_from(after - self.base).ok()?;
        let through = self.batch_end(after, from, budget_bytes, updates_max);
        let covered = usize::try_from(through - after).ok()?;
        let mut updates = Vec::with_capacity(covered);
        for slot in self.slots.range(from..from + covered) {
            if slot.superseded_by > through {
                updates.push(slot.update());
            }
        }
        self.coalesced += (covered - updates.len()) as u64;
        Some(Batch {
            epoch: self.epoch,
            after,
            through,
            wants_ack: false,
            updates,
        })
    }

    /// The last number that fits. Each slot is counted, and what it supersedes in the batch is taken off again, so that
    /// the sum at every number is exactly what a batch that ends there would carry.
    fn batch_end(&self, after: u64, from: usize, budget_bytes: usize, updates_max: u64) -> u64 {
        let mut through = after;
        let mut bytes = 0_usize;
        for slot in self.slots.range(from..) {
            if slot.superseded_by != through + 1 {
                bytes += slot.bytes as usize;
            }
            if slot.supersedes > after
                && let Some(former) = usize::try_from(slot.supersedes - self.base - 1)
                    .ok()
                    .and_then(|at| self.slots.get(at))
            {
                bytes -= former.bytes as usize;
            }
            if through > after && (bytes > budget_bytes || through - after >= updates_max) {
                break;
            }
            through += 1;
        }
        through
    }
}

impl<V: Payload> Slot<V> {
    fn update(&self) -> Update<V> {
        match &self.change {
            Change::Entry(entry) => Update::Entry(entry.clone()),
            Change::Removal(key) => Update::Remove {
                key: key.clone(),
                version: self.version,
            },
            Change::Floor(scope) => Update::Floor {
                scope: scope.clone(),
                version: self.version,
            },
        }
    }
}

/// Bytes of key and value and the fixed part of an update on the wire.
fn slot_bytes<V: Payload>(change: &Change<V>) -> u32 {
    const FIXED: usize = 64;
    let bytes = match change {
        Change::Entry(entry) => {
            entry.key().len() + entry.value().bytes().len() + entry.tags().weight_bytes()
        }
        Change::Removal(key) => key.len(),
        Change::Floor(Scope::All) => 0,
        Change::Floor(Scope::Prefix(bytes) | Scope::Tag(bytes) | Scope::TagPrefix(bytes)) => {
            bytes.len()
        }
    };
    u32::try_from(FIXED + bytes).unwrap_or(u32::MAX)
}

/// Seeded with a constant: a client that makes keys collide here loses coalescing, nothing else.
fn key_hash(key: &[u8]) -> u64 {
    use std::hash::BuildHasher as _;
    foldhash::fast::FixedState::with_seed(0x6e65_6172).hash_one(key)
}

/// Where in the stream a key was last seen: a direct-mapped table. Two keys that share a place push each other out, which
/// costs a chance to coalesce and is otherwise harmless, so nothing needs to be deleted from it.
#[derive(Debug)]
struct KeyIndex {
    numbers: Vec<u64>,
    places_max: usize,
}

impl KeyIndex {
    fn new(updates_max: usize) -> Self {
        Self {
            numbers: Vec::new(),
            places_max: updates_max
                .clamp(INDEX_PLACES_MIN, 1 << 24)
                .next_power_of_two(),
        }
    }

    const fn needs_growth(&self, updates: usize) -> bool {
        updates >= self.numbers.len() && self.numbers.len() < self.places_max
    }

    fn grow(&mut self) {
        let places = (self.numbers.len() * 2).clamp(INDEX_PLACES_MIN, self.places_max);
        self.numbers.clear();
        self.numbers.resize(places, 0);
    }

    fn place(&self, key_hash: u64) -> usize {
        usize::try_from(key_hash & (self.numbers.len() as u64).wrapping_sub(1)).unwrap_or(0)
    }

    fn number(&self, key_hash: u64) -> u64 {
        self.numbers.get(self.place(key_hash)).copied().unwrap_or(0)
    }

    fn set(&mut self, key_hash: u64, number: u64) {
        let place = self.place(key_hash);
        if let Some(slot) = self.numbers.get_mut(place) {
            *slot = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Text, entry};

    fn put(key: &str, ms: u64) -> Published<Text> {
        Published::Entry(entry(key, ms, &format!("{key}@{ms}")))
    }

    fn log(updates_max: usize) -> Log<Text> {
        Log::new(Epoch::from_u64(1), updates_max, 1 << 20)
    }

    fn keys(batch: &Batch<Text>) -> Vec<&[u8]> {
        batch.updates.iter().filter_map(Update::key).collect()
    }

    #[test]
    fn numbers_start_at_one_and_batches_cover_them_without_gaps() {
        let mut log = log(100);
        assert!(log.batch(0, 1 << 20, 10).is_none());
        for n in 1..=5 {
            assert_eq!(log.append(put(&format!("k{n}"), n)), n);
        }
        let first = log.batch(0, 1 << 20, 2).unwrap();
        assert_eq!((first.after, first.through), (0, 2));
        let second = log.batch(first.through, 1, 10).unwrap();
        assert_eq!(
            (second.after, second.through),
            (2, 3),
            "at least one, whatever its size"
        );
    }

    #[test]
    fn what_a_later_update_in_the_batch_supersedes_is_left_out() {
        let mut log = log(100);
        for (key, ms) in [("a", 1), ("b", 2), ("a", 3)] {
            log.append(put(key, ms));
        }
        let whole = log.batch(0, 1 << 20, 10).unwrap();
        assert_eq!(keys(&whole), [b"b", b"a"]);
        let part = log.batch(0, 1 << 20, 2).unwrap();
        assert_eq!(
            keys(&part),
            [b"a", b"b"],
            "the newer one lies beyond the batch's end"
        );
    }

    #[test]
    fn an_older_version_that_was_published_later_is_left_out_of_every_batch() {
        let mut log = log(100);
        log.append(put("a", 9));
        log.append(put("a", 3));
        log.append(put("a", 10));
        let versions = |batch: &Batch<Text>| {
            batch
                .updates
                .iter()
                .map(|update| update.version().time.millis() % 100)
                .collect::<Vec<_>>()
        };
        assert_eq!(versions(&log.batch(0, 1 << 20, 2).unwrap()), [9]);
        assert_eq!(
            versions(&log.batch(1, 1 << 20, 1).unwrap()),
            Vec::<u64>::new()
        );
        assert_eq!(versions(&log.batch(0, 1 << 20, 3).unwrap()), [10]);
    }

    #[test]
    fn c9_the_ring_is_bounded_in_updates_and_bytes() {
        let mut by_number = log(4);
        for n in 1..=10 {
            by_number.append(put(&format!("k{n}"), n));
        }
        assert!(!by_number.can_replay(5));
        assert!(by_number.batch(5, 1 << 20, 10).is_none());
        assert_eq!(by_number.batch(6, 1 << 20, 10).unwrap().updates.len(), 4);

        let mut by_bytes: Log<Text> = Log::new(Epoch::from_u64(1), 100, 1_000);
        for n in 1..=10 {
            by_bytes.append(Published::Entry(entry("key", n, &"x".repeat(400))));
            assert!(by_bytes.bytes() <= 1_000);
        }
        by_bytes.append(Published::Entry(entry("key", 11, &"x".repeat(5_000))));
        assert!(
            by_bytes.can_replay(10),
            "one update is kept, whatever its size"
        );
    }

    #[test]
    fn a_hot_large_value_fills_no_batch_with_its_past() {
        let mut log: Log<Text> = Log::new(Epoch::from_u64(1), 1_000, 1 << 30);
        for n in 1..=100 {
            log.append(Published::Entry(entry("hot", n, &"x".repeat(50_000))));
        }
        let batch = log.batch(0, 64 << 10, 1_000).unwrap();
        assert_eq!((batch.through, batch.updates.len()), (100, 1));
    }

    proptest! {
        /// A receiver that applies batches ends up as one that applies every update.
        #[test]
        fn coalescing_changes_nothing_in_the_end(
            updates in proptest::collection::vec((0_u8..6, 0_u64..40), 1..80),
            budget in 64_usize..2_000,
            updates_max in 1_u64..20,
        ) {
            let mut log = log(1_000);
            let mut expected: BTreeMap<Vec<u8>, Version> = BTreeMap::new();
            let merge = |state: &mut BTreeMap<Vec<u8>, Version>, key: &[u8], version: Version| {
                let held = state.entry(key.to_vec()).or_insert(version);
                *held = (*held).max(version);
            };
            for (key, ms) in updates {
                let published = entry(&key.to_string(), ms, "value");
                merge(&mut expected, published.key(), published.version());
                log.append(Published::Entry(published));
            }
            let (mut cursor, mut state) = (0, BTreeMap::new());
            while let Some(batch) = log.batch(cursor, budget, updates_max) {
                prop_assert_eq!(batch.after, cursor);
                prop_assert!(batch.through > cursor);
                let bytes: usize = batch.updates.iter().map(|update| update.wire_bytes() + 29).sum();
                prop_assert!(bytes <= budget || batch.updates.len() == 1);
                for update in &batch.updates {
                    merge(&mut state, update.key().unwrap(), update.version());
                }
                cursor = batch.through;
            }
            prop_assert_eq!(cursor, log.latest());
            prop_assert_eq!(state, expected);
        }
    }
}
