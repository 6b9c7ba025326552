//! What a cached value must offer so that it can travel.

use nearcache_store::Weigh;

/// How a value's bytes are to be read: the codec and, within it, the schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CodecTag {
    /// The codec, as numbered by the library.
    pub codec: u16,
    /// The schema of the value, as numbered by the service; 0 if it does not number them.
    pub schema: u16,
}

impl CodecTag {
    /// Marks an entry that says that the system of record has nothing under its key. It has no bytes, and is a miss to whoever
    /// asks for a value.
    pub const ABSENT: Self = Self {
        codec: u16::MAX,
        schema: 0,
    };
}

/// A value in its wire form. Reading never fails: a node that cannot decode a value keeps its bytes.
///
/// The protocol never looks inside, except for counters ([`ModifyOp::Add`](crate::modify::ModifyOp::Add)).
pub trait Payload: Weigh + Send + Sync + 'static {
    /// The value as it travels. Must not allocate: it is called once per peer and update.
    fn bytes(&self) -> &[u8];

    /// How [`bytes`](Self::bytes) are to be read.
    fn codec(&self) -> CodecTag;

    /// Keeps the bytes that arrived. Decoding, if any, waits for the first read.
    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self;

    /// The same, of bytes that were put together for it. Worth providing where they can be kept without copying: a long value
    /// arrives like this.
    fn from_assembled(codec: CodecTag, bytes: Vec<u8>) -> Self
    where
        Self: Sized,
    {
        Self::from_wire(codec, &bytes)
    }

    /// Whether it says that there is no value.
    fn is_absent(&self) -> bool {
        self.codec() == CodecTag::ABSENT
    }
}
