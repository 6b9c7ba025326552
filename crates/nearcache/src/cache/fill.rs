//! Keeping a value that was read from the system of record.

use std::fmt;

use bytes::Bytes;
use nearcache_protocol::ids::Epoch;
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

/// A [`Fill`] as bytes, for callers outside this process: taken when a client misses, given back with what it loaded.
///
/// Opaque, 88 hexadecimal digits as text. Good on the node that made it, in the same life of it, for five minutes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FillToken {
    epoch: Epoch,
    fence: Fence,
}

impl FillToken {
    /// Reads what `Display` wrote; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 2 * (8 + Fence::BYTES) {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut bytes = [0; 8 + Fence::BYTES];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = digits else { return None };
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        Some(Self {
            epoch: Epoch::from_u64(u64::from_be_bytes(*bytes.first_chunk()?)),
            fence: Fence::from_bytes(bytes.last_chunk()?),
        })
    }
}

impl fmt::Display for FillToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.epoch.as_u64())?;
        let mut bytes = self.fence.to_bytes().into_iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FillToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FillToken({self})")
    }
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// Goes on with a fill whose [`token`](Fill::token) was given to a client. `None` if it is none of this node and this life of it, or too
    /// old: then the value must not be kept. Cost: none worth naming.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub fn resume_fill<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        token: FillToken,
    ) -> Result<Option<Fill<K, V, C>>, ReadError> {
        let key = self.owned_key(key)?;
        let FillToken { epoch, fence } = token;
        let is_ours = epoch == self.shell.node().epoch() && self.shell.takes(&fence);
        Ok(is_ours.then(|| Fill {
            cache: self.clone(),
            key,
            fence,
        }))
    }

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
    /// What [`Cache::resume_fill`] takes to go on with this fill.
    #[must_use]
    pub fn token(&self) -> FillToken {
        FillToken {
            epoch: self.cache.shell.node().epoch(),
            fence: self.fence,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        let bytes: [u8; Fence::BYTES] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let token = FillToken {
            epoch: Epoch::from_u64(7),
            fence: Fence::from_bytes(&bytes),
        };
        assert_eq!(token.fence.to_bytes(), bytes);
        let text = token.to_string();
        assert_eq!(text.len(), 88);
        assert_eq!(FillToken::parse(text.as_bytes()), Some(token));
        assert_eq!(FillToken::parse(&text.as_bytes()[1..]), None);
        assert_eq!(FillToken::parse(text.replace('0', "+").as_bytes()), None);
        assert_eq!(FillToken::parse(b""), None);
    }
}
