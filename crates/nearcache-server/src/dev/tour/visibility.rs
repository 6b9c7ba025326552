//! How long after a write the other nodes show it.

use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::entries::value;
use super::{PREFIX, STILL_TIMEOUT};
use crate::caches::RawCache;
use crate::dev::cluster::Cluster;
use crate::dev::terminal::Terminal;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// Writes one value after the other on node 1 and takes the time until each other node's store holds it.
pub(super) async fn show(
    cluster: &Cluster,
    writes: usize,
    terminal: &Terminal,
) -> Result<(), Failure> {
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
    let what = format!(
        "{} writes on node 1, seen on the other nodes",
        grouped(writes as u64)
    );
    terminal.result(&what, &figures(&latencies));
    terminal
        .remark("from before the put on node 1 to the moment a task that watches the cache of the");
    terminal.remark(
        "other node has been woken and has read the value there; one write at a time, one clock",
    );
    Ok(())
}

/// What is shown of the latencies on the nodes after the first.
pub(super) fn figures(latencies: &[Histogram<u64>]) -> Vec<String> {
    let shown = |(observer, latency): (usize, &Histogram<u64>)| {
        format!(
            "on node {}: p50 {}, p99 {}, max {}",
            observer + 2,
            time(latency.value_at_quantile(0.5)),
            time(latency.value_at_quantile(0.99)),
            time(latency.max()),
        )
    };
    latencies.iter().enumerate().map(shown).collect()
}

/// One value seen on one node.
#[derive(Debug)]
struct Sighting {
    observer: usize,
    at: Instant,
}

/// Tells of each write of [`show`], in their order, the moment it can be read on this node.
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

fn seen_key(number: usize) -> Vec<u8> {
    format!("{PREFIX}seen:{number}").into_bytes()
}

/// From 1 ns to 60 s with three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
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
