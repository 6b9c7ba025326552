//! What an owner of a write-behind cache looks after: the queue, and what was given up.

use std::fmt;
use std::time::Duration;

use super::FlushError;
use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::errors::ReadError;
use crate::codec::key::KeyFor;
use crate::codec::{Codec, MessagePack};

/// A write that write-behind has given up: the system of record does not have it.
pub struct DeadLetter<V, C: Codec<V> = MessagePack> {
    /// The canonical bytes of the key.
    pub key: Box<[u8]>,
    /// The value; `None` for a removal, and for one that this node cannot decode.
    pub value: Option<Cached<V, C>>,
    /// What the sink said.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// How long ago it was given up.
    pub age: Duration,
}

impl<V, C: Codec<V>> fmt::Debug for DeadLetter<V, C> {
    /// The value stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("key_bytes", &self.key.len())
            .field("value", &self.value)
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .field("age", &self.age)
            .finish()
    }
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// Waits until everything that write-behind has accepted so far is in the system of record, is superseded by a later write, or
    /// has become a [dead letter](Self::dead_letters). What waits for its time is written at once. Without write-behind it
    /// returns at once. Cancel-safe; a node that [shuts down](crate::Node::shutdown) does it by itself.
    ///
    /// # Errors
    ///
    /// [`FlushError`]; what is left stays queued.
    pub async fn flush_writes(&self, timeout: Duration) -> Result<(), FlushError> {
        self.shell.flush_writes(timeout).await
    }

    /// The writes that write-behind has given up, by key: rejected by the sink, or failing for longer than
    /// [`give_up_after`](crate::WriteBehind::give_up_after). The cache holds no copies of them; a later write of the key takes its letter
    /// away. Cost: O(letters); takes the queue's lock.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter<V, C>> {
        let letters = self.shell.dead_letters();
        let now = self.shell.node().now();
        let letters = letters.into_iter().map(|letter| DeadLetter {
            key: letter.write.key.as_ref().into(),
            value: letter.write.content.entry.and_then(Cached::of),
            reason: letter.reason,
            attempts: letter.attempts,
            age: now - letter.since,
        });
        letters.collect()
    }

    /// Queues all dead letters again; returns how many. They may exceed the queue's bound for a while.
    pub fn replay_dead_letters(&self) -> usize {
        self.shell.replay_dead_letters()
    }

    /// Forgets the dead letter of `key` for good; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub fn discard_dead_letter<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<bool, ReadError> {
        let key = self.owned_key(key)?;
        Ok(self.shell.discard_dead_letter(&key))
    }
}
