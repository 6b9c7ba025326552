//! A part of the store with its own lock and its own share of the bound: [`Shard`].
//!
//! Readers see the [`Table`] only. Whatever writes holds the shard's mutex, and with it the [`Writer`]: the
//! directory, the eviction policy, the timer wheel, the tombstones, the floors. The table is changed under that mutex alone, so what
//! was read from it stays true until the mutex is released. What has to be dropped or told to a
//! listener is handed to the caller, for after that.

use smallvec::SmallVec;

use crate::directory::Directory;
use crate::key_floors::KeyFloors;
use crate::policy::Policy;
use crate::sync::Mutex;
use crate::table::Table;
use crate::tombstones::Tombstones;
use crate::wheel::Wheel;
use crate::{Handle, StoreConfig, Version, Weigh};

pub(crate) struct Shard<V> {
    pub(crate) table: Table<V>,
    pub(crate) writer: Mutex<Writer<V>>,
}

/// What a shard's writers share.
pub(crate) struct Writer<V> {
    pub(crate) directory: Directory<V>,
    policy: Policy,
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
    /// Taken off the entries' room for tombstones and floors, in whole steps.
    reserved_bytes: u64,
    step_bytes: u64,
}

/// Handles that left the store during an operation: evicted, or replaced by a newer entry of their key. To be dropped after
/// the lock is released.
pub(crate) type Displaced<V> = SmallVec<[Handle<V>; 4]>;

/// Where a new entry goes.
pub(crate) enum Placing<'a, V> {
    /// In the place of the entry that holds its key.
    Replace(&'a Handle<V>),
    /// Besides all others; did it come back soon after its eviction?
    Add { came_back: bool },
}

impl<V: Weigh> Shard<V> {
    /// A shard with one of `shards` equal shares of what `config` allows.
    pub(crate) fn new(config: &StoreConfig, shards: usize, now_ms: u64) -> Self {
        let share_bytes = config.max_bytes / shards as u64;
        let key_floor_bytes = share_bytes / 100 * u64::from(config.key_floor_percent);
        let writer = Writer {
            directory: Directory::new(),
            policy: Policy::new(share_bytes),
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
            },
        };
        Self {
            table: Table::new(),
            writer: Mutex::new(writer),
        }
    }
}

impl<V: Weigh> Writer<V> {
    /// Puts `entry` in, to be looked at again at `deadline_ms` (never, if that is the largest number). What leaves is added
    /// to `displaced`.
    #[inline]
    pub(crate) fn put(
        &mut self,
        table: &Table<V>,
        entry: &Handle<V>,
        placing: Placing<'_, V>,
        deadline_ms: u64,
        displaced: &mut Displaced<V>,
    ) {
        let held = match placing {
            Placing::Replace(held) => {
                entry.set_marks(held.marks());
                displaced.extend(self.directory.replace(held, entry.clone()));
                let (old, new) = (held.weight_bytes(), entry.weight_bytes());
                self.policy.reweigh(&self.directory, entry.slot(), old, new);
                Some(held)
            }
            Placing::Add { came_back } => {
                self.directory.add(entry.clone());
                let weight_bytes = entry.weight_bytes();
                self.policy
                    .admit(&mut self.directory, entry.slot(), weight_bytes, came_back);
                None
            }
        };
        if deadline_ms == u64::MAX {
            self.wheel.cancel(&mut self.directory, entry.slot());
        } else {
            self.wheel
                .schedule(&mut self.directory, entry.slot(), deadline_ms);
        }
        let first = displaced.len();
        self.evict(displaced);
        table.change(entry.clone(), held, &displaced[first..]);
    }

    /// Takes entries out of everything but the table until the rest has room; a floor stays of each. They are added to
    /// `displaced`.
    #[inline]
    fn evict(&mut self, displaced: &mut Displaced<V>) {
        while let Some(gone) = self.policy.victim(&mut self.directory) {
            // First, so that the cache lines of floor and slot are fetched together: giving up a handle is a barrier.
            self.raise_key_floor(gone.record().hash, gone.version());
            self.unlink(&gone);
            self.counts.evictions += 1;
            displaced.push(gone);
        }
    }

    /// Takes the entry of a key out of everything.
    pub(crate) fn take_out(&mut self, table: &Table<V>, held: &Handle<V>) {
        table.remove(std::slice::from_ref(held));
        self.unlink(held);
    }

    fn unlink(&mut self, gone: &Handle<V>) {
        self.wheel.cancel(&mut self.directory, gone.slot());
        self.policy
            .leave(&mut self.directory, gone.slot(), gone.weight_bytes());
        self.directory.remove(gone);
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

    /// Gives the entries the room that tombstones and floors leave. In steps, and shrinking sooner than growing, so that
    /// few writes pay for it.
    #[inline]
    pub(crate) fn fit(&mut self, table: &Table<V>, displaced: &mut Displaced<V>) {
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
        self.policy.set_capacity(share_bytes - reserved);
        let first = displaced.len();
        self.evict(displaced);
        table.remove(&displaced[first..]);
    }

    /// Bytes counted against the bound: entries, tombstones and floors.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.policy.weight_bytes() + self.aside_bytes()
    }

    /// Bytes of tombstones and floors.
    pub(crate) fn aside_bytes(&self) -> u64 {
        self.tombstones.weight_bytes() + self.key_floors.weight_bytes()
    }
}
