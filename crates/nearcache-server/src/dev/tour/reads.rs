//! What a read in process costs.

use std::time::Instant;

use super::entries::key;
use crate::caches::RawCache;
use crate::dev::cluster::Cluster;
use crate::dev::terminal::Terminal;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// Reads timed together: one look at the clock costs as much as a read, and a round must be short enough
/// that most are not interrupted on a busy machine.
const READS_PER_ROUND: usize = 1_000;
/// Rounds of reads; the fastest and the middle one are shown.
const READ_ROUNDS: usize = 1_000;
/// Keys that are read, at most.
const KEYS_READ: usize = 100_000;

/// Reads random keys on one node, from one thread, and shows what one read costs.
pub(super) async fn show(
    cluster: &Cluster,
    node: usize,
    entries: usize,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let progress = terminal.progress("Reading in process");
    let cache = cluster.cache(node)?;
    let keys: Vec<Vec<u8>> = (0..entries.min(KEYS_READ)).map(key).collect();
    let measured = tokio::task::spawn_blocking(move || time_reads(&cache, &keys)).await;
    let (fastest, middle) = measured.map_err(Failure::failed)??;
    progress.clear();
    terminal.result(
        &format!("Reads in process, on node {}", node + 1),
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
