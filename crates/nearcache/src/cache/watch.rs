//! What a watcher of a cache is told.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use nearcache_protocol::payload::Payload as _;
use nearcache_store::Scope;

use super::cached::Cached;
use super::shell::CellChange;
use crate::codec::{Codec, MessagePack};
use crate::subscription::{Received, Subscription};

/// A change of a cache, made by this node or arrived from a peer.
///
/// Between two changes of one key others may have been left out: a watcher sees the newest state
/// of each key, not its history.
pub enum Change<V, C: Codec<V> = MessagePack> {
    /// A key has a new value, or a new expiry.
    Put {
        /// The key's canonical bytes.
        key: Arc<[u8]>,
        /// What it holds now; `None` if this node cannot decode it, or if it is a long value that is not on this node yet: there is
        /// another such change when it is.
        value: Option<Cached<V, C>>,
    },
    /// A key was removed, or a loader has said that there is nothing under it ([`Loaded::absent`](crate::Loaded::absent)).
    Removed {
        /// The key's canonical bytes.
        key: Arc<[u8]>,
    },
    /// All entries of a scope older than this moment are gone.
    Invalidated {
        /// Which entries.
        scope: Scope,
    },
}

impl<V, C: Codec<V>> Change<V, C> {
    /// The key's canonical bytes; `None` for the invalidation of a group.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Put { key, .. } | Self::Removed { key } => Some(key),
            Self::Invalidated { .. } => None,
        }
    }
}

impl<V, C: Codec<V>> Clone for Change<V, C> {
    fn clone(&self) -> Self {
        match self {
            Self::Put { key, value } => Self::Put {
                key: Arc::clone(key),
                value: value.clone(),
            },
            Self::Removed { key } => Self::Removed {
                key: Arc::clone(key),
            },
            Self::Invalidated { scope } => Self::Invalidated {
                scope: scope.clone(),
            },
        }
    }
}

impl<V, C: Codec<V>> fmt::Debug for Change<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, .. } => f.debug_struct("Put").field("value", value).finish(),
            Self::Removed { .. } => f.write_str("Removed"),
            Self::Invalidated { .. } => f.write_str("Invalidated"),
        }
    }
}

/// The stream of changes of a cache; see [`Cache::watch`](crate::Cache::watch). Ends when the node
/// stops; dropping it ends the watch.
pub struct Watch<V, C: Codec<V> = MessagePack> {
    changes: Subscription<CellChange<C::Cell>>,
}

impl<V, C: Codec<V>> Watch<V, C> {
    pub(crate) const fn new(changes: Subscription<CellChange<C::Cell>>) -> Self {
        Self { changes }
    }

    /// Waits for the next change; `None` once the node has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Received<Change<V, C>>> {
        self.changes.next().await.map(typed)
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Received<Change<V, C>>> {
        self.changes.try_next().map(typed)
    }
}

impl<V, C: Codec<V>> Stream for Watch<V, C> {
    type Item = Received<Change<V, C>>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Received<Change<V, C>>>> {
        Pin::new(&mut self.changes)
            .poll_next(context)
            .map(|change| change.map(typed))
    }
}

impl<V, C: Codec<V>> fmt::Debug for Watch<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.changes).finish()
    }
}

fn typed<V, C: Codec<V>>(received: Received<CellChange<C::Cell>>) -> Received<Change<V, C>> {
    match received {
        Received::Missed(count) => Received::Missed(count),
        // That there is no value is remembered, which is the cache's own business.
        Received::Event(CellChange::Put(handle)) if handle.value().is_absent() => {
            Received::Event(Change::Removed {
                key: Arc::from(handle.key()),
            })
        }
        Received::Event(CellChange::Put(handle)) => Received::Event(Change::Put {
            key: Arc::from(handle.key()),
            value: Cached::of(handle),
        }),
        Received::Event(CellChange::Removed(key)) => Received::Event(Change::Removed { key }),
        Received::Event(CellChange::Invalidated { scope }) => {
            Received::Event(Change::Invalidated { scope })
        }
    }
}
