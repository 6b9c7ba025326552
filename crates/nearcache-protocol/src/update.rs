//! One change of a cache, as it travels.
//!
//! On its way out an entry shares key and value with the store; what has arrived owns its value, which then becomes
//! the store's. Either way no value is copied between the store and the frame's buffer.

use std::fmt;

use bytes::Bytes;
use nearcache_store::{Change, Expiry, Handle, MergeError, Merged, Scope, Store, Tags, Version};

use crate::payload::{CodecTag, Payload};

/// One change of a cache: what a stream is made of, and what a transfer brings.
#[derive(Clone)]
pub enum Update<V> {
    /// A live entry on its way out; shares key and value with the store. Of a [stub](Handle::is_stub) everything but the value
    /// travels.
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
    /// A live entry whose value does not travel with it, because it is long: it is fetched when somebody reads it.
    Stub {
        /// The key.
        key: Bytes,
        /// The entry's version.
        version: Version,
        /// How the value's bytes are to be read.
        codec: CodecTag,
        /// The length of the value.
        value_bytes: u32,
        /// When the entry expires.
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

/// What values somebody is sent with an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    /// The longest value that it takes, in bytes. Of a longer one it learns key and version and can have no more.
    pub value_bytes_max: usize,
    /// The longest value that travels inside an update, in bytes. A longer one is fetched.
    pub inline_bytes_max: usize,
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
            | Self::Stub { version, .. }
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
            Self::Put { key, .. }
            | Self::Stub { key, .. }
            | Self::Remove { key, .. }
            | Self::Withheld { key, .. } => Some(key),
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
            Self::Stub {
                key,
                version,
                codec,
                value_bytes,
                expiry,
                tags,
            } => {
                let placeholder = V::from_wire(codec, &[]);
                Some(Handle::stub(
                    &key,
                    version,
                    expiry,
                    tags,
                    placeholder,
                    value_bytes,
                ))
            }
            Self::Remove { .. } | Self::Withheld { .. } | Self::Floor { .. } => None,
        }
    }

    /// The same once more. Shares an entry that is on its way out; copies the value of one that has arrived.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Entry(entry) => Self::Entry(entry.clone()),
            Self::Put {
                key,
                version,
                value,
                expiry,
                tags,
            } => Self::Put {
                key: key.clone(),
                version: *version,
                value: V::from_wire(value.codec(), value.bytes()),
                expiry: *expiry,
                tags: tags.clone(),
            },
            Self::Stub {
                key,
                version,
                codec,
                value_bytes,
                expiry,
                tags,
            } => Self::Stub {
                key: key.clone(),
                version: *version,
                codec: *codec,
                value_bytes: *value_bytes,
                expiry: *expiry,
                tags: tags.clone(),
            },
            Self::Remove { key, version } => Self::Remove {
                key: key.clone(),
                version: *version,
            },
            Self::Withheld {
                key,
                version,
                value_bytes,
            } => Self::Withheld {
                key: key.clone(),
                version: *version,
                value_bytes: *value_bytes,
            },
            Self::Floor { scope, version } => Self::Floor {
                scope: scope.clone(),
                version: *version,
            },
        }
    }

    /// The length of the entry's value, in bytes, whether it is here or not; 0 without one.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match self {
            Self::Entry(entry) => value_len(entry),
            Self::Put { value, .. } => value.bytes().len(),
            Self::Stub { value_bytes, .. } => usize::try_from(*value_bytes).unwrap_or(usize::MAX),
            Self::Remove { .. } | Self::Withheld { .. } | Self::Floor { .. } => 0,
        }
    }

    /// Whether it carries a value.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Entry(entry) => !entry.is_stub(),
            Self::Put { .. } => true,
            Self::Stub { .. }
            | Self::Remove { .. }
            | Self::Withheld { .. }
            | Self::Floor { .. } => false,
        }
    }

    /// Whether `reader` is sent something else in its place.
    #[must_use]
    pub fn exceeds(&self, reader: Reader) -> bool {
        let len = self.value_len();
        len > reader.value_bytes_max || (len > reader.inline_bytes_max && self.is_whole())
    }

    /// The same for `reader`: of a long value the stub, of one that it does not take only key and version.
    #[must_use]
    pub fn for_reader(self, reader: Reader) -> Self {
        if !self.exceeds(reader) {
            return self;
        }
        let (len, version) = (self.value_len(), self.version());
        let value_bytes = u32::try_from(len).unwrap_or(u32::MAX);
        let Some(key) = self.key().map(Bytes::copy_from_slice) else {
            return self;
        };
        if len > reader.value_bytes_max {
            return Self::Withheld {
                key,
                version,
                value_bytes,
            };
        }
        let (codec, expiry, tags) = match &self {
            Self::Entry(entry) => (entry.value().codec(), entry.expiry(), entry.tags().clone()),
            Self::Put {
                value,
                expiry,
                tags,
                ..
            } => (value.codec(), *expiry, tags.clone()),
            Self::Stub { .. }
            | Self::Remove { .. }
            | Self::Withheld { .. }
            | Self::Floor { .. } => return self,
        };
        Self::Stub {
            key,
            version,
            codec,
            value_bytes,
            expiry,
            tags,
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
            Self::Stub { key, tags, .. } => FIXED + key.len() + tags.weight_bytes(),
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
            Self::Stub {
                key,
                version,
                codec,
                value_bytes,
                expiry,
                tags,
            } => {
                let placeholder = V::from_wire(codec, &[]);
                let change = Change::Stub {
                    placeholder,
                    value_bytes,
                    expiry,
                    tags,
                };
                store.merge(&key, version, change)
            }
            Self::Entry(entry) => {
                // Only a message that never was in a frame still shares the sender's store.
                let value = V::from_wire(entry.value().codec(), entry.value().bytes());
                let (expiry, tags) = (entry.expiry(), entry.tags().clone());
                let change = match entry.stub_bytes() {
                    Some(value_bytes) => Change::Stub {
                        placeholder: value,
                        value_bytes,
                        expiry,
                        tags,
                    },
                    None => Change::Put {
                        value,
                        expiry,
                        tags,
                    },
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

/// The length of an entry's value, in bytes, whether it is here or not.
pub(crate) fn value_len<V: Payload>(entry: &Handle<V>) -> usize {
    match entry.stub_bytes() {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => entry.value().bytes().len(),
    }
}

impl<V> fmt::Debug for Update<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry(_) => "Entry",
            Self::Put { .. } => "Put",
            Self::Stub { .. } => "Stub",
            Self::Remove { .. } => "Remove",
            Self::Withheld { .. } => "Withheld",
            Self::Floor { .. } => "Floor",
        })
    }
}
