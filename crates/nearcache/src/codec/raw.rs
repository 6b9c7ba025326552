//! Values that are bytes and stay bytes: what the server keeps for its clients.

use std::fmt;
use std::ops::Deref;

use nearcache_protocol::payload::{CodecTag, Payload};
use nearcache_store::Weigh;

use super::release::release;
use super::{Codec, EncodeError};

/// Keeps value bytes as they are. The codec of the server's caches.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearcache::{Node, Raw, RawValue};
///
/// let node = Node::builder("shop").start().await?;
/// let cache = node.cache::<Vec<u8>, RawValue>("default").codec::<Raw>().open().await?;
/// cache.put(b"greeting".as_slice(), RawValue::from("hello")).await?;
/// assert_eq!(&cache.get(b"greeting".as_slice()).await?.ok_or("missing")?[..], b"hello");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Raw {
    /// How values of this codec are marked on the wire.
    pub const TAG: CodecTag = CodecTag {
        codec: 1,
        schema: 0,
    };
}

/// Bytes of a value, immutable. Prints its length only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RawValue(Box<[u8]>);

impl RawValue {
    /// Takes the bytes without copying them.
    #[must_use]
    pub const fn new(bytes: Box<[u8]>) -> Self {
        Self(bytes)
    }

    /// Gives the bytes back without copying them.
    #[must_use]
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }
}

impl Deref for RawValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for RawValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for RawValue {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for RawValue {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for RawValue {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into_boxed_slice())
    }
}

impl From<Vec<u8>> for RawValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }
}

impl fmt::Debug for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawValue({} bytes)", self.0.len())
    }
}

/// What the store holds for a raw value: its bytes, and the codec its writer used.
#[derive(Clone)]
pub struct RawCell {
    value: RawValue,
    codec: CodecTag,
}

impl fmt::Debug for RawCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCell")
            .field("value", &self.value)
            .field("codec", &self.codec)
            .finish()
    }
}

impl Drop for RawCell {
    fn drop(&mut self) {
        let value = &mut self.value;
        release(value.len(), || std::mem::take(value));
    }
}

impl Weigh for RawCell {
    fn weight(&self) -> usize {
        self.value.len()
    }
}

impl Payload for RawCell {
    fn bytes(&self) -> &[u8] {
        &self.value
    }

    fn codec(&self) -> CodecTag {
        self.codec
    }

    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self {
        Self {
            value: bytes.into(),
            codec,
        }
    }

    fn from_assembled(codec: CodecTag, bytes: Vec<u8>) -> Self {
        Self {
            value: bytes.into(),
            codec,
        }
    }
}

impl Codec<RawValue> for Raw {
    type Cell = RawCell;

    const ID: u16 = Self::TAG.codec;

    fn encode(value: RawValue) -> Result<RawCell, EncodeError> {
        Ok(RawCell {
            value,
            codec: Self::TAG,
        })
    }

    fn view(cell: &RawCell) -> Option<&RawValue> {
        Some(&cell.value)
    }
}
