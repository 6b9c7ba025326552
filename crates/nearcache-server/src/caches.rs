//! The caches this server offers, by name: raw bytes under raw keys.
//!
//! RESP and HTTP see the same caches. A Rust program that opens a cache of the same name with keys of
//! text or bytes sees the same keys.

use std::collections::BTreeMap;

use nearcache::{Cache, Raw, RawValue};

/// A cache as RESP and HTTP use it.
pub type RawCache = Cache<Vec<u8>, RawValue, Raw>;

/// The open caches of a node.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    by_name: BTreeMap<String, RawCache>,
}

impl Caches {
    /// Adds a cache under its own name.
    pub fn insert(&mut self, cache: RawCache) {
        self.by_name.insert(cache.name().to_owned(), cache);
    }

    /// The cache of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RawCache> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RawCache> {
        self.by_name.values()
    }
}
