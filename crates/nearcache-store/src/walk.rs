//! Going through everything a store holds: [`WalkCursor`] and [`Item`].

use crate::{Handle, Version};

/// Where a walk stands. Small enough to be a client's cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalkCursor(pub(crate) u64);

impl WalkCursor {
    /// Where every walk begins; its number is zero.
    pub const START: Self = Self(0);

    /// The number of this cursor.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The cursor with this number. A number that no walk gave out is harmless: the walk goes on somewhere.
    #[must_use]
    pub const fn from_u64(cursor: u64) -> Self {
        Self(cursor)
    }
}

/// One thing a store holds.
#[derive(Debug, Clone)]
pub enum Item<V> {
    /// An entry that is neither expired nor invalidated.
    Entry(Handle<V>),
    /// A key that was removed, has expired, or was invalidated with one of its tags.
    Tombstone {
        /// The key.
        key: Box<[u8]>,
        /// Nothing older than this may come back.
        version: Version,
        /// When this node recorded it, in milliseconds of cluster time.
        recorded_ms: u64,
    },
}

impl<V> Item<V> {
    /// The key's bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Entry(entry) => entry.key(),
            Self::Tombstone { key, .. } => key,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Entry(entry) => entry.version(),
            Self::Tombstone { version, .. } => *version,
        }
    }
}
