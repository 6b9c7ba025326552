//! A value handed out by a cache.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use nearcache_protocol::payload::Payload;
use nearcache_store::{CoarseClock, Expiry, Handle, Tags, Version};

use crate::codec::{Codec, MessagePack};

/// A value as it was when it was read, shared with the cache and every other reader.
///
/// Dereferences to the value. Cloning costs a reference count; the value lives as long as any
/// clone of it, also after the cache has dropped or replaced its entry.
pub struct Cached<V, C: Codec<V> = MessagePack> {
    handle: Handle<C::Cell>,
}

impl<V, C: Codec<V>> Cached<V, C> {
    /// Takes a handle whose cell can be viewed; `None` if it cannot, or says that there is no value, or if the value is not here.
    #[inline]
    pub(crate) fn of(handle: Handle<C::Cell>) -> Option<Self> {
        if handle.is_stub() {
            return None;
        }
        let cell = handle.value();
        (C::view(cell).is_some() && !cell.is_absent()).then_some(Self { handle })
    }

    /// The handle that it was made of.
    pub(crate) fn into_handle(self) -> Handle<C::Cell> {
        self.handle
    }

    /// The canonical bytes of the entry's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.handle.key()
    }

    /// The version of the entry: what a conditional write compares with.
    #[must_use]
    pub fn version(&self) -> Version {
        self.handle.version()
    }

    /// When the entry expires, in cluster time.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.handle.expiry()
    }

    /// How long the entry still has to live by `clock`, which is
    /// [`Node::clock`](crate::Node::clock). `None`: it does not expire.
    #[must_use]
    pub fn remaining_ttl(&self, clock: &CoarseClock) -> Option<Duration> {
        self.handle.expiry().remaining(clock.now_ms())
    }

    /// The tags the entry was written with.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        self.handle.tags()
    }

    /// The encoded bytes of the value.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.handle.value().bytes()
    }
}

impl<V, C: Codec<V>> Deref for Cached<V, C> {
    type Target = V;

    #[expect(
        clippy::expect_used,
        reason = "a view that succeeded once succeeds for ever"
    )]
    fn deref(&self) -> &V {
        C::view(self.handle.value()).expect("the cell was viewed before it was handed out")
    }
}

impl<V, C: Codec<V>> AsRef<V> for Cached<V, C> {
    fn as_ref(&self) -> &V {
        self
    }
}

impl<V, C: Codec<V>> Clone for Cached<V, C> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
        }
    }
}

impl<V: PartialEq, C: Codec<V>> PartialEq<V> for Cached<V, C> {
    fn eq(&self, other: &V) -> bool {
        **self == *other
    }
}

impl<V, C: Codec<V>> fmt::Debug for Cached<V, C> {
    /// Version and size; the value stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("version", &self.version())
            .field("encoded_bytes", &self.encoded().len())
            .finish_non_exhaustive()
    }
}
