//! One load of a key at a time in the cluster: what a node and the key's home node say to each other (mode `replicated`).
//!
//! A lease is not a lock: whoever cannot get one in time loads all the same. What keeps stale values out are versions and
//! fences; the lease only saves loads.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use crate::ids::RequestId;
use crate::update::Update;

/// The longest lease, and the longest that anybody waits for one, whatever a peer asks for.
pub const LEASE_MAX: Duration = Duration::from_secs(660);

/// What a node that misses and the key's home node tell each other.
pub enum LoadMessage<V> {
    /// May I load this key, or does somebody already?
    Ask {
        /// How long the asker waits for another's load, in milliseconds.
        wait_ms: u32,
        /// How long its own load may take, in milliseconds.
        lease_ms: u32,
        /// What the asker knows of the key: only something newer is of use to it.
        known: Version,
        /// The newest invalidation by tag that the asker knows of: only a load that began after it is of use.
        tags: Version,
        /// The key.
        key: Bytes,
    },
    /// The answer, or one after another.
    Answer(Answer<V>),
    /// The load of this request is over.
    End {
        /// The key.
        key: Bytes,
        /// What was stored; nothing if nothing was.
        update: Option<Update<V>>,
    },
}

/// What a home node answers.
#[derive(Clone)]
pub enum Answer<V> {
    /// Load it, and tell me when that is over.
    Yours {
        /// The key, for who no longer knows what he asked for and gives the lease back.
        key: Bytes,
    },
    /// Somebody loads it: wait.
    Wait,
    /// Here it is.
    Loaded(Update<V>),
    /// I am not the home of the key; nothing was noted.
    NotHome,
    /// Too many ask; load it as you will.
    Overloaded,
}

/// The right to load a key, to be given back by [`CacheCore::end_load`](crate::core::CacheCore::end_load).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Who gave it.
    pub home: NodeId,
    /// In answer to what.
    pub request: RequestId,
    /// For which key.
    pub key: Bytes,
}

/// How a request to load has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Load it. Without a lease nobody in charge could be asked in time, or nobody is.
    Yours(Option<Lease>),
    /// Somebody has loaded it: it is in this node's store.
    Loaded,
}

impl<V> LoadMessage<V> {
    /// The message's name, for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ask { .. } => "load-ask",
            Self::Answer(_) => "load-answer",
            Self::End { .. } => "load-end",
        }
    }
}

impl<V> fmt::Debug for LoadMessage<V> {
    /// The name only: keys and values stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<V> fmt::Debug for Answer<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yours { .. } => "Yours",
            Self::Wait => "Wait",
            Self::Loaded(_) => "Loaded",
            Self::NotHome => "NotHome",
            Self::Overloaded => "Overloaded",
        })
    }
}
