//! How long after a write the copies of the other nodes are gone, in mode `invalidation`.

use std::time::{Duration, Instant};

use nearcache::PutOptions;
use tokio::time::{sleep, timeout};

use super::entries::value;
use super::visibility::{figures, histogram};
use super::{PREFIX, STILL_TIMEOUT};
use crate::caches::RawCache;
use crate::dev::cluster::Cluster;
use crate::dev::terminal::Terminal;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// Between two attempts to keep a copy.
const PAUSE: Duration = Duration::from_millis(5);

/// Lets the other nodes load a key, writes it on node 1, and takes the time until none of them serves its copy.
pub(super) async fn show(
    cluster: &Cluster,
    writes: usize,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let progress = terminal.progress("Writing on node 1, watching copies go on the others");
    let writer = cluster.cache(0)?;
    let mut others = Vec::new();
    for index in 1..cluster.len() {
        let cache = cluster.cache(index)?;
        let watch = cache.watch();
        others.push((cache, watch, histogram()?));
    }
    for number in 0..writes {
        let key = format!("{PREFIX}copied:{number}").into_bytes();
        for (cache, ..) in &others {
            load(cache, &key, number).await?;
        }
        let start = Instant::now();
        writer
            .put(key.as_slice(), value(number))
            .await
            .map_err(Failure::failed)?;
        for (cache, watch, latency) in &mut others {
            while cache.peek(key.as_slice()).is_some() {
                if timeout(STILL_TIMEOUT, watch.next()).await.is_err() {
                    return Err(Failure::failed(format!(
                        "copy {number} is still served after the write"
                    )));
                }
            }
            let nanos = start.elapsed().as_nanos();
            latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
        }
        progress.share(number, writes);
    }
    progress.clear();
    let what = format!(
        "{} writes on node 1, older copies gone on the other nodes",
        grouped(writes as u64)
    );
    let latencies: Vec<_> = others.into_iter().map(|(.., latency)| latency).collect();
    terminal.result(&what, &figures(&latencies));
    terminal.remark("every other node holds a copy before each write; from before the put on node 1 to the moment a task");
    terminal.remark(
        "that watches the other node's cache finds no copy there; one node looked at after the other, one clock",
    );
    Ok(())
}

/// Keeps a copy, as a service does after it has read the system of record. Right after the nodes have met nothing is kept for a moment:
/// until they know how far apart their clocks are, what is loaded may be older than what was just invalidated.
async fn load(cache: &RawCache, key: &[u8], number: usize) -> Result<(), Failure> {
    let began = Instant::now();
    while began.elapsed() < STILL_TIMEOUT {
        let fill = cache.begin_fill(key).map_err(Failure::failed)?;
        let kept = fill.put(value(number), &PutOptions::new());
        if kept.map_err(Failure::failed)? {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(Failure::failed(format!("copy {number} is not kept")))
}
