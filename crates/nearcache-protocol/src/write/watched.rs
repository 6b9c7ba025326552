//! What was accepted of a key while somebody is about to write it or to see to its end: [`Watched`].
//!
//! A read-modify-write may be decided by another node. By the time the answer is here, this node may have accepted a later write of the key,
//! which may even be in the system of record: then the answer's is not to be made any more. As long as the later one is queued, the queue
//! knows of it; this remembers it for as long as somebody asks it to, and no longer.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_store::Version;

/// Keys that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<Bytes, Key>);

#[derive(Debug)]
struct Key {
    watchers: usize,
    /// The latest version that was accepted since the first of them came.
    latest: Version,
}

impl Watched {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn watch(&mut self, key: Bytes) {
        let watched = self.0.entry(key).or_insert(Key {
            watchers: 0,
            latest: Version::ZERO,
        });
        watched.watchers += 1;
    }

    pub(super) fn unwatch(&mut self, key: &[u8]) {
        if let Some(watched) = self.0.get_mut(key) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                self.0.remove(key);
            }
        }
    }

    /// A write was accepted. Costs nothing to speak of while nothing is watched.
    pub(super) fn accepted(&mut self, key: &[u8], version: Version) {
        if let Some(watched) = self.0.get_mut(key) {
            watched.latest = version.max(watched.latest);
        }
    }

    /// Whether something later than this was accepted meanwhile.
    pub(super) fn has_later(&self, key: &[u8], version: Version) -> bool {
        let watched = self.0.get(key);
        watched.is_some_and(|watched| watched.latest > version)
    }
}
