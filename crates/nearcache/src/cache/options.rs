//! What a caller may say about one write.

use std::time::Duration;

use nearcache_store::Expiry;

use crate::limits::OPERATION_TIMEOUT_DEFAULT;

/// When a write is acknowledged to its caller.
///
/// Whatever is chosen, the write is applied on this node and on its way to the others when the
/// call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ack {
    /// Once it is applied here. Never waits for the network.
    #[default]
    Local,
    /// Once that many peers have applied it as well. Fewer live peers than that: the call waits
    /// for more until its timeout. Beyond [`mesh_max`](crate::NodeBuilder::mesh_max) members those count that this node is connected
    /// to, about twice the logarithm (of base 2) of their number.
    Peers(usize),
    /// Once every live member has applied it. With no peer this is `Local`. Beyond
    /// [`mesh_max`](crate::NodeBuilder::mesh_max) members nobody hears from all: the write is made and the call fails at once with
    /// [`WriteError::AckAllBeyondMesh`](crate::WriteError::AckAllBeyondMesh).
    All,
}

/// When an entry ceases to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lifetime {
    /// As the cache was opened.
    #[default]
    OfCache,
    /// That long after the write.
    For(Duration),
    /// At a cluster time, or never.
    Until(Expiry),
}

/// Options of [`Cache::put_with`](crate::Cache::put_with); `new()` means what `put` does.
///
/// ```
/// use std::time::Duration;
/// use nearcache::{Ack, PutOptions};
///
/// let options = PutOptions::new()
///     .ttl(Duration::from_secs(60))
///     .tags(["user:7", "page"])
///     .ack(Ack::All)
///     .timeout(Duration::from_millis(250));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until they are passed to a write"]
pub struct PutOptions {
    pub(crate) lifetime: Lifetime,
    pub(crate) tags: Vec<Box<[u8]>>,
    pub(crate) ack: Ack,
    pub(crate) timeout: Duration,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self {
            lifetime: Lifetime::OfCache,
            tags: Vec::new(),
            ack: Ack::Local,
            timeout: OPERATION_TIMEOUT_DEFAULT,
        }
    }
}

impl PutOptions {
    /// The cache's own time to live, no tags, acknowledged locally.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry expires `ttl` after the write: more than zero, at most ten years.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetime = Lifetime::For(ttl);
        self
    }

    /// The entry expires at `expiry`, an instant of cluster time, or with [`Expiry::NEVER`] not
    /// at all, whatever the cache's own time to live.
    pub fn expires_at(mut self, expiry: Expiry) -> Self {
        self.lifetime = Lifetime::Until(expiry);
        self
    }

    /// Tags by which [`Cache::invalidate_tags`](crate::Cache::invalidate_tags) finds the entry.
    /// Replaces those given before.
    pub fn tags<T: AsRef<[u8]>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(|tag| tag.as_ref().into()).collect();
        self
    }

    /// When the write is acknowledged. Default: [`Ack::Local`].
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long to wait for peers' acknowledgements. Default 2 s, at most 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
