//! A replicated cluster of three against Redis with two replicas: perf-A9, A10 and A11.
//!
//! Over the Redis protocol both clusters are measured by the same code: a value is written to the
//! first server and the others are asked for it until both have it. From the library, see
//! [`crate::replication_library`], the nodes are in this process and are asked in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use crate::cluster::Cluster;
use crate::latency::Latencies;
use crate::redis_benchmark::{Load, key};
use crate::replication_library::LibraryCluster;
use crate::resp_client::{Client, Reply};
use crate::rounds::{DEFAULT_ROUNDS, interleave};
use crate::servers::redis_version;
use crate::table::{Bound, Row, Table};

/// Length of a value, in bytes.
pub(crate) const VALUE_BYTES: u32 = 100;

/// Different keys that the load writes.
pub(crate) const KEYS: u64 = 100_000;

/// Bound of each node: room for all keys.
pub(crate) const ROOM_BYTES: u64 = 1 << 30;

/// Writers that keep the cluster busy in perf-A10.
pub(crate) const BUSY_WRITERS: u64 = 16;

/// Options of `bench replication`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs of interleaved rounds.
    #[arg(long, default_value_t = DEFAULT_ROUNDS)]
    rounds: usize,
    /// Values written, one after the other, for a latency.
    #[arg(long, default_value_t = 5_000)]
    writes: u64,
    /// Updates written for a throughput.
    #[arg(long, default_value_t = 300_000)]
    updates: u64,
    /// Leave out the rows over the Redis protocol, or those from the library.
    #[arg(long, value_parser = ["resp", "library"])]
    without: Option<String>,
    /// Measure Redis against itself: shows the spread of the machine.
    #[arg(long)]
    redis_only: bool,
}

/// Median and 99th percentile of a round, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible {
    /// Median.
    pub(crate) p50_us: f64,
    /// 99th percentile.
    pub(crate) p99_us: f64,
    /// Updates per second of the busy writers meanwhile.
    pub(crate) busy_per_second: f64,
}

/// Updates that reached every node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throughput {
    /// Updates per second.
    pub(crate) per_second: f64,
    /// CPU time of all nodes for one update, in microseconds.
    pub(crate) cpu_us: f64,
}

/// Measures and returns the table.
///
/// # Errors
/// When a cluster cannot be started or stops replicating.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("replication");
    let redis = Cluster::redis()?;
    let without = |what: &str| args.without.as_deref() == Some(what);
    if !without("resp") {
        let ours = if args.redis_only {
            Cluster::redis()?
        } else {
            Cluster::nearcache(ROOM_BYTES)?
        };
        over_resp(&mut table, args, &ours, &redis)?;
    }
    if !without("library") {
        let ours = LibraryCluster::start(nearcache::Mode::Replicated)?;
        from_library(&mut table, args, &ours, &redis)?;
    }
    table.note(format!(
        "{} with two replicas; {VALUE_BYTES} byte values; everything on the same processors",
        redis_version()
    ));
    table.note("visible: from the call until reads on both other nodes return the value");
    Ok(table)
}

fn over_resp(
    table: &mut Table,
    args: &Args,
    ours: &Cluster,
    redis: &Cluster,
) -> anyhow::Result<()> {
    for (id, busy) in [("perf-A9", 0), ("perf-A10", BUSY_WRITERS)] {
        let measure = |cluster: &Cluster| visible_over_resp(cluster, args.writes, busy);
        let name = visible_name("resp", busy);
        let rounds = interleave(&name, args.rounds, || measure(ours), || measure(redis))?;
        add_visible(table, id, &name, &rounds, busy);
    }
    for pipeline in [1, 16] {
        let measure = |cluster: &Cluster| updates_over_resp(cluster, args.updates, pipeline);
        let name = format!("resp: updates, {pipeline} pipelined");
        let rounds = interleave(&name, args.rounds, || measure(ours), || measure(redis))?;
        let pairs = rounds.pairs(|sample| sample.per_second);
        let row = Row::compared("perf-A11", name.clone(), "updates/s", "redis", &pairs);
        table.push(row.goal(Bound::AtLeast(1.5)));
        let pairs = rounds.pairs(|sample| sample.cpu_us);
        let row = Row::compared(
            "perf-A11",
            format!("{name}: CPU of all 3"),
            "µs",
            "redis",
            &pairs,
        );
        table.push(row.goal(Bound::AtMost(0.6)));
    }
    Ok(())
}

fn from_library(
    table: &mut Table,
    args: &Args,
    ours: &LibraryCluster,
    redis: &Cluster,
) -> anyhow::Result<()> {
    for (id, busy) in [("perf-A9", 0), ("perf-A10", BUSY_WRITERS)] {
        let name = visible_name("library", busy);
        // Writers in the process could write far more than Redis takes from its clients: they get
        // the rate that Redis had in its latest round.
        let redis_rate = AtomicU64::new(DEFAULT_BUSY_PER_SECOND);
        let rounds = interleave(
            &name,
            args.rounds,
            || ours.visible(args.writes, busy, redis_rate.load(Ordering::Relaxed)),
            || {
                let sample = visible_over_resp(redis, args.writes, busy)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is a small positive number"
                )]
                redis_rate.store(sample.busy_per_second as u64, Ordering::Relaxed);
                Ok(sample)
            },
        )?;
        add_visible(table, id, &name, &rounds, busy);
    }
    let name = "library: updates, 1 node writes";
    let rounds = interleave(
        name,
        args.rounds,
        || ours.updates(args.updates * 5),
        || updates_over_resp(redis, args.updates, 1),
    )?;
    let pairs = rounds.pairs(|sample| sample.per_second);
    let row = Row::compared("perf-A11", name, "updates/s", "redis", &pairs);
    table.push(row.goal(Bound::AtLeast(10.0)));
    let pairs = rounds.pairs(|sample| sample.cpu_us);
    table.push(Row::compared(
        "perf-A11",
        format!("{name}: CPU of all 3"),
        "µs",
        "redis",
        &pairs,
    ));
    Ok(())
}

/// Updates per second of the busy writers when Redis has not been measured yet.
pub(crate) const DEFAULT_BUSY_PER_SECOND: u64 = 50_000;

fn visible_name(side: &str, busy: u64) -> String {
    if busy == 0 {
        format!("{side}: put visible on both others")
    } else {
        format!("{side}: the same beside {busy} writers")
    }
}

fn add_visible(
    table: &mut Table,
    id: &str,
    name: &str,
    rounds: &crate::rounds::Rounds<Visible>,
    busy: u64,
) {
    let p99_goal = if busy == 0 { 0.7 } else { 0.5 };
    let pairs = rounds.pairs(|sample| sample.p50_us);
    let row = Row::compared(id, format!("{name}: p50"), "µs", "redis", &pairs);
    table.push(row.goal(Bound::AtMost(0.5)));
    let pairs = rounds.pairs(|sample| sample.p99_us);
    let row = Row::compared(id, format!("{name}: p99"), "µs", "redis", &pairs);
    table.push(row.goal(Bound::AtMost(p99_goal)));
    if busy > 0 {
        let pairs = rounds.pairs(|sample| sample.busy_per_second);
        table.push(Row::compared(
            "",
            format!("{name}: their rate"),
            "updates/s",
            "redis",
            &pairs,
        ));
    }
}

/// Longest a single write may take to reach the others before the measurement gives up.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

fn visible_over_resp(cluster: &Cluster, writes: u64, busy: u64) -> anyhow::Result<Visible> {
    let port = cluster.first().port();
    beside_writers(port, busy, || poll_visible(cluster, writes))
}

/// Measures while `busy` clients write to the server on `port`, each as fast as it is answered.
///
/// # Errors
/// Those of `measure`, and when a writer is refused.
pub(crate) fn beside_writers(
    port: u16,
    busy: u64,
    measure: impl FnOnce() -> anyhow::Result<Latencies>,
) -> anyhow::Result<Visible> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..busy)
            .map(|writer| {
                let stop = &stop;
                scope.spawn(move || write_until(stop, port, writer))
            })
            .collect();
        let started = Instant::now();
        let measured = measure();
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for writer in writers {
            written += writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        let (p50_us, p99_us) = measured?.p50_p99_us();
        Ok(Visible {
            p50_us,
            p99_us,
            busy_per_second: per(written, seconds),
        })
    })
}

fn poll_visible(cluster: &Cluster, writes: u64) -> anyhow::Result<Latencies> {
    let mut clients = cluster.connect()?;
    let (first, others) = clients.split_at_mut(1);
    let mut latencies = Latencies::new()?;
    for i in 0..writes {
        let value = format!("{i:0>width$}", width = VALUE_BYTES as usize).into_bytes();
        let started = Instant::now();
        first[0].expect_ok(&[b"SET", b"bench:visible", &value])?;
        for client in &mut *others {
            while client.expect_ok(&[b"GET", b"bench:visible"])? != Reply::Bulk(value.clone()) {
                if started.elapsed() > VISIBLE_TIMEOUT {
                    bail!("write {i} did not become visible within {VISIBLE_TIMEOUT:?}");
                }
            }
        }
        latencies.record(started.elapsed())?;
    }
    Ok(latencies)
}

/// Writes one entry after the other, each after the reply to the one before; returns how many.
fn write_until(stop: &AtomicBool, port: u16, writer: u64) -> anyhow::Result<u64> {
    let mut client = Client::connect(port)?;
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = key((written * BUSY_WRITERS + writer) * 7919 % KEYS);
        client.expect_ok(&[b"SET", &key, &[b'x'; VALUE_BYTES as usize]])?;
        written += 1;
    }
    Ok(written)
}

fn updates_over_resp(cluster: &Cluster, updates: u64, pipeline: u32) -> anyhow::Result<Throughput> {
    let requests = updates * if pipeline == 1 { 1 } else { 3 };
    let load = Load {
        command: "set",
        connections: 50,
        pipeline,
        requests,
        keys: KEYS,
        value_bytes: VALUE_BYTES,
    };
    let cpu_before = cluster.cpu()?;
    let started = Instant::now();
    load.run(cluster.first())?;
    cluster.settle()?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cluster.cpu()?.saturating_sub(cpu_before);
    Ok(Throughput {
        per_second: per(requests, seconds),
        cpu_us: cpu.as_secs_f64() * 1e6 / per(requests, 1.0),
    })
}

/// `count` per `seconds`.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
