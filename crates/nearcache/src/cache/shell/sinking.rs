//! Calling a sink so that nothing it does harms anybody else, and what the cache holds afterwards.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Change, Expiry, Handle, MergeError, Merged, Tags, Version};

use super::behind::Behind;
use super::through::Through;
use super::{Machine, Shell, Written};
use crate::cache::errors::WriteError;
use crate::cache::sink::{CellSink, CellWrite, SinkFault};

/// How writes reach the system of record.
pub(crate) enum Sinking<V: Payload> {
    /// At once.
    Through(Through<V>),
    /// Later.
    Behind(Box<Behind<V>>),
}

/// What a key shall hold: a value, or nothing.
pub(crate) type Wanted<V> = Option<(V, Expiry, Tags)>;

/// A write that the store has been given, and what the peers have to learn of it.
pub(super) type Stored<V> = (Written<V>, Option<Published<V>>);

/// What a change makes of its key; nothing if it concerns the expiry alone, which is no affair of the system of record.
pub(super) fn wanted<V>(change: Change<V>) -> Option<Wanted<V>> {
    match change {
        Change::Put {
            value,
            expiry,
            tags,
        } => Some(Some((value, expiry, tags))),
        Change::Remove => Some(None),
        Change::Stub { .. } | Change::Expire { .. } => None,
    }
}

/// Calls the sink, and waits at most so long. What it panics with ends here.
pub(super) async fn call_sink<V: Payload>(
    sink: &Arc<dyn CellSink<V>>,
    writes: Vec<CellWrite<'_, V>>,
    timeout: Duration,
) -> Result<(), SinkFault> {
    let mut answer = None;
    let mut writes = Some(writes);
    let guarded = poll_fn(move |context| {
        let poll = || {
            let answer =
                answer.get_or_insert_with(|| sink.write_many(writes.take().unwrap_or_default()));
            answer.as_mut().poll(context)
        };
        // A future that has panicked is not polled again, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answered)) => Poll::Ready(answered.map_err(SinkFault::from)),
            Err(_) => Poll::Ready(Err(SinkFault::Panicked)),
        }
    });
    match tokio::time::timeout(timeout, guarded).await {
        Ok(answered) => answered,
        Err(_) => Err(SinkFault::TimedOut { after: timeout }),
    }
}

impl<V: Payload> Shell<V> {
    /// Merges what is, or will be, in the system of record. It need not fit into the cache: then no copy is kept anywhere.
    pub(super) fn store_wanted(
        &self,
        key: &[u8],
        version: Version,
        entry: Option<&Handle<V>>,
        known: Option<Version>,
    ) -> Stored<V> {
        let merged = match entry {
            Some(entry) => self.store.merge_entry_if(entry, |now| {
                known.is_none_or(|known| now.version() == known)
            }),
            None => self.store.merge(key, version, Change::Remove),
        };
        let merged = match merged {
            // Something else was written meanwhile, and nobody knows which of the two the system of record holds.
            Ok(Merged::Declined) => self.store.merge(key, version, Change::Remove),
            merged => merged,
        };
        let removal = || Published::Removal {
            key: bytes::Bytes::copy_from_slice(key),
            version,
        };
        let (replaced, published) = match merged {
            Ok(Merged::Applied { entry, replaced }) => {
                (replaced, Some(entry.map_or_else(removal, Published::Entry)))
            }
            Ok(Merged::Stale { .. } | Merged::Declined) => (None, None),
            Err(MergeError::TooLargeForCache { .. }) => (None, Some(removal())),
            Err(_) => (None, None),
        };
        (Written { version, replaced }, published)
    }

    /// Drops the key on all nodes: what the system of record holds is not known here.
    pub(super) fn drop_in_doubt(&self, key: &[u8]) -> bool {
        let dropped = self.drop_here(key);
        let is_dropped = dropped.is_some();
        self.tell(dropped.flatten());
        is_dropped
    }

    /// Drops the key on this node only; returns what the peers have to learn, or nothing if it cannot be dropped now.
    pub(super) fn drop_here(&self, key: &[u8]) -> Option<Option<Published<V>>> {
        match self.stamp() {
            Ok(version) => Some(self.store_wanted(key, version, None, None).1),
            Err(error) => {
                tracing::error!(cache = %self.name, %error, "a copy that may be wrong cannot be dropped yet");
                None
            }
        }
    }

    /// Tells the peers.
    pub(super) fn tell(&self, published: Option<Published<V>>) {
        let Some(published) = published else { return };
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        core.publish(self.node.now(), published, Ack::Local, None, out);
        self.carry_out(&mut machine);
    }

    /// How writes reach the system of record, if they do.
    pub(crate) const fn sinking(&self) -> Option<&Sinking<V>> {
        self.sinking.as_ref()
    }

    /// Writes `key` for a caller that cannot wait.
    pub(crate) fn write_sunk_now(
        &self,
        key: &[u8],
        change: Change<V>,
    ) -> Result<Written<V>, WriteError> {
        match &self.sinking {
            None => self.write(key, change),
            Some(Sinking::Through(_)) => Err(WriteError::SinkMustWait),
            Some(Sinking::Behind(behind)) => self.write_behind_now(behind, key, change),
        }
    }

    /// Writes `key` here, on the peers and, if the cache has a sink, in the system of record.
    pub(crate) async fn write_sunk(
        self: &Arc<Self>,
        key: &[u8],
        change: Change<V>,
        ack: crate::cache::Ack,
        timeout: Duration,
    ) -> Result<Written<V>, WriteError> {
        match &self.sinking {
            None => self.write_acked(key, change, ack, timeout).await,
            Some(Sinking::Through(_)) => self.write_through(key, change, ack, timeout).await,
            Some(Sinking::Behind(behind)) => {
                let waiting = self.write_behind(behind, key, change, ack, timeout).await?;
                self.acknowledged(waiting).await
            }
        }
    }
}
