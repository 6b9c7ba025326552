//! What it costs to keep many nodes equal: whole simulated clusters of the shipped machines, measured (`docs/scale.md`).
//!
//! ```text
//! start ─▶ settle ─▶ idle ─▶ load ─▶ load, 1 % of messages lost, a node failing each second ─▶ heal ─▶ row
//! ```

use std::fmt;
use std::time::Duration;

use nearcache_protocol::mode::{Ack, Published};
use nearcache_protocol::time::Time;
use nearcache_store::{Change, Expiry, Merged, Tags};
use rand::RngExt as _;

use crate::cluster::Cluster;
use crate::meter::{Kind, Meter, Sent};
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
/// After so much the survivors must be equal again.
const HEALS_WITHIN: u64 = 60;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Nodes.
    pub nodes: usize,
    /// Updates per second, of all nodes together.
    pub updates_per_second: usize,
    /// Seconds of virtual time for each phase.
    pub seconds: u64,
    /// Whether all nodes are connected to each other, whatever their number.
    pub mesh: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Row {
    scale: Scale,
    /// Sessions of a node, mean and most.
    links: (f64, usize),
    settled: Duration,
    idle: Phase,
    load: Phase,
    faults: Phase,
    /// The worst freshness of any node at the end of the load without faults.
    freshness: Option<Duration>,
    /// How long after the faults all nodes held the same; nothing if they did not in time.
    healed: Option<Duration>,
}

/// One phase, per node and second where nothing else is said.
#[derive(Debug, Clone, Default)]
struct Phase {
    /// Messages and bytes, per kind.
    messages: [f64; 4],
    bytes: [f64; 4],
    /// The same per node and update.
    messages_per_update: [f64; 4],
    bytes_per_update: [f64; 4],
    /// Updates handed on, per node and update.
    payloads: f64,
    /// Updates sent again because they were asked for, per node and update.
    replayed: f64,
    delays: [Duration; 3],
    hops: [u8; 3],
    /// Of the nodes that were there, how many a write reached within the phase.
    reached: f64,
}

/// Simulates and measures one size. Blocks for seconds to minutes; says what it does on standard output.
///
/// # Errors
///
/// In words, if the cluster broke a rule or did not come together.
pub fn measure(scale: Scale) -> Result<Row, String> {
    let plan = Plan::of_scale(scale.nodes, scale.mesh);
    let mut cluster = Cluster::new(plan, None, false);
    cluster.meter = Meter::alone(scale.nodes);
    cluster.trace.stop();
    let mut run = Run {
        cluster,
        scale,
        written: 0,
    };
    let settled = run.settle()?;
    run.pass(scale.seconds, false)?;
    let (links, idle) = (run.links(), run.phase(scale.seconds, 0, false)?);
    let load = run.phase(scale.seconds, scale.updates_per_second, false)?;
    let freshness = run.freshness();
    run.cluster.plan.weather.chaos = Some(Chaos {
        loss: 0.01,
        duplicate: 0.0,
        reorder: 0.0,
    });
    let faults = run.phase(scale.seconds, scale.updates_per_second, true)?;
    run.cluster.plan.weather.chaos = None;
    let healed = run.heal()?;
    Ok(Row {
        scale,
        links,
        settled,
        idle,
        load,
        faults,
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
            let is_whole = |node: &crate::node::Node| {
                node.core.is_ready() && node.membership.members().count() == nodes - 1
            };
            let whole = self.cluster.running().filter(|(_, node)| is_whole(node));
            if whole.count() == nodes {
                return Ok(self.cluster.now - Time::ZERO);
            }
        }
        let known = |node: &crate::node::Node| node.membership.members().count();
        let least = self.cluster.running().map(|(_, node)| known(node)).min();
        let ready = self.cluster.running();
        let ready = ready.filter(|(_, node)| node.core.is_ready()).count();
        Err(format!(
            "not together after {SETTLES_WITHIN} s: some node knows {least:?} others, {ready} are ready"
        ))
    }

    /// Lets time pass, writing nothing; `seconds` for the links to settle.
    fn pass(&mut self, seconds: u64, _: bool) -> Result<(), String> {
        self.run(SECOND * u32::try_from(seconds).unwrap_or(1))
    }

    fn links(&self) -> (f64, usize) {
        let counts: Vec<usize> = self
            .cluster
            .running()
            .map(|(_, node)| node.sessions.len())
            .collect();
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

    fn stats(&self) -> (u64, u64) {
        let nodes = self.cluster.running();
        nodes.fold((0, 0), |(relayed, replayed), (_, node)| {
            let stats = node.core.stats();
            (relayed + stats.relayed, replayed + stats.relay_replayed)
        })
    }

    fn phase(&mut self, seconds: u64, rate: usize, faults: bool) -> Result<Phase, String> {
        self.cluster.meter.begin();
        let (before, stats): (Sent, _) = (self.cluster.meter.sent, self.stats());
        let written = self.written;
        for second in 0..seconds {
            if faults {
                let node = self.cluster.rng.random_range(0..self.scale.nodes);
                let restart = self.cluster.now + DOWN;
                self.cluster.crash(node, second % 2 == 0, Some(restart));
            }
            for step in 0..rate {
                let at = SECOND / u32::try_from(rate).unwrap_or(1);
                self.write(step)?;
                self.run(at)?;
            }
            if rate == 0 {
                self.run(SECOND)?;
            }
        }
        // What was written last arrives.
        let sent = self.cluster.meter.sent.since(&before);
        if rate > 0 {
            self.run(SECOND / 2)?;
        }
        let updates = (self.written - written) as f64;
        let nodes = self.scale.nodes as f64;
        let after = self.stats();
        let meter = &mut self.cluster.meter;
        meter.delays.sort_unstable();
        meter.hops.sort_unstable();
        let mut phase = Phase {
            payloads: after.0.saturating_sub(stats.0) as f64 / (nodes * updates.max(1.0)),
            replayed: after.1.saturating_sub(stats.1) as f64 / (nodes * updates.max(1.0)),
            delays: quantiles(&meter.delays),
            hops: quantiles(&meter.hops),
            reached: meter.delays.len() as f64 / ((nodes - 1.0) * updates.max(1.0)),
            ..Phase::default()
        };
        for kind in Kind::ALL {
            let (messages, bytes) = sent.of(kind);
            let at = kind as usize;
            phase.messages[at] = messages as f64 / (nodes * seconds as f64);
            phase.bytes[at] = bytes as f64 / (nodes * seconds as f64);
            phase.messages_per_update[at] = messages as f64 / (nodes * updates.max(1.0));
            phase.bytes_per_update[at] = bytes as f64 / (nodes * updates.max(1.0));
        }
        Ok(phase)
    }

    /// A node that runs writes a key that nobody wrote before.
    fn write(&mut self, step: usize) -> Result<(), String> {
        self.written += 1;
        let nodes = self.scale.nodes;
        let first = (step * 7_919 + self.cluster.rng.random_range(0..nodes)) % nodes;
        let running = (0..nodes).map(|n| (first + n) % nodes);
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
        let lacks = |node: &crate::node::Node| {
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

impl Row {
    /// The columns of [`Display`](fmt::Display), as the head of a table in Markdown.
    pub const HEAD: &str = "\
| nodes | links mean, max | idle: messages, bytes per node and s | payload per node and update | control | repair | membership | p50, p99, max ms | hops p50, p99, max | freshness |
|---|---|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |delay: Duration| format!("{:.1}", delay.as_secs_f64() * 1e3);
        let mesh = self.scale.mesh || self.scale.nodes <= MESH_MAX;
        let name = if mesh { "mesh" } else { "tree" };
        let idle_messages: f64 = self.idle.messages.iter().sum();
        let idle_bytes: f64 = self.idle.bytes.iter().sum();
        for (what, phase) in [("quiet", &self.load), ("faults", &self.faults)] {
            let per = |kind: Kind| {
                format!(
                    "{:.2} msg, {:.0} B",
                    phase.messages_per_update[kind as usize], phase.bytes_per_update[kind as usize]
                )
            };
            writeln!(
                f,
                "| {} {name}, {what} | {:.1}, {} | {idle_messages:.0}, {idle_bytes:.0} | {:.3} upd, {} | {} | {:.4} upd, {} | {} | {}, {}, {} | {}, {}, {} | {} |",
                self.scale.nodes,
                self.links.0,
                self.links.1,
                phase.payloads,
                per(Kind::Payload),
                per(Kind::Control),
                phase.replayed,
                per(Kind::Repair),
                per(Kind::Membership),
                ms(phase.delays[0]),
                ms(phase.delays[1]),
                ms(phase.delays[2]),
                phase.hops[0],
                phase.hops[1],
                phase.hops[2],
                self.freshness.map_or("-".to_owned(), |age| ms(age) + " ms"),
            )?;
        }
        let healed = self
            .healed
            .map_or("NOT EQUAL".to_owned(), |after| format!("{after:?}"));
        write!(
            f,
            "<!-- {} {name}, {} s of each phase: together after {:?}; reached in the phase {:.4} quiet, {:.4} with faults; equal {healed} after the faults -->",
            self.scale.nodes,
            self.scale.seconds,
            self.settled,
            self.load.reached,
            self.faults.reached
        )
    }
}
