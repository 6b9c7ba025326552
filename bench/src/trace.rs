//! Replays a recorded trace through a running three-node cluster, over the Redis protocol.
//!
//! Requests are dealt to three clients, one on each node, in turn. Each asks for the key and writes it
//! when it is missing, as a service with a cache does. Twice: first bounded, which tells the hit ratio and the
//! latency; then with room for all, where one request in [`UPDATE_EVERY`] writes whatever it finds, and
//! afterwards every key must have the same value on all three nodes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};

use crate::cluster::{Cluster, NODES};
use crate::latency::Latencies;
use crate::replication::per;
use crate::resp_client::{Client, Reply};
use crate::table::{Row, Table};
use crate::traces::{self, Request};

/// With room for all, one request in this many writes although the key is there.
const UPDATE_EVERY: usize = 10;

/// Size of a value where the trace does not tell, in bytes.
const DEFAULT_VALUE_BYTES: u32 = 100;

/// Larger values of a trace are cut to this many bytes: replication sends each to two nodes.
const MAX_VALUE_BYTES: u32 = 16 << 10;

/// What a node needs for an entry beside key and value, in bytes; a guess that only sets the scale.
const ENTRY_OVERHEAD_BYTES: u64 = 120;

/// Keys asked for at once when the nodes are compared.
const COMPARE_AT_ONCE: usize = 256;

/// Options of `bench trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The trace.
    #[arg(long)]
    file: PathBuf,
    /// Bound of each node when bounded, as percentage of what all keys need.
    #[arg(long, default_value_t = 10)]
    share: u64,
    /// Requests to replay at most, from the start of the trace.
    #[arg(long, default_value_t = 1_000_000)]
    limit: usize,
}

/// Replays and returns the table.
///
/// # Errors
/// When the trace cannot be read, the cluster stops answering, or its nodes differ at the end.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let trace = traces::read(&args.file)?;
    let requests = &trace.requests[..trace.requests.len().min(args.limit)];
    let mut seen = HashSet::new();
    let distinct: Vec<&Request> = requests
        .iter()
        .filter(|request| seen.insert(request.key))
        .collect();
    let all_bytes: u64 = distinct.iter().map(|request| entry_bytes(request)).sum();

    let mut table = Table::new("trace");
    table.note(format!(
        "{}: {} requests of {} keys, dealt to one client on each of {NODES} nodes",
        trace.name,
        requests.len(),
        distinct.len()
    ));

    let bounded = Cluster::nearcache((all_bytes * args.share / 100).max(1 << 20))?;
    let replay = replay(&bounded, requests, None)?;
    let what = |what: &str| format!("bounded to {} %: {what}", args.share);
    table.push(Row::alone(
        "",
        what("hit ratio"),
        "%",
        100.0 * replay.hit_ratio(),
    ));
    let (p50, p99) = replay.latencies.p50_p99_us();
    table.push(Row::alone("", what("get p50"), "µs", p50));
    table.push(Row::alone("", what("get p99"), "µs", p99));
    table.push(Row::alone(
        "",
        what("throughput"),
        "requests/s",
        replay.per_second(),
    ));
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let resident = bounded.first().resident_bytes()? as f64 / 1e6;
    table.push(Row::alone(
        "",
        what("resident memory of a node"),
        "MB",
        resident,
    ));
    drop(bounded);

    let roomy = Cluster::nearcache(all_bytes * 4 + (64 << 20))?;
    let replay = self::replay(&roomy, requests, Some(UPDATE_EVERY))?;
    let name = "room for all: hit ratio";
    table.push(Row::alone("", name, "%", 100.0 * replay.hit_ratio()));
    let name = "room for all: throughput, 10 % updates";
    table.push(Row::alone("", name, "requests/s", replay.per_second()));
    let compared = compare(&roomy, &distinct)?;
    table.push(Row::alone(
        "",
        "room for all: keys equal on all nodes",
        "keys",
        per(compared, 1.0),
    ));
    Ok(table)
}

/// What a replay found.
#[derive(Debug)]
struct Replay {
    requests: u64,
    hits: u64,
    latencies: Latencies,
    elapsed: Duration,
}

impl Replay {
    fn hit_ratio(&self) -> f64 {
        per(self.hits, per(self.requests, 1.0))
    }

    fn per_second(&self) -> f64 {
        per(self.requests, self.elapsed.as_secs_f64())
    }
}

fn replay(
    cluster: &Cluster,
    requests: &[Request],
    update_every: Option<usize>,
) -> anyhow::Result<Replay> {
    let started = Instant::now();
    let mut total = Replay {
        requests: 0,
        hits: 0,
        latencies: Latencies::new()?,
        elapsed: Duration::ZERO,
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = cluster
            .connect()?
            .into_iter()
            .enumerate()
            .map(|(index, client)| {
                scope.spawn(move || replay_share(client, index, requests, update_every))
            })
            .collect();
        for client in clients {
            let (asked, hits, latencies) =
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            total.requests += asked;
            total.hits += hits;
            total.latencies.add(&latencies)?;
        }
        anyhow::Ok(())
    })?;
    total.elapsed = started.elapsed();
    Ok(total)
}

/// Requests `index`, `index + 3`, `index + 6`, …; returns how many, the hits among them, and how long
/// each read took.
fn replay_share(
    mut client: Client,
    index: usize,
    requests: &[Request],
    update_every: Option<usize>,
) -> anyhow::Result<(u64, u64, Latencies)> {
    let mut latencies = Latencies::new()?;
    let (mut asked, mut hits) = (0, 0);
    for (number, request) in requests.iter().enumerate().skip(index).step_by(NODES) {
        let key = key(request);
        let started = Instant::now();
        let found = client.expect_ok(&[b"GET", &key])?;
        latencies.record(started.elapsed())?;
        asked += 1;
        let is_hit = found != Reply::Null;
        hits += u64::from(is_hit);
        if !is_hit || update_every.is_some_and(|every| number % every == 0) {
            client.expect_ok(&[b"SET", &key, &value(request, number)])?;
        }
    }
    Ok((asked, hits, latencies))
}

/// Compares every key on all nodes, once all writes have arrived; returns how many there are.
fn compare(cluster: &Cluster, distinct: &[&Request]) -> anyhow::Result<u64> {
    cluster.settle_all()?;
    let mut clients = cluster.connect()?;
    let mut compared = 0;
    for chunk in distinct.chunks(COMPARE_AT_ONCE) {
        let keys: Vec<Vec<u8>> = chunk.iter().map(|request| key(request)).collect();
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(keys.iter().map(Vec::as_slice));
        let mut answers = Vec::new();
        for client in &mut clients {
            match client.expect_ok(&words)? {
                Reply::Array(values) => answers.push(values),
                other => bail!("MGET was answered by {other:?}"),
            }
        }
        for (at, request) in chunk.iter().enumerate() {
            let values: Vec<Option<&Reply>> = answers.iter().map(|answer| answer.get(at)).collect();
            let first = values[0];
            ensure!(
                first.is_some_and(|first| *first != Reply::Null),
                "key {} is missing on the first node although there is room for all",
                request.key
            );
            ensure!(
                values.iter().all(|value| *value == first),
                "key {} differs between the nodes after all writes have arrived",
                request.key
            );
            compared += 1;
        }
    }
    Ok(compared)
}

fn key(request: &Request) -> Vec<u8> {
    format!("trace:{:016x}", request.key).into_bytes()
}

/// A value that tells which request wrote it, so that two writes of a key are told apart.
fn value(request: &Request, number: usize) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    value.resize(value_bytes(request).max(value.len()), b'x');
    value
}

fn value_bytes(request: &Request) -> usize {
    let bytes = request
        .size_bytes
        .unwrap_or(DEFAULT_VALUE_BYTES)
        .min(MAX_VALUE_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn entry_bytes(request: &Request) -> u64 {
    (key(request).len() + value_bytes(request)) as u64 + ENTRY_OVERHEAD_BYTES
}
