//! Read-modify-write of one key, decided at the key's home node.
//!
//! A [`Modify`] says what to do and on which condition. It travels to the home node of the key
//! (the first in its rendezvous order), which decides and applies it, and answers with what the
//! key held then. In `local` mode the home is this node. During a netsplit each side has a home
//! of its own, so two changes can both succeed and one of them loses later: good for counters and
//! advice, not for locks or unique numbers.

use std::fmt;
use std::time::Duration;

use nearcache_protocol::modify::{Condition, ExpireCondition};

use super::cached::Cached;
use super::options::Lifetime;
use crate::codec::{Codec, MessagePack};
use crate::limits::OPERATION_TIMEOUT_DEFAULT;

/// What a [`Cache::modify`](crate::Cache::modify) shall do with its key.
#[must_use = "a change does nothing until it is passed to Cache::modify"]
pub struct Modify<V> {
    pub(crate) action: Action<V>,
    pub(crate) return_previous: bool,
    pub(crate) timeout: Duration,
}

/// The four kinds of change.
pub(crate) enum Action<V> {
    Set {
        value: V,
        condition: Condition,
        expiry: SetExpiry,
        tags: Vec<Box<[u8]>>,
    },
    Remove {
        condition: Condition,
    },
    Expire {
        lifetime: Lifetime,
        condition: ExpireCondition,
    },
    Add {
        delta: i64,
    },
}

/// Which expiry a set gives the entry.
pub(crate) enum SetExpiry {
    Keep,
    New(Lifetime),
}

impl<V> Modify<V> {
    const fn of(action: Action<V>) -> Self {
        Self {
            action,
            return_previous: false,
            timeout: OPERATION_TIMEOUT_DEFAULT,
        }
    }

    /// Stores `value`, with the cache's own time to live.
    pub const fn set(value: V) -> Self {
        Self::of(Action::Set {
            value,
            condition: Condition::Always,
            expiry: SetExpiry::New(Lifetime::OfCache),
            tags: Vec::new(),
        })
    }

    /// Removes the key.
    pub const fn remove() -> Self {
        Self::of(Action::Remove {
            condition: Condition::Always,
        })
    }

    /// Gives the entry a new time to live: more than zero, at most ten years.
    pub const fn expire(ttl: Duration) -> Self {
        Self::of(Action::Expire {
            lifetime: Lifetime::For(ttl),
            condition: ExpireCondition::Always,
        })
    }

    /// Gives the entry a new expiry; [`Expiry::NEVER`](crate::Expiry::NEVER) takes its expiry away.
    pub const fn expire_at(expiry: nearcache_store::Expiry) -> Self {
        Self::of(Action::Expire {
            lifetime: Lifetime::Until(expiry),
            condition: ExpireCondition::Always,
        })
    }

    /// Adds `delta` to a number kept as decimal text. A missing key counts as 0; the expiry stays.
    ///
    /// For values whose bytes are decimal text, so for the [`Raw`](crate::Raw) codec.
    pub const fn add(delta: i64) -> Self {
        Self::of(Action::Add { delta })
    }

    /// Only when the key is in this state. Of an expiry change, use
    /// [`only_if_expiry`](Self::only_if_expiry) instead; this has no effect on it, nor on an add.
    pub fn only_if(mut self, wanted: Condition) -> Self {
        if let Action::Set { condition, .. } | Action::Remove { condition } = &mut self.action {
            *condition = wanted;
        }
        self
    }

    /// Only when the entry's expiry is in this state. Has an effect on expiry changes only.
    pub fn only_if_expiry(mut self, wanted: ExpireCondition) -> Self {
        if let Action::Expire { condition, .. } = &mut self.action {
            *condition = wanted;
        }
        self
    }

    /// A set gives the entry this time to live instead of the cache's own.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with_expiry(SetExpiry::New(Lifetime::For(ttl)))
    }

    /// A set makes the entry expire at this instant of cluster time, or never.
    pub fn expires_at(self, at: nearcache_store::Expiry) -> Self {
        self.with_expiry(SetExpiry::New(Lifetime::Until(at)))
    }

    /// A set keeps the expiry the entry has.
    pub fn keep_expiry(self) -> Self {
        self.with_expiry(SetExpiry::Keep)
    }

    /// A set gives the entry these tags.
    pub fn tags<T: AsRef<[u8]>>(mut self, new: impl IntoIterator<Item = T>) -> Self {
        if let Action::Set { tags, .. } = &mut self.action {
            *tags = new.into_iter().map(|tag| tag.as_ref().into()).collect();
        }
        self
    }

    /// Have [`Modified::previous`] filled in.
    pub const fn return_previous(mut self) -> Self {
        self.return_previous = true;
        self
    }

    /// How long to wait for the home node. Default 2 s, at most 60 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn with_expiry(mut self, new: SetExpiry) -> Self {
        if let Action::Set { expiry, .. } = &mut self.action {
            *expiry = new;
        }
        self
    }
}

impl<V> fmt::Debug for Modify<V> {
    /// The kind of change; the value stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.action {
            Action::Set { .. } => "Modify::set",
            Action::Remove { .. } => "Modify::remove",
            Action::Expire { .. } => "Modify::expire",
            Action::Add { .. } => "Modify::add",
        })
    }
}

/// What a [`Cache::modify`](crate::Cache::modify) came to.
pub struct Modified<V, C: Codec<V> = MessagePack> {
    /// Whether the condition held and the change was made.
    pub applied: bool,
    /// What the key held before, if that was asked for and there was something.
    pub previous: Option<Cached<V, C>>,
    /// What the key held right after the decision; another change may have followed since. `None` also for a value longer than
    /// `inline_limit` that was not written by this very change: [`get`](crate::Cache::get) fetches it.
    pub current: Option<Cached<V, C>>,
}

impl<V, C: Codec<V>> fmt::Debug for Modified<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modified")
            .field("applied", &self.applied)
            .field("previous", &self.previous)
            .field("current", &self.current)
            .finish()
    }
}
