//! What is known of an entry besides its value.

use nearcache_protocol::payload::Payload;
use nearcache_store::{Expiry, Handle, Version};

use super::Cache;
use super::errors::ReadError;
use super::shell::is_leased;
use crate::codec::Codec;
use crate::codec::key::{KeyBuffer, KeyFor};

/// What this node knows of an entry, whether its value is here or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// The entry's version.
    pub version: Version,
    /// When it expires, in cluster time.
    pub expiry: Expiry,
    /// The length of its encoded value, in bytes.
    pub value_bytes: usize,
    /// Whether the value is in this node's memory. Otherwise it is longer than `inline_limit`, and the next read fetches it.
    pub is_here: bool,
}

impl About {
    fn of<P: Payload>(entry: &Handle<P>) -> Self {
        let stub_bytes = entry.stub_bytes();
        let stub_bytes = stub_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Self {
            version: entry.version(),
            expiry: entry.expiry(),
            value_bytes: stub_bytes.unwrap_or_else(|| entry.value().bytes().len()),
            is_here: stub_bytes.is_none(),
        }
    }
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// What this node knows of the entry of `key`; `None` if there is none here, also if it is remembered that there is
    /// none anywhere ([`Loaded::absent`](crate::Loaded::absent)). Never waits, fetches nothing, and is not counted
    /// as a read.
    ///
    /// An entry whose long value is not here counts as one although no node may hold its value any more, in which case
    /// [`get`](Self::get) finds none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub fn about<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<Option<About>, ReadError> {
        let mut buffer = KeyBuffer::new();
        let bytes = key.key_bytes(&mut buffer)?;
        self.shell.settings().check_key(bytes)?;
        let bound = self.shell.gate().bound();
        let entry = self.shell.store().peek(bytes);
        let leased = is_leased(bound, self.shell.node().quick());
        Ok(entry
            .filter(|entry| leased && !entry.value().is_absent())
            .map(|entry| About::of::<C::Cell>(&entry)))
    }
}
