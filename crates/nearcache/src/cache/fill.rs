//! Keeping a value that was read from the system of record.

use std::fmt;

use bytes::Bytes;
use nearcache_protocol::load::fence::Fence;

use super::Cache;
use super::errors::{ReadError, WriteError};
use super::options::PutOptions;
use crate::codec::Codec;
use crate::codec::key::KeyFor;

/// A load under way: taken before the system of record is asked, spent when it has answered.
///
/// Made by [`Cache::begin_fill`]. Dropping it does nothing.
#[must_use = "a fill keeps nothing until it is given the value"]
pub struct Fill<K: ?Sized, V, C: Codec<V>> {
    cache: Cache<K, V, C>,
    key: Bytes,
    fence: Fence,
}

impl<K: ?Sized, V, C: Codec<V>> fmt::Debug for Fill<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").finish_non_exhaustive()
    }
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// Begins to read `key` from the system of record. Call it **before** asking, and [`Fill::put`] with the answer.
    ///
    /// The difference from [`put`](Self::put): a put says "this is the value from now on" and makes every other node drop its copy; a
    /// fill says "this is what I read", invalidates nobody, and is not kept if the key was written or invalidated meanwhile. Cost: two
    /// short locks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearcache::{Mode, Node, PutOptions};
    ///
    /// # async fn read_from_database(_: u64) -> String { "Ada".to_owned() }
    /// let node = Node::builder("shop").start().await?;
    /// let names = node.cache::<u64, String>("names").mode(Mode::Invalidation).open().await?;
    /// if names.get(&7).await?.is_none() {
    ///     let fill = names.begin_fill(&7)?;
    ///     let name = read_from_database(7).await;
    ///     assert!(fill.put(name, &PutOptions::new())?);
    /// }
    /// assert!(names.get(&7).await?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub fn begin_fill<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<Fill<K, V, C>, ReadError> {
        let key = self.owned_key(key)?;
        let fence = self.shell.begin_fill(&key);
        Ok(Fill {
            cache: self.clone(),
            key,
            fence,
        })
    }
}

impl<K: ?Sized, V, C: Codec<V>> Fill<K, V, C> {
    /// Keeps the value that was read, with the time to live and tags of `options`; says whether it is kept. It is not if the key was
    /// written, removed or invalidated since the fill began, by itself, by prefix, by clearing or by one of its tags, or within the
    /// last clock bound before it (a millisecond or so on a LAN): in doubt a copy is dropped. Never waits; an acknowledgement
    /// asked for in `options` is left out.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing is kept then.
    pub fn put(self, value: V, options: &PutOptions) -> Result<bool, WriteError> {
        let content = self.cache.content(value, options)?;
        let entry = self.cache.shell.filled(&self.key, &self.fence, content);
        self.cache.shell.fill(&self.fence, &entry)
    }
}
