//! Which node is a key's home: rendezvous hashing, keyed.
//!
//! A pure function of the placement key, the cache key and the member set: every node computes the same
//! home from the same view, without a word exchanged, and a member that comes or goes moves only the
//! keys whose home it is. The mode asks for it per read-modify-write.
//!
//! Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
//! Transactions on Networking 6(1), 1998; SipHash: Aumasson and Bernstein, INDOCRYPT 2012. Keyed, so that
//! a client that chooses its keys cannot aim them all at one node.

use std::fmt;
use std::hash::Hasher as _;

use nearcache_store::NodeId;
use siphasher::sip::SipHasher24;

/// The cluster's setting that keys the placement of everything. The same on all nodes, and changed only
/// on purpose: changing it moves every home at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PlacementKey([u8; 16]);

impl PlacementKey {
    /// A key that was configured.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key of a cluster that configures none: its name, hashed.
    #[must_use]
    pub fn of_cluster(name: &str) -> Self {
        let half = |label: &[u8]| {
            let mut hasher = SipHasher24::new_with_key(b"nearcache/place\0");
            hasher.write(label);
            hasher.write(name.as_bytes());
            hasher.finish().to_be_bytes()
        };
        let (high, low) = (half(b"0"), half(b"1"));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high);
        bytes[8..].copy_from_slice(&low);
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for PlacementKey {
    /// Never the key: who knows it can aim keys at a node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlacementKey(..)")
    }
}

/// The home of `key` among `members`; `None` only if there are none.
///
/// The order of `members` does not matter. Cost: one SipHash of the key and one of 16 bytes per member;
/// no allocation.
#[must_use]
pub fn home(
    placement: PlacementKey,
    key: &[u8],
    members: impl IntoIterator<Item = NodeId>,
) -> Option<NodeId> {
    let mut hasher = SipHasher24::new_with_key(&placement.0);
    hasher.write(key);
    let key_hash = hasher.finish();
    members
        .into_iter()
        .max_by_key(|member| (weight(placement, key_hash, *member), *member))
}

fn weight(placement: PlacementKey, key_hash: u64, member: NodeId) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&placement.0);
    hasher.write(&member.as_u64().to_be_bytes());
    hasher.write(&key_hash.to_be_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn members(numbers: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
        numbers.into_iter().map(NodeId::from_u64).collect()
    }

    #[test]
    fn golden_homes_stay_where_they_are() {
        let placement = PlacementKey::of_cluster("demo");
        let homes: Vec<u64> = ["a", "b", "user:1", ""]
            .iter()
            .filter_map(|key| home(placement, key.as_bytes(), members(1..=5)))
            .map(NodeId::as_u64)
            .collect();
        assert_eq!(homes, GOLDEN_HOMES);
    }

    /// Part of the wire contract: nodes of two versions must agree on every home.
    const GOLDEN_HOMES: [u64; 4] = [3, 1, 3, 3];

    #[test]
    fn homes_are_balanced_over_the_members() {
        let placement = PlacementKey::of_cluster("demo");
        let keys = 20_000_u32;
        let mut counts = BTreeMap::new();
        for key in 0..keys {
            *counts
                .entry(home(placement, &key.to_be_bytes(), members(1..=8)))
                .or_insert(0_u32) += 1;
        }
        let fair = keys / 8;
        for (member, count) in counts {
            assert!(
                count.abs_diff(fair) < fair / 10,
                "{member:?} is home of {count}, fair is {fair}"
            );
        }
    }

    #[test]
    fn nobody_is_home_in_an_empty_cluster() {
        assert_eq!(home(PlacementKey::of_cluster("demo"), b"key", []), None);
    }

    proptest! {
        #[test]
        fn p8_only_keys_of_the_member_that_left_move(
            numbers in prop::collection::btree_set(any::<u64>(), 2..20),
            leaving in any::<prop::sample::Index>(),
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..50),
            name in "[a-z]{1,8}",
        ) {
            let placement = PlacementKey::of_cluster(&name);
            let before = members(numbers.iter().copied());
            let gone = before[leaving.index(before.len())];
            let after: BTreeSet<_> = before.iter().copied().filter(|m| *m != gone).collect();
            for key in keys {
                let old = home(placement, &key, before.iter().copied().rev());
                let new = home(placement, &key, after.iter().copied());
                prop_assert!(old == new || old == Some(gone));
            }
        }
    }
}
