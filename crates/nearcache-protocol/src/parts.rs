//! The key space in parts, so that several peers can fill a node together: [`Parts`].

use std::fmt;

use nearcache_store::LeafSet;

/// The parts are the key hashes with the same so many top bits, by the hash of the digest, which is the same on all nodes.
const BITS: u32 = 6;

/// Some of the 64 parts of the key space: bit `n` stands for the key hashes whose top six bits are `n`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts(u64);

impl Parts {
    /// How many there are.
    pub const COUNT: u32 = 1 << BITS;
    /// The whole key space.
    pub const ALL: Self = Self(u64::MAX);
    /// None of it.
    pub const NONE: Self = Self(0);

    /// As on the wire.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many these are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether a key with this hash lies in them.
    #[must_use]
    pub const fn contains(self, key_hash: u64) -> bool {
        self.0 & (1 << (key_hash >> (u64::BITS - BITS))) != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The numbers of these parts, which are the prefixes of their key hashes.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..Self::COUNT).filter(move |number| self.0 & (1 << number) != 0)
    }

    /// How many bits the prefixes have.
    pub(crate) const PREFIX_BITS: u32 = BITS;

    /// As the store looks for them.
    #[must_use]
    pub fn leaf_set(self) -> Option<LeafSet> {
        if self == Self::ALL {
            return LeafSet::new(0, [0]);
        }
        LeafSet::new(BITS, self.numbers())
    }

    /// These in `shares` disjoint shares, as equal as they can be, none of them empty; fewer if there are fewer parts.
    #[must_use]
    pub fn split(self, shares: usize) -> Vec<Self> {
        let shares = shares.clamp(1, (self.count() as usize).max(1));
        let mut split = vec![Self::NONE; shares];
        for (n, number) in self.numbers().enumerate() {
            if let Some(share) = split.get_mut(n % shares) {
                share.0 |= 1 << number;
            }
        }
        split
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_disjoint_equal_and_together_everything() {
        for shares in 1..=9 {
            let split = Parts::ALL.split(shares);
            assert_eq!(split.len(), shares);
            let together = split.iter().fold(Parts::NONE, |sum, share| {
                assert!(sum.with(*share).count() == sum.count() + share.count());
                sum.with(*share)
            });
            assert_eq!(together, Parts::ALL);
            let counts = || split.iter().map(|share| share.count());
            assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
        }
        assert_eq!(Parts::from_u64(5).split(3).len(), 2);
    }

    #[test]
    fn a_key_lies_in_the_part_that_the_store_looks_for_it_in() {
        let parts = Parts::from_u64(0x8000_0000_0000_0001);
        let set = parts.leaf_set().unwrap();
        for hash in [0, 1 << 57, 1 << 58, u64::MAX, u64::MAX << 58, 0xfbff << 48] {
            assert_eq!(parts.contains(hash), set.contains(hash), "{hash:x}");
        }
    }
}
