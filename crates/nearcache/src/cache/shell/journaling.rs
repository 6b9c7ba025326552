//! The journal of a cache that writes behind, and the one task that uses it.
//!
//! ```text
//! put ─▶ request ─▶ all that wait ─▶ one frame, one sync (where blocking is allowed) ─▶ store, queue, peers, in their order ─▶ answers
//! written ─▶ settled ─▶ a mark, when there is nothing better to do
//! ```
//!
//! What is recorded is queued, in the order of its numbers: after a restart the last record of a key is what is written. So a
//! read-modify-write that a later write of this node has overtaken meanwhile is not recorded at all.
//!
//! What is recorded has a later version than all that former starts have recorded, which is what a sink can compare; where the clock was set
//! back by too much for that, nothing is taken.
//!
//! What waits is bounded by the queue: each request holds room in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_protocol::write::former::Former;
use nearcache_protocol::write::queue::{Released, Write, WriteSeq};
use nearcache_protocol::write::record::WriteRecord;
use nearcache_store::Version;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use super::Shell;
use super::behind::{Acknowledging, Behind, Op, Room};
use super::sinking::Wanted;
use crate::cache::errors::WriteError;
use crate::cache::options::Ack;
use crate::persistence::JournalError;
use crate::persistence::journal::Journal;

/// How soon writes that the journal has no room for are tried again, if nothing is settled before.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes that share a frame, if more than one write does (a guess: a few milliseconds of a slow disk).
const FRAME_BYTES_MAX: u64 = 4 << 20;

/// Bytes that surround a key and a value in the journal, at most.
const AROUND_BYTES: u64 = 128;

/// What is asked of the task that keeps the journal.
enum Request<V: Payload> {
    Accept(SmallVec<[Accepting<V>; 1]>),
    Settle(Released),
}

/// What is to be remembered.
pub(super) enum What<V: Payload> {
    /// A write that is made when it is remembered.
    Wanted {
        wanted: Wanted<V>,
        ack: Ack,
        timeout: Duration,
    },
    /// One that was made elsewhere.
    Stored(Op<V>),
}

struct Accepting<V: Payload> {
    key: Bytes,
    /// Room kept in the queue.
    bytes: u64,
    what: What<V>,
    since: Time,
    answer: oneshot::Sender<Result<Acknowledging<V>, WriteError>>,
}

/// What comes of a write, once it is known.
pub(super) type Answer<V> = oneshot::Receiver<Result<Acknowledging<V>, WriteError>>;

/// The way to the journal.
pub(super) struct Journaling<V: Payload> {
    requests: mpsc::UnboundedSender<Request<V>>,
    unkept: Mutex<Option<(Journal, mpsc::UnboundedReceiver<Request<V>>)>>,
    bytes: AtomicU64,
    syncs: AtomicU64,
    is_closed: AtomicBool,
    former: Former,
}

impl<V: Payload> Journaling<V> {
    pub(super) fn new(journal: Journal) -> Self {
        let (requests, asked) = mpsc::unbounded_channel();
        Self {
            requests,
            bytes: AtomicU64::new(journal.bytes()),
            former: Former::new(journal.newest()),
            unkept: Mutex::new(Some((journal, asked))),
            syncs: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Begins to keep the journal. Called once.
    pub(super) fn keep(&self, shell: &Arc<Shell<V>>) {
        if let Some((journal, asked)) = self.unkept.lock().take() {
            tokio::spawn(keep(Arc::clone(shell), journal, asked));
        }
    }

    /// Remembers a write, for which room was kept, and makes it. Dropped, it is made nevertheless.
    pub(super) async fn accept(
        &self,
        behind: &Behind<V>,
        key: Bytes,
        room: Room<'_, V>,
        what: What<V>,
    ) -> Result<Acknowledging<V>, WriteError> {
        let answer = self.ask(behind, [(key, room, what)]).pop();
        match answer {
            Some(answer) => answer.await.unwrap_or(Err(WriteError::JournalFailed)),
            None => Err(WriteError::JournalFailed),
        }
    }

    /// The same for many, in one frame as far as it takes them. They are on their way when this returns; how each ends is told later.
    pub(super) fn ask<'a>(
        &self,
        behind: &Behind<V>,
        writes: impl IntoIterator<Item = (Bytes, Room<'a, V>, What<V>)>,
    ) -> SmallVec<[Answer<V>; 1]> {
        let (mut all, mut answers) = (SmallVec::new(), SmallVec::new());
        for (key, room, what) in writes {
            let (answer, answered) = oneshot::channel();
            all.push(Accepting {
                key,
                bytes: room.taken(),
                what,
                since: Time::ZERO,
                answer,
            });
            answers.push(answered);
        }
        if let Err(unsent) = self.requests.send(Request::Accept(all))
            && let Request::Accept(all) = unsent.0
        {
            for accepting in all {
                behind.refuse(accepting, WriteError::NodeStopped);
            }
        }
        answers
    }

    /// These are in the system of record.
    pub(super) fn settle(&self, seqs: Released) {
        // Nobody keeps it any more: after the next start they are written again.
        let _ = self.requests.send(Request::Settle(seqs));
    }

    /// Bytes and syncs.
    pub(super) fn read(&self) -> (u64, u64) {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (read(&self.bytes), read(&self.syncs))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

impl<V: Payload> Behind<V> {
    fn refuse(&self, accepting: Accepting<V>, error: WriteError) {
        self.give_back(accepting.bytes);
        // Who has given up need not know.
        let _ = accepting.answer.send(Err(error));
    }

    /// A later write of its key stands for it.
    fn pass_over(&self, accepting: Accepting<V>, version: Version) {
        self.give_back(accepting.bytes);
        let accepted = (super::Written::nothing(version), None);
        // Who has given up need not know.
        let _ = accepting.answer.send(Ok(accepted));
    }
}

/// Uses the journal until the node stops, then closes it.
async fn keep<V: Payload>(
    shell: Arc<Shell<V>>,
    mut journal: Journal,
    mut asked: mpsc::UnboundedReceiver<Request<V>>,
) {
    let Some((behind, journaling)) = shell.journaling() else {
        return;
    };
    let stopped = shell.node().stopped().clone();
    let mut waiting = VecDeque::new();
    loop {
        let first = tokio::select! {
            biased;
            first = asked.recv() => first,
            () = tokio::time::sleep(LOOK_AGAIN), if !waiting.is_empty() => None,
            () = stopped.cancelled() => break,
        };
        let mut next = first;
        while let Some(request) = next {
            match request {
                Request::Accept(all) => {
                    let since = shell.node().now();
                    let all = all.into_iter();
                    waiting.extend(all.map(|accepting| Accepting { since, ..accepting }));
                }
                Request::Settle(seqs) => {
                    for seq in seqs {
                        journal.settle(seq, true);
                    }
                }
            }
            next = asked.try_recv().ok();
        }
        let (batch, records) = shell.next_frame((behind, journaling), &journal, &mut waiting);
        let worked = tokio::task::spawn_blocking(move || {
            let committed = if records.is_empty() {
                journal.tidy()
            } else {
                journal.commit(&records)
            };
            (journal, committed)
        });
        // A journal that panicked, which it does not, is not used again; else the runtime stops.
        let Ok((used, committed)) = worked.await else {
            journaling.is_closed.store(true, Ordering::Release);
            return;
        };
        journal = used;
        if !batch.is_empty() {
            journaling.syncs.fetch_add(1, Ordering::Relaxed);
        } else if let Err(error) = &committed {
            tracing::warn!(cache = shell.name(), %error, "the journal could not be tidied");
        }
        for seq in shell.accept_frame(behind, batch, committed) {
            journal.settle(seq, false);
        }
        journaling.bytes.store(journal.bytes(), Ordering::Relaxed);
    }
    for accepting in waiting {
        behind.refuse(accepting, WriteError::NodeStopped);
    }
    asked.close();
    while let Ok(request) = asked.try_recv() {
        match request {
            Request::Accept(all) => {
                for accepting in all {
                    behind.refuse(accepting, WriteError::NodeStopped);
                }
            }
            Request::Settle(seqs) => {
                for seq in seqs {
                    journal.settle(seq, true);
                }
            }
        }
    }
    let closed = tokio::task::spawn_blocking(move || journal.close()).await;
    if closed.is_err() {
        tracing::warn!(
            cache = shell.name(),
            "the journal was not closed: the runtime stops"
        );
    }
    journaling.is_closed.store(true, Ordering::Release);
}

/// A write, its number and what the sink is told. No number if another write of the same frame stands for it.
type Numbered<V> = (Accepting<V>, Option<WriteSeq>, Version);

impl<V: Payload> Shell<V> {
    fn journaling(&self) -> Option<(&Behind<V>, &Journaling<V>)> {
        let behind = self.behind()?;
        Some((behind, behind.journal()?))
    }

    /// Whether what is stamped now is later than what former starts have recorded.
    ///
    /// # Errors
    /// [`WriteError::ClockSkew`]: the clock was set back, or was wrong then. Nothing is changed.
    pub(super) fn check_former(&self, journaling: &Journaling<V>) -> Result<(), WriteError> {
        let resumed = journaling.former.resume(&self.hlc, self.node().now());
        resumed.map_err(|error| {
            self.node().metrics().writes_refused_by_clock.inc();
            tracing::warn!(cache = self.name(), %error, "write refused");
            WriteError::ClockSkew
        })
    }

    /// As many of those that wait as the journal has room for.
    fn next_frame(
        &self,
        (behind, journaling): (&Behind<V>, &Journaling<V>),
        journal: &Journal,
        waiting: &mut VecDeque<Accepting<V>>,
    ) -> (Vec<Numbered<V>>, Vec<WriteRecord>) {
        let (mut batch, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
        let now = self.node().now();
        // What the frame has: the version under which the cache holds it, or nothing if it gets a new one when it is stored.
        let mut keys: BTreeMap<Bytes, Option<Version>> = BTreeMap::new();
        while let Some(first) = waiting.front() {
            let wants = first.bytes + AROUND_BYTES;
            let is_full = !journal.has_room(bytes + wants);
            if bytes > 0 && (is_full || bytes + wants > FRAME_BYTES_MAX) {
                break;
            }
            if is_full && now - first.since < behind.policy().wait {
                break;
            }
            let Some(accepting) = waiting.pop_front() else {
                break;
            };
            if is_full {
                let queued = waiting.len();
                behind.refuse(accepting, WriteError::SinkOverloaded { queued });
                continue;
            }
            let (version, stored) = match &accepting.what {
                What::Stored(op) => {
                    let version = op.version;
                    // Made by another node, whose clock is behind what was recorded here.
                    if journaling.former.beats(version) {
                        self.node().metrics().writes_refused_by_clock.inc();
                        behind.refuse(accepting, WriteError::ClockSkew);
                        continue;
                    }
                    if !behind.queue().lock().is_newest(&accepting.key, version) {
                        behind.pass_over(accepting, version);
                        continue;
                    }
                    let earlier = keys.get(&accepting.key);
                    if earlier.is_some_and(|earlier| earlier.is_none_or(|one| one > version)) {
                        batch.push((accepting, None, version));
                        continue;
                    }
                    (version, Some(version))
                }
                What::Wanted { .. } => {
                    match self.check_former(journaling).and_then(|()| self.stamp()) {
                        Ok(version) => (version, None),
                        Err(error) => {
                            behind.refuse(accepting, error);
                            continue;
                        }
                    }
                }
            };
            let seq = behind.queue().lock().next_seq();
            keys.insert(accepting.key.clone(), stored);
            records.push(record(&accepting, seq, version));
            batch.push((accepting, Some(seq), version));
            bytes += wants;
        }
        (batch, records)
    }

    /// What was committed is stored, queued and told of; returns whose records are of no use any more.
    fn accept_frame(
        &self,
        behind: &Behind<V>,
        batch: Vec<Numbered<V>>,
        committed: Result<(), JournalError>,
    ) -> Vec<WriteSeq> {
        let mut released = Vec::new();
        let mut refused = committed.err();
        if let Some(error) = &refused {
            tracing::error!(cache = self.name(), %error, "writes could not be remembered");
        }
        let is_over = matches!(refused, Some(JournalError::Failed));
        for (accepting, seq, version) in batch {
            if is_over {
                behind.refuse(accepting, WriteError::JournalFailed);
            } else if let Some(error) = refused.take() {
                behind.refuse(accepting, WriteError::Journal(error.again()));
                refused = Some(error);
            } else if let Some(seq) = seq {
                released.extend(self.accept_one(behind, accepting, seq, version));
            } else {
                behind.pass_over(accepting, version);
            }
        }
        released
    }

    fn accept_one(
        &self,
        behind: &Behind<V>,
        accepting: Accepting<V>,
        seq: WriteSeq,
        recorded: Version,
    ) -> Released {
        let Accepting {
            key,
            bytes,
            what,
            answer,
            ..
        } = accepting;
        let mut queue = behind.queue().lock();
        let (op, version, stored) = match what {
            What::Wanted {
                wanted,
                ack,
                timeout,
            } => {
                // What was read from the system of record while the disk was busy is older than this.
                let version = self.stamp().unwrap_or(recorded);
                let (stored, entry) = self.store_now(&key, version, wanted);
                let op = Op {
                    entry,
                    version: recorded,
                };
                (op, version, Some((stored, ack, timeout)))
            }
            What::Stored(op) => (op, recorded, None),
        };
        let write = Write {
            key,
            seq,
            version,
            bytes,
            content: op,
        };
        let released = behind.put(&mut queue, self.node().now(), write);
        drop(queue);
        behind.wake();
        behind.step("accepted");
        let accepted = match stored {
            Some((stored, ack, timeout)) => self.tell_acked(stored, ack, timeout),
            None => (super::Written::nothing(recorded), None),
        };
        // Who has given up need not know.
        let _ = answer.send(Ok(accepted));
        released
    }
}

fn record<V: Payload>(accepting: &Accepting<V>, seq: WriteSeq, version: Version) -> WriteRecord {
    let value = match &accepting.what {
        What::Wanted { wanted, .. } => wanted
            .as_ref()
            .map(|(value, expiry, _)| (value.codec(), *expiry, value.bytes())),
        What::Stored(op) => op.entry.as_ref().map(|entry| {
            let value = entry.value();
            (value.codec(), entry.expiry(), value.bytes())
        }),
    };
    WriteRecord {
        seq,
        version,
        key: accepting.key.clone(),
        value: value.map(|(codec, expiry, bytes)| (codec, expiry, Bytes::copy_from_slice(bytes))),
    }
}
