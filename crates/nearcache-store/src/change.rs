//! What a merge is asked, told and answers: [`Change`], [`Known`], [`Merged`], [`MergeError`].

use std::fmt;

use crate::{Expiry, Handle, Tags, Version};

/// What an update does to its key.
#[derive(Clone)]
pub enum Change<V> {
    /// The key has this value from now on.
    Put {
        /// The value.
        value: V,
        /// When it stops being served.
        expiry: Expiry,
        /// Its tags.
        tags: Tags,
    },
    /// The key has a value from now on that is not here: what was held before is dropped, and the value itself may follow in the
    /// same version. Changes nothing where that version is held already.
    Stub {
        /// Stands for the value.
        placeholder: V,
        /// Length of the value, in bytes; 0 counts as 1.
        value_bytes: u32,
        /// When it stops being served.
        expiry: Expiry,
        /// Its tags.
        tags: Tags,
    },
    /// The key keeps its value and tags and gets this expiry. If the key is absent, or its value is not here, nothing happens
    /// ([`Merged::Declined`]).
    Expire {
        /// The new deadline.
        expiry: Expiry,
    },
    /// The key has no value any more; its version is kept as a tombstone.
    Remove,
}

impl<V> fmt::Debug for Change<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { expiry, tags, .. } => f
                .debug_struct("Put")
                .field("expiry", expiry)
                .field("tags", tags)
                .finish_non_exhaustive(),
            Self::Stub {
                value_bytes,
                expiry,
                ..
            } => f
                .debug_struct("Stub")
                .field("value_bytes", value_bytes)
                .field("expiry", expiry)
                .finish_non_exhaustive(),
            Self::Expire { expiry } => f.debug_struct("Expire").field("expiry", expiry).finish(),
            Self::Remove => f.write_str("Remove"),
        }
    }
}

/// What a store knows of a key: what a merge is compared with.
#[derive(Debug, Clone)]
pub enum Known<V> {
    /// It holds this entry, which is neither expired nor invalidated. It may be a [stub](Handle::is_stub).
    Live(Handle<V>),
    /// It was removed, has expired, or was invalidated with one of its tags, at this version.
    Removed(Version),
    /// The store holds nothing of it. An update that is not newer than `floor` would not be accepted.
    Absent {
        /// [`Version::ZERO`] if anything would be accepted.
        floor: Version,
        /// What of `floor` is about this key: when it was evicted, as far as that is known exactly, or invalidated with a group
        /// that covers it whatever its tags. The rest stands for other keys too, which have no room of their own any more, and rises with them.
        own: Version,
    },
}

impl<V> Known<V> {
    /// The entry, if there is one.
    #[must_use]
    pub fn live(&self) -> Option<&Handle<V>> {
        match self {
            Self::Live(entry) => Some(entry),
            Self::Removed(_) | Self::Absent { .. } => None,
        }
    }

    /// The version an update has to beat.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Live(entry) => entry.version(),
            Self::Removed(version) => *version,
            Self::Absent { floor, .. } => *floor,
        }
    }

    /// The newest version that is known to be about this key itself: [`version`](Self::version) without what is remembered for
    /// many keys at once.
    #[must_use]
    pub fn own_version(&self) -> Version {
        match self {
            Self::Live(entry) => entry.version(),
            Self::Removed(version) => *version,
            Self::Absent { own, .. } => *own,
        }
    }
}

/// How a merge ended.
#[derive(Debug, Clone)]
#[must_use]
pub enum Merged<V> {
    /// The update is newer than what was known, and is in the store now.
    Applied {
        /// The entry made; `None` for a removal, and for an update that was expired or invalidated on arrival
        /// (it counts as a removal at its version).
        entry: Option<Handle<V>>,
        /// The entry that it took the place of, if one was live.
        replaced: Option<Handle<V>>,
    },
    /// What is known is as new, or newer. Nothing changed.
    Stale {
        /// The version that stood against it; equal to the update's own if it had been applied before.
        current: Version,
    },
    /// The condition did not hold, or there was nothing to change the expiry of. Nothing changed.
    Declined,
}

impl<V> Merged<V> {
    /// Is the update in the store now, because of this call?
    #[must_use]
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Applied { .. })
    }
}

/// Why an update could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The entry is larger than a shard may hold. If the update was newer, the older entry of the key
    /// *was* dropped and the update's version is kept as a floor: the key is a miss now.
    #[error(
        "entry of {weight_bytes} bytes exceeds the {limit_bytes} bytes that one entry may take here"
    )]
    TooLargeForCache {
        /// What the entry would weigh, in bytes.
        weight_bytes: u64,
        /// The most that one entry may weigh, in bytes.
        limit_bytes: u64,
    },
    /// The key is longer than the store can hold. Nothing changed.
    #[error("key of {len_bytes} bytes exceeds the {limit_bytes} bytes a key may have")]
    KeyTooLong {
        /// Length of the key, in bytes.
        len_bytes: usize,
        /// Longest key, in bytes.
        limit_bytes: usize,
    },
}
