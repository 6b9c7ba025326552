//! How long nodes of the library take to agree after a netsplit: rule R1 of the reliability specification, with as many keys as it names.
//!
//! Five nodes on loopback that share nothing but the network. Two sides are disconnected, both write, and are connected again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nearcache::{Cache, Node, PutOptions, Raw, RawValue, StaticPeers, Version};
use tokio::runtime::{Builder, Runtime};

use super::Args;
use crate::redis_benchmark::key;
use crate::rounds::Pairs;
use crate::table::{Bound, Row, Table};

const NODES: usize = 5;
/// The first ones are one side.
const SIDE: usize = 2;
/// Keys of the cache: as many as R1 allows its bound for.
const KEYS: u64 = 100_000;
/// What each side writes while they are apart: half of it the same keys as the other.
const WRITTEN: u64 = 20_000;
const VALUE: usize = 100;
/// R1.
const BOUND_S: f64 = 5.0;
/// When it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ROOM_BYTES: u64 = 512 << 20;

type BytesCache = Cache<Vec<u8>, RawValue, Raw>;

/// The order of the fields is the order in which they end.
struct Member {
    cache: BytesCache,
    node: Node,
    runtime: Runtime,
}

/// Adds the rows.
///
/// # Errors
/// When the nodes cannot be started, or never agree.
pub(super) fn run(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let members = start()?;
        rounds.push(heal(&members).with_context(|| format!("round {round}"))?);
    }
    rounds.sort_by(f64::total_cmp);
    let worst = rounds.last().copied().context("no rounds")?;
    let what = format!(
        "{NODES} nodes, {KEYS} keys, {} written apart: agreement after healing, worst of {}",
        2 * WRITTEN,
        args.rounds
    );
    let row = Row::compared("R1", what, "s", "bound", &Pairs::of(worst, BOUND_S));
    table.push(row.must(Bound::AtMost(1.0)));
    let median = rounds.get(rounds.len() / 2).copied().unwrap_or(worst);
    table.push(Row::alone("", "the same, median".to_owned(), "s", median));
    Ok(())
}

fn start() -> anyhow::Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    for index in 0..NODES {
        let seeds: Vec<_> = members.iter().map(|m| m.node.local_addr()).collect();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (node, cache) = runtime.block_on(async {
            let node = Node::builder("healing")
                .name(format!("n{}", index + 1))
                .discovery(StaticPeers::new(seeds))
                .start()
                .await?;
            let builder = node.cache("default").codec::<Raw>().max_bytes(ROOM_BYTES);
            let cache: BytesCache = builder.open().await?;
            cache.ready().await;
            anyhow::Ok((node, cache))
        })?;
        members.push(Member {
            cache,
            node,
            runtime,
        });
    }
    until("the nodes know each other", || {
        members.iter().all(|m| m.node.members().len() == NODES)
    })?;
    write(members.first().context("nodes")?, 0..KEYS, b'0')?;
    until("all keys are everywhere", || agree(&members))?;
    Ok(members)
}

/// Seconds from the moment at which the two sides are connected again until all nodes hold the same.
fn heal(members: &[Member]) -> anyhow::Result<f64> {
    let (near, far) = members.split_at(SIDE);
    for (a, b) in near.iter().flat_map(|a| far.iter().map(move |b| (a, b))) {
        a.node.disconnect(b.node.id());
        b.node.disconnect(a.node.id());
    }
    let (one, other) = (
        near.first().context("a side")?,
        far.first().context("a side")?,
    );
    write(one, 0..WRITTEN, b'1')?;
    write(other, WRITTEN / 2..WRITTEN / 2 + WRITTEN, b'2')?;
    ensure!(
        [0, WRITTEN]
            .iter()
            .all(|key| held(one, *key) != held(other, *key)),
        "the two sides are not apart"
    );
    let began = Instant::now();
    for (a, b) in near.iter().flat_map(|a| far.iter().map(move |b| (a, b))) {
        // Either may have to dial; it is refused by the other until that one has allowed it too.
        let _ = b.runtime.block_on(b.node.connect(a.node.local_addr()));
        let _ = a.runtime.block_on(a.node.connect(b.node.local_addr()));
    }
    until("the nodes agree", || agree(members))?;
    Ok(began.elapsed().as_secs_f64())
}

fn write(member: &Member, keys: std::ops::Range<u64>, filler: u8) -> anyhow::Result<()> {
    let value = RawValue::from(&[filler; VALUE][..]);
    for number in keys {
        let put = member
            .cache
            .put_now(&key(number)[..], value.clone(), &PutOptions::new());
        put.with_context(|| format!("key {number}"))?;
    }
    Ok(())
}

/// Whether all nodes hold the same value under every key.
fn agree(members: &[Member]) -> bool {
    let Some((first, others)) = members.split_first() else {
        return true;
    };
    (0..KEYS).all(|key| {
        let version = held(first, key);
        version.is_some() && others.iter().all(|other| held(other, key) == version)
    })
}

fn held(member: &Member, number: u64) -> Option<Version> {
    let entry = member.cache.peek(&key(number)[..])?;
    Some(entry.version())
}

fn until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds() {
        ensure!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
