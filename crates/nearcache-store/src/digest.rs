//! What a store knows, in a few numbers that two stores can compare: [`Digest`], leaves of sums over key hashes.
//!
//! Source: the idea of comparing replicas by a tree of hashes is Merkle's (CRYPTO 1987), its use for anti-entropy that of
//! DeCandia et al., "Dynamo", SOSP 2007, §4.7. Differences: a leaf is a wrapping sum of one number per key, so that a change
//! costs one addition, whatever the order, and the inner nodes are sums of leaves, made when they are asked for.
//!
//! ```text
//! key ─SipHash, keyed alike on all nodes─▶ key hash ─top bits─▶ leaf += mix(key hash, version)
//! ```
//!
//! A key counts with the version of what is *known exactly* of it: its entry, its tombstone, or the floor that stayed when it was
//! evicted. So an eviction changes nothing (R10), and neither does an expiry, whose tombstone has the entry's version: expiry,
//! value and tags never change without a new version (R11). What is known only as part of a common floor no longer counts; the
//! leaf is marked then, because it will differ from that of a peer with more room.

use siphasher::sip::SipHasher13;

use crate::sync::{AtomicU64, Ordering};
use crate::{Handle, Version};

/// Bytes of the bound per leaf: some sixteen small entries share one.
const BYTES_PER_LEAF: u64 = 4096;
/// Fewest and most leaves, as powers of two: 2 KiB and 8 MiB of memory.
const BITS_MIN: u32 = 8;
const BITS_MAX: u32 = 20;

/// The leaves of one store. Written under the locks of its shards, by any number of them at once.
pub(crate) struct Digest {
    hasher: SipHasher13,
    bits: u32,
    leaves: Box<[AtomicU64]>,
    /// One bit per leaf: something was folded into a common floor.
    lossy: Box<[AtomicU64]>,
    planted: crate::planted::Planted,
}

impl Digest {
    /// An empty digest for a store of `max_bytes`, with the cluster's key.
    pub(crate) fn new(key: [u8; 16], max_bytes: u64) -> Self {
        let bits = (max_bytes / BYTES_PER_LEAF).max(1).ilog2();
        let bits = bits.clamp(BITS_MIN, BITS_MAX);
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            hasher: SipHasher13::new_with_key(&key),
            bits,
            leaves: zeros(1 << bits),
            lossy: zeros(1 << (bits - 6)),
            planted: crate::planted::Planted::default(),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant(&self, bug: crate::PlantedBug) {
        self.planted.plant(bug);
    }

    pub(crate) fn planted(&self) -> &crate::planted::Planted {
        &self.planted
    }

    /// Number of leaves, as a power of two.
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// The hash of a key, equal on all nodes of a cluster.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// `key_hash` is known at `version` from now on.
    #[inline]
    pub(crate) fn add(&self, key_hash: u64, version: Version) {
        self.change(key_hash, mix(key_hash, version));
    }

    /// It no longer is.
    #[inline]
    pub(crate) fn remove(&self, key_hash: u64, version: Version) {
        self.change(key_hash, mix(key_hash, version).wrapping_neg());
    }

    /// It is known at `new` in place of `old`.
    #[inline]
    pub(crate) fn replace(&self, key_hash: u64, old: Version, new: Version) {
        let change = mix(key_hash, new).wrapping_sub(mix(key_hash, old));
        self.change(key_hash, change);
    }

    #[inline]
    fn change(&self, key_hash: u64, by: u64) {
        // Relaxed: sums of all orders are equal, and nothing else is published by them.
        self.leaves[self.leaf(key_hash)].fetch_add(by, Ordering::Relaxed);
    }

    /// What was known of `key_hash` is part of a common floor now.
    #[inline]
    pub(crate) fn mark_lossy(&self, key_hash: u64) {
        let leaf = self.leaf(key_hash);
        let (word, bit) = (&self.lossy[leaf / 64], 1 << (leaf % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of leaves"
    )]
    fn leaf(&self, key_hash: u64) -> usize {
        (key_hash >> (u64::BITS - self.bits)) as usize
    }

    /// The leaves of a range; none if there is no such range.
    fn leaves_of(&self, range: LeafRange) -> std::ops::Range<usize> {
        if range.bits > self.bits || u64::from(range.prefix) >> range.bits != 0 {
            return 0..0;
        }
        let shift = self.bits - range.bits;
        let first = (range.prefix as usize) << shift;
        first..first + (1 << shift)
    }

    /// The sum of a range. Cost: linear in its leaves.
    pub(crate) fn sum(&self, range: LeafRange) -> u64 {
        let leaves = &self.leaves[self.leaves_of(range)];
        leaves.iter().fold(0, |sum, leaf| {
            sum.wrapping_add(leaf.load(Ordering::Relaxed))
        })
    }

    pub(crate) fn is_lossy(&self, range: LeafRange) -> bool {
        self.leaves_of(range)
            .any(|leaf| self.lossy[leaf / 64].load(Ordering::Relaxed) & (1 << (leaf % 64)) != 0)
    }
}

/// One number for a key at a version; part of what nodes must agree on. Two multiplications to the full width, folded.
#[inline]
fn mix(key_hash: u64, version: Version) -> u64 {
    let first = fold(
        key_hash ^ 0x243f_6a88_85a3_08d3,
        version.time.as_u64() ^ 0x1319_8a2e_0370_7344,
    );
    fold(
        first ^ key_hash.rotate_left(32),
        version.origin.as_u64() ^ 0xa409_3822_299f_31d0,
    )
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "splits 128 bits into their two halves"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// All key hashes with the same top bits: a leaf, or an inner node of the tree above the leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafRange {
    /// How many top bits: 0 means all key hashes.
    pub bits: u32,
    /// Those bits.
    pub prefix: u32,
}

impl LeafRange {
    /// All key hashes.
    pub const ALL: Self = Self { bits: 0, prefix: 0 };

    /// The `2^more_bits` equal parts of this range, in order.
    pub fn parts(self, more_bits: u32) -> impl Iterator<Item = Self> {
        let bits = self.bits + more_bits;
        (0..1_u32 << more_bits).map(move |part| Self {
            bits,
            prefix: (self.prefix << more_bits) | part,
        })
    }
}

/// Some ranges of one size, to be looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafSet {
    bits: u32,
    words: Box<[u64]>,
    len: usize,
}

impl LeafSet {
    /// Most bits that the ranges of a set may have: 128 KiB of memory.
    pub const BITS_MAX: u32 = BITS_MAX;

    /// The ranges of `bits` top bits with these prefixes; those that do not exist are left out. `None` if there are more bits
    /// than [`LeafSet::BITS_MAX`].
    #[must_use]
    pub fn new(bits: u32, prefixes: impl IntoIterator<Item = u32>) -> Option<Self> {
        if bits > Self::BITS_MAX {
            return None;
        }
        let mut words = vec![0_u64; (1_usize << bits).div_ceil(64)].into_boxed_slice();
        for prefix in prefixes
            .into_iter()
            .filter(|prefix| u64::from(*prefix) >> bits == 0)
        {
            words[prefix as usize / 64] |= 1 << (prefix % 64);
        }
        let len = words.iter().map(|word| word.count_ones() as usize).sum();
        Some(Self { bits, words, len })
    }

    /// Number of ranges.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Are these all key hashes, in one range?
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.bits == 0 && self.len == 1
    }

    /// Is a key with this hash in one of them?
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most BITS_MAX bits are left"
    )]
    pub fn contains(&self, key_hash: u64) -> bool {
        let prefix = key_hash.checked_shr(u64::BITS - self.bits).unwrap_or(0) as usize;
        self.words[prefix / 64] & (1 << (prefix % 64)) != 0
    }
}

/// How keys of a shard are hashed for digest and floors: by the digest if there is one, else by the store.
#[inline]
pub(crate) fn key_hash<V>(digest: Option<&Digest>, entry: &Handle<V>) -> u64 {
    digest.map_or_else(|| entry.record().hash, |digest| digest.hash(entry.key()))
}

#[cfg(test)]
#[path = "digest_test.rs"]
mod tests;
