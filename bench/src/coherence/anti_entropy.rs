//! What it costs to keep replicas equal: perf-B4.
//!
//! Two nodes' machines of one cache are driven in this process in virtual time, each message through its bytes on the wire: no
//! sockets, so that what is counted is what the protocol sends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use nearcache_protocol::clock::Hlc;
use nearcache_protocol::config::ReplicationConfig;
use nearcache_protocol::core::CacheCore;
use nearcache_protocol::frame::{FrameDecoder, FrameLimit};
use nearcache_protocol::ids::{CacheId, Epoch};
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::mode::Output;
use nearcache_protocol::payload::{CodecTag, Payload};
use nearcache_protocol::rendezvous::PlacementKey;
use nearcache_protocol::time::Time;
use nearcache_protocol::wire;
use nearcache_store::{
    Change, CoarseClock, Expiry, LeafRange, NodeId, Store, StoreConfig, Tags, Timestamp, Version,
    Weigh,
};

use crate::rounds::Pairs;
use crate::table::{Bound, Row, Table};

use super::Args;

const WALL_MS: u64 = 1_800_000_000_000;
const VALUE_BYTES: usize = 100;

/// A value that is plain bytes.
#[derive(Clone)]
struct Blob(Box<[u8]>);

impl Weigh for Blob {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

impl Payload for Blob {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn codec(&self) -> CodecTag {
        CodecTag::default()
    }

    fn from_wire(_: CodecTag, bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// Two nodes and what they have sent each other.
struct Pair {
    cores: [CacheCore<Blob>; 2],
    now: Time,
    queue: VecDeque<(usize, BytesMut)>,
    bytes: u64,
}

impl Pair {
    fn new(stores: [Arc<Store<Blob>>; 2]) -> Self {
        let mut number = 0;
        let cores = stores.map(|store| {
            number += 1;
            let clock = Hlc::new(NodeId::from_u64(number), WALL_MS, Hlc::DEFAULT_MAX_DRIFT);
            let (epoch, place) = (Epoch::from_u64(1), PlacementKey::of_cluster("bench"));
            let config = ReplicationConfig::default();
            CacheCore::new(Time::ZERO, store, Arc::new(clock), epoch, place, config)
        });
        Self {
            cores,
            now: Time::ZERO,
            queue: VecDeque::new(),
            bytes: 0,
        }
    }

    fn carry(&mut self, from: usize, out: Vec<Output<Blob>>) -> anyhow::Result<()> {
        let (to, peer) = (1 - from, NodeId::from_u64(2 - from as u64));
        for output in out {
            match output {
                Output::Send { message, .. } => self.send(to, &message)?,
                Output::Transmit { lane, .. } => {
                    let mut more = Vec::new();
                    let now = self.now;
                    while let Some(message) =
                        self.cores[from].poll_transmit(now, peer, lane, 64 << 10, &mut more)
                    {
                        self.send(to, &message)?;
                    }
                    self.carry(from, more)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        to: usize,
        message: &nearcache_protocol::message::CacheMessage<Blob>,
    ) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(
            CacheId::from_u64(1),
            message,
            FrameLimit::DEFAULT,
            &mut bytes,
        )?;
        self.bytes += bytes.len() as u64;
        self.queue.push_back((to, bytes));
        Ok(())
    }

    /// Connects the two and lets time pass until they hold the same.
    fn run(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        for from in [0, 1] {
            let mut out = Vec::new();
            let peer = NodeId::from_u64(2 - from as u64);
            self.cores[from].peer_up(self.now, peer, Epoch::from_u64(1), &mut out);
            self.carry(from, out)?;
        }
        while self.now < Time::from_millis(60_000) {
            while let Some((to, bytes)) = self.queue.pop_front() {
                let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
                decoder.extend(&bytes);
                let frame = decoder.next_frame()?.context("a whole frame")?;
                let (mut out, from) = (Vec::new(), NodeId::from_u64(2 - to as u64));
                let message = wire::decode(&frame)?;
                self.cores[to].handle(self.now, from, message, &mut out);
                self.carry(to, out)?;
            }
            let sums = [0, 1].map(|n| self.cores[n].store().digest_sum(LeafRange::ALL));
            if sums[0] == sums[1] && self.cores.iter().all(CacheCore::is_ready) {
                return Ok(started.elapsed());
            }
            // As the driver of a node does it.
            let paced = self.cores.iter().any(|core| core.is_paced(self.now));
            self.now += Duration::from_millis(if paced { 1 } else { 10 });
            for n in [0, 1] {
                if self.cores[n].next_tick() <= self.now {
                    let mut out = Vec::new();
                    self.cores[n].tick(self.now, &mut out);
                    self.carry(n, out)?;
                }
            }
        }
        anyhow::bail!("the two do not hold the same after a minute")
    }
}

fn store(args: &Args, entries: u64, differences: u64) -> anyhow::Result<Arc<Store<Blob>>> {
    let config = StoreConfig {
        digest_key: Some([7; 16]),
        hash_seed: rand::random(),
        ..StoreConfig::new((args.entries * 512).max(1 << 20))
    };
    let store = Store::new(config, CoarseClock::new(WALL_MS))?;
    let every = (args.entries / args.differences.max(1)).max(1);
    for n in 0..entries {
        let newer = n % every == 0 && n / every < differences;
        let ms = WALL_MS - 1_000 + u64::from(newer);
        let version = Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(9));
        let change = Change::Put {
            value: Blob(vec![0; VALUE_BYTES].into()),
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        let key = format!("an entry's key: {n:016}");
        ensure!(
            store.merge(key.as_bytes(), version, change)?.is_applied(),
            "put"
        );
    }
    Ok(Arc::new(store))
}

/// Adds the rows.
///
/// # Errors
/// If the two nodes do not become equal.
pub(super) fn run(table: &mut Table, args: &Args) -> anyhow::Result<()> {
    let full = store(args, args.entries, 0)?;
    let mut transfer = Pair::new([Arc::clone(&full), store(args, 0, 0)?]);
    let transfer_took = transfer.run()?;
    drop(transfer.cores);
    let differing = store(args, args.entries, args.differences)?;
    let mut compared = Pair::new([full, differing]);
    let compared_took = compared.run()?;
    let what = |unit| {
        format!(
            "{} entries of 132 B, {} differences: {unit}",
            args.entries, args.differences
        )
    };
    #[expect(clippy::cast_precision_loss, reason = "a table for people")]
    let bytes = Pairs::of(compared.bytes as f64, transfer.bytes as f64);
    let seconds = Pairs::of(compared_took.as_secs_f64(), transfer_took.as_secs_f64());
    let row = Row::compared("perf-B4", what("bytes"), "B", "full transfer", &bytes);
    table.push(row.must(Bound::AtMost(0.005)));
    let row = Row::compared("perf-B4", what("time"), "s", "full transfer", &seconds);
    table.push(row);
    table.note(
        "perf-B4: the shipped machines in one process, every message through its bytes; time is that of this process, without a network",
    );
    Ok(())
}
