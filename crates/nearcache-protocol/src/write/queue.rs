//! What is to be written to the system of record: [`WriteQueue`].
//!
//! One slot for each key holds its newest write; a later one takes the place of one that waits, so that a busy key costs one write of
//! the sink a round. While a slot's write is with the sink no other of its key is, which keeps them in order: the next goes when that
//! has ended, however it did. Slots come up in the order in which they fall due, a batch at a time, few batches at once.

mod ended;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::Version;
use smallvec::SmallVec;

pub use self::ended::{BatchOutcome, Settled};

use super::backoff::Backoff;
use super::dead::{DeadLetter, DeadLetters};
use super::watched::Watched;
use crate::time::Time;

/// Bounds and times of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Keys that wait at once; beyond it writers wait. Default 10,000.
    pub keys_max: usize,
    /// Bytes of keys and values that wait at once; beyond it writers wait. Default 64 MiB.
    pub bytes_max: u64,
    /// Writes of one batch. Default 100.
    pub batch_max: usize,
    /// Batches that are with the sink at once. Default 4.
    pub batches_max: usize,
    /// How long a write waits for later ones of its key, which take its place. Default 100 ms.
    pub delay: Duration,
    /// How long to wait after a failure.
    pub backoff: Backoff,
    /// For how long a failing write is tried before it becomes a dead letter. Default 1 h.
    pub give_up_after: Duration,
    /// Writes that are kept as dead letters. Beyond it they are tried for ever. Default 1,000.
    pub dead_letters_max: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            keys_max: 10_000,
            bytes_max: 64 << 20,
            batch_max: 100,
            batches_max: 4,
            delay: Duration::from_millis(100),
            backoff: Backoff::default(),
            give_up_after: Duration::from_secs(3_600),
            dead_letters_max: 1_000,
        }
    }
}

/// The number of an accepted write: later ones are higher, also across restarts if there is a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WriteSeq(pub u64);

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<T> {
    /// The canonical bytes of the key.
    pub key: Bytes,
    /// Its number.
    pub seq: WriteSeq,
    /// That under which the cache has it.
    pub version: Version,
    /// What key and value take, in bytes.
    pub bytes: u64,
    /// What is to be written.
    pub content: T,
}

/// Names a batch among those of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(u64);

/// What is to be written with one call of the sink. No two are of one key.
#[derive(Debug, Clone)]
pub struct Batch<T> {
    /// For [`WriteQueue::ended`].
    pub id: BatchId,
    /// In the order in which they fell due.
    pub writes: Vec<Write<T>>,
}

/// There is no room; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{keys} keys of {bytes} bytes wait to be written, which is the limit")]
pub struct QueueFull {
    /// Keys that wait.
    pub keys: usize,
    /// Their bytes, with their values.
    pub bytes: u64,
}

/// Numbers of writes that need no journal record any more.
pub type Released = SmallVec<[WriteSeq; 2]>;

/// What a queue has counted since it began. Whatever came in (accepted, restored, replayed) has left (coalesced, written, given up) or
/// is still queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Writes that were accepted.
    pub accepted: u64,
    /// Writes that were accepted before a restart.
    pub restored: u64,
    /// Dead letters that were queued again, each time counted.
    pub replayed: u64,
    /// Writes whose place a later write of their key took, and that the sink has not taken.
    pub coalesced: u64,
    /// Writes that the sink has taken.
    pub written: u64,
    /// Batches that the sink has taken.
    pub batches: u64,
    /// Writes that failed and were tried again, each time counted.
    pub retried: u64,
    /// Writes that became dead letters.
    pub given_up: u64,
}

/// The queue of one cache on one node. `T` is what is to be written under a key.
#[derive(Debug)]
pub struct WriteQueue<T> {
    config: QueueConfig,
    slots: BTreeMap<Bytes, Slot<T>>,
    /// Keys by when they fall due; those that are with the sink are not here.
    due: BTreeMap<(Time, WriteSeq), Bytes>,
    flying: BTreeMap<BatchId, Vec<Write<T>>>,
    dead: DeadLetters<T>,
    watched: Watched,
    reserved_keys: usize,
    reserved_bytes: u64,
    bytes: u64,
    last_seq: WriteSeq,
    last_batch: u64,
    /// Writes of the next batch at most: half as many after a failure, so that what fails takes ever less down with it; twice as
    /// many after a success.
    batch_limit: usize,
    last_success: Option<Time>,
    counts: QueueCounts,
}

#[derive(Debug)]
struct Slot<T> {
    /// The newest.
    write: Write<T>,
    /// When the oldest that is not settled was accepted.
    since: Time,
    /// The number of the oldest that is not settled.
    oldest: WriteSeq,
    /// The number of the one that is with the sink.
    flying: Option<WriteSeq>,
    failures: u32,
    failing_since: Option<Time>,
    /// The most writes of a batch that it may be in: fewer where it may be to blame, so that it takes nothing else down.
    together: usize,
}

impl<T: Clone> WriteQueue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn new(config: QueueConfig) -> Self {
        Self {
            slots: BTreeMap::new(),
            due: BTreeMap::new(),
            flying: BTreeMap::new(),
            dead: DeadLetters::new(config.dead_letters_max),
            watched: Watched::new(),
            reserved_keys: 0,
            reserved_bytes: 0,
            bytes: 0,
            last_seq: WriteSeq(0),
            last_batch: 0,
            batch_limit: config.batch_max,
            last_success: None,
            counts: QueueCounts {
                accepted: 0,
                restored: 0,
                replayed: 0,
                coalesced: 0,
                written: 0,
                batches: 0,
                retried: 0,
                given_up: 0,
            },
            config,
        }
    }

    /// Keeps room for a write of `key` that takes so many bytes. To be given back with [`put`](Self::put) or
    /// [`give_back`](Self::give_back). A write that is larger than the whole bound has room when nothing else waits.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn reserve(&mut self, key: &[u8], bytes: u64) -> Result<(), QueueFull> {
        let waits = self.slots.get(key);
        let replaced = waits.map_or(0, |slot| slot.write.bytes);
        let (keys, all) = self.taken();
        let has_place = waits.is_some() || keys < self.config.keys_max;
        let has_bytes = all.saturating_sub(replaced) + bytes <= self.config.bytes_max;
        if has_place && (has_bytes || keys == 0) {
            self.reserved_keys += 1;
            self.reserved_bytes += bytes;
            return Ok(());
        }
        Err(QueueFull { keys, bytes: all })
    }

    /// Gives back room that was kept for a write of so many bytes.
    pub const fn give_back(&mut self, bytes: u64) {
        self.reserved_keys = self.reserved_keys.saturating_sub(1);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// The number of the next write.
    pub const fn next_seq(&mut self) -> WriteSeq {
        self.last_seq.0 += 1;
        self.last_seq
    }

    /// The number of the last write.
    #[must_use]
    pub const fn last_seq(&self) -> WriteSeq {
        self.last_seq
    }

    /// Numbers begin after this one: what a journal says.
    pub fn resume_after(&mut self, seq: WriteSeq) {
        self.last_seq = self.last_seq.max(seq);
    }

    /// Accepts a write, for which room was kept. Returns which earlier ones of its key need not be remembered any more.
    /// Cost: O(log keys).
    pub fn put(&mut self, now: Time, write: Write<T>) -> Released {
        self.give_back(write.bytes);
        self.counts.accepted += 1;
        self.watched.accepted(&write.key, write.version);
        let mut released = Released::new();
        if let Some(letter) = self.dead.take(&write.key) {
            released.push(letter.write.seq);
        }
        self.enqueue(now, now + self.config.delay, write, &mut released);
        released
    }

    /// From now on [`is_newest`](Self::is_newest) knows what was accepted of `key`, also when that has left the queue: for a
    /// read-modify-write that is about to be decided, perhaps by another node. To be ended by one [`unwatch`](Self::unwatch).
    pub fn watch(&mut self, key: Bytes) {
        self.watched.watch(key);
    }

    /// Ends one [`watch`](Self::watch).
    pub fn unwatch(&mut self, key: &[u8]) {
        self.watched.unwatch(key);
    }

    /// Whether this version of `key` is still what the system of record is to hold: nothing later waits or is with the sink, and while the
    /// key is [watched](Self::watch) nothing later was accepted. Cost: O(log keys).
    #[must_use]
    pub fn is_newest(&self, key: &[u8], version: Version) -> bool {
        let pending = self.pending(key);
        pending.is_none_or(|pending| pending.version < version)
            && !self.watched.has_later(key, version)
    }

    /// Takes in a write that was accepted before a restart; it is due at once.
    pub fn restore(&mut self, now: Time, write: Write<T>) {
        self.counts.restored += 1;
        self.enqueue(now, now, write, &mut Released::new());
    }

    fn enqueue(&mut self, now: Time, due: Time, write: Write<T>, released: &mut Released) {
        self.resume_after(write.seq);
        self.bytes += write.bytes;
        if let Some(slot) = self.slots.get_mut(&write.key) {
            self.bytes -= slot.write.bytes;
            // What is with the sink is counted when that has ended.
            self.counts.coalesced += u64::from(slot.flying != Some(slot.write.seq));
            released.push(slot.write.seq);
            slot.write = write;
            return;
        }
        let (key, seq) = (write.key.clone(), write.seq);
        let slot = Slot {
            write,
            since: now,
            oldest: seq,
            flying: None,
            failures: 0,
            failing_since: None,
            together: usize::MAX,
        };
        self.due.insert((due, seq), key.clone());
        self.slots.insert(key, slot);
    }

    /// What is to be written now, if anything is due and fewer batches are with the sink than may be. Cost: O(batch × log keys).
    pub fn next_batch(&mut self, now: Time) -> Option<Batch<T>> {
        if self.flying.len() >= self.config.batches_max {
            return None;
        }
        let mut writes = Vec::new();
        let mut skipped = VecDeque::new();
        let mut limit = self.batch_limit;
        while writes.len() < limit
            && let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let (place, key) = entry.remove_entry();
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            if slot.together <= writes.len() {
                skipped.push_back((place, key));
                if skipped.len() >= self.config.batch_max {
                    break;
                }
                continue;
            }
            slot.flying = Some(slot.write.seq);
            limit = limit.min(slot.together);
            writes.push(slot.write.clone());
        }
        self.due.extend(skipped);
        if writes.is_empty() {
            return None;
        }
        self.last_batch += 1;
        let id = BatchId(self.last_batch);
        self.flying.insert(id, writes.clone());
        Some(Batch { id, writes })
    }

    /// When [`next_batch`](Self::next_batch) has something, unless something happens before.
    #[must_use]
    pub fn next_due(&self) -> Time {
        let first = self.due.first_key_value().map(|((due, _), _)| *due);
        if self.flying.len() >= self.config.batches_max {
            return Time::MAX;
        }
        first.unwrap_or(Time::MAX)
    }

    /// Everything that waits is due now, also what waits for its next try. Cost: O(keys).
    pub fn hurry(&mut self, now: Time) {
        let waiting = std::mem::take(&mut self.due);
        for ((due, seq), key) in waiting {
            self.due.insert((due.min(now), seq), key);
        }
    }

    /// From now on a write is due as soon as it is accepted.
    pub const fn end_delay(&mut self) {
        self.config.delay = Duration::ZERO;
    }

    /// Whether all writes up to this one are settled: written, superseded, or dead letters. Cost: O(keys).
    #[must_use]
    pub fn is_settled_to(&self, seq: WriteSeq) -> bool {
        self.slots.values().all(|slot| slot.oldest > seq)
    }

    /// What is to be written under `key`, waiting or with the sink. Cost: O(log keys).
    #[must_use]
    pub fn pending(&self, key: &[u8]) -> Option<&Write<T>> {
        self.slots.get(key).map(|slot| &slot.write)
    }

    /// Keys that wait or are with the sink.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Keys and bytes that wait, are with the sink, or have room kept for them: what the limits are about, where a write for which room is kept counts
    /// as another key until it is [put](Self::put).
    #[must_use]
    pub fn taken(&self) -> (usize, u64) {
        (
            self.slots.len() + self.reserved_keys,
            self.bytes + self.reserved_bytes,
        )
    }

    /// Writes that room is kept for.
    #[must_use]
    pub const fn reserved(&self) -> usize {
        self.reserved_keys
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of keys and values that wait or are with the sink.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest write that is not settled was accepted. Cost: O(keys).
    #[must_use]
    pub fn oldest_since(&self) -> Option<Time> {
        self.slots.values().map(|slot| slot.since).min()
    }

    /// What was counted.
    #[must_use]
    pub const fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// The writes that were given up.
    #[must_use]
    pub const fn dead(&self) -> &DeadLetters<T> {
        &self.dead
    }

    /// Tries all dead letters again, now. Returns how many.
    pub fn replay_dead(&mut self, now: Time) -> usize {
        let letters: Vec<_> = self.dead.take_all().collect();
        let count = letters.len();
        self.counts.replayed += count as u64;
        for letter in letters {
            // A later write of the key would have taken the letter out.
            self.enqueue(now, now, letter.write, &mut Released::new());
        }
        count
    }

    /// Forgets the dead letter of a key; returns it.
    pub fn discard_dead(&mut self, key: &[u8]) -> Option<DeadLetter<T>> {
        self.dead.take(key)
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
