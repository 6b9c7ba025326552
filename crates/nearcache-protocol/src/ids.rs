//! Small names that travel: epochs, caches, streams, requests, waiters.

use std::fmt;

use nearcache_store::NodeId;

/// One start of a node. A later start has a higher epoch, and nothing of an earlier one continues in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with this number; the shell takes the wall clock's milliseconds at start, or more if it knows of a higher one.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a cache on the wire: a keyed hash of its name, the same on every node of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheId(u64);

impl CacheId {
    /// The id that was read from the wire.
    #[must_use]
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The id of the cache called `name` in the cluster whose placement key is `key`.
    ///
    /// Cost: one SipHash of the name. Two names of one node that collide must be refused by the node.
    #[must_use]
    pub fn of_name(key: [u8; 16], name: &str) -> Self {
        use std::hash::Hasher as _;
        let mut hasher = siphasher::sip::SipHasher24::new_with_key(&key);
        hasher.write(b"nearcache/cache/");
        hasher.write(name.as_bytes());
        Self(hasher.finish())
    }

    /// The number that travels.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache:{:016x}", self.0)
    }
}

/// One update stream: an origin in one of its epochs. Its updates are numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The node that makes the updates.
    pub origin: NodeId,
    /// Its start in which it makes them.
    pub epoch: Epoch,
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.origin, self.epoch)
    }
}

/// Names a request among those of one asker in one of its epochs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names a caller who waits for a result; the shell makes it up and gets it back in
/// [`Output::Done`](crate::mode::Output::Done) exactly once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaiterId(pub u64);
