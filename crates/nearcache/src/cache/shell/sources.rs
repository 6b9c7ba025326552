//! Which versions of the system of record this node has seen (I7): by its own loads, and in the entries that other nodes loaded.

use std::hash::{DefaultHasher, Hasher as _};

use nearcache_protocol::load::source::SourceFloors;
use nearcache_store::Handle;
use parking_lot::Mutex;

use crate::cache::load::source_version;

/// The floors of one cache on one node.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<SourceFloors>);

impl Sources {
    /// The key was seen in this version: whether that is as new as all that was seen of it.
    pub(crate) fn raise(&self, key: &[u8], version: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        self.0.lock().raise(hasher.finish(), version)
    }

    /// An entry is in the store, whoever loaded it. Its version travels with it, as one of its tags, and counts here for as long as
    /// floors are remembered: also when the entry itself is gone.
    pub(super) fn saw<V>(&self, entry: &Handle<V>) {
        if let Some(version) = source_version(entry.tags()) {
            self.raise(entry.key(), version);
        }
    }
}
