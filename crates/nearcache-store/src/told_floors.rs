//! Floors of keys that *other* nodes have evicted: [`ToldFloors`], so that a node that joined them lets nothing older in either (C2).
//!
//! Of an evicted key only the hash is left, that of the digest, and a shard cannot be found by it. So what a transfer tells lies in one
//! table beside the shards, behind a lock of its own that is taken last. It is empty on a node that was told nothing, and then costs
//! one load per write of a key that is not held. Bounded like the floors of a node's own evictions: `key_floor_percent` of the bound.
//!
//! A floor may arrive after the key itself did. [`Store::tick`] goes through the shards once after each arrival and settles those.

use crate::key_floors::{Found, KeyFloors};
use crate::shard::{Displaced, Writer};
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::{Event, Store, StoreConfig, Version, Weigh};

/// Things looked at per lock while settling (a few microseconds).
const STEP: u64 = 64;

/// The table and whether there is anything in it.
pub(crate) struct ToldFloors {
    /// How many; what readers of the table look at first.
    len: AtomicU32,
    told: Mutex<Told>,
}

struct Told {
    floors: KeyFloors,
    /// Where the settling stands: shard, phase, next. Nothing if all is settled.
    settling: Option<(usize, Phase, u64)>,
    /// Something arrived while settling: once more from the start.
    again: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    Entries,
    Tombstones,
    Floors,
}

impl ToldFloors {
    pub(crate) fn new(config: &StoreConfig) -> Self {
        let max_bytes = config.max_bytes / 100 * u64::from(config.key_floor_percent);
        Self {
            len: AtomicU32::new(0),
            told: Mutex::new(Told {
                floors: KeyFloors::new(max_bytes),
                settling: None,
                again: false,
            }),
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    fn count(&self, told: &Told) {
        let len = u32::try_from(told.floors.len()).unwrap_or(u32::MAX);
        // What is no longer known exactly still stands in its bucket: a table once used is never empty again.
        self.len.store(len.max(1), Ordering::Release);
    }

    /// What stands against keys of `key_hash`.
    #[inline]
    pub(crate) fn find(&self, key_hash: u64) -> Found {
        if self.is_empty() {
            return Found::default();
        }
        self.told.lock().floors.find(key_hash)
    }

    /// The floor of `key_hash`, if it is known exactly.
    pub(crate) fn exact(&self, key_hash: u64) -> Option<Version> {
        if self.is_empty() {
            return None;
        }
        self.told.lock().floors.exact(key_hash)
    }

    /// Floors that are known exactly, from bucket number `from` on, of at most `buckets` buckets; and whether that was all.
    pub(crate) fn some(&self, from: u64, buckets: u64) -> (Vec<(u64, Version)>, bool) {
        if self.is_empty() {
            return (Vec::new(), true);
        }
        let told = self.told.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let end = from.saturating_add(usize::try_from(buckets).unwrap_or(usize::MAX));
        let floors = told.floors.iter_from(from);
        let floors = floors.take_while(|(bucket, _)| *bucket < end);
        let some = floors.map(|(_, floor)| (floor.hash, floor.version));
        (some.collect(), end >= told.floors.buckets())
    }

    /// Drops what stands for several keys at once, up to `version`.
    pub(crate) fn drop_common_up_to(&self, version: Version) {
        if !self.is_empty() {
            self.told.lock().floors.drop_common_up_to(version);
        }
    }

    pub(crate) fn weight_bytes(&self) -> u64 {
        self.told.lock().floors.weight_bytes()
    }
}

impl<V: Weigh> Store<V> {
    /// Another node has evicted the key with this hash, that of the digest, at `version`: nothing older may come in here. Does nothing
    /// without a digest. Cost: one lock; an older entry that is held already goes with later ticks.
    pub fn tell_floor(&self, key_hash: u64, version: Version) {
        let Some(digest) = &self.digest else { return };
        if version == Version::ZERO {
            return;
        }
        let first = {
            let mut told = self.told.told.lock();
            let first = told.floors.weight_bytes() == 0;
            let raised = told.floors.raise(key_hash, version);
            if let Some(gone) = raised.gone {
                digest.remove(gone.hash, gone.version);
            }
            if let Some(folded) = raised.folded {
                digest.mark_lossy(folded);
            }
            if raised.placed {
                digest.add(key_hash, version);
                match told.settling {
                    Some(_) => told.again = true,
                    None => told.settling = Some((0, Phase::Entries, 0)),
                }
            }
            self.told.count(&told);
            first
        };
        if first {
            self.make_room_for_told();
        }
    }

    /// Something that is not older than its floor is known of the key now.
    #[inline]
    pub(crate) fn drop_told_floor(&self, key_hash: u64) {
        if self.told.is_empty() {
            return;
        }
        let mut told = self.told.told.lock();
        if let (Some(version), Some(digest)) = (told.floors.drop_hash(key_hash), &self.digest) {
            digest.remove(key_hash, version);
        }
    }

    /// Drops all told floors up to `version`. Cost: linear.
    pub(crate) fn drop_told_floors(&self, version: Version) {
        if self.told.is_empty() {
            return;
        }
        let digest = self.digest.as_deref();
        self.told.told.lock().floors.drop_up_to(version, |floor| {
            if let Some(digest) = digest {
                digest.remove(floor.hash, floor.version);
            }
        });
    }

    /// The table takes its memory at once: every shard gives up its share of that.
    fn make_room_for_told(&self) {
        let share_bytes = self.told.weight_bytes() / self.shard_count() as u64;
        for shard in self.shards() {
            let mut displaced = Displaced::default();
            {
                let mut writer = shard.writer.lock();
                writer.set_told_bytes(share_bytes);
                writer.fit(&shard.table, &mut displaced);
            }
            displaced
                .iter()
                .for_each(|gone| self.tell(Event::Evicted(gone)));
        }
    }

    /// Goes on holding what is held against the floors that were told; looks at about `budget` things.
    pub(crate) fn settle_told_floors(&self, budget: usize) {
        if self.told.is_empty() {
            return;
        }
        let mut left = budget as u64;
        while left > 0 && self.settle_step() {
            left = left.saturating_sub(STEP);
        }
    }

    /// Looks at the next few things of one shard; false if nothing is left to settle.
    fn settle_step(&self) -> bool {
        let Some((number, phase, next)) = self.told.told.lock().settling else {
            return false;
        };
        let Some(shard) = self.shards().nth(number) else {
            let mut told = self.told.told.lock();
            let again = std::mem::take(&mut told.again);
            told.settling = again.then_some((0, Phase::Entries, 0));
            return again;
        };
        let mut writer = shard.writer.lock();
        let (end, known) = match phase {
            Phase::Entries => entries(&writer, next),
            Phase::Tombstones => self.tombstones_known(&writer, next),
            Phase::Floors => floors(&writer, next),
        };
        let mut outdated = Vec::new();
        {
            let mut told = self.told.told.lock();
            for (key_hash, version, at) in known {
                let Some(floor) = told.floors.exact(key_hash) else {
                    continue;
                };
                if floor > version {
                    outdated.push((key_hash, at));
                } else if let (Some(floor), Some(digest)) =
                    (told.floors.drop_hash(key_hash), &self.digest)
                {
                    digest.remove(key_hash, floor);
                }
            }
            told.settling = Some(match (end, phase) {
                (None, Phase::Entries) => (number, Phase::Tombstones, 0),
                (None, Phase::Tombstones) => (number, Phase::Floors, 0),
                (None, Phase::Floors) => (number + 1, Phase::Entries, 0),
                (Some(next), _) => (number, phase, next),
            });
        }
        let mut gone = Vec::new();
        for (key_hash, at) in outdated {
            match at {
                At::Slot(slot) => {
                    if let Some(entry) = writer.directory.get(slot).cloned() {
                        writer.take_out(&shard.table, &entry);
                        gone.push(entry);
                    }
                }
                At::Key(key) => writer.unbury(self.hasher.hash(&key), &key, key_hash),
                At::Floor => {
                    writer.drop_key_floor(key_hash);
                }
            }
        }
        drop(writer);
        gone.iter()
            .for_each(|entry| self.tell(Event::Evicted(entry)));
        true
    }

    fn tombstones_known(&self, writer: &Writer<V>, next: u64) -> (Option<u64>, Vec<Known>) {
        let (mut known, mut after) = (Vec::new(), next);
        let count = usize::try_from(STEP).unwrap_or(usize::MAX);
        for (number, tombstone) in writer.tombstones.iter_from(next).take(count) {
            after = number + 1;
            if let Some(key_hash) = self.digest_hash(tombstone.key()) {
                let at = At::Key(tombstone.key().into());
                known.push((key_hash, tombstone.version, at));
            }
        }
        ((known.len() == count).then_some(after), known)
    }
}

/// Something a shard knows of a key: its hash, the version, and where it lies.
type Known = (u64, Version, At);

enum At {
    Slot(u32),
    Key(Box<[u8]>),
    Floor,
}

fn entries<V: Weigh>(writer: &Writer<V>, next: u64) -> (Option<u64>, Vec<Known>) {
    let slots = u64::from(writer.directory.slots());
    let end = slots.min(next + STEP);
    let known = (next..end).filter_map(|slot| {
        let slot = u32::try_from(slot).ok()?;
        let entry = writer.directory.get(slot)?;
        Some((writer.key_hash(entry), entry.version(), At::Slot(slot)))
    });
    (Some(end).filter(|end| *end < slots), known.collect())
}

fn floors<V: Weigh>(writer: &Writer<V>, next: u64) -> (Option<u64>, Vec<Known>) {
    let buckets = writer.key_floors.buckets() as u64;
    let end = buckets.min(next + STEP);
    let floors = writer
        .key_floors
        .iter_from(usize::try_from(next).unwrap_or(usize::MAX));
    let floors = floors.take_while(|(bucket, _)| (*bucket as u64) < end);
    let known = floors.map(|(_, floor)| (floor.hash, floor.version, At::Floor));
    (Some(end).filter(|end| *end < buckets), known.collect())
}

#[cfg(test)]
#[path = "told_floors_test.rs"]
mod tests;
