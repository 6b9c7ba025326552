//! What a store tells one that it is compared with: sums of ranges ([`Store::digest_sum`]), and where they differ, what is known in
//! them ([`Store::list`]).
//!
//! There is no index from a leaf of the digest to its keys: a list is made by going through the store once, in steps under the
//! lock of one shard at a time, which costs some tens of nanoseconds per entry and nothing as long as nobody differs.

use siphasher::sip::SipHasher13;

use crate::digest::{LeafRange, LeafSet};
use crate::shard::Writer;
use crate::{Handle, Scope, Store, Version, Weigh};

/// Most things looked at per lock (a few microseconds).
const STEP: usize = 64;

/// One key in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// An entry or a tombstone.
    Held {
        /// The key.
        key: Box<[u8]>,
        /// The newest version known of it.
        version: Version,
    },
    /// A key that was evicted, of which only the hash is left.
    Evicted {
        /// Its hash, that of the digest.
        key_hash: u64,
        /// The version it had.
        version: Version,
    },
}

/// Where the making of a list stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListCursor {
    shard: usize,
    phase: Phase,
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Entries,
    Tombstones,
    Floors,
}

impl<V: Weigh> Store<V> {
    /// Number of the digest's leaves as a power of two; `None` if this store keeps no digest.
    pub fn digest_bits(&self) -> Option<u32> {
        self.digest.as_ref().map(|digest| digest.bits())
    }

    /// The sum of what is known in a range; zero if there is no such range or no digest. Two stores that know the same have the
    /// same sums, and two that do not have other ones, but for one case in 2^64. Cost: linear in the range's leaves, no lock.
    pub fn digest_sum(&self, range: LeafRange) -> u64 {
        self.digest.as_ref().map_or(0, |digest| digest.sum(range))
    }

    /// Was anything of this range forgotten for want of room? Then it may differ for ever from that of a store with more.
    pub fn digest_is_lossy(&self, range: LeafRange) -> bool {
        self.digest
            .as_ref()
            .is_some_and(|digest| digest.is_lossy(range))
    }

    /// The hash of a key by which the digest goes; `None` if this store keeps no digest.
    pub fn digest_hash(&self, key: &[u8]) -> Option<u64> {
        self.digest.as_ref().map(|digest| digest.hash(key))
    }

    /// The group invalidations that all nodes should know, as one number. Cost: linear in their number.
    pub fn floors_digest(&self) -> u64 {
        let hasher = SipHasher13::new_with_key(&self.config.digest_key.unwrap_or_default());
        let one = |(scope, version): (Scope, Version)| {
            let (number, bytes): (u8, &[u8]) = match &scope {
                Scope::All => (0, &[]),
                Scope::Prefix(bytes) => (1, bytes),
                Scope::Tag(bytes) => (2, bytes),
                Scope::TagPrefix(bytes) => (3, bytes),
            };
            hasher.hash(&[&[number], bytes, &version.to_bytes()].concat())
        };
        let floors = self.remembered_floors().into_iter();
        floors.fold(0, |sum, floor| sum.wrapping_add(one(floor)))
    }

    /// The group invalidations that are young enough for a peer to be told of.
    pub fn remembered_floors(&self) -> Vec<(Scope, Version)> {
        let mut floors = self.floors();
        floors.retain(|(_, version)| self.remembers(*version));
        floors
    }

    /// Is a removal or a group invalidation at `version` younger than `tombstone_ttl`? What is not must not be taken from peers.
    pub fn is_remembered(&self, version: Version) -> bool {
        self.remembers(version)
    }

    /// Goes on with a list of what is known in `ranges`: looks at about `budget` things from `cursor` on, and says where to continue
    /// (`None` at the end). What is there throughout is listed; what changes meanwhile may be listed twice. Empty without a digest.
    pub fn list(
        &self,
        cursor: ListCursor,
        ranges: &LeafSet,
        budget: usize,
    ) -> (Vec<Listed>, Option<ListCursor>) {
        let mut listed = Vec::new();
        let mut cursor = cursor;
        let mut seen = 0;
        while seen < budget && self.digest.is_some() {
            let Some(shard) = self.shards().nth(cursor.shard) else {
                return (listed, None);
            };
            let writer = shard.writer.lock();
            let end = match cursor.phase {
                Phase::Entries => self.list_entries(&writer, &mut cursor, ranges, &mut listed),
                Phase::Tombstones => {
                    self.list_tombstones(&writer, &mut cursor, ranges, &mut listed)
                }
                Phase::Floors => list_floors(&writer, &mut cursor, ranges, &mut listed),
            };
            drop(writer);
            seen += STEP;
            if end {
                cursor = cursor.next_phase();
            }
        }
        (listed, self.digest.is_some().then_some(cursor))
    }

    fn list_entries(
        &self,
        writer: &Writer<V>,
        cursor: &mut ListCursor,
        ranges: &LeafSet,
        listed: &mut Vec<Listed>,
    ) -> bool {
        let slots = u64::from(writer.directory.slots());
        let end = slots.min(cursor.next + STEP as u64);
        for slot in cursor.next..end {
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            if let Some(entry) = writer.directory.get(slot) {
                let key_hash = writer.key_hash(entry);
                if ranges.contains(key_hash) {
                    listed.extend(self.list_entry(entry, key_hash));
                }
            }
        }
        cursor.next = end;
        end >= slots
    }

    fn list_entry(&self, entry: &Handle<V>, key_hash: u64) -> Option<Listed> {
        let version = entry.version();
        if version <= self.whole_key_floor(entry.key()) {
            return None;
        }
        if entry.expiry().is_expired(self.clock.now_ms()) {
            let key = entry.key().into();
            return self
                .remembers(version)
                .then_some(Listed::Held { key, version });
        }
        Some(if self.is_idle(entry) {
            Listed::Evicted { key_hash, version }
        } else {
            let key = entry.key().into();
            Listed::Held { key, version }
        })
    }

    fn list_tombstones(
        &self,
        writer: &Writer<V>,
        cursor: &mut ListCursor,
        ranges: &LeafSet,
        listed: &mut Vec<Listed>,
    ) -> bool {
        let mut seen = 0;
        for (number, tombstone) in writer.tombstones.iter_from(cursor.next).take(STEP) {
            seen += 1;
            cursor.next = number + 1;
            let (key, version) = (tombstone.key(), tombstone.version);
            let wanted = self
                .digest_hash(key)
                .is_some_and(|hash| ranges.contains(hash));
            if wanted && self.remembers(version) && version > self.whole_key_floor(key) {
                let key = key.into();
                listed.push(Listed::Held { key, version });
            }
        }
        seen < STEP
    }
}

/// Lists floors of evicted keys; true at the end of the shard's.
fn list_floors<V: Weigh>(
    writer: &Writer<V>,
    cursor: &mut ListCursor,
    ranges: &LeafSet,
    listed: &mut Vec<Listed>,
) -> bool {
    let from = usize::try_from(cursor.next).unwrap_or(usize::MAX);
    let end = writer.key_floors.buckets().min(from.saturating_add(STEP));
    let floors = writer.key_floors.iter_from(from);
    for (_, floor) in floors.take_while(|(bucket, _)| *bucket < end) {
        if ranges.contains(floor.hash) {
            let (key_hash, version) = (floor.hash, floor.version);
            listed.push(Listed::Evicted { key_hash, version });
        }
    }
    cursor.next = end as u64;
    end >= writer.key_floors.buckets()
}

impl ListCursor {
    fn next_phase(self) -> Self {
        let (shard, phase) = match self.phase {
            Phase::Entries => (self.shard, Phase::Tombstones),
            Phase::Tombstones => (self.shard, Phase::Floors),
            Phase::Floors => (self.shard + 1, Phase::Entries),
        };
        Self {
            shard,
            phase,
            next: 0,
        }
    }
}

#[cfg(test)]
#[path = "compare_test.rs"]
mod tests;
