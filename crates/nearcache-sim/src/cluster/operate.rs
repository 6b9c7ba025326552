//! Operations: what callers do on a node, done as the library's shell does it.
//!
//! A write takes a stamp, merges into the store, and what the store accepts is published. A
//! read-modify-write goes through the cache's machine to the key's home node.

use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::ids::{Epoch, WaiterId};
use nearcache_protocol::mode::{Ack, Outcome, Output, Published};
use nearcache_protocol::modify::{Condition, ModifyOp, NewExpiry};
use nearcache_protocol::payload::Payload as _;
use nearcache_protocol::time::Time;
use nearcache_store::{Change, Expiry, Handle, Merged, NodeId, Scope, Tags, Version};

use super::{Cluster, load};
use crate::long::lengthen;
use crate::node::{Awaited, Done, Node};
use crate::plan::{KEYS, Operation, Shape, key};
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// How long callers wait.
const PATIENCE: Duration = Duration::from_millis(2_000);

/// Within which two writes may be made at once by clocks that are as far apart as they may be.
const CONCURRENT_MS: u64 = 500;

impl Cluster {
    /// The host that does operation `n`: the planned one, or the next that runs.
    pub(super) fn operator(&self, n: usize) -> Option<usize> {
        let (_, planned, _) = &self.plan.operations[n];
        let hosts = self.hosts.len();
        let mut order = (0..hosts).map(|step| (planned + step) % hosts);
        order.find(|host| {
            let node = self.hosts[*host].node.as_ref();
            node.is_some_and(|node| node.leaving.is_none() && node.is_open)
        })
    }

    pub(super) fn operate(&mut self, n: usize) -> Result<(), Violation> {
        let Some(host) = self.operator(n) else {
            return Ok(());
        };
        let (_, _, operation) = self.plan.operations[n].clone();
        self.trace.step(self.now, &[12, host as u64, n as u64], || {
            format!("n{host} is asked to {operation:?}")
        });
        let now = self.now;
        if self.written_behind(host, n, &operation)? {
            return Ok(());
        }
        if self.plan.loads {
            return match load::as_invalidation(operation, n) {
                Ok((invalidation, keys)) => self.write_source(host, n, invalidation, &keys),
                Err(number) => {
                    self.succeeded += 1;
                    self.get_or_load(host, number)
                }
            };
        }
        let operation = if self.plan.mode == ModeKind::Invalidation {
            match as_write(operation, n) {
                Ok(write) => write,
                Err(number) => {
                    self.begin_load(host, number);
                    self.succeeded += 1;
                    return Ok(());
                }
            }
        } else {
            operation
        };
        let written = match operation {
            Operation::Put { key, ttl_ms, .. } => Some((key, ttl_ms.is_none())),
            Operation::Remove { key, .. } => Some((key, false)),
            _ => None,
        };
        let generation = written.map_or(0, |(key, _)| self.checkers.coherence.generation(key) + 1);
        let invalidation = self.plan.mode == ModeKind::Invalidation;
        let n = if invalidation {
            usize::try_from(generation).unwrap_or(0)
        } else {
            n
        };
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        node.numbers = invalidation;
        let own = node.time(now);
        if own > node.core.write_until() && !matches!(operation, Operation::Find { .. }) {
            self.sometimes.reach(Place::WriteRefused);
            return Ok(());
        }
        let mut out = Vec::new();
        let stamps = node.stamped.len();
        if let Operation::SetAbsent { key: number }
        | Operation::Add { key: number, .. }
        | Operation::Take { key: number } = operation
        {
            self.checkers.removals.modifies(key(number));
        }
        let took_effect = perform(node, own, n, operation, &mut out);
        self.succeeded += usize::from(took_effect);
        if invalidation && took_effect {
            self.note_write(host, stamps, written);
        }
        self.check_stamps(host)?;
        self.note_floors(host);
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    /// The system of record is written under these keys, and the cache is told.
    fn write_source(
        &mut self,
        host: usize,
        n: usize,
        invalidation: Operation,
        keys: &[usize],
    ) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        let stamps = node.stamped.len();
        self.succeeded += usize::from(perform(node, own, n, invalidation, &mut out));
        // Nothing was written if the cache could not be told.
        if let Some(version) = node.stamped.get(stamps).copied() {
            let by = node.id;
            let tells_nobody = self.has_wrong_clock(host);
            for number in keys {
                if tells_nobody {
                    self.checkers.loads.changed(*number);
                } else {
                    self.checkers.loads.write(*number, by, version);
                }
            }
        }
        self.check_stamps(host)?;
        self.note_floors(host);
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    /// Tells the checkers what the system of record holds from now on.
    fn note_write(&mut self, host: usize, stamps: usize, written: Option<(usize, bool)>) {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_ref() else {
            return;
        };
        let Some(version) = node.stamped.get(stamps).copied() else {
            return;
        };
        let coherence = &mut self.checkers.coherence;
        match written {
            Some((number, keeps)) => {
                let keeps = keeps && node.store.known(&key(number)).version() == version;
                coherence.write(now, (host, node), number, version, keeps);
            }
            None => coherence.grouped(version),
        }
    }

    /// R6: a node's versions never run backwards, also when it has started again.
    pub(super) fn check_stamps(&mut self, host: usize) -> Result<(), Violation> {
        let state = &mut self.hosts[host];
        let stamped = state
            .node
            .as_mut()
            .map(|node| std::mem::take(&mut node.stamped));
        let overtaken = state.node.as_mut().and_then(|node| node.overtaken.take());
        if let Some((version, current)) = overtaken {
            let what = format!("n{host} stamps {version:?} although it knows {current:?}");
            return Err(self.violation("R6", what));
        }
        let stamped = stamped.unwrap_or_default();
        if !stamped.is_empty() {
            let others = self.hosts.len() - 1;
            let result = self.checkers.clocks.wrote(self.now, host, others);
            self.judge(result)?;
        }
        let state = &mut self.hosts[host];
        for version in stamped {
            self.checkers.removals.stamped(version);
            let former = std::mem::replace(&mut state.stamped, version);
            if version <= former {
                let what = format!("n{host} stamps {version:?} after {former:?}");
                return Err(self.violation("R6", what));
            }
        }
        Ok(())
    }

    /// Floors that a node has made itself are not heard by its listener: shows them to the checkers.
    fn note_floors(&mut self, host: usize) {
        let Some(node) = self.hosts[host].node.as_ref() else {
            return;
        };
        for (scope, version) in node.store.floors() {
            self.checkers.invalidated(host, &scope, version);
        }
    }

    /// Every node of the core invalidates a key and waits for all; how many do.
    pub(crate) fn write_for_all(&mut self) -> Result<u64, Violation> {
        let hosts: Vec<usize> = self.core().map(|(host, _)| host).collect();
        self.ends_with_writes = true;
        for host in &hosts {
            let now = self.now;
            let Some(node) = self.hosts[*host].node.as_mut() else {
                continue;
            };
            let (own, mut out) = (node.time(now), Vec::new());
            let (number, ack) = (*host % KEYS, Ack::All);
            let stamps = node.stamped.len();
            perform(
                node,
                own,
                0,
                Operation::Remove { key: number, ack },
                &mut out,
            );
            self.note_write(*host, stamps, Some((number, false)));
            self.check_stamps(*host)?;
            self.carry_cache(*host, out)?;
            self.settle(*host)?;
        }
        Ok(hosts.len() as u64)
    }

    /// Every node that runs reads what it knows of and does not hold.
    pub(crate) fn read_stubs(&mut self) -> Result<(), Violation> {
        for host in 0..self.hosts.len() {
            let now = self.now;
            let Some(node) = self.hosts[host].node.as_mut() else {
                continue;
            };
            let (own, mut out) = (node.time(now), Vec::new());
            for number in 0..KEYS {
                perform(node, own, 0, Operation::Find { key: number }, &mut out);
            }
            self.carry_cache(host, out)?;
            self.settle(host)?;
        }
        Ok(())
    }

    fn is_done(&mut self, host: usize, done: Done) {
        if let Some(node) = self.hosts[host].node.as_mut() {
            node.done.push(done);
        }
    }

    /// A caller gets its answer.
    pub(super) fn done(
        &mut self,
        host: usize,
        waiter: WaiterId,
        result: Outcome<Value>,
    ) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let Some((_, awaited)) = node.waiting.remove(&waiter.0) else {
            return Err(self.violation("C7", format!("n{host} answers a caller twice")));
        };
        let (words, place) = match &result {
            Outcome::Acked(Ok(())) => ("acknowledged", Place::AckedByAll),
            Outcome::Acked(Err(_)) => ("not acknowledged in time", Place::AckTimeout),
            Outcome::Modified(Ok(_)) => ("modified", Place::Modified),
            Outcome::Modified(Err(_)) => ("not modified", Place::ModifyFailed),
            Outcome::Found(_) => ("found or not", Place::FoundWhileJoining),
            Outcome::Fresh(_) => ("fresh or not", Place::Modified),
            Outcome::Inspected(_) => ("inspected", Place::Modified),
            Outcome::Turn(_) => ("a turn", Place::Modified),
        };
        let by_all = matches!(
            awaited,
            Awaited::Ack {
                by_all: Some(_),
                ..
            }
        );
        if place != Place::AckedByAll || by_all {
            self.sometimes.reach(place);
        }
        if place == Place::AckedByAll && by_all && self.ends_with_writes {
            self.sometimes.reach(Place::WaitedForAll);
        }
        self.trace
            .step(self.now, &[13, host as u64, waiter.0, place as u64], || {
                format!("n{host} tells a caller: {words}")
            });
        match (result, awaited) {
            (Outcome::Turn(turn), Awaited::Turn { place }) => self.turn(host, place, turn),
            (
                Outcome::Acked(Ok(())),
                Awaited::Ack {
                    by_all: Some((key, version)),
                    members,
                },
            ) => self.check_acked(host, &key, version, &members),
            (Outcome::Modified(Ok(modified)), Awaited::Modify { key }) => {
                if let Some(version) = modified.version.filter(|_| modified.applied) {
                    let value = modified.current.as_ref().map(lasts);
                    self.is_done(
                        host,
                        Done::Key {
                            key,
                            version,
                            value,
                        },
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What an operation is in mode `invalidation`: a write of the system of record, or the key of a load. Every other put is a load, so
/// that there are copies to invalidate.
fn as_write(operation: Operation, n: usize) -> Result<Operation, usize> {
    match operation {
        Operation::Put { key, .. } if n.is_multiple_of(2) => Err(key),
        Operation::Touch { key, .. }
        | Operation::SetAbsent { key }
        | Operation::Add { key, .. }
        | Operation::Find { key }
        | Operation::Take { key } => Err(key),
        write => Ok(write),
    }
}

/// Does the operation; whether it took effect here or is on its way.
pub(crate) fn perform(
    node: &mut Node,
    own: Time,
    n: usize,
    operation: Operation,
    out: &mut Vec<Output<Value>>,
) -> bool {
    let now_ms = node.clock.physical_ms(own);
    let after = |ttl_ms| Expiry::after(now_ms, Duration::from_millis(ttl_ms));
    let value = |shape: Shape| {
        let mut bytes = if node.numbers {
            n.to_string().into_bytes()
        } else {
            shape.value(n)
        };
        bytes.resize(bytes.len().max(node.value_bytes), b'.');
        if let Some(long) = node.long.as_ref().filter(|_| !node.numbers) {
            lengthen(&mut bytes, long.len_of(n), n);
        }
        Value::new(&bytes)
    };
    match operation {
        Operation::Put {
            key: number,
            ttl_ms,
            tags,
            ack,
            shape,
        } => {
            let Ok(tags) = Tags::new(tags.iter().map(|tag| [*tag])) else {
                return false;
            };
            let expiry = ttl_ms.map_or(Expiry::NEVER, after);
            write(
                node,
                own,
                &key(number),
                Change::Put {
                    value: value(shape),
                    expiry,
                    tags,
                },
                ack,
                out,
            )
        }
        Operation::Remove { key: number, ack } => {
            write(node, own, &key(number), Change::Remove, ack, out)
        }
        Operation::Touch {
            key: number,
            ttl_ms,
        } => {
            let change = Change::Expire {
                expiry: after(ttl_ms),
            };
            write(node, own, &key(number), change, Ack::Local, out)
        }
        Operation::InvalidateTag(tag) => invalidate(node, own, Scope::Tag([tag].into()), out),
        Operation::InvalidatePrefix(prefix) => {
            invalidate(node, own, Scope::Prefix([prefix].into()), out)
        }
        Operation::Find { key: number } => {
            let held = node.store.peek(&key(number));
            if !node.core.is_ready() || held.is_some_and(|entry| entry.is_stub()) {
                let waiter = node.waiter(own, PATIENCE, Awaited::Find);
                node.core.find(own, Bytes::from(key(number)), waiter, out);
            }
            true
        }
        Operation::Clear => invalidate(node, own, Scope::All, out),
        Operation::SetAbsent { key: number } => {
            let op = ModifyOp::Set {
                condition: Condition::IfAbsent,
                value: Value::new(b"7"),
                expiry: NewExpiry::Never,
                tags: Tags::NONE,
                return_previous: true,
            };
            modify(node, own, key(number), op, out)
        }
        Operation::Add { key: number, delta } => {
            modify(node, own, key(number), ModifyOp::Add { delta }, out)
        }
        Operation::Take { key: number } => {
            let op = ModifyOp::Remove {
                condition: Condition::IfPresent,
                return_previous: true,
            };
            modify(node, own, key(number), op, out)
        }
    }
}

/// Until when an entry is to be there, unless one of these tags is invalidated.
fn lasts(entry: &Handle<Value>) -> (Expiry, Tags) {
    (entry.expiry(), entry.tags().clone())
}

pub(super) fn write(
    node: &mut Node,
    own: Time,
    key: &[u8],
    change: Change<Value>,
    ack: Ack,
    out: &mut Vec<Output<Value>>,
) -> bool {
    let Some(version) = node.stamp(own) else {
        return false;
    };
    node.stamped.push(version);
    let removes = matches!(change, Change::Remove);
    let absent = |entry: &Handle<Value>| entry.value().is_absent();
    let merged = if node.keeps_own_copies && removes
        || node.keeps_absence && node.store.peek(key).as_ref().is_some_and(absent)
    {
        None
    } else {
        Some(node.store.merge(key, version, change))
    };
    let entry = match merged.transpose() {
        Ok(None) => None,
        Ok(Some(Merged::Applied { entry, .. })) => entry,
        Ok(Some(Merged::Stale { current })) => {
            node.overtaken = Some((version, current));
            return false;
        }
        _ => return false,
    };
    node.done.push(Done::Key {
        key: Bytes::copy_from_slice(key),
        version,
        value: entry.as_ref().map(lasts),
    });
    let published = match entry {
        Some(entry) => Published::Entry(entry),
        None => Published::Removal {
            key: Bytes::copy_from_slice(key),
            version,
        },
    };
    let waiter = match ack {
        Ack::Local => None,
        Ack::Peers(_) => Some(Awaited::Ack {
            by_all: None,
            members: Vec::new(),
        }),
        Ack::All => {
            let members = node.membership.members();
            let members = members.map(|member| (member.identity.node, member.identity.epoch));
            Some(Awaited::Ack {
                by_all: Some((key.to_vec(), version)),
                members: members.collect(),
            })
        }
    };
    let waiter = waiter.map(|awaited| node.waiter(own, PATIENCE, awaited));
    node.core.publish(own, published, ack, waiter, out);
    true
}

fn invalidate(node: &mut Node, own: Time, scope: Scope, out: &mut Vec<Output<Value>>) -> bool {
    let Some(version) = node.stamp(own) else {
        return false;
    };
    node.stamped.push(version);
    node.store.invalidate(scope.clone(), version);
    node.done.push(Done::Group {
        scope: scope.clone(),
        version,
    });
    let published = Published::Floor { scope, version };
    node.core.publish(own, published, Ack::Local, None, out);
    true
}

fn modify(
    node: &mut Node,
    own: Time,
    key: Vec<u8>,
    op: ModifyOp<Value>,
    out: &mut Vec<Output<Value>>,
) -> bool {
    let key = Bytes::from(key);
    let awaited = Awaited::Modify { key: key.clone() };
    let waiter = node.waiter(own, PATIENCE, awaited);
    node.core.modify(own, key, op, waiter, out);
    true
}

impl Cluster {
    /// The bug: what makes room here is removed from all.
    pub(super) fn replicate_evictions(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        for key in node.take_evicted() {
            let Ok(version) = node.clock.stamp(own) else {
                continue;
            };
            if let Ok(Merged::Applied { .. }) = node.store.merge(&key, version, Change::Remove) {
                let key = Bytes::from(key);
                let published = Published::Removal { key, version };
                node.core
                    .publish(own, published, Ack::Local, None, &mut out);
            }
        }
        self.carry_cache(host, out)
    }

    /// Design §6.3: after an acknowledgement by all, no live member serves an older value.
    fn check_acked(
        &self,
        host: usize,
        key: &[u8],
        version: Version,
        known: &[(NodeId, Epoch)],
    ) -> Result<(), Violation> {
        let Some(writer) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        for member in writer.membership.members() {
            // Of whom it first heard while it waited, it may have heard too late.
            if !known.contains(&(member.identity.node, member.identity.epoch)) {
                continue;
            }
            let live = self.running().find(|(_, node)| {
                node.id == member.identity.node && node.epoch == member.identity.epoch
            });
            let Some((at, node)) = live else { continue };
            if node.time(self.now) > node.core.read_bound().serve_until {
                // It serves nothing.
                continue;
            }
            // Two writes that did not know of each other: where values do not travel, each may stay where it was made.
            let concurrent = |own: Version| {
                self.plan.mode == ModeKind::Invalidation
                    && own.origin == node.id
                    && own.time.millis() + CONCURRENT_MS > version.time.millis()
            };
            if let Some(entry) = node
                .store
                .peek(key)
                .filter(|entry| entry.version() < version && !concurrent(entry.version()))
            {
                let what = format!(
                    "n{host} was told that all have {version:?} of {:?}, n{at} serves {:?}",
                    String::from_utf8_lossy(key),
                    entry.version()
                );
                return Err(self.violation("design §6.3", what));
            }
        }
        Ok(())
    }
}
