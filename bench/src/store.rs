//! Reads and writes of the store in this process against quick_cache, moka and foyer (perf-A1, A2, A5).
//!
//! All sides live in one process. Each round visits all of them with the same window of requests, in rotated order, and takes the
//! CPU time of the threads, which load from elsewhere disturbs least. A row is the median of the ratios of its rounds.

use std::sync::Barrier;

use crate::caches::{Foyer, Moka, Ours, QuickCache, QuickCacheBytes, QuickCacheRecord, Side};
use crate::cpu;
use crate::requests::{Popularity, Requests};
use crate::rounds::Pairs;
use crate::table::{Bound, Row, Table};

const KEY_LEN: usize = 24;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds per row.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Operations per side and round.
    #[arg(long, default_value_t = 300_000)]
    operations: usize,
    /// Only rows whose description contains this.
    #[arg(long)]
    only: Option<String>,
}

/// What one row measures.
struct Load {
    id: &'static str,
    what: &'static str,
    keys: u32,
    /// Entries there is room for, as a share of the keys.
    room: f64,
    popularity: Popularity,
    work: Work,
    threads: usize,
    must: Option<f64>,
    goal: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Look-ups that do not wait for each other.
    Read,
    /// Each look-up needs the value of the one before.
    ReadDependent,
    /// One write in twenty operations.
    Mixed,
    /// Reads; what is missing is written.
    ReadThrough,
    /// Writes of ever new keys.
    Insert,
}

use Popularity::{Uniform, Zipf};
use Work::{Insert, Mixed, Read, ReadDependent, ReadThrough};

#[rustfmt::skip]
const LOADS: &[Load] = &[
    Load { id: "perf-A1", what: "hit, 100 k zipf", keys: 100_000, room: 1.3, popularity: Zipf, work: Read, threads: 1, must: Some(1.05), goal: Some(0.70) },
    Load { id: "", what: "hit, 2 k zipf", keys: 2_000, room: 1.3, popularity: Zipf, work: Read, threads: 1, must: None, goal: Some(0.65) },
    Load { id: "", what: "hit, 100 k uniform", keys: 100_000, room: 1.3, popularity: Uniform, work: Read, threads: 1, must: None, goal: None },
    Load { id: "perf-A2", what: "hit, 100 k zipf, 2 threads", keys: 100_000, room: 1.3, popularity: Zipf, work: Read, threads: 2, must: Some(1.05), goal: None },
    Load { id: "perf-A2", what: "hit, 2 M zipf", keys: 2_000_000, room: 1.3, popularity: Zipf, work: Read, threads: 1, must: Some(1.05), goal: None },
    Load { id: "perf-A2", what: "hit, 2 M zipf, dependent", keys: 2_000_000, room: 1.3, popularity: Zipf, work: ReadDependent, threads: 1, must: Some(1.05), goal: Some(0.60) },
    Load { id: "perf-A5", what: "95/5, 100 k uniform, no eviction", keys: 100_000, room: 1.3, popularity: Uniform, work: Mixed, threads: 1, must: Some(1.1), goal: Some(0.9) },
    Load { id: "perf-A5", what: "95/5, 100 k zipf, no eviction", keys: 100_000, room: 1.3, popularity: Zipf, work: Mixed, threads: 1, must: Some(1.1), goal: Some(0.9) },
    Load { id: "perf-A5", what: "95/5, 400 k keys zipf, room for 100 k", keys: 400_000, room: 0.25, popularity: Zipf, work: Mixed, threads: 1, must: Some(1.1), goal: Some(0.9) },
    Load { id: "perf-A5", what: "95/5, 400 k keys zipf, room for 100 k, 2 threads", keys: 400_000, room: 0.25, popularity: Zipf, work: Mixed, threads: 2, must: Some(1.1), goal: Some(0.9) },
    Load { id: "", what: "read-through, 1 M keys zipf, room for 100 k", keys: 1_000_000, room: 0.1, popularity: Zipf, work: ReadThrough, threads: 1, must: None, goal: None },
    Load { id: "perf-A5", what: "insert only, evicting, room for 100 k", keys: 100_000, room: 1.0, popularity: Uniform, work: Insert, threads: 1, must: Some(1.3), goal: Some(0.9) },
    Load { id: "perf-A5", what: "insert only, evicting, room for 100 k, 2 threads", keys: 100_000, room: 1.0, popularity: Uniform, work: Insert, threads: 2, must: Some(1.3), goal: Some(0.9) },
];

/// Measures and returns the table.
///
/// # Errors
/// When a side cannot be set up.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("store");
    for load in LOADS {
        if args
            .only
            .as_ref()
            .is_none_or(|only| load.what.contains(only.as_str()))
        {
            measure(load, args, &mut table)?;
        }
    }
    table.note("CPU time of the threads per operation; keys of 24 bytes, typed values of 100; every side with aHash, randomly keyed");
    table.note("musts are held against quick_cache bounded in bytes by a weighter and with hot_allocation 0.5, as ours; beside it as it ships: entries counted, 0.97");
    Ok(table)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of entries"
)]
fn measure(load: &Load, args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let room = (f64::from(load.keys) * load.room) as usize;
    let ours = Ours::new(room, KEY_LEN, false)?;
    let bytes = QuickCacheBytes::new(room, KEY_LEN)?;
    let quick = QuickCache::sharded(room)?;
    let record = QuickCacheRecord::new(room)?;
    let (moka, foyer) = (Moka::new(room), Foyer::sharded(room));
    let sides: [(&str, &dyn Timed); 6] = [
        ("ours", &ours),
        // The one that the musts are held against.
        ("quick_cache, bytes, hot 0.5", &bytes),
        ("quick_cache as it ships", &quick),
        ("quick_cache + record", &record),
        ("moka", &moka),
        ("foyer s3fifo", &foyer),
    ];
    let windows = 4;
    let requests = Requests::new(load.popularity, load.keys, args.operations * windows, 42);
    for (_, side) in sides {
        side.fill(load.keys);
    }
    moka.settle();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
    // The first round warms up.
    for round in 0..=args.rounds {
        for turn in 0..sides.len() {
            let side = (turn + round) % sides.len();
            let window = requests.window(round % windows, args.operations);
            let ns = sides[side].1.time(load, window, round as u64);
            if round > 0 {
                times[side].push(ns);
            }
        }
    }
    eprintln!("  {}: done", load.what);
    for (peer, (name, _)) in sides.iter().enumerate().skip(1) {
        let mut pairs = Pairs::default();
        for (ours, peer) in times[0].iter().zip(&times[peer]) {
            pairs.push(*ours, *peer);
        }
        let mut row = Row::compared(
            if peer == 1 { load.id } else { "" },
            load.what,
            "ns",
            name,
            &pairs,
        );
        if peer == 1 {
            row.must = load.must.map(Bound::AtMost);
            row.goal = load.goal.map(Bound::AtMost);
        }
        table.push(row);
    }
    Ok(())
}

/// A side with its loops compiled for it, so that only one call per window is indirect.
trait Timed {
    fn fill(&self, keys: u32);

    /// CPU nanoseconds per operation.
    fn time(&self, load: &Load, window: &[u32], round: u64) -> f64;
}

impl<S: Side> Timed for S {
    fn fill(&self, keys: u32) {
        (0..keys).for_each(|n| self.write(&key_of(u64::from(n))));
    }

    fn time(&self, load: &Load, window: &[u32], round: u64) -> f64 {
        let barrier = Barrier::new(load.threads);
        let one = |thread: usize| {
            barrier.wait();
            let part = window.len() / load.threads;
            let start = cpu::of_this_thread();
            work_through(
                self,
                load,
                &window[thread * part..(thread + 1) * part],
                (round << 8) + thread as u64,
            );
            (cpu::of_this_thread() - start).as_secs_f64() * 1e9
        };
        let total: f64 = if load.threads == 1 {
            one(0)
        } else {
            std::thread::scope(|scope| {
                let one = &one;
                let threads: Vec<_> = (0..load.threads)
                    .map(|n| scope.spawn(move || one(n)))
                    .collect();
                threads
                    .into_iter()
                    .map(|t| t.join().unwrap_or(f64::NAN))
                    .sum()
            })
        };
        total / (window.len() / load.threads * load.threads) as f64
    }
}

fn work_through<S: Side>(side: &S, load: &Load, part: &[u32], series: u64) {
    let mut last = 0;
    for (n, index) in part.iter().enumerate() {
        // Every value begins with zero, which only we know.
        let wait = if load.work == ReadDependent {
            u64::from(last)
        } else {
            0
        };
        let key = match load.work {
            Insert => key_of((1 << 40) + (series << 24) + n as u64),
            Read | ReadDependent | Mixed | ReadThrough => key_of(u64::from(*index) + wait),
        };
        let write = match load.work {
            Insert => true,
            Mixed => n % 20 == 0,
            Read | ReadDependent | ReadThrough => false,
        };
        if write {
            side.write(&key);
            continue;
        }
        let value = side.read(&key);
        last ^= value.unwrap_or(0);
        if value.is_none() && load.work == ReadThrough {
            side.write(&key);
        }
    }
    std::hint::black_box(last);
}

/// A key of 24 bytes that differs at both ends.
#[inline]
fn key_of(n: u64) -> [u8; KEY_LEN] {
    let mut key = *b"cache:user:profile:00000";
    key[..8].copy_from_slice(&n.to_be_bytes());
    key[16..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key
}
