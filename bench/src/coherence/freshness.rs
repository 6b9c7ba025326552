//! perf-B6: what a read costs that demands freshness, against one that does not.
//!
//! Three nodes of the library on loopback, quiet; one thread reads keys of one of them in a scattered order. The bound demanded is met by
//! heartbeats, so that no read asks the peers: what is measured is the check.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nearcache::{Cache, Node, Raw, RawValue, StaticPeers};
use tokio::runtime::Builder;

use crate::redis_benchmark::key;
use crate::rounds::{DEFAULT_ROUNDS, interleave};
use crate::table::{Bound, Row};

const KEYS: u64 = 100_000;
const READS: u64 = 4_000_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// Ten heartbeats.
const AGE_MAX: Duration = Duration::from_secs(5);
const FILLED_WITHIN: Duration = Duration::from_secs(30);
/// Odd, so that every key is met: near 2^16.
const STRIDE: u64 = 40_503;

type BytesCache = Cache<Vec<u8>, RawValue, Raw>;

/// Measures and returns the row.
///
/// # Errors
/// When the nodes cannot be started, or some read misses.
pub(crate) fn row() -> anyhow::Result<Row> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let caches = runtime.block_on(start())?;
    let cache = caches.last().context("three nodes")?;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    for key in &keys {
        runtime.block_on(cache.put(&key[..], RawValue::from(&VALUE[..])))?;
    }
    let reader = &caches[0];
    let began = Instant::now();
    while reader.len() < keys.len() {
        ensure!(began.elapsed() < FILLED_WITHIN, "the reader is not filled");
        std::thread::sleep(Duration::from_millis(10));
    }
    let rounds = interleave(
        "reads that demand freshness",
        DEFAULT_ROUNDS,
        || measure(&keys, |key| async { reader.get_fresh(key, AGE_MAX).await }),
        || measure(&keys, |key| async { reader.get(key).await }),
    )?;
    let pairs = rounds.pairs(|nanos| *nanos);
    let what = format!("read of 100 B, one thread, at most {AGE_MAX:?} behind");
    Ok(Row::compared("perf-B6", what, "ns", "get", &pairs).must(Bound::AtMost(1.15)))
}

async fn start() -> anyhow::Result<Vec<BytesCache>> {
    let (mut caches, mut seeds) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let node = Node::builder("freshness")
            .name(format!("n{number}"))
            .discovery(StaticPeers::new(seeds.clone()))
            .start()
            .await?;
        seeds.push(node.local_addr());
        let cache: BytesCache = node.cache("default").codec::<Raw>().open().await?;
        cache.ready().await;
        caches.push(cache);
    }
    Ok(caches)
}

/// Nanoseconds per read.
fn measure<'a, T, F>(keys: &'a [Vec<u8>], read: impl Fn(&'a [u8]) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = Result<Option<T>, nearcache::ReadError>>,
{
    // The reading thread only polls: a hit never waits.
    let runtime = Builder::new_current_thread().build()?;
    let mut missed = 0;
    let began = Instant::now();
    runtime.block_on(async {
        let mut at = 0;
        for _ in 0..READS {
            at = (at + STRIDE) % KEYS;
            let key = usize::try_from(at).ok().and_then(|at| keys.get(at));
            if let Some(key) = key {
                missed += u64::from(black_box(read(key).await)?.is_none());
            }
        }
        Ok::<_, nearcache::ReadError>(())
    })?;
    let took = began.elapsed();
    ensure!(missed == 0, "{missed} of {READS} reads missed");
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    Ok(took.as_nanos() as f64 / READS as f64)
}
