//! A node that joins a full cluster under load, against a Redis replica that makes a full sync: perf-B3.
//!
//! Three servers hold all entries. While writes go on, a fourth is started; it is measured how long that takes until it says that it is
//! ready (all of a process's start included), and what clients of the serving nodes feel meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use crate::cluster::Cluster;
use crate::latency::Latencies;
use crate::resp_client::{Client, Reply};
use crate::rounds::{Pairs, interleave};
use crate::servers::{Server, redis_version};
use crate::table::{Bound, Row, Table};

/// Length of a value, in bytes. Keys have 32.
const VALUE_BYTES: usize = 100;
const KEY_BYTES: usize = 32;

/// The time between two calls of the client that measures a node: what it asks for must not be what is measured.
const PACE: Duration = Duration::from_millis(1);

/// Options of `bench join`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pairs of interleaved rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Entries that the cluster holds.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Updates a second that are written meanwhile.
    #[arg(long, default_value_t = 1_000)]
    updates: u32,
    /// Seconds for which the nodes are measured before.
    #[arg(long, default_value_t = 3)]
    before: u64,
    /// Lets Redis wait for further replicas before a full sync, as it does unless it is told not to.
    #[arg(long, default_value_t = 5)]
    redis_delay: u32,
}

/// What came of one join.
struct Sample {
    seconds: f64,
    before_us: f64,
    during_us: f64,
}

fn key(n: u64) -> Vec<u8> {
    format!("an entry's key: {n:016}").into_bytes()
}

/// Measures and returns the table.
///
/// # Errors
/// When a cluster cannot be started, or nobody becomes ready.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("join");
    let room_bytes = (args.entries * 512).max(64 << 20);
    let ours = Cluster::nearcache(room_bytes)?;
    let redis = Cluster::redis_with_delay(args.redis_delay)?;
    for cluster in [&ours, &redis] {
        let mut client = Client::connect(cluster.first().port())?;
        client.fill(args.entries, key, &[b'v'; VALUE_BYTES])?;
        cluster.settle()?;
    }
    let rounds = interleave(
        "join",
        args.rounds,
        || measure(args, &ours, || ours.add_nearcache(room_bytes)),
        || measure(args, &redis, || redis.add_replica()),
    )?;
    let what = format!("{} entries of {} B", args.entries, KEY_BYTES + VALUE_BYTES);
    let seconds = rounds.pairs(|sample| sample.seconds);
    let redis_name = format!("redis, delay {} s", args.redis_delay);
    table.push(
        Row::compared(
            "perf-B3",
            format!("{what}: until ready"),
            "s",
            &redis_name,
            &seconds,
        )
        .goal(Bound::AtMost(0.5)),
    );
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let megabytes = args.entries as f64 * (KEY_BYTES + VALUE_BYTES) as f64 / 1e6;
    let rate = rounds.pairs(|sample| megabytes / sample.seconds);
    table.push(Row::compared(
        "perf-B3",
        format!("{what}: rate"),
        "MB/s",
        &redis_name,
        &rate,
    ));
    let during = rounds.pairs(|sample| sample.during_us);
    let before = rounds.pairs(|sample| sample.before_us);
    let row = |what: &str, pairs: &Pairs| Row::compared("perf-B3", what, "µs", &redis_name, pairs);
    table.push(row("serving nodes' p99 before", &before));
    table.push(row("serving nodes' p99 while it joins", &during));
    let grown = Pairs::of(during.ours_median(), before.ours_median());
    table.push(
        Row::compared(
            "perf-B3",
            "serving nodes' p99 while it joins",
            "µs",
            "before",
            &grown,
        )
        .goal(Bound::AtMost(3.0)),
    );
    table.note(format!(
        "{} with two replicas; {} updates/s meanwhile; everything on the same processors; from the start of the process",
        redis_version(),
        args.updates
    ));
    Ok(table)
}

/// Starts one more server under load and measures until it is ready. It ends afterwards.
fn measure(
    args: &Args,
    cluster: &Cluster,
    start: impl FnOnce() -> anyhow::Result<(Server, Duration)>,
) -> anyhow::Result<Sample> {
    let (stop, joins) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(args, cluster, &stop));
        let readers: Vec<_> = cluster
            .ports()
            .into_iter()
            .map(|port| {
                let (stop, joins) = (&stop, &joins);
                scope.spawn(move || ask(args.entries, port, stop, joins))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(args.before));
        joins.store(true, Ordering::Release);
        let started = start();
        stop.store(true, Ordering::Release);
        writer
            .join()
            .map_err(|_| anyhow!("the writer panicked"))??;
        let (mut before, mut during) = (Latencies::new()?, Latencies::new()?);
        for reader in readers {
            let of_one = reader.join().map_err(|_| anyhow!("a reader panicked"))??;
            before.add(&of_one.0)?;
            during.add(&of_one.1)?;
        }
        let (_server, took) = started?;
        Ok(Sample {
            seconds: took.as_secs_f64(),
            before_us: before.quantile_us(0.99),
            during_us: during.quantile_us(0.99),
        })
    })
}

/// Updates entries at the first server, so many a second.
fn write(args: &Args, cluster: &Cluster, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut client = Client::connect(cluster.first().port())?;
    let (started, mut n) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Acquire) {
        let n_key = key(n.wrapping_mul(7_919) % args.entries);
        client.expect_ok(&[b"SET", &n_key, &[b'w'; VALUE_BYTES]])?;
        n += 1;
        let due = started + Duration::from_secs(1) / args.updates.max(1) * u32::try_from(n)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Asks one server for entries: latencies before and while another joins.
fn ask(
    entries: u64,
    port: u16,
    stop: &AtomicBool,
    joins: &AtomicBool,
) -> anyhow::Result<(Latencies, Latencies)> {
    let mut client = Client::connect(port)?;
    let (mut before, mut during) = (Latencies::new()?, Latencies::new()?);
    let mut n = u64::from(port);
    while !stop.load(Ordering::Acquire) {
        n = n
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let called = Instant::now();
        let reply = client.call(&[b"GET", &key((n >> 33) % entries)])?;
        let took = called.elapsed();
        ensure!(
            matches!(reply, Reply::Bulk(_)),
            "an entry is missing: {reply:?}"
        );
        if joins.load(Ordering::Acquire) {
            during.record(took)?;
        } else {
            before.record(took)?;
        }
        std::thread::sleep(PACE);
    }
    Ok((before, during))
}
