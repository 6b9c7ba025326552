//! Three nodes of the library in this process, each with a runtime and sockets of its own.
//!
//! They share nothing but the network, so replication costs what it costs between processes. The one
//! difference is that reads and writes are calls, as they are for the program that embeds a node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use nearcache::{Ack, Cache, Mode, Node, PutOptions, Raw, RawValue, StaticPeers};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::NODES;
use crate::cpu;
use crate::latency::Latencies;
use crate::redis_benchmark::key;
use crate::replication::{KEYS, ROOM_BYTES, Throughput, VALUE_BYTES, Visible, per};

/// A cache of bytes, as the server uses it too.
type BytesCache = Cache<Vec<u8>, RawValue, Raw>;

/// Longest a write may take to reach the others before the measurement gives up.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Updates after which the writer asks for an acknowledgement of all nodes. A few of these are far less
/// than a node keeps for a peer that lags, so that the figure is of replication and not of repair.
const UPDATES_PER_ACK: u64 = 4_096;

/// Acknowledgements the writer lets be outstanding before it waits for the oldest.
const ACKS_OUTSTANDING: usize = 4;

/// The three nodes and their caches.
#[derive(Debug)]
pub(crate) struct LibraryCluster {
    members: Vec<Member>,
}

/// One node; the order of the fields is the order in which they end.
#[derive(Debug)]
struct Member {
    cache: BytesCache,
    node: Node,
    runtime: Runtime,
}

impl LibraryCluster {
    /// Starts three nodes on loopback and waits until they know each other.
    ///
    /// # Errors
    /// When a node cannot be started, or they do not find each other.
    pub(crate) fn start(mode: Mode) -> anyhow::Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        for index in 0..NODES {
            let seeds: Vec<_> = members
                .iter()
                .map(|member| member.node.local_addr())
                .collect();
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let (node, cache) = runtime.block_on(async {
                let node = Node::builder("bench")
                    .name(format!("n{}", index + 1))
                    .discovery(StaticPeers::new(seeds))
                    .start()
                    .await?;
                let builder = node.cache::<Vec<u8>, RawValue>("default").codec::<Raw>();
                let cache: BytesCache = builder.mode(mode).max_bytes(ROOM_BYTES).open().await?;
                anyhow::Ok((node, cache))
            })?;
            members.push(Member {
                cache,
                node,
                runtime,
            });
        }
        let cluster = Self { members };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    fn wait_until_whole(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        for member in &self.members {
            while member.node.members().len() < NODES {
                ensure!(
                    Instant::now() < deadline,
                    "the nodes did not find each other"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            member.runtime.block_on(member.cache.ready());
        }
        let first = self.first();
        let everywhere = PutOptions::new().ack(Ack::All).timeout(VISIBLE_TIMEOUT);
        let value = RawValue::from("whole");
        first.runtime.block_on(first.cache.put_with(
            b"bench:whole".as_slice(),
            value,
            everywhere,
        ))?;
        Ok(())
    }

    fn first(&self) -> &Member {
        &self.members[0]
    }

    /// Writes on the first node, one value after the other, and asks the two others in memory until
    /// both have it; meanwhile `busy` threads write on the first node, together `rate` updates per second.
    ///
    /// # Errors
    /// When a write is refused or does not arrive.
    pub(crate) fn visible(&self, writes: u64, busy: u64, rate: u64) -> anyhow::Result<Visible> {
        self.beside_writers(busy, rate, || self.poll_visible(writes))
    }

    /// In mode `invalidation`: writes on the first node what the two others hold copies of, and asks them until both have dropped
    /// theirs; beside busy threads as above.
    ///
    /// # Errors
    /// When a write is refused, a copy is not kept, or an invalidation does not arrive.
    pub(crate) fn superseded(&self, writes: u64, busy: u64, rate: u64) -> anyhow::Result<Visible> {
        self.beside_writers(busy, rate, || self.poll_superseded(writes))
    }

    fn poll_superseded(&self, writes: u64) -> anyhow::Result<Latencies> {
        let key: &[u8] = b"bench:superseded";
        let options = PutOptions::new();
        let mut latencies = Latencies::new()?;
        for i in 0..writes {
            let value = format!("{i:0>width$}", width = VALUE_BYTES as usize).into_bytes();
            for member in self.members.iter().skip(1) {
                let started = Instant::now();
                let load = || {
                    let fill = member.cache.begin_fill(key)?;
                    anyhow::Ok(fill.put(RawValue::from(value.as_slice()), &options)?)
                };
                // Not kept within the clocks' bound of the write before.
                while !load()? {
                    ensure!(started.elapsed() < VISIBLE_TIMEOUT, "copy {i} is not kept");
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            let started = Instant::now();
            let first = &self.first().cache;
            first.put_now(key, RawValue::from(value.as_slice()), &options)?;
            for member in self.members.iter().skip(1) {
                while member.cache.peek(key).is_some() {
                    ensure!(
                        started.elapsed() < VISIBLE_TIMEOUT,
                        "invalidation {i} did not arrive"
                    );
                    std::thread::yield_now();
                }
            }
            latencies.record(started.elapsed())?;
        }
        Ok(latencies)
    }

    fn beside_writers(
        &self,
        busy: u64,
        rate: u64,
        measure: impl FnOnce() -> anyhow::Result<Latencies>,
    ) -> anyhow::Result<Visible> {
        let stop = AtomicBool::new(false);
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for writer in 0..busy {
                let (stop, written, cache) = (&stop, &written, &self.first().cache);
                scope.spawn(move || write_paced(stop, written, cache, writer, rate / busy));
            }
            let started = Instant::now();
            let measured = measure();
            let seconds = started.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            let (p50_us, p99_us) = measured?.p50_p99_us();
            let busy_per_second = per(written.load(Ordering::Relaxed), seconds);
            Ok(Visible {
                p50_us,
                p99_us,
                busy_per_second,
            })
        })
    }

    fn poll_visible(&self, writes: u64) -> anyhow::Result<Latencies> {
        let key: &[u8] = b"bench:visible";
        let options = PutOptions::new();
        let mut latencies = Latencies::new()?;
        for i in 0..writes {
            let value = format!("{i:0>width$}", width = VALUE_BYTES as usize).into_bytes();
            let started = Instant::now();
            self.first()
                .cache
                .put_now(key, RawValue::from(value.as_slice()), &options)?;
            for member in self.members.iter().skip(1) {
                let has_it = || {
                    member
                        .cache
                        .peek(key)
                        .is_some_and(|found| **found == *value)
                };
                while !has_it() {
                    ensure!(
                        started.elapsed() < VISIBLE_TIMEOUT,
                        "write {i} did not arrive"
                    );
                    std::thread::yield_now();
                }
            }
            latencies.record(started.elapsed())?;
        }
        Ok(latencies)
    }

    /// Writes on the first node as fast as the others follow.
    ///
    /// # Errors
    /// When a write is refused or not acknowledged by all.
    pub(crate) fn updates(&self, updates: u64) -> anyhow::Result<Throughput> {
        let first = self.first();
        let options = PutOptions::new();
        let everywhere = PutOptions::new().ack(Ack::All).timeout(VISIBLE_TIMEOUT);
        let mut outstanding = VecDeque::new();
        let cpu_before = cpu::of_this_process();
        let started = Instant::now();
        for i in 0..updates {
            let key = key(i * 7919 % KEYS);
            let value = RawValue::from([b'x'; VALUE_BYTES as usize].as_slice());
            if (i + 1) % UPDATES_PER_ACK != 0 {
                first.cache.put_now(key.as_slice(), value, &options)?;
                continue;
            }
            let (cache, everywhere) = (first.cache.clone(), everywhere.clone());
            outstanding.push_back(first.runtime.spawn(async move {
                cache
                    .put_with(key.as_slice(), value, everywhere)
                    .await
                    .map(drop)
            }));
            if outstanding.len() >= ACKS_OUTSTANDING
                && let Some(oldest) = outstanding.pop_front()
            {
                first
                    .runtime
                    .block_on(oldest)
                    .context("waiting for an acknowledgement")??;
            }
        }
        for acknowledged in outstanding {
            first
                .runtime
                .block_on(acknowledged)
                .context("waiting for an acknowledgement")??;
        }
        self.wait_for_last()?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = cpu::of_this_process().saturating_sub(cpu_before);
        Ok(Throughput {
            per_second: per(updates, seconds),
            cpu_us: cpu.as_secs_f64() * 1e6 / per(updates, 1.0),
        })
    }

    /// Waits until a last write, and so all before it, is on every node.
    fn wait_for_last(&self) -> anyhow::Result<()> {
        match self.poll_visible(1) {
            Ok(_) => Ok(()),
            Err(error) => bail!("the updates did not arrive: {error}"),
        }
    }
}

impl Drop for LibraryCluster {
    fn drop(&mut self) {
        for member in &self.members {
            member.runtime.block_on(member.node.shutdown());
        }
    }
}

/// Writes `rate` updates per second until told to stop.
fn write_paced(
    stop: &AtomicBool,
    written: &AtomicU64,
    cache: &BytesCache,
    writer: u64,
    rate: u64,
) -> anyhow::Result<()> {
    let interval = Duration::from_nanos(1_000_000_000 / rate.max(1));
    let started = Instant::now();
    let options = PutOptions::new();
    let mut due = Duration::ZERO;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = key((count * 16 + writer) * 7919 % KEYS);
        let value = RawValue::from([b'x'; VALUE_BYTES as usize].as_slice());
        cache
            .put_now(key.as_slice(), value, &options)
            .map_err(|error| anyhow!("a busy writer was refused: {error}"))?;
        written.fetch_add(1, Ordering::Relaxed);
        count += 1;
        due += interval;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}
