//! The value that simulated caches hold.

use std::sync::Arc;

use nearcache_protocol::payload::{CodecTag, Payload};
use nearcache_store::Weigh;

/// A byte string, or the word that there is none.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Value {
    bytes: Arc<[u8]>,
    is_absent: bool,
}

impl Value {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self::from_wire(CodecTag::default(), bytes)
    }

    /// The system of record holds nothing; the bytes say who has seen that.
    pub(crate) fn absent(bytes: &[u8]) -> Self {
        Self::from_wire(CodecTag::ABSENT, bytes)
    }
}

impl Weigh for Value {
    fn weight(&self) -> usize {
        self.bytes.len()
    }
}

impl Payload for Value {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn codec(&self) -> CodecTag {
        if self.is_absent {
            CodecTag::ABSENT
        } else {
            CodecTag::default()
        }
    }

    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            is_absent: codec == CodecTag::ABSENT,
        }
    }
}
