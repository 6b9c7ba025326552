//! Callers who write behind, a disk that outlives its node and loses what was not synced (F10, F12), and a sink that fails in every way: done as
//! the library's shell does it, with the bytes that a journal really has.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Ack, Output};
use nearcache_protocol::payload::{CodecTag, Payload as _};
use nearcache_protocol::time::Time;
use nearcache_protocol::write::backoff::Backoff;
use nearcache_protocol::write::former::Former;
use nearcache_protocol::write::ledger::{Ledger, Place as Location, Replay, Replayed};
use nearcache_protocol::write::queue::{
    BatchId, BatchOutcome, QueueConfig, Settled, Write, WriteQueue, WriteSeq,
};
use nearcache_protocol::write::record::{
    FRAME_HEADER_BYTES, Record, SegmentHeader, WriteRecord, encode_beginning, encode_frame,
    encode_record, read_segment,
};
use nearcache_store::{Change, Expiry, Handle, Tags, Version};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::operate::write;
use super::{Cluster, Event};
use crate::bug::Bug;
use crate::node::Node;
use crate::plan::{Operation, Plan, key};
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// How long a disk takes to sync, at most.
const SYNC_MS_MAX: u64 = 40;
/// How long a sink takes, at most.
const SINK_MS_MAX: u64 = 200;
/// What a write takes in the queue; the bound is in keys.
const BYTES: u64 = 10;

/// What a key is to hold in the system of record.
#[derive(Clone)]
pub(crate) struct Op {
    /// As it was stored here; nothing for a removal.
    entry: Option<Handle<Value>>,
}

/// The disk of a host: outlives its nodes.
#[derive(Default)]
pub(crate) struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    /// Written to the last segment, and lost if the machine stops.
    unsynced: Vec<u8>,
}

/// The writes of one start of a node.
pub(crate) struct NodeWrites {
    queue: WriteQueue<Op>,
    ledger: Ledger,
    /// What former starts have recorded.
    former: Former,
    salt: u64,
    /// Not on the disk yet.
    waiting: Vec<Asked>,
    /// On their way to it.
    syncing: Vec<(Asked, WriteSeq, Version)>,
    marks: Vec<WriteSeq>,
    flying: BTreeMap<BatchId, Vec<Write<Op>>>,
    due: Time,
}

/// A write that a caller waits for.
#[derive(Clone, Copy)]
struct Asked {
    key: usize,
    removes: bool,
}

/// A write that the system of record makes.
pub(crate) type Made = (Bytes, WriteSeq, Version);

/// A batch that the sink has ended with.
pub(crate) struct Ended {
    pub(crate) host: usize,
    pub(crate) life: u32,
    batch: BatchId,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    Failed,
    Rejected,
}

/// Chance of the writes alone, so that runs without them stay what they are.
pub(super) fn rng_of(plan: &Plan) -> StdRng {
    StdRng::seed_from_u64(plan.seed.wrapping_add(7))
}

/// Whether callers of this run write behind: in half of those that load, in both modes.
fn writes_behind(plan: &Plan) -> bool {
    plan.loads && matches!(plan.seed % 4, 1 | 2)
}

impl NodeWrites {
    /// None yet.
    pub(crate) fn new() -> Self {
        let config = QueueConfig {
            keys_max: 6,
            batch_max: 3,
            batches_max: 2,
            delay: Duration::from_millis(50),
            backoff: Backoff {
                first: Duration::from_millis(20),
                max: Duration::from_millis(400),
            },
            give_up_after: Duration::from_millis(1_500),
            dead_letters_max: 3,
            ..QueueConfig::default()
        };
        Self {
            queue: WriteQueue::new(config),
            ledger: Ledger::default(),
            former: Former::default(),
            salt: 0,
            waiting: Vec::new(),
            syncing: Vec::new(),
            marks: Vec::new(),
            flying: BTreeMap::new(),
            due: Time::MAX,
        }
    }

    /// Whether a write of the key is still to be made: nothing that was read from the system of record is kept meanwhile.
    pub(super) fn pending(&self, number: usize) -> Option<Option<&Handle<Value>>> {
        let pending = self.queue.pending(&key(number))?;
        Some(pending.content.entry.as_ref())
    }
}

impl Disk {
    fn last(&mut self) -> Option<(u64, &mut Vec<u8>)> {
        let last = self.segments.last_entry()?;
        Some((*last.key(), last.into_mut()))
    }

    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if let Some((_, last)) = self.last() {
            last.extend(unsynced);
        }
    }

    /// The machine stops: of what was not synced some may be there, and not as it was.
    fn loses(&mut self, rng: &mut StdRng) {
        let len = rng.random_range(0..=self.unsynced.len());
        self.unsynced.truncate(len);
        if rng.random_bool(0.3) {
            let hole = rng.random_range(0..=len);
            for byte in self.unsynced.iter_mut().take(hole) {
                *byte = 0;
            }
        }
    }

    /// What is still to be written.
    fn read(&self) -> Result<Replayed, String> {
        let mut replay = Replay::default();
        let last = self.segments.keys().next_back().copied();
        for (number, bytes) in &self.segments {
            let is_last = Some(*number) == last;
            let segment = read_segment(bytes, is_last).map_err(|error| error.to_string())?;
            replay.read(*number, segment.valid_bytes, segment.records);
        }
        Ok(replay.finish())
    }
}

impl Cluster {
    /// Does the operation as a write behind, if it is one in this run.
    pub(super) fn written_behind(
        &mut self,
        host: usize,
        n: usize,
        operation: &Operation,
    ) -> Result<bool, Violation> {
        if !writes_behind(&self.plan) {
            return Ok(false);
        }
        let asked = match operation {
            Operation::Put { key, .. } if n % 4 == 2 => Asked {
                key: *key,
                removes: false,
            },
            Operation::Take { key } => Asked {
                key: *key,
                removes: true,
            },
            _ => return Ok(false),
        };
        self.succeeded += 1;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(true);
        };
        if node.writes.queue.reserve(&key(asked.key), BYTES).is_err() {
            self.sometimes.reach(Place::QueueFull);
            return Ok(true);
        }
        node.writes.waiting.push(asked);
        if node.writes.syncing.is_empty() {
            self.append(host)?;
        }
        Ok(true)
    }

    /// Writes what waits to the disk, as one frame, and begins to sync it.
    fn append(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let (life, early) = (
            self.hosts[host].life,
            self.bug == Some(Bug::JournalAckedEarly),
        );
        let state = &mut self.hosts[host];
        let tail = state
            .disk
            .last()
            .map(|(segment, tail)| (segment, tail.len() as u64));
        let (Some(node), Some((segment, offset))) = (state.node.as_mut(), tail) else {
            return Ok(());
        };
        let own = node.time(now);
        let (mut records, mut places) = (Vec::new(), Vec::new());
        let marks = std::mem::take(&mut node.writes.marks);
        if !marks.is_empty() {
            encode_record(&Record::Settled(marks), &mut records);
        }
        for asked in std::mem::take(&mut node.writes.waiting) {
            let resumed = node.writes.former.resume(&node.clock, own);
            let Some(version) = resumed.ok().and_then(|()| node.stamp(own)) else {
                node.writes.queue.give_back(BYTES);
                continue;
            };
            let seq = node.writes.queue.next_seq();
            let value = Bytes::from(value_of(seq));
            let record = WriteRecord {
                seq,
                version,
                key: Bytes::from(key(asked.key)),
                value: (!asked.removes).then_some((CodecTag::default(), Expiry::NEVER, value)),
            };
            let begin = records.len() as u64;
            encode_record(&Record::Write(record), &mut records);
            places.push((seq, begin, records.len() as u64 - begin));
            node.writes.syncing.push((asked, seq, version));
        }
        if records.is_empty() {
            return Ok(());
        }
        let unsynced = &mut state.disk.unsynced;
        let begin = offset + unsynced.len() as u64;
        encode_frame(node.writes.salt, begin, offset, &records, unsynced);
        let ledger = &mut node.writes.ledger;
        ledger.grew(segment, offset + unsynced.len() as u64);
        for (seq, at, bytes) in places {
            let place = Location {
                segment,
                offset: begin + FRAME_HEADER_BYTES as u64 + at,
                bytes,
            };
            ledger.recorded(seq, place);
        }
        let takes = Duration::from_millis(self.writes_rng.random_range(1..SYNC_MS_MAX));
        self.queue
            .schedule(now + takes, Event::Synced { host, life });
        if early {
            self.accept(host)?;
        }
        Ok(())
    }

    /// The disk has what was written to it.
    pub(super) fn synced(&mut self, host: usize, life: u32) -> Result<(), Violation> {
        if self.alive(host, life).is_none() {
            return Ok(());
        }
        self.hosts[host].disk.sync();
        self.sometimes.reach(Place::JournalSynced);
        self.accept(host)?;
        let waits = |node: &Node| !node.writes.waiting.is_empty();
        if self.hosts[host].node.as_ref().is_some_and(waits) {
            self.append(host)?;
        }
        Ok(())
    }

    /// Makes the writes that the disk has, in their order, and answers their callers.
    fn accept(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let own = node.time(now);
        let mut out = Vec::new();
        for (asked, seq, recorded) in std::mem::take(&mut node.writes.syncing) {
            let value = (!asked.removes).then(|| value_of(seq));
            let version = store(node, own, asked.key, value.as_deref(), &mut out);
            let version = version.unwrap_or(recorded);
            let write = Write {
                key: Bytes::from(key(asked.key)),
                seq,
                version,
                bytes: BYTES,
                content: op(asked.key, version, value.as_deref()),
            };
            for old in node.writes.queue.put(own, write) {
                node.writes.ledger.settled(old);
            }
            self.checkers.writes.acknowledged(host, asked.key, recorded);
        }
        self.tell(host, out)?;
        self.pump(host);
        Ok(())
    }

    fn tell(&mut self, host: usize, out: Vec<Output<Value>>) -> Result<(), Violation> {
        self.check_stamps(host)?;
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    /// Calls the sink with what is due, and looks again when more is.
    fn pump(&mut self, host: usize) {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let own = node.time(now);
        while let Some(batch) = node.writes.queue.next_batch(own) {
            let rng = &mut self.writes_rng;
            let outcome = match rng.random_range(0..100) {
                0..=69 => Outcome::Written,
                70..=89 => Outcome::Failed,
                _ => Outcome::Rejected,
            };
            let takes = Duration::from_millis(rng.random_range(1..SINK_MS_MAX));
            // What fails may have been written all the same; what is written may not be heard of.
            if outcome == Outcome::Written || outcome == Outcome::Failed && rng.random_bool(0.5) {
                let writes = batch
                    .writes
                    .iter()
                    .map(|write| (write.key.clone(), write.seq, write.version));
                let writes = writes.collect();
                let at = now + takes.mul_f64(rng.random_range(0.0..1.0));
                self.queue
                    .schedule(at, Event::SinkWrites { host, life, writes });
            }
            let ended = Ended {
                host,
                life,
                batch: batch.id,
                outcome,
            };
            node.writes.flying.insert(batch.id, batch.writes);
            self.queue.schedule(now + takes, Event::SinkEnded(ended));
        }
        let due = node.writes.queue.next_due();
        if due == Time::MAX {
            return;
        }
        // Its clock may run slower than ours.
        let at = now + (due - own).max(Duration::from_millis(1)).mul_f64(1.01);
        if at < node.writes.due || node.writes.due <= now {
            node.writes.due = at;
            self.queue.schedule(at, Event::WritesDue { host, life });
        }
    }

    pub(super) fn writes_due(&mut self, host: usize, life: u32) {
        if let Some(node) = self.alive(host, life) {
            node.writes.due = Time::MAX;
            self.pump(host);
        }
    }

    /// The system of record makes these, whatever has become of who asked.
    pub(super) fn sink_writes(
        &mut self,
        by: (usize, u32),
        writes: &[Made],
    ) -> Result<(), Violation> {
        for (name, seq, version) in writes {
            let Some(number) = crate::plan::number_of(name) else {
                continue;
            };
            self.checkers.loads.changed(number);
            let made = (self.checkers.writes).written(by, number, (*seq, *version));
            made.map_err(|(rule, what)| self.violation(rule, what))?;
        }
        Ok(())
    }

    pub(super) fn sink_ended(&mut self, ended: &Ended) -> Result<(), Violation> {
        let Ended {
            host,
            life,
            batch,
            outcome,
        } = *ended;
        let now = self.now;
        let draw = self.writes_rng.random_range(0.0..1.0);
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let own = node.time(now);
        node.writes.flying.remove(&batch);
        let told = match outcome {
            Outcome::Written => BatchOutcome::Written,
            Outcome::Failed => BatchOutcome::Failed("down"),
            Outcome::Rejected => BatchOutcome::Rejected("no"),
        };
        let (settled, released) = node.writes.queue.ended(own, batch, told, draw);
        for seq in released {
            if node.writes.ledger.settled(seq) {
                node.writes.marks.push(seq);
            }
        }
        let mut out = Vec::new();
        for settled in settled {
            let (write, is_written) = match settled {
                Settled::Written(write) => (write, true),
                Settled::GivenUp(write) => (write, false),
            };
            let Some(number) = crate::plan::number_of(&write.key) else {
                continue;
            };
            self.sometimes.reach(if is_written {
                Place::WrittenBehind
            } else {
                Place::GivenUp
            });
            self.confirm(host, own, number, &write.content, is_written, &mut out);
        }
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let mut useless = Vec::new();
        while let Some(segment) = node.writes.ledger.take_useless() {
            useless.push(segment);
        }
        let marks = !node.writes.marks.is_empty() && node.writes.syncing.is_empty();
        for segment in useless {
            self.hosts[host].disk.segments.remove(&segment);
        }
        self.tell(host, out)?;
        if marks {
            self.append(host)?;
        }
        self.pump(host);
        Ok(())
    }

    /// What others have read before it was written loses from now on.
    fn confirm(
        &mut self,
        host: usize,
        own: Time,
        number: usize,
        op: &Op,
        is_written: bool,
        out: &mut Vec<Output<Value>>,
    ) {
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let known = node.store.known(&key(number)).version();
        let again = op
            .entry
            .as_ref()
            .filter(|entry| is_written && entry.version() == known);
        let value = again.map(|entry| entry.value().bytes().to_vec());
        let version = store(node, own, number, value.as_deref(), out);
        if let Some(version) = version.filter(|_| is_written) {
            let by = node.id;
            self.checkers.loads.told(number, by, version);
        }
    }

    /// A node begins with what the disk of its host says.
    pub(super) fn recover(&mut self, host: usize) -> Result<(), Violation> {
        if !writes_behind(&self.plan) {
            return Ok(());
        }
        // The process is gone; what it had written is with the system, unless that was gone as well.
        self.hosts[host].disk.sync();
        let read = self.hosts[host].disk.read();
        let Replayed {
            open,
            last,
            newest,
            ledger,
        } = read.map_err(|what| self.violation("K4", format!("n{host}: {what}")))?;
        let state = &mut self.hosts[host];
        if let Some((_, tail)) = state.disk.last()
            && let Ok(segment) = read_segment(tail, true)
        {
            tail.truncate(usize::try_from(segment.valid_bytes).unwrap_or(usize::MAX));
        }
        let Some(node) = state.node.as_mut() else {
            return Ok(());
        };
        let header = SegmentHeader {
            number: state
                .disk
                .segments
                .keys()
                .next_back()
                .map_or(1, |last| last + 1),
            salt: self.writes_rng.random_range(0..u64::MAX),
            owner: format!("simulated/default/n{host}"),
        };
        node.writes.salt = header.salt;
        node.writes.ledger = ledger;
        node.writes.former = Former::new(newest);
        let bytes = encode_beginning(&header, newest);
        node.writes.ledger.grew(header.number, bytes.len() as u64);
        state.disk.segments.insert(header.number, bytes);
        if !open.is_empty() {
            self.sometimes.reach(Place::JournalReplayed);
        }
        for record in open {
            let Some(number) = crate::plan::number_of(&record.key) else {
                continue;
            };
            let value = record.value.as_ref().map(|(_, _, value)| value.to_vec());
            let write = Write {
                key: record.key,
                seq: record.seq,
                version: record.version,
                bytes: BYTES,
                content: op(number, record.version, value.as_deref()),
            };
            node.writes.queue.restore(Time::ZERO, write);
        }
        node.writes.queue.resume_after(last);
        self.pump(host);
        Ok(())
    }

    /// The machine stops with its node.
    pub(super) fn lose_unsynced(&mut self, host: usize) {
        self.hosts[host].disk.loses(&mut self.writes_rng);
    }

    /// K4: whatever was acknowledged is made, by the node that runs or by the next one on its disk.
    pub(crate) fn write_out(&mut self) -> Result<(), Violation> {
        if !writes_behind(&self.plan) {
            return Ok(());
        }
        for host in 0..self.hosts.len() {
            let (mut left, mut life) = (Vec::new(), self.hosts[host].life);
            match self.hosts[host].node.as_mut() {
                Some(node) => {
                    let writes = &mut node.writes;
                    let flying: Vec<_> = writes.flying.keys().copied().collect();
                    for batch in flying {
                        let failed = BatchOutcome::Failed("over");
                        writes.queue.ended(Time::MAX, batch, failed, 0.0);
                    }
                    writes.queue.replay_dead(Time::MAX);
                    while let Some(batch) = writes.queue.next_batch(Time::MAX) {
                        let all = batch.writes.iter();
                        left.extend(all.map(|write| (write.key.clone(), write.seq, write.version)));
                        writes
                            .queue
                            .ended(Time::MAX, batch.id, BatchOutcome::Written, 0.0);
                    }
                }
                None => {
                    life += 1;
                    self.hosts[host].disk.sync();
                    let read = self.hosts[host].disk.read();
                    let read =
                        read.map_err(|what| self.violation("K4", format!("n{host}: {what}")));
                    let open = read?.open.into_iter();
                    left.extend(open.map(|record| (record.key, record.seq, record.version)));
                }
            }
            self.sink_writes((host, life), &left)?;
        }
        let lost = self.checkers.writes.lost();
        lost.map_err(|(rule, what)| self.violation(rule, what))
    }
}

fn value_of(seq: WriteSeq) -> Vec<u8> {
    format!("w{}", seq.0).into_bytes()
}

fn op(number: usize, version: Version, value: Option<&[u8]>) -> Op {
    let entry = value.map(|value| {
        let value = Value::new(value);
        Handle::detached(&key(number), version, Expiry::NEVER, Tags::NONE, value)
    });
    Op { entry }
}

/// Stores a value or removes the key, and tells the peers; the version, if the clock gives one.
fn store(
    node: &mut Node,
    own: Time,
    number: usize,
    value: Option<&[u8]>,
    out: &mut Vec<Output<Value>>,
) -> Option<Version> {
    let change = match value {
        Some(value) => Change::Put {
            value: Value::new(value),
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        },
        None => Change::Remove,
    };
    let stamps = node.stamped.len();
    write(node, own, &key(number), change, Ack::Local, out);
    node.stamped.get(stamps).copied()
}
