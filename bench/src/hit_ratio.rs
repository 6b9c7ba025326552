//! Hit ratio over recorded traces, as share of Belady's optimum (perf-A3).
//!
//! Every cache gets room for the same number of entries: 2, 10 and 25 % of a trace's keys. A key that is
//! missed is put in. What counts is hits divided by those of the optimum, which knows the future; the mean is over
//! the sizes and then over the traces.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use nearcache_store::{
    Change, CoarseClock, Expiry, NodeId, Store, StoreConfig, Tags, Timestamp, Version,
};

use crate::belady;
use crate::caches::{Foyer, Moka, QuickCache, Side};
use crate::replication::per;
use crate::rounds::Pairs;
use crate::table::{Bound, Row, Table};
use crate::traces;

/// Sizes of the caches, as percentage of the keys in a trace.
const SIZES_PERCENT: [usize; 3] = [2, 10, 25];

/// Bytes of a value; our store counts bytes, the others entries.
const VALUE_BYTES: usize = 1000;

/// Most points that a trace may lie below the best peer, by the goal.
const POINTS_BELOW_MAX: f64 = 2.0;

/// Traces of services that cache objects, rather than blocks of a disk or made-up sequences.
const SERVICES: [&str; 3] = ["cache2k-", "scarab-", "corda-"];

/// Options of `bench hit-ratio`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of traces; by default the generated sample of this repository.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/traces"))]
    traces: PathBuf,
    /// Requests of each trace at most, from its start.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

/// A name and how to make the cache for a number of entries.
struct Policy {
    name: &'static str,
    make: fn(usize) -> anyhow::Result<Box<dyn Side>>,
}

/// Ours first; all with one shard, so that sharding costs nobody a hit.
const POLICIES: [Policy; 5] = [
    Policy {
        name: "ours",
        make: |entries| Ok(Box::new(Counted::new(entries)?)),
    },
    Policy {
        name: "quick_cache 0.5",
        make: |entries| Ok(Box::new(QuickCache::new(entries, 1, Some(0.5))?)),
    },
    Policy {
        name: "quick_cache",
        make: |entries| Ok(Box::new(QuickCache::new(entries, 1, None)?)),
    },
    Policy {
        name: "foyer S3-FIFO",
        make: |entries| Ok(Box::new(Foyer::new(entries, 1))),
    },
    Policy {
        name: "moka",
        make: |entries| Ok(Box::new(Moka::new(entries))),
    },
];

/// What one trace gave: the share of the optimum in percent, for each policy, as mean over the sizes.
struct Shares {
    trace: String,
    percent: [f64; POLICIES.len()],
}

impl Shares {
    fn ours(&self) -> f64 {
        self.percent[0]
    }

    fn best_peer(&self) -> (&'static str, f64) {
        let peers = POLICIES.iter().zip(self.percent).skip(1);
        peers
            .map(|(policy, percent)| (policy.name, percent))
            .fold(
                ("", f64::MIN),
                |best, peer| if peer.1 > best.1 { peer } else { best },
            )
    }
}

/// Measures and returns the table.
///
/// # Errors
/// When a trace cannot be read or a cache not be made.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let paths = traces::in_folder(&args.traces)?;
    ensure!(!paths.is_empty(), "no traces in {}", args.traces.display());
    let mut table = Table::new("hit-ratio");
    let mut all = Vec::new();
    for path in paths {
        let started = Instant::now();
        let trace = traces::read(&path)?;
        let (requests, keys) = numbered(&trace, args.limit);
        let shares = Shares {
            trace: trace.name,
            percent: shares_of(&requests, keys)?,
        };
        eprintln!(
            "  {}: {} requests of {keys} keys, {:.0} s",
            shares.trace,
            requests.len(),
            started.elapsed().as_secs_f64()
        );
        let (best_name, best) = shares.best_peer();
        let pairs = Pairs::of(shares.ours(), best);
        table.push(Row::compared(
            "",
            shares.trace.clone(),
            "% of optimum",
            best_name,
            &pairs,
        ));
        all.push(shares);
    }
    add_means(&mut table, &all);
    Ok(table)
}

fn add_means(table: &mut Table, all: &[Shares]) {
    let is_service = |shares: &&Shares| {
        SERVICES
            .iter()
            .any(|service| shares.trace.starts_with(service))
    };
    let services: Vec<&Shares> = all.iter().filter(is_service).collect();
    if !services.is_empty() {
        add_mean(table, "", "mean of the service traces", &services);
    }
    add_mean(
        table,
        "perf-A3",
        "mean of all traces",
        &all.iter().collect::<Vec<_>>(),
    );
    let worst = all
        .iter()
        .map(|shares| (shares.best_peer().1 - shares.ours(), &shares.trace));
    if let Some((points, trace)) = worst.max_by(|a, b| a.0.total_cmp(&b.0)) {
        let word = if points <= POINTS_BELOW_MAX {
            "met"
        } else {
            "MISSED"
        };
        table.note(format!(
            "furthest below the best peer: {points:.1} points, on {trace} (goal: at most \
             {POINTS_BELOW_MAX:.0}) {word}"
        ));
    }
}

/// Rows that compare our mean with that of each peer.
fn add_mean(table: &mut Table, id: &str, what: &str, of: &[&Shares]) {
    let mean = |policy: usize| {
        let sum: f64 = of.iter().map(|shares| shares.percent[policy]).sum();
        sum / per(of.len() as u64, 1.0)
    };
    let best = (1..POLICIES.len()).map(mean).fold(f64::MIN, f64::max);
    for (index, policy) in POLICIES.iter().enumerate().skip(1) {
        let pairs = Pairs::of(mean(0), mean(index));
        let row = Row::compared(id, what, "% of optimum", policy.name, &pairs);
        let is_must = !id.is_empty() && index == 1;
        let row = if is_must {
            row.must(Bound::AtLeast(1.0))
        } else {
            row
        };
        let is_best = !id.is_empty() && pairs.peer_median() >= best;
        table.push(if is_best {
            row.goal(Bound::AtLeast(1.02))
        } else {
            row
        });
    }
}

/// The keys as numbers from 0, in the order of their first request, and how many there are.
fn numbered(trace: &traces::Trace, limit: usize) -> (Vec<u32>, usize) {
    let mut numbers = HashMap::new();
    let requests = trace
        .requests
        .iter()
        .take(limit)
        .map(|request| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(request.key).or_insert(next)
        })
        .collect();
    (requests, numbers.len())
}

/// Per policy, the mean over the sizes of its hits as percentage of the optimum's.
fn shares_of(requests: &[u32], keys: usize) -> anyhow::Result<[f64; POLICIES.len()]> {
    let mut sums = [0.0; POLICIES.len()];
    for size in SIZES_PERCENT {
        let entries = (keys * size / 100).max(1);
        let optimum = per(belady::hits(requests, keys, entries).max(1), 1.0);
        for (sum, policy) in sums.iter_mut().zip(&POLICIES) {
            let cache = (policy.make)(entries).with_context(|| policy.name)?;
            *sum += 100.0 * per(replay(cache.as_ref(), requests), optimum);
        }
    }
    Ok(sums.map(|sum| sum / per(SIZES_PERCENT.len() as u64, 1.0)))
}

/// Hits of a cache that takes in what it missed.
fn replay(cache: &dyn Side, requests: &[u32]) -> u64 {
    let mut hits = 0;
    for request in requests {
        let key = u64::from(*request).to_le_bytes();
        if cache.read(&key).is_some() {
            hits += 1;
        } else {
            cache.write(&key);
        }
    }
    hits
}

/// Our store with room for a number of entries, found by trying.
///
/// It is bounded in bytes, some of which go to the versions of evicted keys. How many bytes hold how many entries is
/// therefore measured: the store is filled beyond its bound, and the bound scaled until the number is right.
struct Counted {
    store: Store<Sized1000>,
    version: AtomicU64,
}

impl Counted {
    fn new(entries: usize) -> anyhow::Result<Self> {
        let mut bytes = entries as u64 * (VALUE_BYTES as u64 + 200);
        for _ in 0..CALIBRATIONS {
            let trial = Self::with_bytes(bytes)?;
            for key in 0..entries as u64 * 3 {
                trial.write(&key.to_le_bytes());
            }
            let held = trial.store.len().max(1) as u64;
            bytes = bytes * entries as u64 / held;
        }
        Self::with_bytes(bytes)
    }

    fn with_bytes(bytes: u64) -> anyhow::Result<Self> {
        let config = StoreConfig {
            shards: Some(NonZeroUsize::MIN),
            ..StoreConfig::new(bytes.max(StoreConfig::BYTES_MIN))
        };
        let store = Store::new(config, CoarseClock::new(1_000))?;
        Ok(Self {
            store,
            version: AtomicU64::new(1),
        })
    }
}

/// Times the number of bytes is corrected: the second correction is already below a percent.
const CALIBRATIONS: usize = 2;

impl Side for Counted {
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.store.get(key).map(|_| 0)
    }

    fn write(&self, key: &[u8]) {
        let number = self.version.fetch_add(1, Ordering::Relaxed);
        let version = Version::new(Timestamp::from_u64(number), NodeId::from_u64(1));
        let change = Change::Put {
            value: Sized1000,
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        drop(self.store.merge(key, version, change));
    }
}

/// A value that weighs [`VALUE_BYTES`] without taking them.
#[derive(Clone)]
struct Sized1000;

impl nearcache_store::Weigh for Sized1000 {
    fn weight(&self) -> usize {
        VALUE_BYTES
    }
}
