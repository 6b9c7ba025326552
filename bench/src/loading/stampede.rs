//! A cold key that everybody wants at once, on three nodes (perf-C4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Args, NODES, group, replicated};
use crate::rounds::interleave;
use crate::table::{Bound, Row, Table};

/// A system of record that takes its time and counts.
#[derive(Clone)]
struct Source {
    takes_ms: Arc<AtomicU64>,
    calls: Arc<AtomicUsize>,
}

impl Source {
    async fn read(&self, key: u64) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let takes_ms = self.takes_ms.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(takes_ms)).await;
        key
    }

    /// Milliseconds that `ask` takes, and the calls made meanwhile.
    async fn during(&self, ask: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Run> {
        let (before, started) = (self.calls.load(Ordering::Relaxed), Instant::now());
        ask.await?;
        let took_ms = started.elapsed().as_secs_f64() * 1_000.0;
        #[expect(clippy::cast_precision_loss, reason = "a table for people")]
        let calls = (self.calls.load(Ordering::Relaxed) - before) as f64;
        Ok(Run { took_ms, calls })
    }
}

/// What one round came to.
struct Run {
    took_ms: f64,
    calls: f64,
}

pub(super) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let source = Source {
        takes_ms: Arc::default(),
        calls: Arc::default(),
    };
    let ours = replicated().await?;
    let moka: [_; NODES] = std::array::from_fn(|_| moka::future::Cache::<u64, u64>::new(10_000));
    let for_group = source.clone();
    let load = move |key| {
        let source = for_group.clone();
        async move { Ok(source.read(key).await) }
    };
    let group = group::start(NODES, load).await?;
    // Each round asks for a key that nobody has.
    let keys = AtomicU64::new(0);
    let cold = || keys.fetch_add(1, Ordering::Relaxed);
    let (source, nodes, callers) = (&source, &ours, args.callers);

    let ask_ours = |key: u64| {
        source.during(all(callers, move |caller| {
            let (cache, source) = (nodes[caller % NODES].1.clone(), source.clone());
            async move {
                let loader = async move |_| Ok::<u64, &str>(source.read(key).await);
                let value = cache.get_or_load(&key, loader).await?;
                value.context("a value").map(|_| ())
            }
        }))
    };
    let moka = &moka;
    let ask_moka = |key: u64| {
        source.during(all(callers, move |caller| {
            let (cache, source) = (moka[caller % NODES].clone(), source.clone());
            async move {
                let load = async { Ok::<u64, String>(source.read(key).await) };
                let value = cache.try_get_with(key, load).await;
                value
                    .map(|_| ())
                    .map_err(|error| anyhow::anyhow!("{error}"))
            }
        }))
    };
    let group = &group;
    let ask_group = |key: u64| {
        source.during(all(callers, move |caller| {
            let peer = group[caller % NODES].clone();
            async move { Ok(peer.get(&key.to_string()).await.map(|_| ())?) }
        }))
    };
    let ask_source = |key: u64| {
        source.during(async move {
            source.read(key).await;
            Ok(())
        })
    };

    for takes_ms in &args.load_ms {
        source.takes_ms.store(*takes_ms, Ordering::Relaxed);
        let what = format!("{callers} callers on 3 nodes, load of {takes_ms} ms");
        for peer in ["one load", "groupcache", "moka try_get_with"] {
            let of_peer = || match peer {
                "one load" => block(ask_source(cold())),
                "groupcache" => block(ask_group(cold())),
                _ => block(ask_moka(cold())),
            };
            let name = format!("{what}, {peer}");
            let rounds = interleave(&name, args.rounds, || block(ask_ours(cold())), of_peer)?;
            let calls = Row::compared(
                "perf-C4",
                format!("{what}: most calls of the loader"),
                "calls",
                peer,
                &rounds.pairs(|run| run.calls).most(),
            );
            let took = Row::compared(
                "perf-C4",
                format!("{what}: all have the value"),
                "ms",
                peer,
                &rounds.pairs(|run| run.took_ms),
            );
            if peer == "one load" {
                table.push(calls.must(Bound::AtMost(1.0)));
                table.push(took.must(Bound::AtMost(1.2)));
            } else {
                table.push(calls);
                table.push(took);
            }
        }
    }
    table.note(
        "cold key: moka is a cache on each of the three nodes, which know nothing of each other",
    );
    for (node, _) in &ours {
        node.shutdown().await;
    }
    Ok(())
}

/// Runs a round from where rounds are interleaved, which knows no waiting.
fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// So many tasks at once, to the end of the last.
async fn all<Fut>(callers: usize, ask: impl Fn(usize) -> Fut) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let callers: Vec<_> = (0..callers)
        .map(|caller| tokio::spawn(ask(caller)))
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(())
}
