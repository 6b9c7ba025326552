//! The tour: what the cluster does, shown with figures measured as it does it.
//!
//! ```text
//! 1  visibility   write on node 1, see on the others
//! 2  reads        the cost of a read in process
//! 3  warm-up      a node stopped, its memory dropped, started again and filled by its peers
//! ```
//!
//! Every figure says how it was measured. All keys begin with [`PREFIX`] and are dropped at the end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nearcache::{PutOptions, RawValue};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::DevArgs;
use super::cluster::Cluster;
use super::terminal::Terminal;
use crate::caches::RawCache;
use crate::config::CacheMode;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// What the keys of the tour begin with.
const PREFIX: &str = "tour:";
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// How long one write may take to be seen, and how long a step may stand still, before the tour says
/// that something is wrong.
const STILL_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries per call when filling.
const FILL_BATCH: usize = 500;
/// Pause between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(2);
/// Reads timed together: one look at the clock costs as much as a read, and a round must be short enough
/// that most are not interrupted on a busy machine.
const READS_PER_ROUND: usize = 1_000;
/// Rounds of reads; the fastest and the middle one are shown.
const READ_ROUNDS: usize = 1_000;
/// Keys that are read, at most.
const KEYS_READ: usize = 100_000;

/// Takes the tour.
///
/// # Errors
/// When a node does not show what it should: the line says which and what.
pub(super) async fn take(
    cluster: &mut Cluster,
    args: &DevArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    terminal.line("");
    terminal.heading("Tour");
    let shared = args.mode == CacheMode::Replicated && cluster.len() > 1;
    if shared {
        visibility(cluster, args.tour_writes as usize, terminal).await?;
    } else {
        terminal.line(
            "- visibility and warm-up: nothing to show without several nodes in mode replicated",
        );
    }
    fill(cluster, args.tour_entries as usize, shared, terminal).await?;
    reads(cluster, args.tour_entries as usize, terminal).await?;
    if shared {
        restart(cluster, args.tour_entries as usize, terminal).await?;
    }
    let cache = cluster.cache(0)?;
    cache
        .invalidate_prefix(PREFIX)
        .await
        .map_err(Failure::failed)?;
    terminal.line("");
    terminal.line(&format!(
        "The entries of the tour are dropped again: invalidate_prefix(\"{PREFIX}\")."
    ));
    Ok(())
}

/// Writes one value after the other on node 1 and takes the time until each other node's store holds it.
async fn visibility(cluster: &Cluster, writes: usize, terminal: &Terminal) -> Result<(), Failure> {
    let progress = terminal.progress("Writing on node 1, watching the others");
    let writer = cluster.cache(0)?;
    let (told, mut sightings) = mpsc::unbounded_channel();
    let mut latencies = Vec::new();
    let mut observers = JoinSet::new();
    for index in 1..cluster.len() {
        observers.spawn(observe(
            cluster.cache(index)?,
            latencies.len(),
            told.clone(),
        ));
        latencies.push(histogram()?);
    }
    for number in 0..writes {
        let start = Instant::now();
        let key = seen_key(number);
        writer
            .put(key.as_slice(), value(number))
            .await
            .map_err(Failure::failed)?;
        for _ in 0..latencies.len() {
            let Ok(Some(sighting)) = timeout(STILL_TIMEOUT, sightings.recv()).await else {
                return Err(Failure::failed(format!(
                    "write {number} was not seen on every node"
                )));
            };
            let nanos = sighting.at.duration_since(start).as_nanos();
            if let Some(latency) = latencies.get_mut(sighting.observer) {
                latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
        }
        progress.share(number, writes);
    }
    observers.abort_all();
    progress.clear();
    let figures: Vec<String> = latencies
        .iter()
        .enumerate()
        .map(|(observer, latency)| {
            format!(
                "on node {}: p50 {}, p99 {}, max {}",
                observer + 2,
                time(latency.value_at_quantile(0.5)),
                time(latency.value_at_quantile(0.99)),
                time(latency.max()),
            )
        })
        .collect();
    let what = format!(
        "{} writes on node 1, seen on the other nodes",
        grouped(writes as u64)
    );
    terminal.result(&what, &figures);
    terminal
        .remark("from before the put on node 1 to the moment a task that watches the cache of the");
    terminal.remark(
        "other node has been woken and has read the value there; one write at a time, one clock",
    );
    Ok(())
}

/// One value seen on one node.
#[derive(Debug)]
struct Sighting {
    observer: usize,
    at: Instant,
}

/// Tells of each write of [`visibility`], in their order, the moment it can be read on this node.
async fn observe(cache: RawCache, observer: usize, told: mpsc::UnboundedSender<Sighting>) {
    let mut watch = cache.watch();
    for number in 0.. {
        let key = seen_key(number);
        // Changes of other keys may come in between; what counts is that the value can be read.
        while cache.peek(key.as_slice()).is_none() {
            if watch.next().await.is_none() {
                return;
            }
        }
        if told
            .send(Sighting {
                observer,
                at: Instant::now(),
            })
            .is_err()
        {
            return;
        }
    }
}

/// Fills the cache on node 1 and waits until every node has everything.
async fn fill(
    cluster: &Cluster,
    entries: usize,
    shared: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let progress = terminal.progress(&format!("Writing {} entries", grouped(entries as u64)));
    let writer = cluster.cache(0)?;
    let start = Instant::now();
    for first in (0..entries).step_by(FILL_BATCH) {
        let numbers = first..entries.min(first + FILL_BATCH);
        let batch: Vec<_> = numbers.map(|number| (key(number), value(number))).collect();
        let batch = batch
            .iter()
            .map(|(key, value)| (key.as_slice(), value.clone()));
        writer
            .put_many(batch, PutOptions::new())
            .await
            .map_err(Failure::failed)?;
        progress.share(first, entries);
        tokio::task::yield_now().await;
    }
    let written = start.elapsed();
    let mut figures = vec![format!("written on node 1 in {}", seconds(written))];
    if shared {
        for index in 1..cluster.len() {
            holds_all(&cluster.cache(index)?, index, entries, |done| {
                progress.share(done, entries)
            })
            .await?;
        }
        figures.push(format!("on every node after {}", seconds(start.elapsed())));
    }
    progress.clear();
    let what = format!("{} entries of {VALUE_BYTES} bytes", grouped(entries as u64));
    terminal.result(&what, &figures);
    Ok(())
}

/// Reads random keys on the last node, from one thread, and shows what one read costs.
async fn reads(cluster: &Cluster, entries: usize, terminal: &Terminal) -> Result<(), Failure> {
    let progress = terminal.progress("Reading in process");
    let last = cluster.len() - 1;
    let cache = cluster.cache(last)?;
    let keys: Vec<Vec<u8>> = (0..entries.min(KEYS_READ)).map(key).collect();
    let measured = tokio::task::spawn_blocking(move || time_reads(&cache, &keys)).await;
    let (fastest, middle) = measured.map_err(Failure::failed)??;
    progress.clear();
    terminal.result(
        &format!("Reads in process, on node {}", last + 1),
        &[format!(
            "{middle:.0} ns each (fastest round {fastest:.0} ns)"
        )],
    );
    terminal.remark(&format!(
        "peek and touch the value, random ones of {} keys, one thread, keys made before; middle of {READ_ROUNDS} rounds",
        grouped(entries.min(KEYS_READ) as u64),
    ));
    Ok(())
}

/// Nanoseconds per read: of the fastest and of the middle round.
#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn time_reads(cache: &RawCache, keys: &[Vec<u8>]) -> Result<(f64, f64), Failure> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut rounds = Vec::with_capacity(READ_ROUNDS);
    let mut found = 0_usize;
    let mut order = Vec::with_capacity(READS_PER_ROUND);
    for _ in 0..READ_ROUNDS {
        order.clear();
        for _ in 0..READS_PER_ROUND {
            // Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let index = usize::try_from(random % keys.len().max(1) as u64).unwrap_or(0);
            order.extend(keys.get(index));
        }
        let start = Instant::now();
        for key in &order {
            if let Some(value) = cache.peek(key.as_slice()) {
                found += std::hint::black_box(value.len()).min(1);
            }
        }
        rounds.push(start.elapsed().as_nanos() as f64 / order.len().max(1) as f64);
    }
    rounds.sort_by(f64::total_cmp);
    let (Some(fastest), Some(middle)) = (rounds.first(), rounds.get(rounds.len() / 2)) else {
        return Err(Failure::failed("nothing was read"));
    };
    // A miss is cheaper than a hit: with many of them the figure would flatter.
    if found * 100 < READ_ROUNDS * READS_PER_ROUND * 99 {
        return Err(Failure::failed(format!(
            "only {found} of {} reads found their entry",
            READ_ROUNDS * READS_PER_ROUND
        )));
    }
    Ok((*fastest, *middle))
}

/// Stops the last node, drops what it holds, starts it again and waits until it is warm.
async fn restart(
    cluster: &mut Cluster,
    entries: usize,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let last = cluster.len() - 1;
    let progress = terminal.progress(&format!("Stopping node {}", last + 1));
    cluster.stop_node(last).await;
    // Written while the node is away: the transfer has to bring it as well.
    let missed = format!("{PREFIX}missed");
    cluster
        .cache(0)?
        .put(missed.as_bytes(), value(0))
        .await
        .map_err(Failure::failed)?;
    progress.clear();
    let progress = terminal.progress(&format!("Starting node {} with nothing", last + 1));
    let start = Instant::now();
    cluster.start_node(last).await?;
    let serving = start.elapsed();
    let cache = cluster.cache(last)?;
    let at_start = cache.len();
    holds_all(&cache, last, entries, |done| progress.share(done, entries)).await?;
    let full = start.elapsed();
    let node = cluster.server(last)?.node().clone();
    if timeout(STILL_TIMEOUT, node.ready()).await.is_err() {
        return Err(Failure::failed(format!(
            "node {} holds everything and is not ready",
            last + 1
        )));
    }
    let ready = start.elapsed();
    progress.clear();
    if cache.peek(missed.as_bytes()).is_none() {
        return Err(Failure::failed(
            "an entry written while the node was away did not come",
        ));
    }
    terminal.result(
        &format!(
            "Node {} stopped, its memory dropped, started again",
            last + 1
        ),
        &[
            format!(
                "{} entries at its start, serving after {}",
                grouped(at_start as u64),
                seconds(serving)
            ),
            format!(
                "{} entries back after {}, ready after {}",
                grouped(entries as u64),
                seconds(full),
                seconds(ready)
            ),
        ],
    );
    terminal.remark(
        "every key looked up on the restarted node itself; filled by its peers over the network",
    );
    Ok(())
}

/// Waits until `cache` holds every entry of the tour with its value, however long it takes as long as it
/// gets on.
async fn holds_all(
    cache: &RawCache,
    index: usize,
    entries: usize,
    tell: impl Fn(usize),
) -> Result<(), Failure> {
    let mut next = 0;
    let mut advanced = Instant::now();
    while next < entries {
        let before = next;
        while next < entries
            && cache
                .peek(key(next).as_slice())
                .is_some_and(|held| *held == value(next))
        {
            next += 1;
        }
        if next > before {
            advanced = Instant::now();
        } else if advanced.elapsed() > STILL_TIMEOUT {
            return Err(Failure::failed(format!(
                "node {} has {} of {} entries and gets no further",
                index + 1,
                grouped(cache.len() as u64),
                grouped(entries as u64)
            )));
        }
        tell(cache.len().min(entries));
        if next < entries {
            sleep(POLL).await;
        }
    }
    Ok(())
}

fn seen_key(number: usize) -> Vec<u8> {
    format!("{PREFIX}seen:{number}").into_bytes()
}

fn key(number: usize) -> Vec<u8> {
    format!("{PREFIX}{number:08}").into_bytes()
}

/// A value that tells which key it belongs to.
fn value(number: usize) -> RawValue {
    let mut bytes = vec![b'.'; VALUE_BYTES];
    for (slot, digit) in bytes.iter_mut().zip(number.to_string().bytes()) {
        *slot = digit;
    }
    RawValue::from(bytes)
}

/// From 1 ns to 60 s with three digits.
fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(Failure::failed)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.0} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
