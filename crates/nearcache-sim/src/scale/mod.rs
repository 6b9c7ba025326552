//! What it costs to keep many nodes equal: whole simulated clusters of the shipped machines, measured (`docs/scale.md`).
//!
//! ```text
//! start ─▶ settle ─▶ idle ─▶ load ─▶ load, 1 % of messages lost, a node failing each second ─▶ heal ─▶ row ─▶ goals
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `row` | what came of one size: figures with names, a table, JSON |
//! | `goals` | what the figures of one size, and of one and the next, are held against |

mod goals;
mod row;

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::time::Time;
use nearcache_store::{Change, Expiry, Merged, Tags};
use rand::RngExt as _;

pub use self::goals::{Verdict, judge};
pub use self::row::{Row, to_json};

use self::row::{Cost, Phase};
use crate::cluster::Cluster;
use crate::meter::{Kind, Meter, Sent};
use crate::node::Node;
use crate::plan::{Chaos, MESH_MAX, Plan};
use crate::value::Value;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// A second.
const SECOND: Duration = Duration::from_secs(1);
/// How long a node that failed stays away.
const DOWN: Duration = Duration::from_secs(4);
/// After so much virtual time the cluster must have come together.
const SETTLES_WITHIN: u64 = 90;
/// Beyond the mesh: a session that is not wanted any more, and none of the mesh, ends within so long.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
/// Sessions are as they stay when none has been opened or has ended for so long.
const CALM: u64 = 3;
/// After so much more virtual time they must be.
const CALMS_WITHIN: u64 = 120;
/// What was written while nodes failed is waited for for so long.
const LATE: Duration = Duration::from_secs(3);
/// After so much the survivors must be equal again.
const HEALS_WITHIN: u64 = 60;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Nodes.
    pub nodes: usize,
    /// Updates per second, of all nodes together.
    pub updates_per_second: usize,
    /// At most so many of the nodes write.
    pub origins_max: usize,
    /// Seconds of virtual time for each phase.
    pub seconds: u64,
    /// Nodes fail for so many seconds before what they cost is measured, so that what each costs for a while is in it.
    pub failing_before: u64,
    /// Up to so many nodes are all connected to each other.
    pub mesh_max: usize,
    /// A rule to break: sessions that neither end wants stay.
    pub surplus_stays: bool,
}

impl Scale {
    /// So many nodes with all as shipped.
    #[must_use]
    pub const fn shipped(nodes: usize) -> Self {
        Self {
            nodes,
            updates_per_second: 200,
            origins_max: usize::MAX,
            // So many nodes take minutes for each few seconds.
            seconds: if nodes > 200 { 2 } else { 5 },
            failing_before: if nodes > 200 { 6 } else { 15 },
            mesh_max: MESH_MAX,
            surplus_stays: false,
        }
    }

    /// The same with a session between each two, however many there are.
    #[must_use]
    pub const fn without_tree(self) -> Self {
        Self {
            mesh_max: self.nodes,
            ..self
        }
    }
}

/// Simulates and measures one size, and tells what has come of it so far. Blocks for seconds to minutes.
///
/// # Errors
///
/// In words, if the cluster broke a rule or did not come together.
pub fn measure(scale: Scale, tell: &mut dyn FnMut(String)) -> Result<Row, String> {
    let mut plan = Plan::of_scale(scale.nodes, scale.mesh_max);
    plan.surplus_stays = scale.surplus_stays;
    let mut cluster = Cluster::new(plan, None, false);
    cluster.meter = Meter::alone(scale.nodes);
    cluster.trace.stop();
    let mut run = Run {
        cluster,
        scale,
        written: 0,
    };
    let settled = run.settle()?;
    let calm = run.calm_down()?;
    tell(format!("{} nodes are together", scale.nodes));
    let idle = run.phase(0, false)?;
    tell(idle.in_short("idle"));
    let load = run.phase(scale.updates_per_second, false)?;
    tell(load.in_short("load"));
    let freshness = run.freshness();
    run.cluster.plan.weather.chaos = Some(Chaos {
        loss: 0.01,
        duplicate: 0.0,
        reorder: 0.0,
    });
    for second in 0..scale.failing_before {
        run.fail(second);
        run.second(scale.updates_per_second)?;
    }
    let faults = run.phase(scale.updates_per_second, true)?;
    tell(faults.in_short("faults"));
    let healed = run.heal()?;
    Ok(Row {
        scale,
        settled,
        calm,
        phases: [idle, load, faults],
        freshness,
        healed,
    })
}

struct Run {
    cluster: Cluster,
    scale: Scale,
    written: u64,
}

impl Run {
    fn run(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.cluster.now + duration;
        let result = self.cluster.run_until(end);
        result.map_err(|violation| violation.to_string())
    }

    /// Until everybody knows everybody and is ready.
    fn settle(&mut self) -> Result<Duration, String> {
        for _ in 0..SETTLES_WITHIN {
            self.run(SECOND)?;
            let nodes = self.scale.nodes;
            let is_whole = |node: &Node| {
                node.core.is_ready() && node.membership.members().count() == nodes - 1
            };
            let whole = self.cluster.running().filter(|(_, node)| is_whole(node));
            if whole.count() == nodes {
                return Ok(self.cluster.now - Time::ZERO);
            }
        }
        let known = |node: &Node| node.membership.members().count();
        let least = self.cluster.running().map(|(_, node)| known(node)).min();
        let ready = self.cluster.running();
        let ready = ready.filter(|(_, node)| node.core.is_ready()).count();
        Err(format!(
            "not together after {SETTLES_WITHIN} s: some node knows {least:?} others, {ready} are ready"
        ))
    }

    /// Until the sessions are as they stay: those of the mesh that was there while members came have ended too.
    fn calm_down(&mut self) -> Result<Duration, String> {
        let begun = self.cluster.now;
        if self.scale.nodes > self.scale.mesh_max {
            self.run(self.cluster.plan.mesh_grace * 4 / 3 + ENDS_WITHIN)?;
        }
        let mut calm = 0;
        for _ in 0..CALMS_WITHIN {
            let before = (self.cluster.sessions.len(), self.links());
            self.run(SECOND)?;
            let is_calm = before == (self.cluster.sessions.len(), self.links());
            calm = if is_calm { calm + 1 } else { 0 };
            if calm == CALM {
                return Ok(self.cluster.now - begun);
            }
        }
        let (mean, most) = self.links();
        Err(format!(
            "sessions still begin and end after {CALMS_WITHIN} s: {mean:.1} in the mean, {most} at most"
        ))
    }

    /// Sessions of a node, in the mean and at most.
    fn links(&self) -> (f64, usize) {
        let nodes = self.cluster.running();
        let counts: Vec<usize> = nodes.map(|(_, node)| node.sessions.len()).collect();
        let total: usize = counts.iter().sum();
        let most = counts.iter().copied().max().unwrap_or(0);
        (total as f64 / counts.len().max(1) as f64, most)
    }

    fn freshness(&self) -> Option<Duration> {
        let now = self.cluster.now;
        let nodes = self.cluster.running();
        let mut worst = nodes.map(|(_, node)| node.core.freshness(node.time(now)).worst);
        worst.try_fold(Duration::ZERO, |most, age| age.map(|age| most.max(age)))
    }

    /// Updates that each start of a node has handed on, and sent again.
    fn handed_on(&self) -> BTreeMap<(usize, Time), (u64, u64)> {
        let nodes = self.cluster.running();
        let of = |(host, node): (usize, &Node)| {
            let stats = node.core.stats();
            let handed_on = (stats.relayed, stats.relay_replayed);
            ((host, node.started), handed_on)
        };
        nodes.map(of).collect()
    }

    /// One node fails, and comes back later with empty memory.
    fn fail(&mut self, second: u64) {
        let node = self.cluster.rng.random_range(0..self.scale.nodes);
        let restart = self.cluster.now + DOWN;
        self.cluster
            .crash(node, second.is_multiple_of(2), Some(restart));
    }

    /// A second in which so many updates are made.
    fn second(&mut self, updates: usize) -> Result<(), String> {
        if updates == 0 {
            return self.run(SECOND);
        }
        let pause = SECOND / u32::try_from(updates).unwrap_or(1);
        for step in 0..updates {
            self.write(step)?;
            self.run(pause)?;
        }
        Ok(())
    }

    fn phase(&mut self, updates: usize, faults: bool) -> Result<Phase, String> {
        let (nodes, seconds) = (self.scale.nodes as f64, self.scale.seconds);
        self.cluster.meter.begin(self.cluster.now);
        let (before, connections): (Sent, _) =
            (self.cluster.meter.sent, self.cluster.meter.connections);
        let (handed_on, written) = (self.handed_on(), self.written);
        let sessions = self.cluster.sessions.len();
        let (mut links, mut links_most) = (0.0, 0);
        for second in 0..seconds {
            if faults {
                self.fail(second);
            }
            self.second(updates)?;
            let (mean, most) = self.links();
            links += mean / seconds as f64;
            links_most = links_most.max(most);
        }
        let sent = self.cluster.meter.sent.since(&before);
        let connections = self.cluster.meter.connections - connections;
        let sessions = self.cluster.sessions.len() - sessions;
        let updates = (self.written - written) as f64;
        let of_all = nodes * updates.max(1.0);
        let (mut relayed, mut replayed) = (0, 0);
        for (start, now) in self.handed_on() {
            let then = handed_on.get(&start).copied().unwrap_or_default();
            relayed += now.0.saturating_sub(then.0);
            replayed += now.1.saturating_sub(then.1);
        }
        let reached = if faults {
            // What was written last arrives, and is in the quantiles, when nothing fails any longer.
            self.run(SECOND / 2)?;
            let reached = self.cluster.meter.delays.len();
            self.cluster.plan.weather.chaos = None;
            self.run(LATE)?;
            reached
        } else {
            self.run(SECOND / 2)?;
            self.cluster.meter.delays.len()
        };
        let meter = &mut self.cluster.meter;
        meter.delays.sort_unstable();
        meter.hops.sort_unstable();
        let per_second = |count: f64| count / (nodes * seconds as f64);
        let mut phase = Phase {
            links: (links, links_most),
            sessions: per_second(sessions as f64),
            connections: per_second(connections as f64),
            relayed: relayed as f64 / of_all,
            replayed: replayed as f64 / of_all,
            delays: quantiles(&meter.delays),
            hops: quantiles(&meter.hops),
            reached: reached as f64 / ((nodes - 1.0) * updates.max(1.0)),
            ..Phase::default()
        };
        for kind in Kind::ALL {
            let (messages, bytes) = sent.of(kind);
            phase.sent[kind as usize] = Cost {
                messages: per_second(messages as f64),
                bytes: per_second(bytes as f64),
                messages_per_update: messages as f64 / of_all,
                bytes_per_update: bytes as f64 / of_all,
            };
        }
        Ok(phase)
    }

    /// A node that runs writes a key that nobody wrote before.
    fn write(&mut self, step: usize) -> Result<(), String> {
        self.written += 1;
        let nodes = self.scale.nodes;
        let origins = self.scale.origins_max.clamp(1, nodes);
        let first = (step * 7_919 + self.cluster.rng.random_range(0..origins)) % origins;
        let running = (0..origins).map(|n| (first + n) % origins * nodes / origins);
        let mut running = running.filter(|host| self.cluster.may_write(*host));
        let Some(host) = running.next() else {
            return Ok(());
        };
        let key = format!("key-{}", self.written).into_bytes();
        let result = self.cluster.write(host, key, VALUE_BYTES);
        result.map_err(|violation| violation.to_string())
    }

    /// Until all hold all that was written.
    fn heal(&mut self) -> Result<Option<Duration>, String> {
        let begun = self.cluster.now;
        for _ in 0..HEALS_WITHIN {
            self.run(SECOND)?;
            if self.cluster.all_hold_all() {
                return Ok(Some(self.cluster.now - begun));
            }
        }
        Ok(None)
    }
}

impl Cluster {
    fn may_write(&self, host: usize) -> bool {
        let node = self.hosts[host].node.as_ref();
        node.is_some_and(|node| node.core.is_ready() && node.time(self.now) > Time::ZERO + SECOND)
    }

    /// A put, as the library does it.
    fn write(
        &mut self,
        host: usize,
        key: Vec<u8>,
        value_bytes: usize,
    ) -> Result<(), crate::violation::Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let own = node.time(now);
        let Some(version) = node.stamp(own) else {
            return Ok(());
        };
        let change = Change::Put {
            value: Value::new(&vec![b'v'; value_bytes]),
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        let merged = node.store.merge(&key, version, change);
        let Ok(Merged::Applied {
            entry: Some(entry), ..
        }) = merged
        else {
            return Ok(());
        };
        let mut out = Vec::new();
        let published = Published::Entry(entry);
        node.core
            .publish(own, published, Ack::Local, None, &mut out);
        self.meter.writes(now, host, key);
        self.meter.from = None;
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    fn all_hold_all(&self) -> bool {
        let nodes = self.running();
        let lacks = |node: &Node| {
            let mut keys = self.meter.keys();
            keys.any(|key| node.store.peek(key).is_none())
        };
        let mut lacking = nodes.filter(|(_, node)| lacks(node));
        lacking.next().is_none()
    }
}

fn quantiles<T: Copy + Default>(sorted: &[T]) -> [T; 3] {
    let at = |percent: usize| {
        let index = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(index).copied().unwrap_or_default()
    };
    [at(50), at(99), at(100)]
}
