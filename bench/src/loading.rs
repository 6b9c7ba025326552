//! Reading through the cache: what a hit costs (perf-C6), what a cold key that everybody wants costs (perf-C4), and how a system of
//! record is treated that is down (O11).
//!
//! One node in this process, mode `local`; moka's `try_get_with` beside it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nearcache::{Cache, LoadPolicy, Mode, Node};

use crate::rounds::{DEFAULT_ROUNDS, Pairs, interleave};
use crate::table::{Bound, Row, Table};

/// Keys read in turn.
const KEYS: u64 = 10_000;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reads of each round.
    #[arg(long, default_value_t = 2_000_000)]
    reads: u64,
    /// Callers of a cold key.
    #[arg(long, default_value_t = 1_000)]
    callers: usize,
    /// Milliseconds that a load takes.
    #[arg(long, default_value_t = 10)]
    load_ms: u64,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = DEFAULT_ROUNDS)]
    rounds: usize,
}

type Numbers = Cache<u64, u64>;

/// Nanoseconds of one call.
fn time_each(reads: u64, read: impl Fn(u64)) -> f64 {
    let started = Instant::now();
    (0..reads).for_each(|n| read(n % KEYS));
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let each = started.elapsed().as_nanos() as f64 / reads as f64;
    each
}

async fn get(cache: &Numbers, key: u64) {
    black_box(cache.get(&key).await.ok());
}

async fn get_or_load(cache: &Numbers, key: u64) {
    let loaded = cache.get_or_load(&key, async |_| Err::<u64, _>("not needed"));
    black_box(loaded.await.ok());
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let node = runtime.block_on(Node::builder("bench").start())?;
    let open = |name: &str, policy| {
        let cache = node.cache::<u64, u64>(name).mode(Mode::Local);
        runtime.block_on(cache.load_policy(policy).open())
    };
    let ours = open("hits", LoadPolicy::new())?;
    let moka = moka::sync::Cache::<u64, Arc<u64>>::new(KEYS * 2);
    for key in 0..KEYS {
        runtime.block_on(ours.put(&key, key))?;
        moka.insert(key, Arc::new(key));
    }
    let block_on = |reads, read: &dyn Fn(u64)| time_each(reads, read);
    let plain = || {
        let read = |key| futures_block(get(&ours, key));
        Ok(block_on(args.reads, &read))
    };
    let through = || {
        let read = |key| futures_block(get_or_load(&ours, key));
        Ok(block_on(args.reads, &read))
    };
    let peer = || {
        let read = |key: u64| {
            black_box(
                moka.try_get_with(key, || Err::<Arc<u64>, &str>("not needed"))
                    .ok(),
            );
        };
        Ok(block_on(args.reads, &read))
    };
    let own = interleave("hit", args.rounds, through, plain)?.pairs(|each| *each);
    let against = interleave("hit, moka", args.rounds, through, peer)?.pairs(|each| *each);

    let cold = open("cold", LoadPolicy::new())?;
    let (mut took, mut calls) = (Pairs::default(), 0);
    for round in 0..args.rounds {
        let (ours, ours_calls) = runtime.block_on(stampede(&cold, args, round as u64))?;
        took.push(ours, stampede_moka(args)?);
        calls = calls.max(ours_calls);
    }
    let refused = open("down", LoadPolicy::new())?;
    let (asked, misses) = runtime.block_on(outage(&refused));
    runtime.block_on(node.shutdown());
    let (callers, load_ms) = (args.callers, args.load_ms);
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let (calls, asked, misses) = (calls as f64, asked as f64, misses as f64);
    Ok(Table {
        name: "loading".to_owned(),
        rows: vec![
            Row::compared("perf-C6", "a hit of get_or_load", "ns", "get", &own)
                .must(Bound::AtMost(1.05)),
            Row::compared(
                "perf-C6",
                "a hit of get_or_load",
                "ns",
                "moka try_get_with",
                &against,
            ),
            Row::alone(
                "perf-C4",
                format!("calls of the loader for {callers} callers of a cold key"),
                "calls",
                calls,
            ),
            Row::compared(
                "perf-C4",
                format!("{callers} callers of a cold key, load of {load_ms} ms: all have it"),
                "ms",
                "moka try_get_with",
                &took,
            ),
            Row::compared(
                "O11",
                "calls of a loader that fails, 2 s of misses",
                "calls",
                "misses",
                &Pairs::of(asked, misses),
            ),
        ],
        notes: vec![
            "one node, mode local; a call is polled in place, without a runtime's scheduling"
                .to_owned(),
            format!("cold key: ours {callers} tasks, moka (sync) {callers} threads"),
        ],
    })
}

/// Polls what never waits.
fn futures_block(future: impl Future<Output = ()>) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let done = std::pin::pin!(future).poll(&mut context).is_ready();
    debug_assert!(done, "a hit does not wait");
}

/// Milliseconds until all callers of a cold key have its value, and how often the loader was called.
async fn stampede(cache: &Numbers, args: &Args, key: u64) -> anyhow::Result<(f64, usize)> {
    let calls = Arc::new(AtomicUsize::new(0));
    let takes = Duration::from_millis(args.load_ms);
    let started = Instant::now();
    let mut callers = Vec::with_capacity(args.callers);
    for _ in 0..args.callers {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        callers.push(tokio::spawn(async move {
            let loader = async move |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(takes).await;
                Ok::<u64, &str>(key)
            };
            cache.get_or_load(&key, loader).await
        }));
    }
    for caller in callers {
        caller.await??.context("a value")?;
    }
    let took_ms = started.elapsed().as_secs_f64() * 1_000.0;
    Ok((took_ms, calls.load(Ordering::Relaxed)))
}

fn stampede_moka(args: &Args) -> anyhow::Result<f64> {
    let cache = moka::sync::Cache::<u64, u64>::new(KEYS);
    let takes = Duration::from_millis(args.load_ms);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let call = || {
            let loaded = cache.try_get_with(1, || {
                std::thread::sleep(takes);
                Ok::<u64, &str>(1)
            });
            loaded.map_err(|error| anyhow::anyhow!("{error}"))
        };
        let callers: Vec<_> = (0..args.callers).map(|_| scope.spawn(call)).collect();
        for caller in callers {
            let ended = caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))?;
            ended?;
        }
        anyhow::Ok(())
    })?;
    Ok(started.elapsed().as_secs_f64() * 1_000.0)
}

/// How often a loader that fails is called in two seconds of misses, and how many misses there are.
async fn outage(cache: &Numbers) -> (usize, usize) {
    let (calls, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut callers = Vec::new();
    for caller in 0..8_u64 {
        let (cache, calls, stop) = (cache.clone(), Arc::clone(&calls), Arc::clone(&stop));
        callers.push(tokio::spawn(async move {
            let mut misses = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                let calls = Arc::clone(&calls);
                let key = caller << 32 | misses as u64;
                let loader = async move |_| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    Err::<u64, _>("down")
                };
                let _ = black_box(cache.get_or_load(&key, loader).await);
                misses += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            misses
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let mut misses = 0;
    for caller in callers {
        misses += caller.await.unwrap_or(0);
    }
    (calls.load(Ordering::Relaxed), misses)
}
