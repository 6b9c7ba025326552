//! One change of a cache, as it travels.
//!
//! On its way out an entry shares key and value with the store; what has arrived owns its value, which then becomes
//! the store's. Either way no value is copied between the store and the frame's buffer.

use std::fmt;

use bytes::Bytes;
use nearcache_store::{Change, Expiry, Handle, MergeError, Merged, Scope, Store, Tags, Version};

use crate::payload::Payload;

/// One change of a cache: what a stream is made of, and what a transfer brings.
#[derive(Clone)]
pub enum Update<V> {
    /// A live entry on its way out; shares key and value with the store.
    Entry(Handle<V>),
    /// A live entry that has arrived.
    Put {
        /// The key, a slice of the frame it came in.
        key: Bytes,
        /// Its version.
        version: Version,
        /// The value; becomes the store's.
        value: V,
        /// When it expires.
        expiry: Expiry,
        /// Its tags.
        tags: Tags,
    },
    /// The removal of one key; kept as a tombstone.
    Remove {
        /// The key.
        key: Bytes,
        /// The tombstone's version.
        version: Version,
    },
    /// A live entry whose value is longer than the receiver takes. It drops its older copy, and the key is a miss there.
    Withheld {
        /// The key.
        key: Bytes,
        /// The entry's version.
        version: Version,
        /// The length of its value.
        value_bytes: u32,
    },
    /// A group invalidation; kept as a floor.
    Floor {
        /// What it covers.
        scope: Scope,
        /// Below this nothing is accepted.
        version: Version,
    },
}

/// What applying an update did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It is in the store now.
    Newer,
    /// The store held something as new or newer.
    Superseded,
    /// The store cannot hold it; what it replaces is gone.
    Dropped,
}

impl<V> Update<V> {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Entry(entry) => entry.version(),
            Self::Put { version, .. }
            | Self::Remove { version, .. }
            | Self::Withheld { version, .. }
            | Self::Floor { version, .. } => *version,
        }
    }

    /// The key; nothing for a group invalidation.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Entry(entry) => Some(entry.key()),
            Self::Put { key, .. } | Self::Remove { key, .. } | Self::Withheld { key, .. } => {
                Some(key)
            }
            Self::Floor { .. } => None,
        }
    }
}

impl<V: Payload> Update<V> {
    /// The entry it is about, in no store; nothing for a removal or a floor.
    #[must_use]
    pub fn into_entry(self) -> Option<Handle<V>> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Put {
                key,
                version,
                value,
                expiry,
                tags,
            } => Some(Handle::detached(&key, version, expiry, tags, value)),
            Self::Remove { .. } | Self::Withheld { .. } | Self::Floor { .. } => None,
        }
    }

    /// The length of the value it carries, in bytes; 0 without one.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.value().bytes().len(),
            Self::Put { value, .. } => value.bytes().len(),
            Self::Remove { .. } | Self::Withheld { .. } | Self::Floor { .. } => 0,
        }
    }

    /// The same for somebody who takes values of at most `value_bytes_max`: of a longer one only key and version.
    #[must_use]
    pub fn for_reader(self, value_bytes_max: usize) -> Self {
        let len = self.value_len();
        if len <= value_bytes_max {
            return self;
        }
        match self.key() {
            Some(key) => Self::Withheld {
                key: Bytes::copy_from_slice(key),
                version: self.version(),
                value_bytes: u32::try_from(len).unwrap_or(u32::MAX),
            },
            None => self,
        }
    }

    /// Bytes it takes in a frame, about; what budgets are counted in.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        /// Fixed fields of an entry: see `docs/wire-cache.md`.
        const FIXED: usize = 35;
        match self {
            Self::Entry(entry) => {
                FIXED
                    + entry.key().len()
                    + entry.value().bytes().len()
                    + entry.tags().weight_bytes()
            }
            Self::Put {
                key, value, tags, ..
            } => FIXED + key.len() + value.bytes().len() + tags.weight_bytes(),
            Self::Remove { key, .. } | Self::Withheld { key, .. } => FIXED + key.len(),
            Self::Floor { scope, .. } => {
                FIXED
                    + match scope {
                        Scope::All => 0,
                        Scope::Prefix(bytes) | Scope::Tag(bytes) | Scope::TagPrefix(bytes) => {
                            bytes.len()
                        }
                    }
            }
        }
    }

    /// Merges it into `store`. Idempotent, and indifferent to the order in which updates come.
    pub fn apply(self, store: &Store<V>) -> Applied {
        let merged = match self {
            Self::Put {
                key,
                version,
                value,
                expiry,
                tags,
            } => store.merge(
                &key,
                version,
                Change::Put {
                    value,
                    expiry,
                    tags,
                },
            ),
            Self::Entry(entry) => {
                // Only a message that never was in a frame still shares the sender's store.
                let value = V::from_wire(entry.value().codec(), entry.value().bytes());
                let change = Change::Put {
                    value,
                    expiry: entry.expiry(),
                    tags: entry.tags().clone(),
                };
                store.merge(entry.key(), entry.version(), change)
            }
            Self::Remove { key, version } => store.merge(&key, version, Change::Remove),
            Self::Withheld { key, version, .. } => {
                // In that very version it is here already: the value came another way.
                let newer = store.known(&key).version() < version;
                return if newer && store.forget(&key, version) {
                    Applied::Dropped
                } else {
                    Applied::Superseded
                };
            }
            Self::Floor { scope, version } => {
                let changed = store.invalidate(scope, version);
                return if changed {
                    Applied::Newer
                } else {
                    Applied::Superseded
                };
            }
        };
        match merged {
            Ok(Merged::Applied { .. }) => Applied::Newer,
            Ok(Merged::Stale { .. } | Merged::Declined) => Applied::Superseded,
            Err(MergeError::TooLargeForCache { .. } | MergeError::KeyTooLong { .. } | _) => {
                Applied::Dropped
            }
        }
    }
}

impl<V> fmt::Debug for Update<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry(_) => "Entry",
            Self::Put { .. } => "Put",
            Self::Remove { .. } => "Remove",
            Self::Withheld { .. } => "Withheld",
            Self::Floor { .. } => "Floor",
        })
    }
}
