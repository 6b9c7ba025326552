//! Readers, and in mode `invalidation` loaders and the system of record that they share.

use std::time::Duration;

use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::time::Time;
use nearcache_store::{Expiry, NodeId, Tags};
use rand::RngExt as _;

use super::{Cluster, Event};
use crate::check::{Broken, Checkers};
use crate::node::Node;
use crate::plan::{Plan, key};
use crate::value::Value;
use crate::violation::Violation;

/// How often somebody reads everything on every node, and asks how fresh it is.
const READ_PERIOD: Duration = Duration::from_millis(40);
/// How long a load takes, at most.
const LOAD_MS_MAX: u64 = 300;

/// A load under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) host: usize,
    pub(crate) life: u32,
    key: usize,
    fence: Fence,
    /// What the system of record held when it was read.
    read: u64,
}

/// What a reader of the node, who also asks how fresh it is, must not see.
fn read(
    plan: &Plan,
    checkers: &mut Checkers,
    now: Time,
    host: usize,
    node: &Node,
) -> Result<(), Broken> {
    let Checkers {
        coherence,
        freshness,
        departed,
        lapses,
        ..
    } = checkers;
    let replicated = plan.mode == ModeKind::Replicated;
    if plan.on_disconnect.flushes() {
        let is_leased = node.time(now) <= node.core.read_bound().serve_until;
        lapses.read(host, node, is_leased)?;
    }
    if !replicated {
        coherence.read(now, host, node, plan)?;
        if let Some(claim) = freshness.claim(now, (host, node), departed) {
            coherence.fresh(host, node, claim)?;
        }
    }
    // What was removed and forgotten cannot be looked up; a node that joins is not told what others have evicted.
    if plan.forgets() || replicated && plan.is_small() {
        return Ok(());
    }
    freshness.check(now, host, node)?;
    if replicated {
        freshness.check_all(now, (host, node), departed)?;
    }
    Ok(())
}

impl Cluster {
    /// Readers look at the host, and come again.
    pub(super) fn read(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        self.queue.schedule(now + READ_PERIOD, Event::Read { host });
        let node = self.hosts[host].node.as_ref();
        let Some(node) = node.filter(|node| node.is_open) else {
            return Ok(());
        };
        let own_writes = &self.checkers.own_writes;
        let broken = own_writes.read(now, host, node, &self.plan);
        self.judge(broken)?;
        let broken = self.checkers.expiry.read(now, host, node);
        self.judge(broken)?;
        let broken = if self.plan.loads {
            let loads = &self.checkers.loads;
            let rested = self.hosts[host].paused_until;
            let overdue = || loads.overdue(now, host, rested);
            // Who has a wrong clock is told of nothing.
            let held = if self.has_wrong_clock(host) {
                Ok(())
            } else {
                loads.check(host, node)
            };
            held.and_then(|()| overdue())
        } else {
            read(&self.plan, &mut self.checkers, now, host, node)
        };
        self.judge(broken)
    }

    /// A reader misses: the system of record is asked.
    pub(super) fn begin_load(&mut self, host: usize, number: usize) {
        let now = self.now;
        let takes = Duration::from_millis(self.rng.random_range(0..LOAD_MS_MAX));
        let read = self.checkers.coherence.generation(number);
        let life = self.hosts[host].life;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let own = node.time(now);
        let bound = node.core.clock_bound_of_load(own);
        let load = Load {
            host,
            life,
            key: number,
            fence: Fence::begin(&node.store, &node.clock, own, bound, &key(number)),
            read,
        };
        self.queue.schedule(now + takes, Event::Loaded(load));
    }

    /// The system of record has answered.
    pub(super) fn loaded(&mut self, load: Load) -> Result<(), Violation> {
        let now = self.now;
        let host = &mut self.hosts[load.host];
        let Some(node) = host.node.as_mut().filter(|_| host.life == load.life) else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        let value = Value::new(load.read.to_string().as_bytes());
        let content = (value, Expiry::NEVER, Tags::NONE);
        let entry = load
            .fence
            .entry(&node.store, &key(load.key), content, &node.clock, own);
        self.checkers.freshness.untold(entry.version());
        if load.fence.keep(&node.store, &entry) == Ok(true) {
            self.sometimes.reach(crate::sometimes::Place::Filled);
            let Some(node) = self.alive(load.host, load.life) else {
                return Ok(());
            };
            let published = Published::Fill(entry);
            node.core
                .publish(own, published, Ack::Local, None, &mut out);
        }
        self.carry_cache(load.host, out)?;
        self.settle(load.host)
    }

    /// A node was heard of.
    pub(super) fn meets(
        &mut self,
        host: usize,
        node: NodeId,
        epoch: nearcache_protocol::ids::Epoch,
    ) {
        let now: Time = self.now;
        self.checkers.meets(host, node, epoch, now);
    }
}
