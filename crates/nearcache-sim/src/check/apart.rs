//! Design §5, `split`: a node that has not been linked to most of its cluster for longer than the window neither writes
//! (`read-only`) nor serves (`flush`).
//!
//! Whom a node is linked to is known here from the faults, not from what the node believes.

use std::time::Duration;

use nearcache_protocol::announce::SplitPolicy;
use nearcache_protocol::time::Time;

use super::Broken;
use crate::node::Node;
use crate::plan::Plan;

/// How long after the last link to most of the cluster what `split` says takes effect: four heartbeats, and by how much a clock may run slow in that time.
pub(crate) const WINDOW: Duration = Duration::from_millis(2_000 + 5);

/// Since when each pair of hosts has had no link that works both ways between two running nodes.
#[derive(Debug)]
pub(crate) struct Apart {
    parted: Vec<Vec<Option<Time>>>,
}

impl Apart {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            parted: vec![vec![None; hosts]; hosts],
        }
    }

    /// The link between the two works from now on, or does not.
    pub(crate) fn link(&mut self, a: usize, b: usize, works: bool, now: Time) {
        for (a, b) in [(a, b), (b, a)] {
            if works {
                self.parted[a][b] = None;
            } else {
                self.parted[a][b].get_or_insert(now);
            }
        }
    }

    /// Whether the host has links to most of all hosts, itself included.
    pub(crate) fn is_with_most(&self, host: usize) -> bool {
        let linked = self.parted[host].iter().filter(|since| since.is_none());
        linked.count() * 2 > self.parted.len()
    }

    /// Whether the host has had no link to half of the others or more for longer than the window. Beyond the mesh it may hear them through
    /// others, over so many hops, each of which may take a window.
    fn is_apart(&self, host: usize, now: Time, hops_max: u32) -> bool {
        let window = WINDOW * hops_max;
        let is_linked = |a: usize, b: usize| self.parted[a][b].is_none_or(|at| now - at <= window);
        let hosts = self.parted.len();
        let mut heard: Vec<bool> = (0..hosts).map(|other| is_linked(host, other)).collect();
        for _ in 1..hops_max {
            let farther = |to| (0..hosts).any(|via| heard[via] && is_linked(via, to));
            heard = (0..hosts).map(|to| heard[to] || farther(to)).collect();
        }
        let parted = heard.iter().filter(|heard| !**heard).count();
        parted * 2 > hosts
    }

    /// What the node may still do, having met all others in its first life.
    pub(crate) fn check(
        &self,
        now: Time,
        (host, node): (usize, &Node),
        plan: &Plan,
    ) -> Result<(), Broken> {
        let hops_max = if plan.is_beyond_mesh() {
            plan.nodes.ilog2() + 1
        } else {
            1
        };
        let policy = plan.split;
        if policy == SplitPolicy::Serve || !self.is_apart(host, now, hops_max) {
            return Ok(());
        }
        let own = node.time(now);
        let (until, what) = match policy {
            SplitPolicy::Flush => (node.core.read_bound().serve_until, "serves"),
            _ => (node.core.write_until(), "writes"),
        };
        if own > until {
            return Ok(());
        }
        let what = format!("n{host} {what} at {own:?} although it is apart, up to {until:?}");
        Err(("design §5 (split)", what))
    }
}
