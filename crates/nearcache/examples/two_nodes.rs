//! Two nodes that share a cache: how fast a value travels, and what a restart costs.
//!
//! `cargo run --release -p nearcache --example two_nodes`
//!
//! Both live in this process, but share nothing but the network: on two machines the code is the
//! same, with addresses that reach across.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nearcache::{Ack, Cache, Node, PutOptions, Received, StaticPeers};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let one = start("one", None).await?;
    let two = start("two", Some(one.local_addr())).await?;
    let here = open(&one).await?;
    let there = open(&two).await?;
    two.ready().await;
    println!("{} and {} are connected", one.name(), two.name());

    // A value put on one node is there on the other, with what it has left to live.
    let hour = PutOptions::new()
        .ttl(Duration::from_secs(3600))
        .ack(Ack::All);
    here.put_with("greeting", "hello".into(), hour).await?;
    let greeting = there.get("greeting").await?.ok_or("acknowledged by all")?;
    let left = greeting.remaining_ttl(two.clock()).unwrap_or_default();
    println!(
        "two reads {:?}, which lives for {} s more",
        *greeting,
        left.as_secs()
    );

    let mut times = visibility(&here, &there, 5000).await?;
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied();
    println!(
        "from put on one until seen on two: p50 {:?}, p99 {:?}",
        percentile(50).unwrap_or_default(),
        percentile(99).unwrap_or_default(),
    );

    // How old what two knows of one may be, by its own clock.
    println!("freshness of two: {:?}", there.freshness().worst);

    // Stop a node and start it again: it is filled from the other before it is ready.
    for number in 0..100_000 {
        here.put(&format!("key:{number}"), "value".into()).await?;
    }
    two.shutdown().await;
    drop((two, there));
    let two = start("two", Some(one.local_addr())).await?;
    let started = Instant::now();
    let there = open(&two).await?;
    two.ready().await;
    println!(
        "two is back with {} entries after {:?}",
        there.len(),
        started.elapsed()
    );

    two.shutdown().await;
    one.shutdown().await;
    Ok(())
}

async fn start(name: &str, seed: Option<SocketAddr>) -> Result<Node, Box<dyn Error>> {
    let seeds = StaticPeers::new(seed);
    Ok(Node::builder("example")
        .name(name)
        .discovery(seeds)
        .start()
        .await?)
}

async fn open(node: &Node) -> Result<Cache<String, String>, Box<dyn Error>> {
    Ok(node.cache("things").max_bytes(100 << 20).open().await?)
}

/// Puts `count` values on one node, one after the other, and times when the other sees each.
async fn visibility(
    here: &Cache<String, String>,
    there: &Cache<String, String>,
    count: usize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut seen = there.watch();
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        here.put("counter", number.to_string()).await?;
        if !matches!(seen.next().await, Some(Received::Event(_))) {
            return Err("the watch missed a change".into());
        }
        times.push(started.elapsed());
    }
    Ok(times)
}
