//! What a node serves, told to others: looking at one key on every node, and the coherence audit.
//!
//! ```text
//! inspect   asker ─ Ask(key) ─▶ every node ─ Held ─▶ asker            at once
//! audit     writer: put of a probe key, as any write ─▶ every node
//!           writer ─ Ask(key, version, wait) ─▶ peers ─ Held ─▶ writer   when that version is known there
//!           writer ─ Ask(key) ─▶ peers ─ Held ─▶ writer                  1, 5 and 60 s after the write
//! ```
//!
//! Beyond the mesh most members have no session with each other. Questions and answers then go over short-lived connections
//! ([`Output::Reach`]), may be lost, and are asked again.
//!
//! This stands beside the mode of the cache and sees what a reader sees: the store, and the bound that reads are compared with. It is
//! told of peers and time as a mode is, and asks nothing of the mode but to publish its probes.

mod answer;
pub mod audit;
#[cfg(test)]
mod held_tests;
mod histogram;
pub mod inspect;
mod report;
mod rotation;
mod routes;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use bytes::Bytes;
use nearcache_store::{Expiry, Known, NodeId, Store, Version};
use siphasher::sip::SipHasher24;

use self::answer::Answers;
use self::audit::{Asks, Audience, Audit, AuditReport, Sent};
use self::inspect::Inspections;
use self::routes::{Routes, Way};
use crate::announce::ModeKind;
use crate::clock::Hlc;
use crate::ids::{Epoch, RequestId};
use crate::load::fence::is_of_load;
use crate::mode::{Output, ReadBound};
use crate::payload::Payload;
use crate::rendezvous::PlacementKey;
use crate::time::Time;

/// Keys that begin so are the audit's: nobody else can name them, and nobody is shown them.
pub const RESERVED_PREFIX: &[u8] = b"\0nearcache/probe\0";

/// Whether a key is the audit's.
#[inline]
#[must_use]
pub fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&0) && key.starts_with(RESERVED_PREFIX)
}

/// The key that a node writes to see how far it gets.
#[must_use]
pub fn probe_key(writer: NodeId) -> Bytes {
    [RESERVED_PREFIX, &writer.as_u64().to_be_bytes()]
        .concat()
        .into()
}

/// A question or an answer about one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// How does this key stand with you? Answered when `at_least` is known, or `wait_ms` are over.
    Ask {
        /// The key.
        key: Bytes,
        /// The version that is waited for; [`Version::ZERO`] for whatever there is.
        at_least: Version,
        /// For how long, in milliseconds.
        wait_ms: u32,
        /// Whether to load a copy of a probe key where there is none, so that the next write of it has something to invalidate
        /// (mode `invalidation`).
        keeps: bool,
    },
    /// So it stands.
    Held(Held),
}

impl Probe {
    /// The message's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ask { .. } => "probe-ask",
            Self::Held(_) => "probe-held",
        }
    }
}

/// How one key stands on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The newest version that the node knows to be about this key: of an entry, a removal, a drop of all that it holds, or an eviction, as
    /// long as that is remembered for the key alone. [`Version::ZERO`] if it knows of none.
    pub known: Version,
    /// What an update must beat to be taken: `known`, or what is remembered of many keys at once that have no room of their own any
    /// more. Nothing older than this is served.
    pub floor: Version,
    /// What a reader would be given; nothing if it is a miss.
    pub entry: Option<HeldEntry>,
    /// Whether it is known to be removed or expired.
    pub removed: bool,
    /// Whether the node may serve copies now; if not, reads are misses (mode `invalidation`).
    pub leased: bool,
    /// Whether the node is filled.
    pub ready: bool,
}

/// An entry without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldEntry {
    /// Its version.
    pub version: Version,
    /// When it expires.
    pub expiry: Expiry,
    /// How long its value is.
    pub value_bytes: u32,
    /// A number that is the same for the same value on all nodes that hold it, and says nothing to others: of its length and its first
    /// [`HASHED_MAX_BYTES`]. Nothing for a long value that a node has not fetched yet.
    pub value_hash: Option<u64>,
}

/// Of a longer value no more than so much is hashed, because nothing else happens in the cache meanwhile.
pub const HASHED_MAX_BYTES: usize = 64 * 1024;

impl Held {
    /// The version of the newest write or removal of the key that is known here. What is older is out of date, wherever it is served.
    ///
    /// Nothing where the newest is that of a load, which puts nothing out of date, of an eviction, or of a drop of everything, which is
    /// each node's own affair.
    #[must_use]
    pub fn written(&self) -> Option<Version> {
        let is_write = self.removed || self.entry.is_some();
        (is_write && !is_of_load(self.known)).then_some(self.known)
    }
}

/// What is looked at to answer.
pub(crate) struct View<'a, V> {
    pub(crate) store: &'a Store<V>,
    pub(crate) clock: &'a Hlc,
    pub(crate) bound: ReadBound,
    pub(crate) ready: bool,
    pub(crate) placement: PlacementKey,
    /// Whether there are more members than a full mesh may have.
    pub(crate) by_tree: bool,
}

impl<V: Payload> View<'_, V> {
    /// How a key stands here.
    fn held(&self, now: Time, key: &[u8]) -> Held {
        let known = self.store.known(key);
        let entry = known.live().map(|entry| {
            let (version, expiry) = (entry.version(), entry.expiry());
            let (value_bytes, value_hash) = match entry.stub_bytes() {
                Some(bytes) => (bytes, None),
                None => self.hashed(entry.value().bytes()),
            };
            HeldEntry {
                version,
                expiry,
                value_bytes,
                value_hash,
            }
        });
        Held {
            known: known.own_version(),
            floor: known.version(),
            entry,
            removed: matches!(known, Known::Removed(_)),
            leased: now <= self.bound.serve_until,
            ready: self.ready,
        }
    }

    /// A value's length and hash.
    fn hashed(&self, value: &[u8]) -> (u32, Option<u64>) {
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let mut hasher = SipHasher24::new_with_key(&self.placement.bytes());
        hasher.write(&bytes.to_be_bytes());
        hasher.write(value.get(..HASHED_MAX_BYTES).unwrap_or(value));
        (bytes, Some(hasher.finish()))
    }
}

/// The members of the cluster as far as this concerns them: connected, or known and not.
pub(crate) type Members = BTreeMap<NodeId, bool>;

/// The part of a cache's machine that this module is about.
#[derive(Debug)]
pub(crate) struct Probes {
    mode: ModeKind,
    members: Members,
    last_request: u64,
    answers: Answers,
    inspections: Inspections,
    pub(crate) audit: Audit,
}

impl Probes {
    pub(crate) fn new(mode: ModeKind, epoch: Epoch) -> Self {
        Self {
            mode,
            members: Members::new(),
            // What was asked before this start, and is answered after it, is none of this one's questions.
            last_request: epoch.as_u64() << 16,
            answers: Answers::default(),
            inspections: Inspections::default(),
            audit: Audit::default(),
        }
    }

    /// A member is connected (`true`), or known and not.
    pub(crate) fn member(&mut self, peer: NodeId, connected: bool) {
        if self.mode != ModeKind::Local {
            let known = self.members.entry(peer).or_insert(connected);
            *known = connected;
        }
    }

    /// Membership knows a node, whether it is connected or not.
    pub(crate) fn heard_of(&mut self, peer: NodeId) {
        if self.mode != ModeKind::Local {
            self.members.entry(peer).or_insert(false);
        }
    }

    /// The connection to a member is gone.
    pub(crate) fn lost<V>(
        &mut self,
        now: Time,
        peer: NodeId,
        by_tree: bool,
        out: &mut Vec<Output<V>>,
    ) {
        if let Some(connected) = self.members.get_mut(&peer) {
            *connected = false;
        }
        self.answers.forget(peer);
        self.inspections.lost(now, peer, by_tree, out);
        self.audit.lost(now, peer);
    }

    /// Beyond the mesh: no connection to a member could be opened.
    pub(crate) fn unreached(&mut self, peer: NodeId) {
        self.inspections.unreached(peer);
    }

    /// A member is held for dead.
    pub(crate) fn died<V>(&mut self, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.audit.died(peer);
        self.gone(peer, out);
    }

    /// A member is one no longer.
    pub(crate) fn gone<V>(&mut self, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.members.remove(&peer);
        self.answers.forget(peer);
        self.inspections.gone(peer, out);
        self.audit.gone(peer);
    }

    fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// A question or an answer has come.
    pub(crate) fn handle<V: Payload>(
        &mut self,
        now: Time,
        from: NodeId,
        (request, probe): (RequestId, Probe),
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let routes = Routes::new(&self.members, view.by_tree);
        match probe {
            Probe::Ask {
                key,
                at_least,
                wait_ms,
                keeps,
            } => {
                let asked =
                    answer::Asked::new(now, from, request, (key.clone(), at_least, wait_ms));
                self.answers.ask(now, asked, view, routes, out);
                // After the answer: what is loaded only now is no sign that anything arrived.
                if keeps && self.mode == ModeKind::Invalidation {
                    answer::keep_copy(now, &key, view);
                }
            }
            Probe::Held(held) => {
                self.inspections.answered(from, request, held);
                self.inspections.go_on(now, routes, out);
                self.audit.answered(now, from, request, held);
            }
        }
    }

    /// Something may have changed that somebody waits for.
    pub(crate) fn settle<V: Payload>(
        &mut self,
        now: Time,
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let routes = Routes::new(&self.members, view.by_tree);
        self.answers.settle(now, view, routes, out);
    }

    /// Lets time pass for all but the audit's writes.
    pub(crate) fn tick<V: Payload>(
        &mut self,
        now: Time,
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let routes = Routes::new(&self.members, view.by_tree);
        self.answers.settle(now, view, routes, out);
        self.inspections.tick(now, out);
        self.inspections.go_on(now, routes, out);
        let key = probe_key(view.clock.origin());
        let last = &mut self.last_request;
        let ask = |asks: Asks| ask(&key, routes, last, &asks, out);
        self.audit.tick(now, ask);
    }

    /// This node has written a probe; some of these peers are asked for it.
    pub(crate) fn wrote<V: Payload>(
        &mut self,
        now: Time,
        (key, version): (&Bytes, Version),
        peers: &[NodeId],
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let routes = Routes::new(&self.members, view.by_tree);
        let is_far = |peer: &NodeId| routes.to(*peer) == Some(Way::Short);
        let (far, near): (Vec<NodeId>, Vec<NodeId>) = peers.iter().copied().partition(is_far);
        let to = Audience {
            writer: view.clock.origin(),
            near: &near,
            far: &far,
        };
        let last = &mut self.last_request;
        let ask = |asks: Asks| ask(key, routes, last, &asks, out);
        self.audit.wrote(now, version, to, ask);
    }

    pub(crate) fn report(&self, now: Time) -> AuditReport {
        self.audit.report(now, self.members.keys())
    }

    pub(crate) fn next_tick(&self) -> Time {
        let answers = self.answers.next_deadline();
        let inspections = self.inspections.next_deadline();
        answers.min(inspections).min(self.audit.next_tick())
    }
}

/// Asks a peer about a probe, if there is a way to it; otherwise it will not have answered.
fn ask<V>(
    key: &Bytes,
    routes: Routes<'_>,
    last_request: &mut u64,
    asks: &Asks,
    out: &mut Vec<Output<V>>,
) -> Sent {
    let request = asks.again.unwrap_or_else(|| {
        *last_request += 1;
        RequestId(*last_request)
    });
    let way = routes.to(asks.peer);
    if let Some(way) = way {
        let message = Probe::Ask {
            key: key.clone(),
            at_least: asks.at_least,
            wait_ms: u32::try_from(asks.wait.as_millis()).unwrap_or(u32::MAX),
            // The question that waits must not find a copy where there is to be none.
            keeps: asks.wait.is_zero(),
        };
        out.push(way.carry(asks.peer, request, message));
    }
    Sent {
        request,
        may_be_lost: way == Some(Way::Short),
    }
}
