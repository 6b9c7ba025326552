//! Write-behind: the queue first, then the cache; the system of record later.
//!
//! ```text
//! accepting: put ─▶ room in the queue ─▶ (journaling) ─▶ store, queue, peers ─▶ answered
//! settling:  driver: next_batch ─▶ sink ─▶ ended ─▶ written: the entry again, with a new version
//!                                              └─▶ given up: dropped everywhere, a dead letter
//! tending:   flush, leave, dead letters, numbers
//! ```
//!
//! While a write is queued it stands for the system of record: a load of its key gets it, and nothing that was read meanwhile is kept.
//! Other nodes may have read the older row; so once it is written its entry gets a new version, which beats whatever was read before.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_protocol::write::queue::{Released, Write, WriteQueue};
use nearcache_protocol::write::record::WriteRecord;
use nearcache_store::{Handle, Tags, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::journaling::Journaling;
use super::sinking::{Sinking, Wanted};
use super::turns::Turns;
use super::waiters::Waiting;
use super::{Shell, Written};
use crate::cache::errors::WriteError;
use crate::cache::sink::{CellSink, WriteBehind};
use crate::persistence::journal::{Journal, Unwritten};

/// What a key is to hold in the system of record.
pub(crate) struct Op<V> {
    /// The value; nothing if the key is to be removed.
    pub(crate) entry: Option<Handle<V>>,
    /// What the sink is told.
    pub(crate) version: Version,
}

impl<V> Clone for Op<V> {
    fn clone(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            version: self.version,
        }
    }
}

/// The state of a cache that writes behind.
pub(crate) struct Behind<V: Payload> {
    policy: WriteBehind,
    pub(super) sink: Arc<dyn CellSink<V>>,
    queue: Mutex<WriteQueue<Op<V>>>,
    pub(super) is_driven: AtomicBool,
    /// Something may be due.
    pub(super) wake: Notify,
    /// There may be room, and writes may be settled.
    pub(super) settled: Notify,
    /// Read-modify-writes of a key, one at a time.
    pub(super) turns: Turns,
    journal: Option<Journaling<V>>,
}

impl<V: Payload> Behind<V> {
    /// With what a journal says is still to be written, if there is one.
    pub(crate) fn new(
        policy: WriteBehind,
        sink: Arc<dyn CellSink<V>>,
        journal: Option<(Journal, Unwritten)>,
        now: Time,
    ) -> Self {
        let mut queue = WriteQueue::new(policy.queue);
        let journal = journal.map(|(journal, (unwritten, last))| {
            for record in unwritten {
                queue.restore(now, restored(record));
            }
            queue.resume_after(last);
            Journaling::new(journal)
        });
        Self {
            sink,
            queue: Mutex::new(queue),
            is_driven: AtomicBool::new(false),
            wake: Notify::new(),
            settled: Notify::new(),
            turns: Turns::default(),
            journal,
            policy,
        }
    }

    pub(super) const fn queue(&self) -> &Mutex<WriteQueue<Op<V>>> {
        &self.queue
    }

    pub(super) const fn journal(&self) -> Option<&Journaling<V>> {
        self.journal.as_ref()
    }

    pub(super) const fn policy(&self) -> &WriteBehind {
        &self.policy
    }

    /// Whether the sink can be told this key.
    pub(super) fn takes(&self, key: &[u8]) -> Result<(), WriteError> {
        Ok(self.sink.takes(key)?)
    }

    /// Tells a test where we are.
    pub(super) fn step(&self, name: &'static str) {
        if let Some(hook) = &self.policy.hook {
            hook(name);
        }
    }

    /// Room that was kept for a write is not needed.
    pub(super) fn give_back(&self, bytes: u64) {
        self.queue.lock().give_back(bytes);
        self.settled.notify_waiters();
    }

    /// Queues a write for which room was kept. If it takes less than that, because it replaces another, who waits for room is woken.
    pub(super) fn put(
        &self,
        queue: &mut WriteQueue<Op<V>>,
        now: Time,
        write: Write<Op<V>>,
    ) -> Released {
        let (keys, bytes) = queue.taken();
        let released = queue.put(now, write);
        let (keys_now, bytes_now) = queue.taken();
        if keys_now < keys || bytes_now < bytes {
            self.settled.notify_waiters();
        }
        released
    }

    /// Something is in the queue that may be due before anything else.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn nudge(&self) {
        self.settled.notify_waiters();
        self.wake.notify_one();
    }
}

/// Room in the queue, given back when it is dropped.
pub(super) struct Room<'a, V: Payload> {
    pub(super) behind: &'a Behind<V>,
    pub(super) bytes: u64,
}

impl<V: Payload> Room<'_, V> {
    /// A write has taken it, or whoever gives it back; how many bytes that are.
    pub(super) fn taken(self) -> u64 {
        let bytes = self.bytes;
        std::mem::forget(self);
        bytes
    }
}

impl<V: Payload> Drop for Room<'_, V> {
    fn drop(&mut self) {
        self.behind.give_back(self.bytes);
    }
}

/// Somebody wants to know what is accepted of a key meanwhile.
pub(super) struct Watch<'a, V: Payload> {
    pub(super) behind: &'a Behind<V>,
    pub(super) key: &'a [u8],
}

impl<'a, V: Payload> Watch<'a, V> {
    pub(super) fn begin(behind: &'a Behind<V>, key: &'a Bytes) -> Self {
        behind.queue.lock().watch(key.clone());
        Self { behind, key }
    }
}

impl<V: Payload> Drop for Watch<'_, V> {
    fn drop(&mut self) {
        self.behind.queue.lock().unwatch(self.key);
    }
}

/// An accepted write, and the peers that its caller waits for.
pub(super) type Acknowledging<V> = (Written<V>, Option<Waiting<V>>);

/// A write as the journal remembers it.
fn restored<V: Payload>(record: WriteRecord) -> Write<Op<V>> {
    let WriteRecord {
        seq,
        version,
        key,
        value,
    } = record;
    let bytes = key.len() + value.as_ref().map_or(0, |(_, _, value)| value.len());
    let entry = value.map(|(codec, expiry, value)| {
        let value = V::from_wire(codec, &value);
        Handle::detached(&key, version, expiry, Tags::NONE, value)
    });
    Write {
        key,
        seq,
        version,
        bytes: bytes as u64,
        content: Op { entry, version },
    }
}

/// What a write takes in the queue, in bytes.
pub(super) fn bytes_of<V: Payload>(key: &[u8], wanted: &Wanted<V>) -> u64 {
    let value = wanted
        .as_ref()
        .map_or(0, |(value, _, _)| value.bytes().len());
    (key.len() + value) as u64
}

impl<V: Payload> Shell<V> {
    pub(super) fn behind(&self) -> Option<&Behind<V>> {
        match &self.sinking {
            Some(Sinking::Behind(behind)) => Some(behind),
            Some(Sinking::Through(_)) | None => None,
        }
    }

    /// What is queued for `key`: the entry, or nothing if it is to be removed. Cost: O(log keys) under a short lock.
    pub(crate) fn queued(&self, key: &[u8]) -> Option<Option<Handle<V>>> {
        let queue = self.behind()?.queue.lock();
        Some(queue.pending(key)?.content.entry.clone())
    }
}
