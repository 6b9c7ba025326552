//! Walking through what a cache holds on this node.

use std::fmt;

use nearcache_store::WalkCursor;

use super::cached::Cached;
use crate::codec::{Codec, MessagePack};

/// Where a scan stands. Belongs to one cache of one start of a node; costs that node nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanCursor(pub(crate) WalkCursor);

impl ScanCursor {
    /// The number a protocol can hand to its client; 0 is the start.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0.as_u64()
    }

    /// The cursor a client brought back. Any number is a cursor; a made-up one starts somewhere.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(WalkCursor::from_u64(number))
    }
}

/// One step of a scan.
pub struct ScanPage<V, C: Codec<V> = MessagePack> {
    /// The entries found; [`Cached::key`] names each. What this node cannot decode is left out.
    pub entries: Vec<Cached<V, C>>,
    /// Keys of entries whose long value is not on this node.
    pub elsewhere: Vec<Box<[u8]>>,
    /// Where to go on; `None` at the end.
    pub next: Option<ScanCursor>,
}

impl<V, C: Codec<V>> fmt::Debug for ScanPage<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanPage")
            .field("entries", &self.entries.len())
            .field("elsewhere", &self.elsewhere.len())
            .field("next", &self.next)
            .finish()
    }
}
