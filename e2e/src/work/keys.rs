//! The keys of one cache in one round, and what is stored under them.

use crate::cache::Cache;
use crate::history::Value;

/// Pinned keys per node.
pub(super) const PINNED: usize = 6;
/// Shared keys.
pub(super) const SHARED: usize = 24;
/// Stable keys.
const STABLE: usize = 12;
/// Bytes added to each value, so that they fill something.
const PADDING: usize = 100;

/// The keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// Caches do not share keys.
    pub(crate) cache: Cache,
    /// Neither do rounds.
    pub(crate) round: usize,
    /// Nodes of the cluster.
    pub(crate) nodes: usize,
}

impl Keys {
    /// How many there are.
    pub(crate) fn count(self) -> usize {
        self.stable_from() + STABLE
    }

    /// How many belong to one node and one client each.
    pub(crate) fn pinned(self) -> usize {
        self.nodes * PINNED
    }

    /// The first stable one.
    pub(crate) fn stable_from(self) -> usize {
        self.pinned() + SHARED
    }

    /// Its name in the cache.
    pub(crate) fn name(self, key: usize) -> String {
        format!("{}:round{}:key{key}", self.cache, self.round)
    }

    /// What is stored for a value: it names its key, so that an answer meant for another is noticed (C6).
    pub(super) fn stored(self, key: usize, value: Value) -> String {
        format!("{}={value}={}", self.name(key), "x".repeat(PADDING))
    }

    /// The value in what was read; `None` if it belongs to another key.
    pub(super) fn value(self, key: usize, bytes: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split('=');
        (parts.next()? == self.name(key)).then_some(())?;
        parts.next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_a_value_of_another_key_is_not_taken_for_this_ones() {
        let keys = Keys {
            cache: Cache::Replicated,
            round: 3,
            nodes: 3,
        };
        let stored = keys.stored(5, 77);
        assert_eq!(keys.value(5, stored.as_bytes()), Some(77));
        assert_eq!(keys.value(6, stored.as_bytes()), None);
        assert_eq!(Keys { round: 4, ..keys }.value(5, stored.as_bytes()), None);
        let other = Cache::Bypass;
        let elsewhere = Keys {
            cache: other,
            ..keys
        };
        assert_eq!(elsewhere.value(5, stored.as_bytes()), None);
    }
}
