//! The versions of evicted keys of a shard: [`KeyFloors`], so that evicting an entry lets nothing older back (C2).
//!
//! A table of buckets of one cache line, found by the high bits of a key's hash (that of the digest, where there is one, so that
//! a floor's share in the digest is known without its key). A bucket knows the floors of two keys
//! exactly; a third makes the lowest of them part of the bucket's common floor, which stands against every key of the bucket.
//! So the table is bounded by its construction, nothing has to be searched or rebuilt, and an eviction costs one cache
//! line. Two keys of one 64-bit hash share a floor. Either at worst refuses an update of an absent key that is older
//! than another evicted one; nothing older than an evicted version is ever let in.

use crate::Version;

pub(crate) struct KeyFloors {
    /// Empty until the first floor.
    buckets: Box<[Bucket]>,
    buckets_max: usize,
    len: usize,
    folded: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    /// Floors of single keys. A free place has the version zero, which no floor has.
    exact: [Floor; 2],
    /// The highest of the floors that had to make room.
    common: Version,
}

/// The floor of one key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Floor {
    pub(crate) hash: u64,
    pub(crate) version: Version,
}

/// What stands against keys of a hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Nothing older than this may be stored.
    pub(crate) floor: Version,
    /// What of that is known of this very hash; zero if nothing is.
    pub(crate) exact: Version,
}

impl Found {
    /// The higher of each.
    #[inline]
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            floor: self.floor.max(other.floor),
            exact: self.exact.max(other.exact),
        }
    }
}

/// What raising a floor changed among those that are known exactly.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Raised {
    /// The floor is known exactly now, and was not before.
    pub(crate) placed: bool,
    /// This one no longer is: a higher one of the same key took its place, or it had to make room.
    pub(crate) gone: Option<Floor>,
    /// The key whose floor became part of the common one.
    pub(crate) folded: Option<u64>,
}

impl Bucket {
    #[inline]
    fn find(&mut self, hash: u64) -> Option<&mut Floor> {
        self.exact
            .iter_mut()
            .find(|f| f.hash == hash && f.version != Version::ZERO)
    }
}

impl KeyFloors {
    /// A table that never takes more than `max_bytes`, or eight buckets if that is more.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let buckets_max = usize::try_from(max_bytes).unwrap_or(usize::MAX) / size_of::<Bucket>();
        Self {
            buckets: Box::default(),
            buckets_max: buckets_max.max(8),
            len: 0,
            folded: 0,
        }
    }

    /// Floors of single keys held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many were folded into the common floor of their bucket so far.
    pub(crate) fn folded(&self) -> u64 {
        self.folded
    }

    /// Bytes counted against the bound: what the table has allocated.
    #[inline]
    pub(crate) fn weight_bytes(&self) -> u64 {
        size_of_val(&*self.buckets) as u64
    }

    /// Nothing older than this may be stored for keys of `hash`.
    #[cfg(test)]
    pub(crate) fn get(&self, hash: u64) -> Version {
        self.find(hash).floor
    }

    /// What stands against keys of `hash`.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Found {
        let Some(bucket) = self.buckets.get(self.home(hash)) else {
            return Found::default();
        };
        let exact = bucket.exact.iter().filter(|f| f.hash == hash);
        let exact = exact.fold(Version::ZERO, |floor, f| floor.max(f.version));
        Found {
            floor: exact.max(bucket.common),
            exact,
        }
    }

    /// The floor of `hash`, if it is known exactly.
    pub(crate) fn exact(&self, hash: u64) -> Option<Version> {
        let bucket = self.buckets.get(self.home(hash))?;
        let mut exact = bucket.exact.iter();
        let floor = exact.find(|f| f.hash == hash && f.version != Version::ZERO)?;
        Some(floor.version)
    }

    /// Raises the floor of `hash` to `version`.
    #[inline]
    pub(crate) fn raise(&mut self, hash: u64, version: Version) -> Raised {
        if version == Version::ZERO {
            return Raised::default();
        }
        if self.buckets.is_empty() {
            self.buckets = vec![Bucket::default(); self.buckets_max].into_boxed_slice();
        }
        let home = self.home(hash);
        let bucket = &mut self.buckets[home];
        if let Some(floor) = bucket.find(hash) {
            if version <= floor.version {
                return Raised::default();
            }
            let gone = Some(*floor);
            floor.version = version;
            return Raised {
                placed: true,
                gone,
                folded: None,
            };
        }
        let [first, second] = &mut bucket.exact;
        let lowest = if first.version <= second.version {
            first
        } else {
            second
        };
        let mut raised = Raised::default();
        if lowest.version == Version::ZERO {
            self.len += 1;
        } else {
            self.folded += 1;
            bucket.common = bucket.common.max(lowest.version.min(version));
            raised.folded = Some(if version > lowest.version {
                lowest.hash
            } else {
                hash
            });
        }
        if version > lowest.version {
            raised.gone = Some(*lowest).filter(|floor| floor.version != Version::ZERO);
            raised.placed = true;
            *lowest = Floor { hash, version };
        }
        raised
    }

    /// Whether a floor of `hash` is known exactly, or would be without another having to make room.
    pub(crate) fn has_room_for(&self, hash: u64) -> bool {
        let is_usable = |floor: &Floor| floor.version == Version::ZERO || floor.hash == hash;
        let bucket = self.buckets.get(self.home(hash));
        bucket.is_none_or(|bucket| bucket.exact.iter().any(is_usable))
    }

    /// Drops the common floors up to `version`; those of single keys stay. Cost: linear.
    pub(crate) fn drop_common_up_to(&mut self, version: Version) {
        for bucket in &mut self.buckets {
            if bucket.common <= version {
                bucket.common = Version::ZERO;
            }
        }
    }

    /// Drops the floor of `hash`: an entry that is at least as new holds the key now. Returns what it was, if there was one.
    #[inline]
    pub(crate) fn drop_hash(&mut self, hash: u64) -> Option<Version> {
        let home = self.home(hash);
        let floor = self.buckets.get_mut(home)?.find(hash)?;
        let version = floor.version;
        *floor = Floor::default();
        self.len -= 1;
        Some(version)
    }

    /// Floors of single keys from bucket number `from` on, each with its bucket's number.
    pub(crate) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, Floor)> {
        let buckets = self.buckets.iter().enumerate().skip(from);
        let exact = buckets.flat_map(|(number, bucket)| bucket.exact.map(|floor| (number, floor)));
        exact.filter(|(_, floor)| floor.version != Version::ZERO)
    }

    /// Number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Drops all floors up to `version`, each of a single key told to `gone`. Cost: linear.
    pub(crate) fn drop_up_to(&mut self, version: Version, mut gone: impl FnMut(Floor)) {
        for bucket in &mut self.buckets {
            for floor in &mut bucket.exact {
                if floor.version != Version::ZERO && floor.version <= version {
                    gone(*floor);
                    *floor = Floor::default();
                    self.len -= 1;
                }
            }
            if bucket.common <= version {
                bucket.common = Version::ZERO;
            }
        }
    }

    /// The bucket of `hash`: its high bits, scaled to the number of buckets.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of buckets"
    )]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
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
    fn c9_table_stays_within_its_bytes_and_c2_forgets_no_floor() {
        let mut floors = KeyFloors::new(4096);
        for n in 1..=10_000_u64 {
            floors.raise(spread(n), version(n));
            assert!(floors.weight_bytes() <= 4096, "{}", floors.weight_bytes());
        }
        for n in 1..=10_000 {
            assert!(floors.get(spread(n)) >= version(n), "lost floor {n}");
        }
        assert_eq!(floors.len(), 128);
        assert_eq!(floors.folded(), 10_000 - 128);
    }

    #[test]
    fn floor_of_a_key_never_falls() {
        let mut floors = KeyFloors::new(4096);
        floors.raise(1, version(5));
        floors.raise(1, version(3));
        assert_eq!(floors.get(1), version(5));
    }

    #[test]
    fn a_third_key_folds_the_lowest_whichever_came_first() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut floors = KeyFloors::new(512);
            for n in order {
                floors.raise(n, version(n));
            }
            let known = [1, 2, 3, 4].map(|n| floors.get(n));
            assert_eq!(known, [1, 2, 3, 1].map(version), "{order:?}");
        }
    }

    #[test]
    fn floors_up_to_a_version_are_dropped_and_later_ones_kept() {
        let mut floors = KeyFloors::new(4096);
        for n in 3..=6 {
            floors.raise(n, version(n));
        }
        floors.drop_up_to(version(5), |_| ());
        assert_eq!((floors.get(5), floors.get(6)), (Version::ZERO, version(6)));
        assert_eq!(floors.len(), 1);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_while_no_bucket_has_more_than_two_keys(
            steps in prop::collection::vec((0_u64..16, any::<bool>(), 1_u64..100), 0..400),
        ) {
            let mut floors = KeyFloors::new(8 * size_of::<Bucket>() as u64);
            let mut model: HashMap<u64, Version> = HashMap::new();
            let hash_of = |n: u64| (n / 2) << 61 | (n % 2);
            for (n, raise, v) in steps {
                if raise {
                    floors.raise(hash_of(n), version(v));
                    let floor = model.entry(n).or_insert(Version::ZERO);
                    *floor = version(v).max(*floor);
                } else {
                    floors.drop_hash(hash_of(n));
                    model.remove(&n);
                }
                prop_assert_eq!(floors.len(), model.len());
                for n in 0..16 {
                    let expected = model.get(&n).copied().unwrap_or(Version::ZERO);
                    prop_assert_eq!(floors.get(hash_of(n)), expected);
                }
            }
        }
    }
}
