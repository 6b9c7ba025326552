//! How keys are hashed: once per operation, by a keyed hash, and never again below.

use std::hash::{BuildHasher as _, Hasher as _};

/// Hashes keys with aHash, keyed by the owner's seed (reliability §4.6: outsiders must not be able to
/// aim keys at one place of a table).
pub(crate) struct KeyHasher(ahash::RandomState);

impl KeyHasher {
    pub(crate) fn new(seed: u64) -> Self {
        // The other three words only have to differ from each other: digits of pi.
        Self(ahash::RandomState::with_seeds(
            seed,
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
        ))
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::KeyHasher;

    #[test]
    fn hash_depends_on_the_seed() {
        assert_eq!(
            KeyHasher::new(1).hash(b"key"),
            KeyHasher::new(1).hash(b"key")
        );
        assert_ne!(
            KeyHasher::new(1).hash(b"key"),
            KeyHasher::new(2).hash(b"key")
        );
    }
}
