use super::*;
use crate::{NodeId, Timestamp};

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

#[test]
fn golden_numbers_stay_what_they_are() {
    // Part of the wire contract: nodes of two versions must have the same sums.
    let digest = Digest::new(*b"0123456789abcdef", 1 << 20);
    let key_hash = digest.hash(b"key");
    assert_eq!((key_hash, mix(key_hash, version(5))), GOLDEN);
}

const GOLDEN: (u64, u64) = (12_698_401_381_539_321_064, 2_792_570_472_452_683_008);

#[test]
fn number_of_leaves_follows_the_bound_within_limits() {
    let bits = |max_bytes| Digest::new([0; 16], max_bytes).bits();
    assert_eq!(
        [1 << 10, 1 << 20, 1 << 30, 1 << 50].map(bits),
        [8, 8, 18, 20]
    );
}

#[test]
fn sum_of_a_range_is_the_sum_of_its_parts() {
    let digest = Digest::new([7; 16], 1 << 24);
    for n in 0..10_000_u64 {
        digest.add(digest.hash(&n.to_be_bytes()), version(n));
    }
    let parts = |range: LeafRange, bits| {
        range
            .parts(bits)
            .map(|part| digest.sum(part))
            .fold(0, u64::wrapping_add)
    };
    let all = digest.sum(LeafRange::ALL);
    assert_ne!(all, 0);
    assert_eq!(parts(LeafRange::ALL, 4), all);
    assert_eq!(parts(LeafRange::ALL, 12), all);
    assert_eq!(
        digest.sum(LeafRange {
            bits: 13,
            prefix: 0
        }),
        0,
        "there is no such range"
    );
    assert_eq!(
        digest.sum(LeafRange { bits: 2, prefix: 4 }),
        0,
        "there is no such range"
    );
}

#[test]
fn what_is_taken_away_is_as_if_it_had_never_been() {
    let digest = Digest::new([7; 16], 1 << 20);
    let hash = digest.hash(b"k");
    digest.add(hash, version(1));
    digest.replace(hash, version(1), version(2));
    assert_ne!(digest.sum(LeafRange::ALL), 0);
    digest.remove(hash, version(2));
    assert_eq!(digest.sum(LeafRange::ALL), 0);
}

#[test]
fn a_range_is_lossy_if_one_of_its_leaves_is() {
    let digest = Digest::new([7; 16], 1 << 20);
    let hash = digest.hash(b"k");
    digest.mark_lossy(hash);
    let range = |bits: u32| LeafRange {
        bits,
        prefix: u32::try_from(hash >> 32).unwrap() >> (32 - bits),
    };
    assert!(
        digest.is_lossy(LeafRange::ALL) && digest.is_lossy(range(3)) && digest.is_lossy(range(8))
    );
    assert!(!digest.is_lossy(LeafRange {
        prefix: range(8).prefix ^ 1,
        bits: 8
    }));
}

#[test]
fn set_contains_the_keys_of_its_ranges_only() {
    let set = LeafSet::new(4, [0, 15, 16, 99]).unwrap();
    assert_eq!(set.len(), 2);
    assert!(set.contains(0) && set.contains(u64::MAX) && !set.contains(1 << 60));
    assert!(LeafSet::new(0, [0]).unwrap().contains(u64::MAX));
    assert!(LeafSet::new(LeafSet::BITS_MAX + 1, []).is_none());
}
