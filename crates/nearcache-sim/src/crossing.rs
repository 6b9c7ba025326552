//! Counting while members come and go across `mesh_max`: no increment that was answered may be lost by it.
//!
//! ```text
//! visitors come ─▶ count ─▶ count slowly ─▶ visitors leave on purpose ─▶ count ─▶ count slowly ─▶ ... ─▶ rest ─▶ add up
//! ```
//!
//! Nothing else goes wrong. Every node takes increments of the same few counters, each of which is decided at the counter's home; two
//! nodes that take themselves for one counter's home at once overwrite each other.

use std::time::Duration;

use nearcache_protocol::membership::MembershipConfig;
use nearcache_protocol::payload::Payload as _;
use nearcache_protocol::time::Time;
use rand::RngExt as _;

use crate::cluster::operate::perform;
use crate::cluster::{Cluster, Event};
use crate::meter::Meter;
use crate::plan::{Operation, Plan, key};
use crate::sometimes::Place;
use crate::violation::Violation;

/// Counters: few, so that two nodes that decide at once decide about the same.
const COUNTERS: usize = 4;
/// How long it is counted fast after members have come or gone, and how often.
const FAST: (Duration, Duration) = (Duration::from_secs(6), Duration::from_millis(1));
/// How often it is counted otherwise.
const SLOW_EVERY: Duration = Duration::from_millis(100);
/// How long the nodes may take to know each other.
const SETTLE: Duration = Duration::from_secs(15);
/// Longer than a call may take, and than all take to hold the same afterwards.
const REST: Duration = Duration::from_secs(8);

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Crossing {
    /// Everything that is drawn follows from it.
    pub seed: u64,
    /// Nodes that are there all the time.
    pub residents: usize,
    /// Nodes that come and go.
    pub visitors: usize,
    /// Up to so many members every node is connected to every other.
    pub mesh_max: usize,
    /// How often visitors come, and how often they go.
    pub rounds: usize,
    /// How long a message may take. The longer, the longer it takes to open a session, and the more news are on their way.
    pub delay_max: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Increments asked for.
    pub asked: u64,
    /// Increments that were answered as made.
    pub answered: u64,
    /// What all counters add up to in the end.
    pub total: u64,
    /// Sessions that were ended because the tree did not want them.
    pub parted: u64,
    /// Sessions that were opened.
    pub opened: u64,
}

impl Counted {
    /// Increments that were answered and are not in the counters.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.answered.saturating_sub(self.total)
    }
}

/// Simulates one. Blocks for some seconds.
///
/// # Errors
///
/// In words, if the cluster did not come together or the nodes do not agree in the end.
pub fn cross(crossing: Crossing) -> Result<Counted, String> {
    let nodes = crossing.residents + crossing.visitors;
    let mut plan = Plan::of_scale(nodes, crossing.mesh_max);
    plan.seed = crossing.seed;
    plan.as_shipped = false;
    plan.mesh_grace = MembershipConfig::default().mesh_grace;
    plan.weather.delay_max = crossing.delay_max;
    let mut cluster = Cluster::new(plan, None, false);
    cluster.meter = Meter::alone(nodes);
    let mut run = Run {
        cluster,
        crossing,
        asked: 0,
    };
    run.run().map_err(|violation| violation.to_string())?;
    run.add_up()
}

struct Run {
    cluster: Cluster,
    crossing: Crossing,
    asked: u64,
}

impl Run {
    fn run(&mut self) -> Result<(), Violation> {
        self.pass(Duration::from_secs(1))?;
        for host in self.crossing.residents..self.nodes() {
            self.cluster.crash(host, false, None);
        }
        self.pass(SETTLE)?;
        for _ in 0..self.crossing.rounds {
            for host in self.crossing.residents..self.nodes() {
                let at = self.cluster.now + self.drawn(0..1_500);
                self.cluster.queue.schedule(at, Event::Start { host });
            }
            self.count()?;
            for host in self.crossing.residents..self.nodes() {
                let pause = self.drawn(0..1_500);
                self.count_for(pause, SLOW_EVERY)?;
                // It comes back when it is told to.
                self.cluster.leave_for(host, Time::MAX - Time::ZERO)?;
            }
            self.count()?;
        }
        self.pass(REST)
    }

    fn nodes(&self) -> usize {
        self.cluster.hosts.len()
    }

    fn drawn(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.cluster.rng.random_range(ms))
    }

    fn pass(&mut self, duration: Duration) -> Result<(), Violation> {
        let end = self.cluster.now + duration;
        self.cluster.run_until(end)
    }

    /// Fast for a while, then slowly for up to a minute.
    fn count(&mut self) -> Result<(), Violation> {
        let (duration, every) = FAST;
        self.count_for(duration, every)?;
        let slowly = self.drawn(0..60_000);
        self.count_for(slowly, SLOW_EVERY)
    }

    fn count_for(&mut self, duration: Duration, every: Duration) -> Result<(), Violation> {
        let end = self.cluster.now + duration;
        while self.cluster.now < end {
            let host = self.cluster.rng.random_range(0..self.nodes());
            let number = self.cluster.rng.random_range(0..COUNTERS);
            self.asked += u64::from(self.cluster.increment(host, number)?);
            self.pass(every)?;
        }
        Ok(())
    }

    fn add_up(&self) -> Result<Counted, String> {
        let mut totals = self.cluster.running().map(|(_, node)| {
            let read = |number| {
                let entry = node.store.peek(&key(number))?;
                let text = std::str::from_utf8(entry.value().bytes()).ok()?;
                text.parse::<u64>().ok()
            };
            (0..COUNTERS).filter_map(read).sum::<u64>()
        });
        let total = totals.next().unwrap_or(0);
        if totals.any(|other| other != total) {
            return Err("the nodes do not hold the same".to_owned());
        }
        let sometimes = &self.cluster.sometimes;
        Ok(Counted {
            asked: self.asked,
            answered: sometimes.count(Place::Modified),
            total,
            parted: sometimes.count(Place::Parted),
            opened: self.cluster.sessions.len() as u64,
        })
    }
}

impl Cluster {
    /// A caller counts on a host; whether there is a node to do so.
    fn increment(&mut self, host: usize, number: usize) -> Result<bool, Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(false);
        };
        if node.leaving.is_some() || !node.core.is_ready() {
            return Ok(false);
        }
        let (own, mut out) = (node.time(now), Vec::new());
        let add = Operation::Add {
            key: number,
            delta: 1,
        };
        perform(node, own, 0, add, &mut out);
        self.carry_cache(host, out)?;
        self.settle(host)?;
        Ok(true)
    }
}
