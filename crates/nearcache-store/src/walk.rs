//! Going through everything a store holds: [`Store::walk`], [`WalkCursor`] and [`Item`].
//!
//! A walk visits shard after shard, in each first the entries by slot, then the tombstones in the order of recording. A slot
//! keeps its key for as long as the key is held, and a key removed meanwhile is a tombstone recorded later, so a walk needs
//! no memory between its steps and misses nothing that is there throughout.

use crate::group_floors::GroupFloors;
use crate::shard::Writer;
use crate::{Handle, Store, Version, Weigh};

/// Most slots or tombstones looked at per lock (a few microseconds).
const STEP: usize = 64;

/// Where a walk stands. Small enough to be a client's cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalkCursor(pub(crate) u64);

impl WalkCursor {
    /// Where every walk begins; its number is zero.
    pub const START: Self = Self(0);

    /// The number of this cursor.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The cursor with this number. A number that no walk gave out is harmless: the walk goes on somewhere.
    #[must_use]
    pub const fn from_u64(cursor: u64) -> Self {
        Self(cursor)
    }
}

/// A cursor taken apart: shard, whether its entries are done, and the next slot or tombstone.
#[derive(Clone, Copy)]
struct Position {
    shard: u64,
    in_tombstones: bool,
    next: u64,
}

impl Position {
    const SHARD_SHIFT: u32 = 48;
    const TOMBSTONES_BIT: u64 = 1 << 47;

    fn of(cursor: WalkCursor) -> Self {
        Self {
            shard: cursor.0 >> Self::SHARD_SHIFT,
            in_tombstones: cursor.0 & Self::TOMBSTONES_BIT != 0,
            next: cursor.0 & (Self::TOMBSTONES_BIT - 1),
        }
    }

    fn cursor(self) -> WalkCursor {
        let phase = if self.in_tombstones {
            Self::TOMBSTONES_BIT
        } else {
            0
        };
        WalkCursor((self.shard << Self::SHARD_SHIFT) | phase | self.next)
    }

    fn next_phase(self) -> Self {
        let shard = self.shard + u64::from(self.in_tombstones);
        Self {
            shard,
            in_tombstones: !self.in_tombstones,
            next: 0,
        }
    }
}

/// One thing a store holds.
#[derive(Debug, Clone)]
pub enum Item<V> {
    /// An entry that is neither expired nor invalidated.
    Entry(Handle<V>),
    /// A key that was removed, has expired, or was invalidated with one of its tags.
    Tombstone {
        /// The key.
        key: Box<[u8]>,
        /// Nothing older than this may come back.
        version: Version,
    },
}

impl<V> Item<V> {
    /// The key's bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Entry(entry) => entry.key(),
            Self::Tombstone { key, .. } => key,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Entry(entry) => entry.version(),
            Self::Tombstone { version, .. } => *version,
        }
    }
}

impl<V: Weigh> Store<V> {
    /// Goes on with a walk: about `limit` items from `cursor` on, and where to continue (`None` at the end).
    ///
    /// Every item present from the walk's start to its end is returned; one that changes meanwhile may be returned twice.
    /// The lock of one shard at a time is held, for the time it takes to copy a few dozen handles. An empty answer with
    /// a cursor is possible.
    pub fn walk(&self, cursor: WalkCursor, limit: usize) -> (Vec<Item<V>>, Option<WalkCursor>) {
        let limit = limit.max(1);
        let mut items = Vec::new();
        let mut position = Position::of(cursor);
        // Bounds a call on a store that is nearly empty but once was large.
        let mut steps = 16 + limit / STEP * 4;
        while items.len() < limit && steps > 0 {
            steps -= 1;
            let Some(shard) = usize::try_from(position.shard)
                .ok()
                .and_then(|n| self.shards().nth(n))
            else {
                return (items, None);
            };
            let (mut entries, mut tombstones) = (Vec::new(), Vec::new());
            let end = {
                let writer = shard.writer.lock();
                let count = STEP.min(limit - items.len());
                if position.in_tombstones {
                    copy_tombstones(&writer, &mut position, count, &mut tombstones)
                } else {
                    copy_entries(&writer, &mut position, count, &mut entries)
                }
            };
            let groups = self.groups.read();
            items.extend(entries.into_iter().filter_map(|e| self.item_of(e, &groups)));
            items.extend(
                tombstones
                    .into_iter()
                    .filter(|t| t.version() > groups.of_key(t.key())),
            );
            if end {
                position = position.next_phase();
                // Most shards of a small cache are empty: they are no reason to stop.
                steps += 1;
            }
        }
        let done = usize::try_from(position.shard).is_ok_and(|n| n >= self.shard_count());
        (items, (!done).then(|| position.cursor()))
    }

    /// What an entry held is worth: itself, a tombstone, or nothing.
    pub(crate) fn item_of(&self, entry: Handle<V>, groups: &GroupFloors) -> Option<Item<V>> {
        let now_ms = self.clock.now_ms();
        if entry.version() <= groups.of_key(entry.key()) {
            return None;
        }
        let expired = entry.expiry().is_expired(now_ms);
        if expired || entry.version() <= groups.of_tags(entry.tags()) {
            let key = entry.key().into();
            return Some(Item::Tombstone {
                key,
                version: entry.version(),
            });
        }
        (!self.is_idle(&entry)).then_some(Item::Entry(entry))
    }
}

/// Copies the handles of the next slots; true at the end of the shard's entries.
fn copy_entries<V: Weigh>(
    writer: &Writer<V>,
    position: &mut Position,
    count: usize,
    entries: &mut Vec<Handle<V>>,
) -> bool {
    let slots = u64::from(writer.directory.slots());
    let end = slots.min(position.next + STEP as u64);
    while position.next < end && entries.len() < count {
        let slot = u32::try_from(position.next).unwrap_or(u32::MAX);
        entries.extend(writer.directory.get(slot).cloned());
        position.next += 1;
    }
    position.next >= slots
}

/// Copies the next tombstones; true at the end of the shard's.
fn copy_tombstones<V: Weigh>(
    writer: &Writer<V>,
    position: &mut Position,
    count: usize,
    tombstones: &mut Vec<Item<V>>,
) -> bool {
    for (number, tombstone) in writer.tombstones.iter_from(position.next).take(count) {
        position.next = number + 1;
        tombstones.push(Item::Tombstone {
            key: tombstone.key().into(),
            version: tombstone.version,
        });
    }
    tombstones.len() < count
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod tests;
