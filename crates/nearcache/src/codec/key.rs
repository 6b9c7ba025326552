//! The canonical encoding of keys.
//!
//! A key has one encoding, whatever node or protocol names it, so the store can compare bytes:
//!
//! | top level | bytes |
//! |---|---|
//! | text, bytes, `Vec<u8>`, a newtype of these | the bytes themselves |
//! | everything else | as below |
//!
//! | inside a composite, and other types at the top | bytes |
//! |---|---|
//! | `u8`…`u128`, `char` | big-endian, fixed width (byte order is number order) |
//! | `i8`…`i128` | the same with the sign bit flipped |
//! | `bool`, `Option` | one byte 0 or 1, then the content |
//! | text, bytes | each 0 byte as `00 FF`, ended by `00 00` |
//! | struct, tuple | the fields in order |
//! | enum | number of the variant as `u32`, then its fields |
//! | sequence | 1 before each element, 0 at the end |
//! | map, float | refused: neither has one order or one representation |
//!
//! Every encoding inside a composite is self-delimiting, so two different keys of one type never
//! have the same bytes, and the bytes of the leading fields of a tuple are a prefix that
//! [`Cache::invalidate_prefix`](crate::Cache::invalidate_prefix) can name. Two traps remain with
//! the user: a `HashSet` has no fixed order (use a `BTreeSet`), and an untagged enum that mixes
//! text with other types at the top level can produce the same bytes twice.

mod deserializer;
mod serializer;

use nearcache_protocol::probe::is_reserved;
use serde::Serialize;
use smallvec::SmallVec;

use serializer::KeySerializer;

pub(crate) use deserializer::decode_key;

/// Room on the stack for one encoded key; longer ones spill to the heap.
pub type KeyBuffer = SmallVec<[u8; 128]>;

/// A form in which a key of type `K` can be named: the key itself, or what it borrows as.
///
/// So a `Cache<String, V>` is asked with a `&str` and a `Cache<Vec<u8>, V>` with a `&[u8]`,
/// without building either.
pub trait KeyFor<K: ?Sized> {
    /// The canonical bytes of the key, in `buffer` unless the key already has them.
    ///
    /// Allocates nothing for keys of up to 128 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unsupported`] when the key has no canonical encoding. Length is checked by the
    /// cache, not here.
    fn key_bytes<'a>(&'a self, buffer: &'a mut KeyBuffer) -> Result<&'a [u8], KeyError>;
}

impl<K: Serialize> KeyFor<K> for K {
    fn key_bytes<'a>(&'a self, buffer: &'a mut KeyBuffer) -> Result<&'a [u8], KeyError> {
        buffer.clear();
        self.serialize(KeySerializer::top(buffer))?;
        Ok(buffer)
    }
}

macro_rules! borrowed_form {
    ($form:ty as $bytes:ident for $($key:ty),+) => {$(
        impl KeyFor<$key> for $form {
            fn key_bytes<'a>(&'a self, _: &'a mut KeyBuffer) -> Result<&'a [u8], KeyError> {
                Ok(self.$bytes())
            }
        }
    )+};
}

borrowed_form!(str as as_bytes for String, Box<str>, std::sync::Arc<str>);
borrowed_form!([u8] as as_slice_of_self for Vec<u8>, Box<[u8]>, bytes::Bytes);

/// Lets the macro treat a slice like the other borrowed forms.
trait AsSliceOfSelf {
    fn as_slice_of_self(&self) -> &[u8];
}

impl AsSliceOfSelf for [u8] {
    fn as_slice_of_self(&self) -> &[u8] {
        self
    }
}

/// A key was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key has no bytes.
    #[error("a key needs at least one byte")]
    EmptyKey,
    /// The key is longer than the cache allows.
    #[error(
        "key of {len_bytes} bytes exceeds the limit of {limit_bytes}: hash long keys, or raise max_key_bytes when opening the cache"
    )]
    KeyTooLong {
        /// Length of the encoded key.
        len_bytes: usize,
        /// Limit in force.
        limit_bytes: usize,
    },
    /// The key begins with the bytes that the coherence audit's own keys begin with.
    #[error("keys that begin with a zero byte and `nearcache/probe` are the audit's")]
    Reserved,
    /// The key contains something without one canonical encoding.
    #[error("{what} cannot be part of a key: it has no single canonical encoding")]
    Unsupported {
        /// What was met.
        what: &'static str,
    },
    /// The key's own `Serialize` gave up.
    #[error("the key refused to be encoded: {reason}")]
    Custom {
        /// What it said.
        reason: String,
    },
}

impl serde::ser::Error for KeyError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Custom {
            reason: message.to_string(),
        }
    }
}

/// Checks the length of an encoded key.
pub(crate) fn check_len(bytes: &[u8], limit_bytes: usize) -> Result<(), KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::EmptyKey);
    }
    if is_reserved(bytes) {
        return Err(KeyError::Reserved);
    }
    if bytes.len() > limit_bytes {
        return Err(KeyError::KeyTooLong {
            len_bytes: bytes.len(),
            limit_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod key_test;
