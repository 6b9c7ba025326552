//! From what happens in the store to what watchers of the cache are told.

use std::sync::Arc;

use nearcache_protocol::probe::is_reserved;
use nearcache_store::{Event, Handle, Listener, Scope};

use super::sources::Sources;
use crate::subscription::Hub;

/// A change before it has a type.
pub(crate) enum CellChange<V> {
    /// A key has a new entry.
    Put(Handle<V>),
    /// A key was removed.
    Removed(Arc<[u8]>),
    /// A group was invalidated.
    Invalidated { scope: Scope },
}

impl<V> Clone for CellChange<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Put(handle) => Self::Put(handle.clone()),
            Self::Removed(key) => Self::Removed(Arc::clone(key)),
            Self::Invalidated { scope } => Self::Invalidated {
                scope: scope.clone(),
            },
        }
    }
}

/// Listens to the store for the watchers, and for versions of the system of record. Without a watcher, a change costs one load and a
/// look at the entry's tags.
pub(super) struct StoreWatcher<V> {
    changes: Arc<Hub<CellChange<V>>>,
    sources: Arc<Sources>,
}

impl<V> StoreWatcher<V> {
    pub(super) const fn new(changes: Arc<Hub<CellChange<V>>>, sources: Arc<Sources>) -> Self {
        Self { changes, sources }
    }
}

impl<V: Send + Sync> Listener<V> for StoreWatcher<V> {
    fn on_event(&self, event: Event<'_, V>) {
        if let Event::Updated { entry, .. } = &event {
            self.sources.saw(entry);
        }
        if !self.changes.is_watched() {
            return;
        }
        match event {
            // The audit's keys are nobody's business.
            Event::Updated { entry, .. } if is_reserved(entry.key()) => {}
            Event::Removed { key, .. } if is_reserved(key) => {}
            Event::Updated { entry, .. } => self.changes.send(&CellChange::Put(entry.clone())),
            Event::Removed { key, .. } => self.changes.send(&CellChange::Removed(key.into())),
            // What this node drops by itself is no change of the cache.
            _ => {}
        }
    }
}
