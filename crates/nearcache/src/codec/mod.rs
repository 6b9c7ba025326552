//! How keys and values become bytes, and values become values again.
//!
//! ```text
//! put:  K ── canonical bytes ──┐            get:  store ── Cell ── view (decodes once) ──> &V
//!       V ── encode ── Cell ───┴── store    wire: bytes ── Cell (kept as bytes until first read)
//! ```
//!
//! Keys have one canonical encoding ([`key`]), so that every node, the Redis protocol and HTTP
//! mean the same entry by the same key. Values go through a [`Codec`]: [`MessagePack`] for Rust
//! types, [`Raw`] for bytes that are nobody's business but their reader's.

pub mod key;
mod message_pack;
mod raw;
mod release;

use nearcache_protocol::payload::Payload;

pub use key::{KeyBuffer, KeyError, KeyFor};
pub use message_pack::{MessagePack, MessagePackCell};
pub use raw::{Raw, RawCell, RawValue};

/// Turns values of type `V` into what the store and the wire carry, and back.
///
/// A codec has no state: its type names it. All nodes that open a cache of the same name must
/// use the same codec.
pub trait Codec<V>: Send + Sync + 'static {
    /// What is stored: the bytes of the value, and the value itself once somebody read it.
    type Cell: Payload;

    /// Names the codec on the wire. 1 to 255 are this library's; choose a higher number.
    const ID: u16;

    /// Encodes `value`. Cost: one pass over the value and one allocation.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the value has no representation in this codec.
    fn encode(value: V) -> Result<Self::Cell, EncodeError>;

    /// The value in `cell`, or `None` when its bytes mean nothing to this codec and type.
    ///
    /// The first call may decode; every later one returns the same reference without work.
    fn view(cell: &Self::Cell) -> Option<&V>;
}

/// A value could not be encoded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("the value cannot be encoded by {codec}: {reason}")]
#[non_exhaustive]
pub struct EncodeError {
    /// Name of the codec.
    pub codec: &'static str,
    /// What the codec objected to (it never quotes the value).
    pub reason: String,
}
