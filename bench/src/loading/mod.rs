//! Reading through the cache: what a hit costs (perf-C6, [`hits`]), what a cold key that everybody wants costs (perf-C4,
//! [`stampede`]), and how a system of record is treated that is down and comes back (O11, [`outage`]).
//!
//! Beside it in the same run: moka's asynchronous `try_get_with`, and the crate `groupcache` ([`group`]). All nodes live in this process and
//! talk over loopback.

mod group;
mod hits;
mod outage;
mod stampede;

use std::time::Duration;

use nearcache::{Cache, LoadPolicy, Mode, Node, StaticPeers};

use crate::rounds::DEFAULT_ROUNDS;
use crate::table::Table;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reads of each round.
    #[arg(long, default_value_t = 2_000_000)]
    reads: u64,
    /// Callers of a cold key, over all nodes.
    #[arg(long, default_value_t = 1_000)]
    callers: usize,
    /// Milliseconds that a load takes, each measured by itself.
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    load_ms: Vec<u64>,
    /// Seconds that the system of record is down; 0 leaves this part out.
    #[arg(long, default_value_t = 60)]
    outage_s: u64,
    /// Misses per second meanwhile.
    #[arg(long, default_value_t = 10_000)]
    misses: u32,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = DEFAULT_ROUNDS)]
    rounds: usize,
}

/// Nodes that share a cache, where it is shared.
const NODES: usize = 3;

type Numbers = Cache<u64, u64>;

pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table::new("loading");
    runtime.block_on(async {
        hits::measure(args, &mut table).await?;
        stampede::measure(args, &mut table).await?;
        outage::measure(args, &mut table).await
    })?;
    table.note("all nodes in this process, over loopback; TLS on none of the sides");
    Ok(table)
}

/// A cache on a node of its own.
async fn local(ttl: Option<Duration>) -> anyhow::Result<(Node, Numbers)> {
    let node = Node::builder("bench").start().await?;
    let mut cache = node.cache("numbers").mode(Mode::Local);
    if let Some(ttl) = ttl {
        cache = cache.time_to_live(ttl);
    }
    let cache = cache.load_policy(LoadPolicy::new()).open().await?;
    Ok((node, cache))
}

/// One cache on three nodes, in mode `replicated`.
async fn replicated() -> anyhow::Result<Vec<(Node, Numbers)>> {
    let (mut seeds, mut nodes) = (Vec::new(), Vec::new());
    for number in 0..NODES {
        let node = Node::builder("bench")
            .name(format!("n{number}"))
            .discovery(StaticPeers::new(seeds.clone()))
            .start()
            .await?;
        seeds.push(node.local_addr());
        let cache = node.cache("numbers").open().await?;
        nodes.push((node, cache));
    }
    for (node, _) in &nodes {
        node.ready().await;
        while node.members().len() < NODES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(nodes)
}
