//! From a write on one node until no other serves what it superseded: perf-B1.
//!
//! Ours is the library in mode `invalidation`: the others hold copies that they have loaded. The peer is what Redis offers to
//! programs that keep copies: `CLIENT TRACKING`, here with its messages on a connection of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nearcache::Mode;

use super::Args;
use crate::latency::Latencies;
use crate::replication::{
    BUSY_WRITERS, DEFAULT_BUSY_PER_SECOND, VALUE_BYTES, Visible, beside_writers,
};
use crate::replication_library::LibraryCluster;
use crate::resp_client::{Client, Reply};
use crate::rounds::interleave;
use crate::servers::{Server, redis_version};
use crate::table::{Bound, Row, Table};

/// Programs that keep copies.
const READERS: usize = 2;
/// The key that is written.
const KEY: &[u8] = b"bench:tracked";

/// Adds the rows.
///
/// # Errors
/// When a side cannot be started, or an invalidation does not arrive.
pub(super) fn run(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    let redis = Server::redis(&[])?;
    let ours = LibraryCluster::start(Mode::Invalidation)?;
    for busy in [0, BUSY_WRITERS] {
        let name = if busy == 0 {
            "write until nothing older is served".to_owned()
        } else {
            format!("the same beside {busy} writers")
        };
        let redis_rate = AtomicU64::new(DEFAULT_BUSY_PER_SECOND);
        let rounds = interleave(
            &name,
            args.rounds,
            || ours.superseded(args.writes, busy, redis_rate.load(Ordering::Relaxed)),
            || {
                let sample = beside_writers(redis.port(), busy, || tracked(&redis, args.writes))?;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is a small positive number"
                )]
                redis_rate.store(sample.busy_per_second as u64, Ordering::Relaxed);
                Ok(sample)
            },
        )?;
        type Pick = fn(&Visible) -> f64;
        let figures: [(&str, Pick); 2] = [("p50", |v| v.p50_us), ("p99", |v| v.p99_us)];
        for (what, pick) in figures {
            let name = format!("{name}: {what}");
            let row = Row::compared("perf-B1", name, "µs", "tracking", &rounds.pairs(pick));
            table.push(row.goal(Bound::AtMost(0.5)));
        }
        if busy > 0 {
            let pairs = rounds.pairs(|sample| sample.busy_per_second);
            let name = format!("{name}: their rate");
            table.push(Row::compared("", name, "updates/s", "tracking", &pairs));
        }
    }
    table.note(format!(
        "perf-B1: {}, CLIENT TRACKING, {READERS} clients; ours from the library, {READERS} other nodes; from the call of the write \
         until both have dropped their copies; {VALUE_BYTES} byte values",
        redis_version()
    ));
    Ok(())
}

/// A program that keeps copies of what it reads from Redis.
struct Reader {
    data: Client,
    invalidations: Client,
}

impl Reader {
    fn connect(redis: &Server) -> anyhow::Result<Self> {
        let mut invalidations = Client::connect(redis.port())?;
        let Reply::Integer(id) = invalidations.expect_ok(&[b"CLIENT", b"ID"])? else {
            anyhow::bail!("a client has no number");
        };
        invalidations.expect_ok(&[b"SUBSCRIBE", b"__redis__:invalidate"])?;
        let mut data = Client::connect(redis.port())?;
        let id = id.to_string();
        data.expect_ok(&[b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id.as_bytes()])?;
        Ok(Self {
            data,
            invalidations,
        })
    }
}

fn tracked(redis: &Server, writes: u64) -> anyhow::Result<Latencies> {
    let mut writer = Client::connect(redis.port())?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(Reader::connect(redis)?);
    }
    writer.expect_ok(&[b"SET", KEY, b"first"])?;
    let mut latencies = Latencies::new()?;
    for i in 0..writes {
        for reader in &mut readers {
            reader.data.expect_ok(&[b"GET", KEY])?;
        }
        let value = format!("{i:0>width$}", width = VALUE_BYTES as usize).into_bytes();
        let started = Instant::now();
        writer.expect_ok(&[b"SET", KEY, &value])?;
        for reader in &mut readers {
            let Reply::Array(message) = reader.invalidations.reply()? else {
                anyhow::bail!("no invalidation");
            };
            let keys = message.last().context("an empty message")?;
            ensure!(
                *keys == Reply::Array(vec![Reply::Bulk(KEY.to_vec())]),
                "another key"
            );
        }
        latencies.record(started.elapsed())?;
        // As far apart as ours, whose loads are not kept within the clocks' bound of a write.
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(latencies)
}
