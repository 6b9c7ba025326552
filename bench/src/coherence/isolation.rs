//! What a node that does not run costs the others: perf-B2, and the isolation target of the reliability specification, 3.3.
//!
//! Real `nearcache serve` processes. Clients write to the first as fast as they are answered, a prober writes there and asks the second
//! until it has the value; in the middle the last node is stopped (`SIGSTOP`), so that its sockets stay and nothing reads them, or its link
//! lets 10 kB/s through.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use super::SlowLink;
use crate::cluster::Cluster;
use crate::latency::Latencies;
use crate::redis_benchmark::key;
use crate::replication::{ROOM_BYTES, VALUE_BYTES, per};
use crate::resp_client::{Client, Reply};
use crate::rounds::Pairs;
use crate::servers::Server;
use crate::table::{Bound, Row, Table};

/// Clients that write.
const WRITERS: usize = 4;
/// Different keys that they write: all are there before anything is measured, so that memory does not grow by entries.
const KEYS: u64 = 20_000;
/// Between two values of the prober.
const PROBE_EVERY: Duration = Duration::from_millis(2);
/// How often memory, freshness and queues are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Heartbeats are this far apart, in milliseconds; one may be late by half of that (reliability specification, 3.3).
const HEARTBEAT_MS: f64 = 500.0;
const HEARTBEAT_LATE_MAX_MS: f64 = 250.0;
/// What is let pass before measuring.
const WARM_UP: Duration = Duration::from_secs(5);
/// Longest until a value is visible.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(20);
/// What the others may grow by, in MiB.
const GROWTH_MAX_MIB: f64 = 8.0;

/// What happens to the last node.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is stopped.
    Paused,
    /// The link to it is slow.
    Slow(SlowLink),
}

impl Trouble {
    fn name(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Slow(_) => "at 10 kB/s",
        }
    }

    fn set(&self, node: &Server, on: bool) -> anyhow::Result<()> {
        match self {
            Self::Paused => node.pause(on),
            Self::Slow(link) => link.set(on),
        }
    }
}

/// The parts of a run.
const PHASES: usize = 3;
const PAUSED: usize = 2;

/// What was seen in one part.
struct Seen {
    seconds: f64,
    written: u64,
    writes: Latencies,
    visible: Latencies,
    /// The most memory of each of the nodes that run.
    resident: Vec<u64>,
    /// The longest that a node that runs knew nothing new of another one, in milliseconds.
    age_ms: i64,
    /// The most updates of the first node that another one that runs had not acknowledged.
    unacknowledged: i64,
    /// The most bytes that waited on the first node to be written to one peer, all lanes together.
    outbox: f64,
    /// The most that it kept for peers that had not got it.
    replay: f64,
}

/// What a node that runs says of the others, but for the one it has heard of least.
struct Peers {
    age_ms: i64,
    unacknowledged: i64,
}

impl Peers {
    fn ask(client: &mut Client) -> anyhow::Result<Self> {
        let reply = client.expect_ok(&[b"NC.FRESHNESS"])?;
        let mut peers: Vec<_> = field(&reply, "peers")
            .and_then(|peers| match peers {
                Reply::Array(peers) => Some(peers.iter()),
                _ => None,
            })
            .ok_or_else(|| anyhow!("NC.FRESHNESS has no peers"))?
            .map(
                |peer| match (field(peer, "age_ms"), field(peer, "unacknowledged")) {
                    (Some(Reply::Integer(age)), Some(Reply::Integer(behind))) => (*age, *behind),
                    _ => (i64::MAX, i64::MAX),
                },
            )
            .collect();
        peers.sort_unstable();
        peers.pop();
        Ok(Self {
            age_ms: peers.iter().map(|(age, _)| *age).max().unwrap_or_default(),
            unacknowledged: peers
                .iter()
                .map(|(_, behind)| *behind)
                .max()
                .unwrap_or_default(),
        })
    }
}

/// A field of what RESP3 calls a map and RESP2 lays flat.
fn field<'a>(map: &'a Reply, name: &str) -> Option<&'a Reply> {
    let Reply::Array(items) = map else {
        return None;
    };
    let mut pairs = items.chunks_exact(2);
    pairs.find_map(|pair| match pair {
        [Reply::Bulk(key), value] if key == name.as_bytes() => Some(value),
        _ => None,
    })
}

impl Seen {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            seconds: 0.0,
            written: 0,
            writes: Latencies::new()?,
            visible: Latencies::new()?,
            resident: Vec::new(),
            age_ms: 0,
            unacknowledged: 0,
            outbox: 0.0,
            replay: 0.0,
        })
    }

    /// Asks the first node what waits for its peers.
    fn look_at_queues(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut peers: BTreeMap<String, f64> = BTreeMap::new();
        for (labels, bytes) in cluster.metrics("nearcache_peer_outbox_bytes")? {
            let peer = labels.split('"').nth(1).unwrap_or_default();
            *peers.entry(peer.to_owned()).or_default() += bytes;
        }
        self.outbox = peers.into_values().fold(self.outbox, f64::max);
        let kept = cluster.metrics("nearcache_cache_replay_bytes")?;
        self.replay = kept
            .into_iter()
            .map(|(_, bytes)| bytes)
            .fold(self.replay, f64::max);
        Ok(())
    }
}

/// Adds the rows for a cluster of `nodes`, the last of which is in `trouble` for so long.
///
/// # Errors
/// When the cluster cannot be started or stops replicating.
pub(super) fn run(
    table: &mut Table,
    nodes: usize,
    trouble: &Trouble,
    pause: Duration,
) -> anyhow::Result<()> {
    ensure!(nodes >= 3, "a writer, a reader and one in trouble");
    let (cluster, behind) = match trouble {
        Trouble::Paused => (Cluster::nearcache_of(nodes, ROOM_BYTES)?, None),
        Trouble::Slow(link) => {
            let (cluster, behind) = Cluster::nearcache_beside(link, nodes - 1, ROOM_BYTES)?;
            (cluster, Some(behind))
        }
    };
    let troubled = behind.as_ref().or(cluster.servers().last());
    let troubled = troubled.context("a cluster without nodes")?;
    Client::connect(cluster.first().port())?.fill(KEYS, key, &[b'x'; VALUE_BYTES as usize])?;
    settle(&cluster, nodes)?;
    eprintln!("  {nodes} nodes: {} s", (pause * 2 + WARM_UP).as_secs());
    let [_, whole, paused] = measure(&cluster, &cluster.servers()[..nodes - 1], pause, |on| {
        trouble.set(troubled, on)
    })?;
    let resumed = Instant::now();
    settle(&cluster, nodes)?;
    let reached = resumed.elapsed();

    let name = |what: &str| {
        format!(
            "{nodes} nodes, 1 {} {} s: {what}",
            trouble.name(),
            pause.as_secs()
        )
    };
    let row = |id, what: &str, unit, ours, healthy| {
        Row::compared(id, name(what), unit, "all run", &Pairs::of(ours, healthy))
    };
    let rate = |seen: &Seen| per(seen.written, seen.seconds);
    let updates = row("perf-B2", "updates/s", "1/s", rate(&paused), rate(&whole));
    table.push(updates.must(Bound::AtLeast(0.95)));
    for (quantile, what) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
        let of = |latencies: &Latencies| latencies.quantile_us(quantile);
        let (ours, healthy) = (of(&paused.visible), of(&whole.visible));
        table.push(row(
            "",
            &format!("visible on another: {what}"),
            "µs",
            ours,
            healthy,
        ));
        let (ours, healthy) = (of(&paused.writes), of(&whole.writes));
        let writers = row("perf-B2", &format!("writers' {what}"), "µs", ours, healthy);
        table.push(if quantile == 0.99 {
            writers.must(Bound::AtMost(2.0))
        } else {
            writers
        });
    }
    let growth = paused.resident.iter().zip(&whole.resident);
    let growth = growth.map(|(paused, whole)| paused.saturating_sub(*whole));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let growth = growth.max().unwrap_or_default() as f64 / f64::from(1 << 20);
    let pairs = Pairs::of(growth, GROWTH_MAX_MIB);
    let memory = Row::compared("perf-B2", name("growth of another"), "MiB", "limit", &pairs);
    table.push(memory.must(Bound::AtMost(1.0)));
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a minute")]
    let late = |seen: &Seen| (seen.age_ms as f64 - HEARTBEAT_MS).max(0.0);
    let pairs = Pairs::of(late(&paused), HEARTBEAT_LATE_MAX_MS);
    let heartbeats = Row::compared(
        "",
        name("a heartbeat among the others late by"),
        "ms",
        "limit",
        &pairs,
    );
    table.push(heartbeats.must(Bound::AtMost(1.0)));
    // An update waits in one ring for all peers, so this times its size is what a queue of a peer would hold.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let queued = |seen: &Seen| seen.unacknowledged as f64 * VALUE_BYTES as f64 / 1_024.0;
    table.push(row(
        "",
        "peak queue to a peer that runs",
        "KiB",
        queued(&paused),
        queued(&whole),
    ));
    let kib = 1_024.0;
    table.push(row(
        "",
        "peak bytes waiting for a peer",
        "KiB",
        paused.outbox / kib,
        whole.outbox / kib,
    ));
    table.push(row(
        "",
        "peak bytes kept for replay",
        "KiB",
        paused.replay / kib,
        whole.replay / kib,
    ));
    let reached = reached.as_secs_f64();
    table.push(Row::alone("", name("it has all again after"), "s", reached));
    if nodes == 3 && behind.is_none() {
        table.note(format!(
            "perf-B2: {WRITERS} clients write to the first node as fast as they are answered, {KEYS} keys, {VALUE_BYTES} byte values; \
             visible: from a write on the first node until the second has it; all on the same processors, of which a paused node \
             uses none"
        ));
    }
    Ok(())
}

/// Waits until a write is on all nodes that clients reach, and the first one has the word of all others that they have everything.
fn settle(cluster: &Cluster, nodes: usize) -> anyhow::Result<()> {
    cluster.settle()?;
    let deadline = Instant::now() + VISIBLE_TIMEOUT * 3;
    loop {
        let behind = cluster.metrics("nearcache_cache_peer_unacknowledged_updates")?;
        if behind.len() == nodes - 1 && behind.iter().all(|(_, updates)| *updates == 0.0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not all nodes have everything");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the parts one after the other, with the same clients. `running` are the nodes that nothing happens to.
fn measure(
    cluster: &Cluster,
    running: &[Server],
    pause: Duration,
    trouble: impl Fn(bool) -> anyhow::Result<()>,
) -> anyhow::Result<[Seen; PHASES]> {
    let (phase, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (phase, stop) = (&phase, &stop);
    let port = |node: usize| cluster.servers()[node].port();
    let mut seen = [Seen::new()?, Seen::new()?, Seen::new()?];
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let port = port(0);
                scope.spawn(move || write(phase, stop, port, writer as u64))
            })
            .collect();
        let ports = (port(0), port(1));
        let prober = scope.spawn(move || probe(phase, stop, ports));
        let lasting = [WARM_UP, pause, pause];
        let clients = running.iter().map(|server| Client::connect(server.port()));
        let mut clients = clients.collect::<Result<Vec<_>, _>>()?;
        let outcome = (0..PHASES).try_for_each(|number| {
            if number == PAUSED {
                trouble(true)?;
            }
            phase.store(number, Ordering::Relaxed);
            let (began, seen) = (Instant::now(), &mut seen[number]);
            seen.resident = vec![0; running.len()];
            while began.elapsed() < lasting[number] {
                for (most, server) in seen.resident.iter_mut().zip(running) {
                    *most = server.resident_bytes()?.max(*most);
                }
                for (number, client) in clients.iter_mut().enumerate() {
                    let peers = Peers::ask(client)?;
                    seen.age_ms = seen.age_ms.max(peers.age_ms);
                    if number == 0 {
                        seen.unacknowledged = seen.unacknowledged.max(peers.unacknowledged);
                    }
                }
                seen.look_at_queues(cluster)?;
                std::thread::sleep(LOOK_EVERY);
            }
            seen.seconds = began.elapsed().as_secs_f64();
            anyhow::Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let resumed = trouble(false);
        for writer in writers {
            let phases = writer.join().map_err(|_| anyhow!("a writer panicked"))??;
            for (seen, latencies) in seen.iter_mut().zip(phases) {
                seen.written += latencies.len();
                seen.writes.add(&latencies)?;
            }
        }
        let phases = prober
            .join()
            .map_err(|_| anyhow!("the prober panicked"))??;
        for (seen, latencies) in seen.iter_mut().zip(phases) {
            seen.visible = latencies;
        }
        outcome.and(resumed)
    })?;
    Ok(seen)
}

fn write(
    phase: &AtomicUsize,
    stop: &AtomicBool,
    port: u16,
    writer: u64,
) -> anyhow::Result<[Latencies; PHASES]> {
    let mut client = Client::connect(port)?;
    let mut phases = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
    let mut count = writer;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        client.expect_ok(&[
            b"SET",
            &key(count * 7919 % KEYS),
            &[b'x'; VALUE_BYTES as usize],
        ])?;
        phases[phase.load(Ordering::Relaxed)].record(started.elapsed())?;
        count += WRITERS as u64;
    }
    Ok(phases)
}

fn probe(
    phase: &AtomicUsize,
    stop: &AtomicBool,
    (first, second): (u16, u16),
) -> anyhow::Result<[Latencies; PHASES]> {
    let (mut writer, mut reader) = (Client::connect(first)?, Client::connect(second)?);
    let mut phases = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let value = count.to_string().into_bytes();
        let started = Instant::now();
        writer.expect_ok(&[b"SET", b"bench:visible", &value])?;
        while reader.expect_ok(&[b"GET", b"bench:visible"])? != Reply::Bulk(value.clone()) {
            ensure!(
                started.elapsed() < VISIBLE_TIMEOUT,
                "value {count} did not arrive"
            );
        }
        phases[phase.load(Ordering::Relaxed)].record(started.elapsed())?;
        count += 1;
        std::thread::sleep(PROBE_EVERY);
    }
    Ok(phases)
}
