//! Write-behind, the callers' side: room, then the journal if there is one, then the cache and the queue in one step.

use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::payload::Payload;
use nearcache_protocol::write::queue::Write;
use nearcache_store::{Change, Handle, Version};

use super::behind::{Acknowledging, Behind, Op, Room, Watch, bytes_of};
use super::journaling::What;
use super::sinking::{Stored, Wanted, wanted};
use super::{Shell, Written};
use crate::cache::errors::{ModifyError, WriteError};
use crate::cache::options::Ack;

impl<V: Payload> Shell<V> {
    /// Queues a write as soon as there is room for it, and makes it here.
    pub(super) async fn write_behind(
        &self,
        behind: &Behind<V>,
        key: &[u8],
        change: Change<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<Acknowledging<V>, WriteError> {
        self.check_open()?;
        behind.takes(key)?;
        let Some(wanted) = wanted(change) else {
            return Err(WriteError::SinkMustWait);
        };
        let room = self.room(behind, key, bytes_of(key, &wanted)).await?;
        if let Some(journal) = behind.journal() {
            let key = Bytes::copy_from_slice(key);
            let what = What::Wanted {
                wanted,
                ack,
                timeout,
            };
            return journal.accept(behind, key, room, what).await;
        }
        let stored = self.accept(behind, key, wanted, room)?;
        Ok(self.tell_acked(stored, ack, timeout))
    }

    /// The same for a caller that cannot wait.
    pub(super) fn write_behind_now(
        &self,
        behind: &Behind<V>,
        key: &[u8],
        change: Change<V>,
    ) -> Result<Written<V>, WriteError> {
        self.check_open()?;
        behind.takes(key)?;
        let Some(wanted) = wanted(change).filter(|_| behind.journal().is_none()) else {
            return Err(WriteError::SinkMustWait);
        };
        let room = self.room_now(behind, key, bytes_of(key, &wanted))?;
        let stored = self.accept(behind, key, wanted, room)?;
        Ok(self.tell_acked(stored, Ack::Local, Duration::ZERO).0)
    }

    pub(super) async fn room<'a>(
        &self,
        behind: &'a Behind<V>,
        key: &[u8],
        bytes: u64,
    ) -> Result<Room<'a, V>, WriteError> {
        let waiting = async {
            loop {
                // Registered before the look, so that what is settled in between is noticed.
                let settled = behind.settled.notified();
                match self.room_now(behind, key, bytes) {
                    Err(WriteError::SinkOverloaded { .. }) => settled.await,
                    room => return room,
                }
            }
        };
        match tokio::time::timeout(behind.policy().wait, waiting).await {
            Ok(room) => room,
            Err(_) => self.room_now(behind, key, bytes),
        }
    }

    /// Room, if there is any. A node that leaves gives none.
    pub(super) fn room_now<'a>(
        &self,
        behind: &'a Behind<V>,
        key: &[u8],
        bytes: u64,
    ) -> Result<Room<'a, V>, WriteError> {
        let mut queue = behind.queue().lock();
        // Looked at under the lock under which a node that leaves counts what it has to write: it counts this, or this is refused.
        if self.node.is_leaving() {
            return Err(WriteError::NodeStopped);
        }
        // Whoever waits for room may wait beyond the end of a window of `split`.
        self.check_writable()?;
        match queue.reserve(key, bytes) {
            Ok(()) => Ok(Room { behind, bytes }),
            Err(full) => Err(WriteError::SinkOverloaded { queued: full.keys }),
        }
    }

    /// Stores and queues in one step, so that the order of a key's versions is that of its writes.
    fn accept(
        &self,
        behind: &Behind<V>,
        key: &[u8],
        wanted: Wanted<V>,
        room: Room<'_, V>,
    ) -> Result<Stored<V>, WriteError> {
        let mut queue = behind.queue().lock();
        let version = self.stamp()?;
        let seq = queue.next_seq();
        let (stored, entry) = self.store_now(key, version, wanted);
        let write = Write {
            key: Bytes::copy_from_slice(key),
            seq,
            version,
            bytes: room.taken(),
            content: Op { entry, version },
        };
        let before = queue.next_due();
        // Without a journal nobody need be told.
        let _ = behind.put(&mut queue, self.node.now(), write);
        // Others may be with the sink, or wait long for their next try: only what is due first tells when the driver wakes.
        let is_first = queue.next_due() < before;
        drop(queue);
        if is_first {
            behind.wake.notify_one();
        }
        Ok(stored)
    }

    /// Makes an entry and stores it.
    pub(super) fn store_now(
        &self,
        key: &[u8],
        version: Version,
        wanted: Wanted<V>,
    ) -> (Stored<V>, Option<Handle<V>>) {
        let entry =
            wanted.map(|(value, expiry, tags)| self.store.entry(key, version, value, expiry, tags));
        (self.store_wanted(key, version, entry.as_ref(), None), entry)
    }

    /// Tells the peers of a stored write; whoever wants to know when they have it gets a place to wait.
    pub(super) fn tell_acked(
        &self,
        stored: Stored<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Acknowledging<V> {
        let (written, published) = stored;
        let waiting = published.and_then(|published| self.publish(published, ack, timeout));
        (written, waiting)
    }

    /// Waits for the peers.
    pub(super) async fn acknowledged(
        &self,
        (written, waiting): Acknowledging<V>,
    ) -> Result<Written<V>, WriteError> {
        if let Some(waiting) = waiting {
            self.acked(waiting).await?;
        }
        Ok(written)
    }

    /// A read-modify-write, whose result is then queued.
    pub(super) async fn modify_behind(
        &self,
        behind: &Behind<V>,
        key: &Bytes,
        bytes: u64,
        modify: impl Future<Output = Result<Option<Op<V>>, ModifyError>>,
    ) -> Result<(), ModifyError> {
        behind.takes(key)?;
        // Before anything is decided.
        if let Some(journal) = behind.journal() {
            self.check_former(journal)?;
        }
        let room = self.room(behind, key, bytes).await?;
        let _turn = behind.turns.take(key.clone()).await;
        let _watch = Watch::begin(behind, key);
        let Some(op) = self.decided(key, modify).await? else {
            return Ok(());
        };
        if let Some(journal) = behind.journal() {
            let what = What::Stored(op);
            let accepted = journal.accept(behind, key.clone(), room, what).await;
            if accepted.is_err() {
                self.drop_in_doubt(key);
            }
            return accepted.map(drop).map_err(ModifyError::from);
        }
        let mut queue = behind.queue().lock();
        // A later write of this node may have come after it was decided.
        if queue.is_newest(key, op.version) {
            let write = Write {
                key: key.clone(),
                seq: queue.next_seq(),
                version: op.version,
                bytes: room.taken(),
                content: op,
            };
            let _ = behind.put(&mut queue, self.node.now(), write);
        }
        drop(queue);
        behind.wake.notify_one();
        Ok(())
    }
}
