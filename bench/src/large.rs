//! Long values beside small updates: what one 32 MiB value a second, fetched by all of five nodes, costs the visibility of 1,000
//! small updates a second (issue 3, point 8).
//!
//! Five nodes of the library in this process, each with a runtime of one thread and sockets of its own. The first writes; on each of the
//! others a watcher takes the time from a small update's put to the moment it is in that node's memory. In half of the rounds the
//! first node also writes a long value every second, and the four others read it as soon as they learn of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nearcache::{Ack, Cache, Change, Node, PutOptions, Raw, RawValue, Received, StaticPeers};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::latency::Latencies;
use crate::rounds::interleave;
use crate::table::{Bound, Row, Table};

type BytesCache = Cache<Vec<u8>, RawValue, Raw>;

const NODES: usize = 5;
const MIB: usize = 1 << 20;
/// Long values live under so many keys in turn: there is room for some of them on every node.
const LONG_KEYS: u64 = 3;
const ROOM_BYTES: u64 = 640 << 20;
const SMALL_KEYS: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds with long values, and as many without.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a round.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Small updates per second.
    #[arg(long, default_value_t = 1_000)]
    updates_per_second: u64,
    /// Bytes of a small value; at least 8.
    #[arg(long, default_value_t = 100)]
    small_bytes: usize,
    /// Bytes of a long value, in MiB.
    #[arg(long, default_value_t = 32)]
    long_mib: usize,
    /// What a node may send of long values per second, in MiB; as the library ships if not given.
    #[arg(long)]
    fetch_mib_per_second: Option<u64>,
}

/// One node; the order of the fields is the order in which they end.
struct Member {
    cache: BytesCache,
    node: Node,
    runtime: Runtime,
}

/// What a round has seen.
struct Round {
    small: Latencies,
    fetches: Latencies,
    written: u64,
    fetched: u64,
}

/// What the watchers and readers share.
struct Watched {
    begun: Instant,
    /// Reads of long values are on.
    reads: AtomicBool,
    small: Mutex<Latencies>,
    fetches: Mutex<Latencies>,
    fetched: AtomicU64,
    failed: AtomicU64,
}

fn start(args: &Args, seeds: &[std::net::SocketAddr], index: usize) -> anyhow::Result<Member> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (node, cache) = runtime.block_on(async {
        let node = Node::builder("bench")
            .name(format!("n{}", index + 1))
            .discovery(StaticPeers::new(seeds.to_vec()))
            .start()
            .await?;
        let builder = node.cache::<Vec<u8>, RawValue>("default").codec::<Raw>();
        let mut builder = builder.max_bytes(ROOM_BYTES).max_value_bytes(64 * MIB);
        if let Some(mib) = args.fetch_mib_per_second {
            builder = builder.fetch_bytes_per_second(mib << 20);
        }
        let cache: BytesCache = builder.open().await?;
        anyhow::Ok((node, cache))
    })?;
    Ok(Member {
        cache,
        node,
        runtime,
    })
}

fn cluster(args: &Args) -> anyhow::Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    for index in 0..NODES {
        let seeds: Vec<_> = members
            .iter()
            .map(|member| member.node.local_addr())
            .collect();
        members.push(start(args, &seeds, index)?);
    }
    let deadline = Instant::now() + PATIENCE;
    for member in &members {
        while member.cache.freshness().per_peer.len() < NODES - 1 {
            ensure!(
                Instant::now() < deadline,
                "the nodes did not find each other"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        member.runtime.block_on(member.cache.ready());
    }
    let everywhere = PutOptions::new().ack(Ack::All).timeout(PATIENCE);
    let first = members.first().context("a node")?;
    let put = first
        .cache
        .put_with(b"whole".as_slice(), RawValue::from("whole"), everywhere);
    first.runtime.block_on(put)?;
    Ok(members)
}

/// Notes when each change arrives at this node, and reads the long ones.
async fn watch(cache: BytesCache, watched: Arc<Watched>) {
    let mut changes = cache.watch_with_capacity(1 << 16);
    while let Some(received) = changes.next().await {
        let arrived = watched.begun.elapsed();
        let Received::Event(Change::Put { key, value }) = received else {
            continue;
        };
        match value {
            Some(value) if key.starts_with(b"small") => {
                let Some(sent) = value.first_chunk::<8>() else {
                    continue;
                };
                let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
                // Only what is longer than centuries cannot be recorded.
                let _ = watched.small.lock().record(arrived.saturating_sub(sent));
            }
            None if watched.reads.load(Ordering::Relaxed) => {
                let (cache, watched) = (cache.clone(), Arc::clone(&watched));
                tokio::spawn(async move {
                    let asked = Instant::now();
                    let found = matches!(cache.get(&key[..]).await, Ok(Some(_)));
                    if found {
                        let _ = watched.fetches.lock().record(asked.elapsed());
                        watched.fetched.fetch_add(1, Ordering::Relaxed);
                    } else {
                        watched.failed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Some(_) | None => {}
        }
    }
}

/// Writes small values at the rate, and a long one every second if there is one, for the length of a round.
fn round(
    args: &Args,
    members: &[Member],
    watched: &Watched,
    long: Option<&[u8]>,
) -> anyhow::Result<Round> {
    let first = members.first().context("a node")?;
    *watched.small.lock() = Latencies::new()?;
    *watched.fetches.lock() = Latencies::new()?;
    watched.fetched.store(0, Ordering::Relaxed);
    watched.failed.store(0, Ordering::Relaxed);
    watched.reads.store(long.is_some(), Ordering::Relaxed);
    // Put together before it begins: a program has its values at hand, or gets them from elsewhere.
    let long: Vec<(String, RawValue)> = match long {
        Some(long) => (0..args.seconds)
            .map(|second| (format!("long:{}", second % LONG_KEYS), RawValue::from(long)))
            .collect(),
        None => Vec::new(),
    };
    let (started, mut written) = (Instant::now(), 0);
    let options = PutOptions::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn({
            let options = options.clone();
            move || {
                let puts = long.len() as u64;
                for (second, (key, value)) in (0..).zip(long) {
                    let due = started + Duration::from_millis(second * 1_000 + 500);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    first.cache.put_now(key.as_bytes(), value, &options)?;
                }
                anyhow::Ok(puts)
            }
        });
        let gap = Duration::from_secs(1) / u32::try_from(args.updates_per_second)?;
        for n in 0..args.seconds * args.updates_per_second {
            let due = started + gap * u32::try_from(n)?;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut value = vec![b'.'; args.small_bytes.max(8)];
            let sent = u64::try_from(watched.begun.elapsed().as_nanos())?;
            value[..8].copy_from_slice(&sent.to_be_bytes());
            let key = format!("small:{}", n % SMALL_KEYS);
            first
                .cache
                .put_now(key.as_bytes(), RawValue::from(value), &options)?;
        }
        written = writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer ended in a panic"))??;
        anyhow::Ok(())
    })?;
    // The last ones may still be on their way.
    let readers = (NODES - 1) as u64;
    let deadline = Instant::now() + PATIENCE;
    while watched.fetched.load(Ordering::Relaxed) + watched.failed.load(Ordering::Relaxed)
        < written * readers
    {
        ensure!(
            Instant::now() < deadline,
            "long values are not read to the end"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let mut taken = Round {
        small: Latencies::new()?,
        fetches: Latencies::new()?,
        written,
        fetched: watched.fetched.load(Ordering::Relaxed),
    };
    taken.small.add(&watched.small.lock())?;
    taken.fetches.add(&watched.fetches.lock())?;
    Ok(taken)
}

/// Measures and returns the table.
///
/// # Errors
/// When the nodes do not find each other, or what is written does not arrive.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let members = cluster(args)?;
    let watched = Arc::new(Watched {
        begun: Instant::now(),
        reads: AtomicBool::new(false),
        small: Mutex::new(Latencies::new()?),
        fetches: Mutex::new(Latencies::new()?),
        fetched: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    for member in members.iter().skip(1) {
        let watching = watch(member.cache.clone(), Arc::clone(&watched));
        member.runtime.spawn(watching);
    }
    let long = vec![7; args.long_mib * MIB];
    // Memory that is touched for the first time is no part of it.
    round(args, &members, &watched, Some(&long))?;
    let rounds = interleave(
        "long values",
        args.rounds,
        || round(args, &members, &watched, Some(&long)),
        || round(args, &members, &watched, None),
    )?;
    let what = |figure| {
        format!(
            "{} updates/s of {} B, 1 value/s of {} MiB to {NODES} nodes: visible {figure}",
            args.updates_per_second, args.small_bytes, args.long_mib
        )
    };
    let quantile = |quantile| rounds.pairs(|round| round.small.quantile_us(quantile));
    let mut table = Table::new("large");
    let row = |id, figure, at| Row::compared(id, what(figure), "µs", "without", &quantile(at));
    table.push(row("large", "p50", 0.5));
    table.push(row("large", "p99", 0.99).must(Bound::AtMost(3.0)));
    table.push(row("large", "p99.9", 0.999));
    let fetch = |quantile| {
        let pairs = rounds.pairs(|round| round.fetches.quantile_us(quantile) / 1e3);
        pairs.ours_median()
    };
    for (figure, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        table.push(Row::alone(
            "",
            format!("fetch of such a value, {figure}"),
            "ms",
            fetch(at),
        ));
    }
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let share = rounds
        .pairs(|round| round.fetched as f64 / (round.written * (NODES - 1) as u64).max(1) as f64);
    table.push(Row::alone(
        "",
        "reads that got the value in time",
        "share",
        share.ours_median(),
    ));
    table.note("each update counts once for each of the four nodes that did not write it");
    Ok(table)
}
