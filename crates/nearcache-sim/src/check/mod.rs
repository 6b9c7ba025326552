//! The checkers, one file for each rule.
//!
//! After every event a node's new changes are shown to the checkers of what must hold at all times
//! ([`monotone`]); at the end of a run come those of what must hold once it is quiet ([`convergence`],
//! [`resurrection`]) and of the merge itself ([`algebra`]).

pub(crate) mod algebra;
pub(crate) mod apart;
pub(crate) mod bounds;
pub(crate) mod clocks;
pub(crate) mod coherence;
pub(crate) mod convergence;
pub(crate) mod expiry;
pub(crate) mod freshness;
pub(crate) mod guard;
pub(crate) mod lapses;
pub(crate) mod leases;
pub(crate) mod leaving;
pub(crate) mod loads;
pub(crate) mod members;
pub(crate) mod monotone;
pub(crate) mod own_writes;
pub(crate) mod refresh;
pub(crate) mod removals;
pub(crate) mod resurrection;
pub(crate) mod whole;
pub(crate) mod writes;

use std::collections::BTreeMap;

use nearcache_protocol::ids::Epoch;
use nearcache_protocol::time::Time;
use nearcache_store::{NodeId, Scope, Version};

use crate::node::{Heard, Node};

/// A broken rule and what was seen.
pub(crate) type Broken = (&'static str, String);

/// What the checkers remember of a run.
#[derive(Debug)]
pub(crate) struct Checkers {
    monotone: Vec<monotone::Monotone>,
    whole: whole::Whole,
    pub(crate) algebra: algebra::Log,
    pub(crate) clocks: clocks::Clocks,
    pub(crate) coherence: coherence::Coherence,
    pub(crate) loads: loads::Loads,
    pub(crate) leases: leases::Leases,
    pub(crate) guards: guard::Guards,
    pub(crate) writes: writes::Writes,
    pub(crate) freshness: freshness::Freshness,
    pub(crate) apart: apart::Apart,
    pub(crate) lives: leaving::Lives,
    /// Nodes that have left on purpose, and when.
    pub(crate) departed: BTreeMap<(NodeId, Epoch), Time>,
    pub(crate) members: members::Members,
    pub(crate) removals: removals::Removals,
    pub(crate) own_writes: own_writes::OwnWrites,
    pub(crate) expiry: expiry::Expiries,
    pub(crate) lapses: lapses::Lapses,
    pub(crate) refreshes: refresh::Refreshes,
}

impl Checkers {
    pub(crate) fn new(hosts: usize) -> Self {
        let monotone = (0..hosts).map(|_| monotone::Monotone::default()).collect();
        Self {
            monotone,
            whole: whole::Whole::default(),
            algebra: algebra::Log::default(),
            clocks: clocks::Clocks::default(),
            coherence: coherence::Coherence::default(),
            loads: loads::Loads::default(),
            leases: leases::Leases::default(),
            guards: guard::Guards::default(),
            writes: writes::Writes::default(),
            freshness: freshness::Freshness::default(),
            apart: apart::Apart::new(hosts),
            lives: leaving::Lives::default(),
            departed: BTreeMap::new(),
            members: members::Members::new(hosts),
            removals: removals::Removals::default(),
            own_writes: own_writes::OwnWrites::default(),
            expiry: expiry::Expiries::default(),
            lapses: lapses::Lapses::default(),
            refreshes: refresh::Refreshes::default(),
        }
    }

    /// The host's node is gone, and with it what only it knew.
    pub(crate) fn forget(&mut self, host: usize) {
        self.clocks.forget(host);
        self.coherence.forget(host);
        self.loads.forget(host);
        self.leases.forget(host);
        self.guards.forget(host);
        self.freshness.forget(host);
        self.own_writes.forget(host);
        self.lapses.forget(host);
        self.monotone[host] = monotone::Monotone::default();
    }

    /// The node on the host has heard of a start of another.
    pub(crate) fn meets(&mut self, host: usize, node: NodeId, epoch: Epoch, now: Time) {
        self.coherence.meets(host, node, epoch, now);
        self.freshness.meets(host, node, epoch);
    }

    /// The node on the host holds another for dead.
    pub(crate) fn parts(&mut self, host: usize, node: NodeId, now: Time) {
        self.freshness.parts(host, node);
        self.coherence.parts(host, node, now);
    }

    /// All was dropped on the host.
    pub(crate) fn flushed(&mut self, host: usize, now: Time) {
        self.coherence.flushed(host);
        self.own_writes.dropped(host);
        self.freshness.flushed(host, now);
    }

    /// A group invalidation was applied on the host.
    pub(crate) fn invalidated(&mut self, host: usize, scope: &Scope, version: Version) {
        self.monotone[host].invalidated(scope, version);
        self.freshness.invalidated(scope, version);
        self.algebra.floor(scope, version);
    }

    /// The host's node has dropped what it held: what it knows no longer, it is no survivor of.
    pub(crate) fn dropped(&mut self, host: usize, node: &Node, now: Time) {
        self.monotone[host].dropped(node);
        self.freshness.dropped(host, node, now);
        self.own_writes.dropped(host);
    }

    /// Something happened on the host's node, and changed this in its store.
    pub(crate) fn observe(
        &mut self,
        now: Time,
        host: usize,
        node: &Node,
        heard: Vec<Heard>,
    ) -> Result<(), Broken> {
        self.monotone[host].observe(host, node, &heard)?;
        self.freshness.observe(now, node, &heard);
        self.whole.observe(host, &heard)?;
        self.removals.observe(host, &heard)?;
        for change in heard {
            self.algebra.change(change);
        }
        Ok(())
    }

    /// The newest version of a key that any of these hosts has applied in its present life.
    pub(crate) fn newest(&self, hosts: impl IntoIterator<Item = usize>, key: &[u8]) -> Version {
        let hosts = hosts.into_iter();
        hosts
            .map(|host| self.monotone[host].survives(key))
            .max()
            .unwrap_or(Version::ZERO)
    }
}
