//! K3 and C11 for mode `invalidation`.
//!
//! The system of record is simulated beside the cluster: per key a generation, which every write raises before it tells the cache. What
//! a node serves says which generation it is; what superseded it, when and by whom is known here. So is which nodes a node had heard of:
//! what a node has never heard of cannot invalidate anything there.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::config::OnDisconnect;
use nearcache_protocol::ids::Epoch;
use nearcache_protocol::payload::Payload as _;
use nearcache_protocol::time::Time;
use nearcache_store::{NodeId, Version};

use super::Broken;
use super::freshness::Start;
use crate::node::Node;
use crate::plan::{COUNTS_AFTER, KEYS, Plan, key};

/// I1: how long a superseded value may be served, whatever the network does, with some reserve for the steps of the simulation.
const STALE_MAX: Duration = Duration::from_millis(3_000 + 20);

/// How long a lease is by default.
const LEASE: Duration = Duration::from_millis(3_000);

/// For how long who is held for dead counts, by default, less what clocks differ in.
const DEAD_COUNT_FOR: Duration = Duration::from_millis(60_000 - 100);

/// The same where copies are served for longer; and beyond the mesh: a heartbeat more for each hop, one more, and 100 ms.
fn stale_max(plan: &Plan) -> Duration {
    if let OnDisconnect::ServeStale { max } = plan.on_disconnect {
        return max + STALE_MAX - LEASE;
    }
    if !plan.is_beyond_mesh() {
        return STALE_MAX;
    }
    let hops = (plan.nodes - 1).checked_ilog2().unwrap_or(0) + 1;
    STALE_MAX + Duration::from_millis(500) * (hops + 1) + Duration::from_millis(100)
}

/// One change of the system of record.
#[derive(Debug, Clone, Copy)]
struct Write {
    at: Time,
    by: (NodeId, Epoch),
    version: Version,
}

/// What is known of the system of record and of who knows whom.
#[derive(Debug)]
pub(crate) struct Coherence {
    /// Per key all writes; generation n is that of the n-th.
    writes: BTreeMap<usize, Vec<Write>>,
    /// Since when a node, in its present life, has known a start of another.
    known: BTreeMap<(usize, NodeId, Epoch), Time>,
    /// Since when a node has held another for dead.
    parted: BTreeMap<(usize, NodeId), Time>,
    /// Per host and key the generation that it wrote last and must still hold.
    own: BTreeMap<(usize, usize), u64>,
    /// From when on what a node writes may not be missed that opened the cache late.
    counts_from: BTreeMap<Start, Time>,
    /// The newest group invalidation.
    grouped: Version,
}

impl Default for Coherence {
    fn default() -> Self {
        Self {
            writes: BTreeMap::new(),
            known: BTreeMap::new(),
            parted: BTreeMap::new(),
            own: BTreeMap::new(),
            counts_from: BTreeMap::new(),
            grouped: Version::ZERO,
        }
    }
}

impl Coherence {
    /// The host's node is gone.
    pub(crate) fn forget(&mut self, host: usize) {
        self.known.retain(|(at, ..), _| *at != host);
        self.parted.retain(|(at, _), _| *at != host);
        self.own.retain(|(at, _), _| *at != host);
    }

    /// The node on `host` has heard of a start of another.
    pub(crate) fn meets(&mut self, host: usize, node: NodeId, epoch: Epoch, now: Time) {
        self.known.entry((host, node, epoch)).or_insert(now);
        self.parted.remove(&(host, node));
    }

    /// The node on `host` holds another for dead.
    pub(super) fn parts(&mut self, host: usize, node: NodeId, now: Time) {
        self.parted.entry((host, node)).or_insert(now);
    }

    /// Whether the dead have counted for long enough: who has been held for dead for so long is no more waited for (decision 0013).
    fn is_forgotten(&self, host: usize, node: NodeId, at: Time) -> bool {
        let parted = self.parted.get(&(host, node));
        parted.is_some_and(|since| at - *since > DEAD_COUNT_FOR)
    }

    /// A node opens the cache, late.
    pub(crate) fn opens(&mut self, start: Start, now: Time) {
        self.counts_from.insert(start, now + COUNTS_AFTER);
    }

    /// The generation that the system of record holds.
    pub(crate) fn generation(&self, key: usize) -> u64 {
        self.writes
            .get(&key)
            .map_or(0, |writes| writes.len() as u64)
    }

    /// A node has written the system of record and told its cache. `keeps` if it holds the new value itself.
    pub(crate) fn write(
        &mut self,
        now: Time,
        (host, node): (usize, &Node),
        key: usize,
        version: Version,
        keeps: bool,
    ) {
        let by = (node.id, node.epoch);
        let writes = self.writes.entry(key).or_default();
        // A version that is not the newest of all is dropped when the newer one arrives: that is safe, and no loss.
        let newest = self.grouped < version && writes.iter().all(|write| write.version < version);
        let at = now;
        writes.push(Write { at, by, version });
        let generation = writes.len() as u64;
        if keeps && newest {
            self.own.insert((host, key), generation);
        } else {
            self.own.remove(&(host, key));
        }
    }

    /// Something was invalidated of which only the store knows what it concerns.
    pub(crate) fn grouped(&mut self, version: Version) {
        self.own.clear();
        self.grouped = self.grouped.max(version);
    }

    /// All was dropped on a host.
    pub(crate) fn flushed(&mut self, host: usize) {
        self.own.retain(|(at, _), _| *at != host);
    }

    /// What a reader on the node gets for each key now.
    pub(crate) fn read(
        &self,
        now: Time,
        host: usize,
        node: &Node,
        plan: &Plan,
    ) -> Result<(), Broken> {
        let (has_room, stale_max) = (!plan.is_small(), stale_max(plan));
        let own = node.time(now);
        let leased = own <= node.core.read_bound().serve_until;
        for number in 0..KEYS {
            let (held, version) = held(node, number).unzip();
            let must = self.own.get(&(host, number));
            if let Some(must) = must.filter(|must| has_room && **must == self.generation(number))
                && held != Some(*must)
            {
                return Err((
                    "I5",
                    format!("n{host} lost its own newest value {must} of key {number}: {held:?}"),
                ));
            }
            let Some(held) = held.filter(|_| leased) else {
                continue;
            };
            let Some(by) = self.superseder(number, held, version) else {
                continue;
            };
            let Some(known) = self.known_since(host, node, by.by) else {
                continue;
            };
            let stale = now - by.at.max(known);
            if stale > stale_max && !self.is_forgotten(host, by.by.0, now) {
                return Err((
                    "I1",
                    format!(
                        "n{host} serves value {held} of key {number}, superseded {stale:?} ago by {by:?}"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// C11: whoever says that it has all that these members had written by then holds nothing that they had superseded.
    pub(crate) fn fresh(
        &self,
        host: usize,
        node: &Node,
        (as_of, members): (Time, Vec<Start>),
    ) -> Result<(), Broken> {
        for number in 0..KEYS {
            let Some((held, version)) = held(node, number) else {
                continue;
            };
            let by = self.superseder(number, held, Some(version));
            let counts = |by: &Write| self.counts_from.get(&by.by).is_none_or(|at| by.at >= *at);
            let by = by.filter(|by| by.at < as_of && members.contains(&by.by) && counts(by));
            if let Some(by) = by {
                let what = format!(
                    "n{host} says that it has all as of {as_of:?} and holds value {held} of key {number}, superseded by {by:?}"
                );
                return Err(("C11", what));
            }
        }
        Ok(())
    }

    /// The first write that supersedes what is held: of a loaded value every later one, of a written one every later one with a higher
    /// version. Of two writes that did not know of each other the version decides and not the system of record.
    fn superseder(&self, key: usize, held: u64, version: Option<Version>) -> Option<Write> {
        let held = usize::try_from(held).ok()?;
        let writes = self.writes.get(&key)?;
        let version = version?;
        let written = held.checked_sub(1).and_then(|at| writes.get(at));
        let written = written.is_some_and(|write| write.version == version);
        let mut later = writes.get(held..)?.iter();
        later
            .find(|write| !written || write.version > version)
            .copied()
    }

    fn known_since(&self, host: usize, node: &Node, by: (NodeId, Epoch)) -> Option<Time> {
        if by == (node.id, node.epoch) {
            return Some(Time::ZERO);
        }
        let known = self.known.get(&(host, by.0, by.1)).copied();
        known.map(|known| known.max(self.counts_from.get(&by).copied().unwrap_or(known)))
    }
}

/// The generation and the version that a node holds of a key.
fn held(node: &Node, number: usize) -> Option<(u64, Version)> {
    let entry = node.store.peek(&key(number))?;
    let generation = std::str::from_utf8(entry.value().bytes()).ok()?;
    let generation = generation.trim_end_matches('.').parse().ok()?;
    Some((generation, entry.version()))
}
