//! What a hit costs when the caller has a loader at hand (perf-C6).

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::{Args, Numbers, group, local};
use crate::rounds::{Pairs, interleave};
use crate::table::{Bound, Row, Table};

/// Keys read in turn.
const KEYS: u64 = 10_000;

/// Each round is taken in so many short ones, so that a disturbance of some milliseconds costs one vote of many.
const SLICES: usize = 20;

pub(super) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let (node, ours) = filled(None).await?;
    let (expiring_node, expiring) = filled(Some(Duration::from_secs(3_600))).await?;
    let moka = moka::future::Cache::<u64, u64>::new(KEYS * 2);
    let group = group::start(1, async |key| Ok(key)).await?;
    let texts: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
    for (key, text) in (0..KEYS).zip(&texts) {
        moka.insert(key, key).await;
        group[0].get(text).await?;
    }
    let (rounds, reads) = (args.rounds * SLICES, (args.reads / SLICES as u64).max(1));
    let compared = |what: &str, cache: &Numbers, peer: &dyn Fn() -> f64| {
        let through = || Ok(time_each(reads, |key| get_or_load(cache, key)));
        let rounds = interleave(what, rounds, through, || Ok(peer()));
        rounds.map(|rounds| rounds.pairs(|each| *each))
    };
    let plain = |cache: &Numbers| time_each(reads, |key| get(cache, key));
    let row = |what: &str, peer, pairs: &Pairs| Row::compared("perf-C6", what, "ns", peer, pairs);

    let own = compared("hit", &ours, &|| plain(&ours))?;
    table.push(row("a hit of get_or_load", "get", &own).must(Bound::AtMost(1.05)));
    let own = compared("hit that expires", &expiring, &|| plain(&expiring))?;
    let what = "a hit of get_or_load, entry that expires in an hour";
    table.push(row(what, "get", &own).must(Bound::AtMost(1.05)));

    let through_moka = || {
        time_each(reads, async |key| {
            let loaded = moka.try_get_with(key, async { Err::<u64, &str>("not needed") });
            black_box(loaded.await.ok());
        })
    };
    let against = compared("hit, moka", &ours, &through_moka)?;
    table.push(row("a hit of get_or_load", "moka try_get_with", &against));
    let through_group = || {
        time_each(reads, async |key| {
            let text = texts.get(usize::try_from(key).unwrap_or(0));
            if let Some(text) = text {
                black_box(group[0].get(text).await.ok());
            }
        })
    };
    let against = compared("hit, groupcache", &ours, &through_group)?;
    table.push(row("a hit of get_or_load", "groupcache get", &against));
    table.note("hits: one node; a call is polled in place, without a runtime's scheduling");
    node.shutdown().await;
    expiring_node.shutdown().await;
    Ok(())
}

async fn filled(ttl: Option<Duration>) -> anyhow::Result<(nearcache::Node, Numbers)> {
    let (node, cache) = local(ttl).await?;
    for key in 0..KEYS {
        cache.put(&key, key).await?;
    }
    Ok((node, cache))
}

async fn get(cache: &Numbers, key: u64) {
    black_box(cache.get(&key).await.ok());
}

async fn get_or_load(cache: &Numbers, key: u64) {
    let loaded = cache.get_or_load(&key, async |_| Err::<u64, _>("not needed"));
    black_box(loaded.await.ok());
}

/// Nanoseconds of one call.
fn time_each<Fut: Future<Output = ()>>(reads: u64, read: impl Fn(u64) -> Fut) -> f64 {
    let started = Instant::now();
    (0..reads).for_each(|n| poll_once(read(n % KEYS)));
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let each = started.elapsed().as_nanos() as f64 / reads as f64;
    each
}

/// Polls what never waits.
fn poll_once(future: impl Future<Output = ()>) {
    let mut context = Context::from_waker(Waker::noop());
    let done = pin!(future).poll(&mut context).is_ready();
    debug_assert!(done, "a hit does not wait");
}
