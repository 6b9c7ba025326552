//! Who hears of changes: [`Listener`] and [`Event`].

use crate::{Handle, Version};

/// Hears of every change in a store.
///
/// Called on the thread that caused the change, after all locks are released: a listener may call the store.
/// Events of one key can therefore overtake each other when two threads change it at once; their versions
/// tell. Keep it short, the caller waits for it.
pub trait Listener<V>: Send + Sync {
    /// Something happened.
    fn on_event(&self, event: Event<'_, V>);
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a, V> {
    /// A key has a new entry.
    Updated {
        /// The new entry.
        entry: &'a Handle<V>,
        /// The one before it.
        replaced: Option<&'a Handle<V>>,
    },
    /// A key was removed.
    Removed {
        /// The key.
        key: &'a [u8],
        /// The removal's version.
        version: Version,
        /// The entry that was removed, if one was held.
        removed: Option<&'a Handle<V>>,
    },
    /// An entry made room for others.
    Evicted(&'a Handle<V>),
    /// An entry's deadline passed, or it was idle for too long.
    Expired(&'a Handle<V>),
    /// An entry was swept after a group invalidation (its reads ended when the invalidation was merged).
    Invalidated(&'a Handle<V>),
}
