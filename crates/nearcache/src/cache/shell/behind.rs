//! Write-behind: the queue first, then the cache; the system of record later.
//!
//! ```text
//! put ─▶ room in the queue ─▶ (journal) ─▶ store, queue, peers ─▶ answered
//! driver: next_batch ─▶ sink ─▶ ended ─▶ written: the entry again, with a new version
//!                                   └─▶ given up: dropped everywhere, a dead letter
//! ```
//!
//! While a write is queued it stands for the system of record: a load of its key gets it, and nothing that was read meanwhile is kept.
//! Other nodes may have read the older row; so once it is written its entry gets a new version, which beats whatever was read before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Published, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_protocol::write::dead::DeadLetter;
use nearcache_protocol::write::queue::{Batch, BatchOutcome, Settled, Write, WriteQueue, WriteSeq};
use nearcache_protocol::write::record::WriteRecord;
use nearcache_store::{Change, Handle, Tags, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::journaling::{Journaling, What};
use super::sinking::{Sinking, Stored, Wanted, call_sink, wanted};
use super::turns::Turns;
use super::waiters::Waiting;
use super::{Machine, Shell, Written};
use crate::cache::errors::{ModifyError, WriteError};
use crate::cache::options::Ack;
use crate::cache::sink::{CellSink, CellWrite, FlushError, SinkFault, WriteBehind};
use crate::cache::stats::WriteStats;
use crate::limits::OPERATION_TIMEOUT_MAX;
use crate::node::NodeShared;
use crate::persistence::journal::{Journal, Unwritten};
use crate::random::random;

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
    sink: Arc<dyn CellSink<V>>,
    queue: Mutex<WriteQueue<Op<V>>>,
    is_driven: AtomicBool,
    /// Something may be due.
    wake: Notify,
    /// There may be room, and writes may be settled.
    settled: Notify,
    /// Read-modify-writes of a key, one at a time.
    turns: Turns,
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

    /// Something is in the queue that may be due before anything else.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn nudge(&self) {
        self.settled.notify_waiters();
        self.wake.notify_one();
    }
}

/// Room in the queue, given back when it is dropped.
pub(super) struct Room<'a, V: Payload> {
    behind: &'a Behind<V>,
    bytes: u64,
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
struct Watch<'a, V: Payload> {
    behind: &'a Behind<V>,
    key: &'a [u8],
}

impl<'a, V: Payload> Watch<'a, V> {
    fn begin(behind: &'a Behind<V>, key: &'a Bytes) -> Self {
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
        if let Some(journal) = &behind.journal {
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
        let Some(wanted) = wanted(change).filter(|_| behind.journal.is_none()) else {
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
        match tokio::time::timeout(behind.policy.wait, waiting).await {
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
        let mut queue = behind.queue.lock();
        // Looked at under the lock under which a node that leaves counts what it has to write: it counts this, or this is refused.
        if self.node.is_leaving() {
            return Err(WriteError::NodeStopped);
        }
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
        let mut queue = behind.queue.lock();
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
        let _ = queue.put(self.node.now(), write);
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
        let Some(published) = published else {
            return (written, None);
        };
        let now = self.node.now();
        let waiting = (ack != Ack::Local).then(|| self.waiters.enter());
        let waiter = waiting.as_ref().map(|waiting| Waiter {
            id: waiting.id(),
            deadline: now + timeout.min(OPERATION_TIMEOUT_MAX),
        });
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        core.publish(now, published, ack.into(), waiter, out);
        self.carry_out(&mut machine);
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
        let room = self.room(behind, key, bytes).await?;
        let _turn = behind.turns.take(key.clone()).await;
        let _watch = Watch::begin(behind, key);
        let op = match modify.await {
            Ok(Some(op)) => op,
            Ok(None) => return Ok(()),
            Err(error) => {
                if matches!(error, ModifyError::Indeterminate) {
                    self.drop_in_doubt(key);
                }
                return Err(error);
            }
        };
        if let Some(journal) = &behind.journal {
            let what = What::Stored(op);
            let accepted = journal.accept(behind, key.clone(), room, what).await;
            if accepted.is_err() {
                self.drop_in_doubt(key);
            }
            return accepted.map(drop).map_err(ModifyError::from);
        }
        let mut queue = behind.queue.lock();
        // A later write of this node may have come after it was decided.
        if queue.is_newest(key, op.version) {
            let write = Write {
                key: key.clone(),
                seq: queue.next_seq(),
                version: op.version,
                bytes: room.taken(),
                content: op,
            };
            let _ = queue.put(self.node.now(), write);
        }
        drop(queue);
        behind.wake.notify_one();
        Ok(())
    }

    /// What is queued for `key`: the entry, or nothing if it is to be removed. Cost: O(log keys) under a short lock.
    pub(crate) fn queued(&self, key: &[u8]) -> Option<Option<Handle<V>>> {
        let queue = self.behind()?.queue.lock();
        Some(queue.pending(key)?.content.entry.clone())
    }

    /// Begins to write what is queued. Called once the cache is open; does nothing the second time.
    pub(crate) fn drive_writes(self: &Arc<Self>) {
        if let Some(behind) = self.behind()
            && !behind.is_driven.swap(true, Ordering::AcqRel)
        {
            tokio::spawn(drive(Arc::clone(self)));
            if let Some(journal) = &behind.journal {
                journal.keep(self);
            }
        }
    }

    /// A write is in the system of record: what others have read before it was loses from now on.
    pub(super) fn confirm(&self, key: &Bytes, entry: Option<&Handle<V>>, written: Version) {
        let published = self.confirm_here(key, entry, written);
        self.tell(published);
    }

    /// The same in this node's store only; returns what the peers have to learn.
    fn confirm_here(
        &self,
        key: &Bytes,
        entry: Option<&Handle<V>>,
        written: Version,
    ) -> Option<Published<V>> {
        let Ok(version) = self.stamp() else {
            tracing::error!(cache = %self.name, "a written key cannot be told of: the clock is out of step");
            return None;
        };
        // Looked at once: what comes after this look is not replaced.
        let known = self.store.known(key).version();
        let again = entry.and_then(|entry| {
            let is_here =
                known == entry.version() || self.store.evicted(key) == Some(entry.version());
            is_here.then(|| {
                let value = entry.value().clone();
                let (expiry, tags) = (entry.expiry(), entry.tags().clone());
                self.store.entry(key, version, value, expiry, tags)
            })
        });
        let known = again.as_ref().map(|_| known);
        let (_, published) = self.store_wanted(key, version, again.as_ref(), known);
        tracing::trace!(cache = %self.name, ?written, ?version, "written");
        published
    }

    /// What the end of a write means for the cache. If a read-modify-write of the key is under way this waits for it.
    fn see_to(self: &Arc<Self>, behind: &Behind<V>, settled: Settled<Op<V>>) {
        let (Settled::Written(write) | Settled::GivenUp(write)) = &settled;
        if let Some(_turn) = behind.turns.try_take(&write.key) {
            self.show(behind, &settled);
            return;
        }
        // Later ones of its key may have come to their end before this is shown.
        behind.queue.lock().watch(write.key.clone());
        let shell = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(behind) = shell.behind() {
                let (Settled::Written(write) | Settled::GivenUp(write)) = &settled;
                let _watch = Watch {
                    behind,
                    key: &write.key,
                };
                let _turn = behind.turns.take(write.key.clone()).await;
                shell.show(behind, &settled);
            }
        });
    }

    /// Makes what has come of a write seen, unless a later one of its key waits, or has ended by now: then that one's end says what is to
    /// be seen.
    fn show(&self, behind: &Behind<V>, settled: &Settled<Op<V>>) {
        let (Settled::Written(write) | Settled::GivenUp(write)) = settled;
        let is_written = matches!(settled, Settled::Written(_));
        if !is_written {
            tracing::error!(cache = %self.name, "a write was given up: see the dead letters");
        }
        // Nothing of the key is queued between the look and what is stored.
        let queue = behind.queue.lock();
        let published = if !queue.is_newest(&write.key, write.version) {
            None
        } else if is_written {
            let Op { entry, version } = &write.content;
            self.confirm_here(&write.key, entry.as_ref(), *version)
        } else {
            self.drop_here(&write.key)
        };
        drop(queue);
        self.tell(published);
    }

    /// Writes a batch, and sees to what comes of it.
    async fn write_batch(self: &Arc<Self>, behind: &Behind<V>, batch: Batch<Op<V>>) {
        let writes = batch.writes.iter().map(|write| CellWrite {
            key: &write.key,
            cell: write.content.entry.as_ref().map(|entry| entry.value()),
            version: write.content.version,
        });
        behind.step("before sink");
        let written = call_sink(&behind.sink, writes.collect(), behind.policy.timeout).await;
        let reason = written.as_ref().err().map(ToString::to_string);
        let outcome = match (&written, &reason) {
            (Err(SinkFault::Rejected(_)), Some(reason)) => BatchOutcome::Rejected(reason),
            (Err(_), Some(reason)) => BatchOutcome::Failed(reason),
            _ => BatchOutcome::Written,
        };
        if let Some(reason) = &reason {
            let writes = batch.writes.len();
            tracing::warn!(cache = %self.name, writes, %reason, "the system of record was not written");
        }
        let ended = behind
            .queue
            .lock()
            .ended(self.node.now(), batch.id, outcome, random());
        behind.step("sink called");
        let (settled, released) = ended;
        for settled in settled {
            self.see_to(behind, settled);
        }
        if let Some(journal) = &behind.journal {
            journal.settle(released);
        }
        behind.nudge();
    }

    /// Waits until all that is queued now is settled.
    pub(crate) async fn flush_writes(&self, timeout: Duration) -> Result<(), FlushError> {
        let Some(behind) = self.behind() else {
            return Ok(());
        };
        let upto = self.hurry_writes();
        let flushed = async {
            loop {
                let settled = behind.settled.notified();
                if behind.queue.lock().is_settled_to(upto) {
                    return Ok(());
                }
                if self.node.is_stopped() {
                    return Err(FlushError::NodeStopped);
                }
                settled.await;
            }
        };
        match tokio::time::timeout(timeout, flushed).await {
            Ok(flushed) => flushed,
            Err(_) => Err(FlushError::TimedOut {
                left: behind.queue.lock().len(),
                after: timeout,
            }),
        }
    }

    /// All that is queued is due; returns the number of the last write.
    fn hurry_writes(&self) -> WriteSeq {
        let Some(behind) = self.behind() else {
            return WriteSeq::default();
        };
        let mut queue = behind.queue.lock();
        queue.hurry(self.node.now());
        let last = queue.last_seq();
        drop(queue);
        behind.wake.notify_one();
        last
    }

    /// This node leaves: all that is queued is due, and what has room and is queued from now on is too. Says how many keys that are.
    pub(super) fn hurry_and_count(&self) -> usize {
        let Some(behind) = self.behind() else {
            return 0;
        };
        let mut queue = behind.queue.lock();
        queue.hurry(self.node.now());
        queue.end_delay();
        drop(queue);
        // Also those that wait for room: they get none any more.
        behind.nudge();
        self.queued_keys()
    }

    /// Whether a journal is still in use.
    pub(super) fn holds_journal(&self) -> bool {
        let journal = self.behind().and_then(|behind| behind.journal.as_ref());
        journal.is_some_and(|journal| !journal.is_closed())
    }

    /// Keys that are to be written, and writes that have room and are not queued yet.
    pub(super) fn queued_keys(&self) -> usize {
        self.behind().map_or(0, |behind| {
            let queue = behind.queue.lock();
            queue.len() + queue.reserved()
        })
    }

    /// Whoever waits for the queue looks again.
    pub(super) fn wake_writers(&self) {
        if let Some(behind) = self.behind() {
            behind.nudge();
        }
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter<Op<V>>> {
        let letters = |behind: &Behind<V>| behind.queue.lock().dead().iter().cloned().collect();
        self.behind().map_or_else(Vec::new, letters)
    }

    pub(crate) fn replay_dead_letters(&self) -> usize {
        let Some(behind) = self.behind() else {
            return 0;
        };
        let replayed = behind.queue.lock().replay_dead(self.node.now());
        behind.nudge();
        replayed
    }

    pub(crate) fn discard_dead_letter(&self, key: &[u8]) -> bool {
        let Some(behind) = self.behind() else {
            return false;
        };
        let letter = behind.queue.lock().discard_dead(key);
        if let (Some(letter), Some(journal)) = (&letter, &behind.journal) {
            journal.settle(smallvec::smallvec![letter.write.seq]);
        }
        letter.is_some()
    }

    /// What write-behind has counted, and what waits.
    pub(super) fn write_stats(&self) -> WriteStats {
        let Some(behind) = self.behind() else {
            return WriteStats::default();
        };
        let now = self.node.now();
        let queue = behind.queue.lock();
        WriteStats::new(
            queue.counts(),
            (queue.len(), queue.bytes(), queue.dead().len()),
            queue.oldest_since().map(|since| now - since),
            behind.journal.as_ref().map_or((0, 0), Journaling::read),
        )
    }
}

/// Writes what falls due, until the node stops.
async fn drive<V: Payload>(shell: Arc<Shell<V>>) {
    let node: Arc<NodeShared> = Arc::clone(shell.node());
    let mut writing = JoinSet::new();
    let Some(behind) = shell.behind() else { return };
    loop {
        let due = loop {
            let mut queue = behind.queue.lock();
            let Some(batch) = queue.next_batch(node.now()) else {
                break queue.next_due();
            };
            drop(queue);
            let shell = Arc::clone(&shell);
            writing.spawn(async move {
                if let Some(behind) = shell.behind() {
                    shell.write_batch(behind, batch).await;
                }
            });
        };
        tokio::select! {
            () = node.stopped().cancelled() => return,
            () = behind.wake.notified() => {}
            () = until(&node, due) => {}
            Some(_) = writing.join_next() => {}
        }
    }
}

async fn until(node: &NodeShared, due: Time) {
    if due == Time::MAX {
        return std::future::pending().await;
    }
    tokio::time::sleep(due - node.now()).await;
}
