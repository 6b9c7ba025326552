//! Going through a part of the key space, what is read most first: [`PartWalk`] and [`Store::walk_part`].
//!
//! What a node needs that joins, in the order in which it needs it: first the floors of evicted keys, so that nothing older gets in
//! meanwhile; then the entries that were read since the eviction policy last looked at them; then all others; then the tombstones. The
//! parts are ranges of the digest's key hashes, which are the same on all nodes, so that several nodes can each give another part.
//!
//! As with [`Store::walk`] the lock of one shard is held for a few dozen entries at a time, and what is there from start to end is
//! found. One bit per slot remembers which entries went first.

use crate::digest::LeafSet;
use crate::shard::Writer;
use crate::{Handle, Item, Store, Version, Weigh};

/// Most things looked at per lock (a few microseconds).
const STEP: usize = 64;

/// Something found in a part.
#[derive(Debug, Clone)]
pub enum PartItem<V> {
    /// An entry or a tombstone.
    Held(Item<V>),
    /// A key that was evicted, of which only the hash is left.
    Evicted {
        /// Its hash, that of the digest.
        key_hash: u64,
        /// The version it had.
        version: Version,
    },
}

/// A walk through a part of the key space.
#[derive(Debug)]
pub struct PartWalk {
    parts: LeafSet,
    position: Position,
    /// Per shard one bit per slot: the entry went with those that were read.
    sent: Vec<Vec<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Position {
    pass: Pass,
    shard: u64,
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Default)]
enum Pass {
    #[default]
    ToldFloors,
    Floors,
    Read,
    Entries,
    Tombstones,
    Done,
}

impl Pass {
    const ALL: [Self; 6] = [
        Self::ToldFloors,
        Self::Floors,
        Self::Read,
        Self::Entries,
        Self::Tombstones,
        Self::Done,
    ];

    fn next(self) -> Self {
        let next = Self::ALL.into_iter().find(|pass| *pass > self);
        next.unwrap_or(Self::Done)
    }
}

impl Position {
    const PASS_SHIFT: u32 = 61;
    const SHARD_SHIFT: u32 = 40;

    fn number(self) -> u64 {
        ((self.pass as u64) << Self::PASS_SHIFT) | (self.shard << Self::SHARD_SHIFT) | self.next
    }

    fn of(number: u64) -> Self {
        let pass = usize::try_from(number >> Self::PASS_SHIFT).ok();
        Self {
            pass: *pass
                .and_then(|pass| Pass::ALL.get(pass))
                .unwrap_or(&Pass::Done),
            shard: (number & ((1 << Self::PASS_SHIFT) - 1)) >> Self::SHARD_SHIFT,
            next: number & ((1 << Self::SHARD_SHIFT) - 1),
        }
    }
}

impl PartWalk {
    /// A walk through `parts`, from the beginning or from where another one of them stood. A number that no walk gave out is
    /// harmless: the walk goes on somewhere.
    #[must_use]
    pub fn new(parts: LeafSet, cursor: Option<u64>) -> Self {
        Self {
            parts,
            position: cursor.map_or_else(Position::default, Position::of),
            sent: Vec::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.position.number()
    }

    /// Is all found?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.position.pass == Pass::Done
    }

    fn was_sent(&self, shard: u64, slot: u64) -> bool {
        let words = usize::try_from(shard).ok().and_then(|n| self.sent.get(n));
        let word = words.and_then(|words| words.get(usize::try_from(slot / 64).ok()?));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    fn mark_sent(&mut self, shard: u64, slot: u64) {
        let (Ok(shard), Ok(word)) = (usize::try_from(shard), usize::try_from(slot / 64)) else {
            return;
        };
        if self.sent.len() <= shard {
            self.sent.resize(shard + 1, Vec::new());
        }
        if let Some(words) = self.sent.get_mut(shard) {
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (slot % 64);
        }
    }
}

impl<V: Weigh> Store<V> {
    /// Goes on with a walk: about `limit` things, fewer where little of what is looked at lies in its parts.
    ///
    /// Takes the lock of one shard at a time, for a few microseconds. An empty answer of a walk that is not done is possible.
    pub fn walk_part(&self, walk: &mut PartWalk, limit: usize) -> Vec<PartItem<V>> {
        let limit = limit.max(1);
        let mut found = Vec::new();
        // Bounds a call where little is found.
        let mut steps = 64 + limit / STEP * 4;
        while found.len() < limit && steps > 0 && !walk.is_done() {
            steps -= 1;
            let at = walk.position;
            let shard = usize::try_from(at.shard).ok();
            let end = if at.pass == Pass::ToldFloors {
                self.walk_told_floors(walk, &mut found)
            } else if let Some(shard) = shard.and_then(|n| self.shards().nth(n)) {
                let writer = shard.writer.lock();
                match at.pass {
                    Pass::Floors => walk_floors(&writer, walk, &mut found),
                    Pass::Read | Pass::Entries => self.walk_entries(writer, walk, &mut found),
                    _ => self.walk_tombstones(&writer, walk, &mut found),
                }
            } else {
                walk.position = Position {
                    pass: at.pass.next(),
                    ..Position::default()
                };
                continue;
            };
            if end {
                let shard = at.shard + 1;
                walk.position = Position {
                    shard,
                    next: 0,
                    ..at
                };
                if at.pass == Pass::ToldFloors {
                    walk.position = Position {
                        pass: at.pass.next(),
                        ..Position::default()
                    };
                }
                // Most shards of a small cache are empty: they are no reason to stop.
                steps += 1;
            }
        }
        found
    }

    fn walk_told_floors(&self, walk: &mut PartWalk, found: &mut Vec<PartItem<V>>) -> bool {
        let (floors, end) = self.told.some(walk.position.next, STEP as u64);
        walk.position.next += STEP as u64;
        let floors = floors.into_iter();
        found.extend(
            floors
                .filter(|(key_hash, _)| walk.parts.contains(*key_hash))
                .map(|(key_hash, version)| PartItem::Evicted { key_hash, version }),
        );
        end
    }

    fn walk_entries(
        &self,
        writer: impl std::ops::Deref<Target = Writer<V>>,
        walk: &mut PartWalk,
        found: &mut Vec<PartItem<V>>,
    ) -> bool {
        let Position { pass, shard, next } = walk.position;
        let slots = u64::from(writer.directory.slots());
        let end = slots.min(next + STEP as u64);
        let all = walk.parts.is_all();
        let mut entries: Vec<Handle<V>> = Vec::new();
        for slot in next..end {
            let number = u32::try_from(slot).unwrap_or(u32::MAX);
            let Some(entry) = writer.directory.get(number) else {
                continue;
            };
            let wanted = match pass {
                Pass::Read => entry.marks() > 0,
                _ => !walk.was_sent(shard, slot),
            };
            if wanted && (all || walk.parts.contains(writer.key_hash(entry))) {
                if pass == Pass::Read {
                    walk.mark_sent(shard, slot);
                }
                entries.push(entry.clone());
            }
        }
        drop(writer);
        walk.position.next = end;
        let groups = self.groups.read();
        let items = entries.into_iter().filter_map(|e| self.item_of(e, &groups));
        found.extend(items.map(PartItem::Held));
        end >= slots
    }

    fn walk_tombstones(
        &self,
        writer: &Writer<V>,
        walk: &mut PartWalk,
        found: &mut Vec<PartItem<V>>,
    ) -> bool {
        let all = walk.parts.is_all();
        let mut seen = 0;
        for (number, tombstone) in writer.tombstones.iter_from(walk.position.next).take(STEP) {
            seen += 1;
            walk.position.next = number + 1;
            let (key, version) = (tombstone.key(), tombstone.version);
            let hash = if all { None } else { self.digest_hash(key) };
            let wanted = all || hash.is_some_and(|hash| walk.parts.contains(hash));
            if wanted && version > self.whole_key_floor(key) {
                let key = key.into();
                found.push(PartItem::Held(Item::Tombstone { key, version }));
            }
        }
        seen < STEP
    }
}

fn walk_floors<V: Weigh>(
    writer: &Writer<V>,
    walk: &mut PartWalk,
    found: &mut Vec<PartItem<V>>,
) -> bool {
    // Without a digest the hash is this store's own and tells others nothing.
    if writer.digest.is_none() {
        return true;
    }
    let buckets = writer.key_floors.buckets() as u64;
    let (from, end) = (
        walk.position.next,
        buckets.min(walk.position.next + STEP as u64),
    );
    let floors = writer
        .key_floors
        .iter_from(usize::try_from(from).unwrap_or(usize::MAX));
    let floors = floors.take_while(|(bucket, _)| (*bucket as u64) < end);
    let wanted = floors.filter(|(_, floor)| walk.parts.contains(floor.hash));
    found.extend(wanted.map(|(_, floor)| PartItem::Evicted {
        key_hash: floor.hash,
        version: floor.version,
    }));
    walk.position.next = end;
    end >= buckets
}

#[cfg(test)]
#[path = "part_walk_test.rs"]
mod tests;
