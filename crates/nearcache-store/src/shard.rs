//! A part of the store with its own lock and its own share of the bound: [`Shard`].
//!
//! Readers see the [`Engine`] only. Whatever writes holds the shard's mutex, and with it the [`Writer`]: the
//! directory, the timer wheel, the tombstones, the floors. The engine is changed under that mutex alone, so what
//! was read from it stays true until the mutex is released. What has to be dropped or told to a
//! listener is handed to the caller, for after that.

use crate::directory::Directory;
use crate::engine::{Displaced, Engine};
use crate::key_floors::KeyFloors;
use crate::sync::Mutex;
use crate::tombstones::Tombstones;
use crate::wheel::Wheel;
use crate::{Handle, StoreConfig, Version, Weigh};

pub(crate) struct Shard<V> {
    pub(crate) engine: Engine<V>,
    pub(crate) writer: Mutex<Writer<V>>,
}

/// What a shard's writers share.
pub(crate) struct Writer<V> {
    pub(crate) directory: Directory<V>,
    pub(crate) wheel: Wheel,
    pub(crate) tombstones: Tombstones,
    pub(crate) key_floors: KeyFloors,
    /// Nothing up to this is accepted for keys of which nothing is known. Rises when tombstones have to make room.
    pub(crate) floor: Version,
    pub(crate) sweep: Sweep,
    pub(crate) counts: Counts,
    room: Room,
}

/// How far the sweep after group invalidations has come.
#[derive(Default)]
pub(crate) struct Sweep {
    /// Next slot to look at.
    pub(crate) slot: u32,
    /// Generation that is being swept for.
    pub(crate) target: u32,
    /// Generation that the whole shard was swept for.
    pub(crate) done: u32,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) applied: u64,
    pub(crate) stale: u64,
    pub(crate) too_large: u64,
    pub(crate) evictions: u64,
    pub(crate) expirations: u64,
    pub(crate) invalidations: u64,
    pub(crate) tombstones_folded: u64,
}

/// How a shard's share of the bound is divided.
struct Room {
    share_bytes: u64,
    tombstone_bytes_max: u64,
    /// Taken off the engine's capacity for tombstones and floors, in whole steps.
    reserved_bytes: u64,
    step_bytes: u64,
    /// Entries expected in a full shard; the engine's tables are sized for them once an eighth is there.
    expected_entries: usize,
}

impl<V: Weigh> Shard<V> {
    /// A shard with one of `shards` equal shares of what `config` allows.
    pub(crate) fn new(config: &StoreConfig, shards: usize, now_ms: u64) -> Self {
        let share_bytes = config.max_bytes / shards as u64;
        let expected = share_bytes / u64::from(config.expected_entry_bytes).max(1);
        let expected_entries = usize::try_from(expected).unwrap_or(usize::MAX).max(16);
        let key_floor_bytes = share_bytes / 100 * u64::from(config.key_floor_percent);
        let writer = Writer {
            directory: Directory::new(),
            wheel: Wheel::new(now_ms),
            tombstones: Tombstones::new(),
            key_floors: KeyFloors::new(key_floor_bytes),
            floor: Version::ZERO,
            sweep: Sweep::default(),
            counts: Counts::default(),
            room: Room {
                share_bytes,
                tombstone_bytes_max: share_bytes / 100 * u64::from(config.tombstone_percent),
                reserved_bytes: 0,
                step_bytes: (share_bytes / 64).max(1),
                expected_entries,
            },
        };
        Self {
            engine: Engine::new(share_bytes, expected_entries),
            writer: Mutex::new(writer),
        }
    }
}

impl<V: Weigh> Writer<V> {
    /// Puts `entry` in, in the place of `held` if its key is held, to be looked at again at `deadline_ms` (never, if that
    /// is the largest number). What leaves is added to `displaced`.
    pub(crate) fn put(
        &mut self,
        engine: &Engine<V>,
        entry: &Handle<V>,
        held: Option<&Handle<V>>,
        deadline_ms: u64,
        displaced: &mut Displaced<V>,
    ) {
        if let Some(held) = held {
            self.directory.replace(held, entry.clone());
        } else {
            self.directory.add(entry.clone());
            if self.directory.len() == self.room.expected_entries / 8 {
                engine.reserve(self.room.expected_entries - self.directory.len());
            }
        }
        if deadline_ms == u64::MAX {
            self.wheel.cancel(&mut self.directory, entry.slot());
        } else {
            self.wheel
                .schedule(&mut self.directory, entry.slot(), deadline_ms);
        }
        engine.insert(entry.clone(), displaced);
        // What made room leaves a floor; the entry replaced does not, the new one is its floor.
        for gone in displaced
            .iter()
            .filter(|d| !held.is_some_and(|h| h.same_as(d)))
        {
            self.forget_evicted(gone);
        }
    }

    /// Takes the entry of a key out of everything.
    pub(crate) fn take_out(&mut self, engine: &Engine<V>, held: &Handle<V>) {
        engine.remove(held.record().hash, held.key());
        self.wheel.cancel(&mut self.directory, held.slot());
        self.directory.remove(held);
    }

    /// Records that a key was removed at `version`. The oldest tombstones make room by raising the shard's floor.
    pub(crate) fn bury(&mut self, hash: u64, key: &[u8], version: Version, now_ms: u64) {
        self.tombstones.record(hash, key, version, now_ms);
        while self.tombstones.weight_bytes() > self.room.tombstone_bytes_max {
            let Some(folded) = self.tombstones.take_oldest() else {
                return;
            };
            self.floor = self.floor.max(folded);
            self.counts.tombstones_folded += 1;
        }
    }

    /// Remembers that nothing older than `version` may come back for `hash`.
    pub(crate) fn raise_key_floor(&mut self, hash: u64, version: Version) {
        if version > self.floor {
            self.key_floors.raise(hash, version);
        }
    }

    /// Gives the engine what tombstones and floors leave. In steps, and shrinking sooner than growing, because
    /// a change of capacity is not free.
    pub(crate) fn fit(&mut self, engine: &Engine<V>, displaced: &mut Displaced<V>) {
        let Room {
            share_bytes,
            step_bytes,
            reserved_bytes,
            ..
        } = self.room;
        let needed = self.aside_bytes();
        if needed <= reserved_bytes && needed + 2 * step_bytes > reserved_bytes {
            return;
        }
        let reserved = needed.next_multiple_of(step_bytes).min(share_bytes);
        if reserved == reserved_bytes {
            return;
        }
        self.room.reserved_bytes = reserved;
        let mut evicted = Displaced::default();
        engine.set_capacity(share_bytes - reserved, &mut evicted);
        for gone in evicted.iter() {
            self.forget_evicted(gone);
        }
        displaced.append(evicted);
    }

    /// Bytes of tombstones and floors.
    pub(crate) fn aside_bytes(&self) -> u64 {
        self.tombstones.weight_bytes() + self.key_floors.weight_bytes()
    }

    fn forget_evicted(&mut self, gone: &Handle<V>) {
        // First, so that the cache lines of floor and slot are fetched together: giving up a handle is a barrier.
        self.raise_key_floor(gone.record().hash, gone.version());
        self.wheel.cancel(&mut self.directory, gone.slot());
        self.directory.remove(gone);
        self.counts.evictions += 1;
    }
}
