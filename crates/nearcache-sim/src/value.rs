//! The value that simulated caches hold.

use std::sync::Arc;

use nearcache_protocol::payload::{CodecTag, Payload};
use nearcache_store::Weigh;

/// A byte string.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Value(Arc<[u8]>);

impl Value {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Weigh for Value {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

impl Payload for Value {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn codec(&self) -> CodecTag {
        CodecTag::default()
    }

    fn from_wire(_: CodecTag, bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}
