//! The versions of evicted keys of a shard: [`KeyFloors`], so that evicting an entry lets nothing older back (C2).
//!
//! Keyed by hash alone: two keys of one 64-bit hash share a floor, which at worst refuses an update of one of
//! them. Bounded: when full, the half with the lowest versions is folded into the shard's floor, which that way rises
//! later than by dropping any other half. (Folding an eighth at a time would cost four times as much per eviction.)
//!
//! The table is our own, because it must neither grow nor be rebuilt by a library's choice: open addressing with linear
//! probing and deletion by shifting back (Knuth, "The Art of Computer Programming" vol. 3, section 6.4,
//! algorithms L and R), at most three quarters full.

use crate::Version;

pub(crate) struct KeyFloors {
    /// Empty until the first floor. A free place has the version zero, which no floor has.
    places: Box<[Floor]>,
    places_max: usize,
    len: usize,
    folded: u64,
}

#[derive(Clone, Copy)]
struct Floor {
    hash: u64,
    version: Version,
}

const FREE: Floor = Floor {
    hash: 0,
    version: Version::ZERO,
};

impl KeyFloors {
    /// A table that never takes more than `max_bytes`.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let places_max = usize::try_from(max_bytes).unwrap_or(usize::MAX) / size_of::<Floor>();
        Self {
            places: Box::default(),
            places_max: places_max.max(8),
            len: 0,
            folded: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many were folded into the shard's floor so far.
    pub(crate) fn folded(&self) -> u64 {
        self.folded
    }

    /// Bytes counted against the bound: what the table has allocated.
    pub(crate) fn weight_bytes(&self) -> u64 {
        size_of_val(&*self.places) as u64
    }

    /// Nothing older than this may be stored for keys of `hash`.
    #[inline]
    pub(crate) fn get(&self, hash: u64) -> Version {
        if self.len == 0 {
            Version::ZERO
        } else {
            self.places[self.find(hash)].version
        }
    }

    /// Raises the floor of `hash` to `version`. If there is no room, floors leave, and the highest of their versions is
    /// returned.
    pub(crate) fn raise(&mut self, hash: u64, version: Version) -> Option<Version> {
        if version == Version::ZERO {
            return None;
        }
        if self.places.is_empty() {
            self.places = vec![FREE; self.places_max].into_boxed_slice();
        }
        let at = self.find(hash);
        if self.places[at].version != Version::ZERO {
            self.places[at].version = self.places[at].version.max(version);
            return None;
        }
        let folded = (self.len + 1 > self.places_max / 4 * 3).then(|| self.fold());
        let at = self.find(hash);
        self.places[at] = Floor { hash, version };
        self.len += 1;
        folded
    }

    /// Drops the floor of `hash`: an entry that is at least as new holds the key now.
    #[inline]
    pub(crate) fn drop_hash(&mut self, hash: u64) {
        if self.len == 0 {
            return;
        }
        let mut free = self.find(hash);
        if self.places[free].version == Version::ZERO {
            return;
        }
        self.len -= 1;
        self.places[free] = FREE;
        let mut at = free;
        loop {
            at = self.after(at);
            let floor = self.places[at];
            if floor.version == Version::ZERO {
                return;
            }
            // A floor may move back to the free place unless its home lies between the two, in probing order.
            let home = self.home(floor.hash);
            let stays = if free <= at {
                free < home && home <= at
            } else {
                free < home || home <= at
            };
            if !stays {
                self.places[free] = floor;
                self.places[at] = FREE;
                free = at;
            }
        }
    }

    /// Drops all floors up to `version`. Cost: linear.
    pub(crate) fn drop_up_to(&mut self, version: Version) {
        if self.len == 0 {
            return;
        }
        let empty = vec![FREE; self.places.len()].into_boxed_slice();
        let old = std::mem::replace(&mut self.places, empty);
        self.len = 0;
        for floor in old.into_iter().filter(|f| f.version > version) {
            let at = self.find(floor.hash);
            self.places[at] = floor;
            self.len += 1;
        }
    }

    /// Drops the lowest half and returns the highest version among it. Cost: linear, so O(1) amortised over the
    /// insertions that make it necessary.
    fn fold(&mut self) -> Version {
        let occupied = self
            .places
            .iter()
            .map(|f| f.version)
            .filter(|v| *v != Version::ZERO);
        let mut versions: Vec<Version> = occupied.collect();
        let lowest = versions.len() / 2;
        let (_, highest, _) = versions.select_nth_unstable(lowest);
        let (highest, before) = (*highest, self.len);
        self.drop_up_to(highest);
        self.folded += (before - self.len) as u64;
        highest
    }

    /// Where `hash` is, or would be.
    #[inline]
    fn find(&self, hash: u64) -> usize {
        let mut at = self.home(hash);
        while self.places[at].version != Version::ZERO && self.places[at].hash != hash {
            at = self.after(at);
        }
        at
    }

    /// Where probing for `hash` begins: its high bits, scaled to the number of places.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of places"
    )]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.places.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.places.len() {
            0
        } else {
            at + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{NodeId, Timestamp};

    fn version(n: u64) -> Version {
        Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
    }

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn c9_table_stays_within_its_bytes_and_folds_the_lowest_first() {
        let mut floors = KeyFloors::new(4096);
        let mut shard_floor = Version::ZERO;
        for n in 1..=10_000_u64 {
            let folded = floors.raise(spread(n), version(n));
            shard_floor = shard_floor.max(folded.unwrap_or(Version::ZERO));
            assert!(floors.weight_bytes() <= 4096, "{}", floors.weight_bytes());
        }
        for n in 1..=10_000 {
            assert!(
                floors.get(spread(n)).max(shard_floor) >= version(n),
                "lost floor {n}"
            );
        }
        assert!(
            shard_floor <= version(10_000 - floors.len() as u64),
            "{shard_floor}"
        );
    }

    #[test]
    fn floor_of_a_key_never_falls() {
        let mut floors = KeyFloors::new(4096);
        floors.raise(1, version(5));
        floors.raise(1, version(3));
        assert_eq!(floors.get(1), version(5));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_while_there_is_room(
            steps in prop::collection::vec((0_u64..24, any::<bool>(), 1_u64..100), 0..400),
        ) {
            // Few places and homes at both ends, so that probing runs into itself and around the end.
            let mut floors = KeyFloors::new(40 * size_of::<Floor>() as u64);
            let mut model: HashMap<u64, Version> = HashMap::new();
            for (n, raise, v) in steps {
                let hash = if n % 2 == 0 { u64::MAX - n } else { n };
                if raise {
                    prop_assert_eq!(floors.raise(hash, version(v)), None);
                    let floor = model.entry(hash).or_insert(Version::ZERO);
                    *floor = version(v).max(*floor);
                } else {
                    floors.drop_hash(hash);
                    model.remove(&hash);
                }
                prop_assert_eq!(floors.len(), model.len());
                for n in 0..24 {
                    let hash = if n % 2 == 0 { u64::MAX - n } else { n };
                    let expected = model.get(&hash).copied().unwrap_or(Version::ZERO);
                    prop_assert_eq!(floors.get(hash), expected);
                }
            }
        }
    }
}
