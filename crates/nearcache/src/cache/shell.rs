//! The asynchronous shell of one cache: its store, its machine, and those who wait for it.
//!
//! Knows cells, not types, and nothing of sockets: what the machine puts out is carried to the
//! node's [links](crate::transport), and what peers send comes in through [`CachePort`].
//!
//! ```text
//! Cache ─ merge ─▶ store          ┌──────────────┐  Send, Transmit ─▶ links ─▶ writers
//!       └ publish, modify, find ─▶│ machine      │
//! readers ─ frame ─ decode ──────▶│ (one mutex)  │  Done ─▶ waiters   Ready ─▶ ready()
//! driver ─ tick ─────────────────▶└──────────────┘  Event ─▶ log, counters, watchers
//! ```
//!
//! Outputs are carried out before the lock is given back, so that messages leave in the order in
//! which the machine made them. Nothing under the lock waits.

mod accepting;
mod audit;
mod batch;
mod behind;
mod carry;
mod fill;
mod finding;
mod gate;
mod journaling;
mod leases;
mod loads;
mod modifying;
mod port;
mod settling;
mod sinking;
mod sources;
mod tending;
mod through;
mod turns;
mod waiters;
mod watchers;
mod writing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::clock::Hlc;
use nearcache_protocol::config::{OnDisconnect, ReplicationConfig};
use nearcache_protocol::core::CacheCore;
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::mode::{Freshness, Output, Status};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Store, StoreConfig};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::errors::OpenError;
use super::load::LoadPolicy;
use super::stats::{CacheCounters, CacheStats};
use crate::codec::key::{KeyError, check_len};
use crate::node::NodeShared;
use crate::random::random;
use crate::subscription::Hub;
use gate::Gate;
use waiters::Waiters;

pub(crate) use behind::{Behind, Op};
pub(crate) use gate::{is_fresh, is_leased};
pub(crate) use leases::{Load, LoadLease};
pub(crate) use loads::{Admission, FlightGuard, Loads, Part, Slot, Start};
pub(crate) use port::CachePort;
pub(crate) use sinking::Sinking;
pub(crate) use through::Through;
pub(crate) use watchers::CellChange;
pub(crate) use writing::Written;

/// Room for arriving long values: at least so many bytes, and two of the longest.
const FETCH_ROOM_MIN: usize = 4 << 20;

/// How a cache was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) mode: ModeKind,
    pub(crate) codec: u16,
    pub(crate) max_key_bytes: usize,
    pub(crate) allow_empty_key: bool,
    pub(crate) max_value_bytes: usize,
    pub(crate) inline_limit: usize,
    pub(crate) fetch_bytes_per_second: u64,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) tombstone_ttl: Duration,
    pub(crate) split: SplitPolicy,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) link_timeout: Duration,
    pub(crate) dead_counts_for: Duration,
    pub(crate) transfer_bytes_per_second: u64,
}

impl Settings {
    /// Checks the length of an encoded key.
    #[inline]
    pub(crate) fn check_key(&self, bytes: &[u8]) -> Result<(), KeyError> {
        if bytes.is_empty() && self.allow_empty_key {
            return Ok(());
        }
        check_len(bytes, self.max_key_bytes)
    }
}

/// One cache of one node.
pub(crate) struct Shell<V: Payload> {
    name: String,
    id: CacheId,
    settings: Settings,
    node: Arc<NodeShared>,
    /// What stamps this cache's versions: the node's clock, or one of its own where nothing is shared.
    hlc: Arc<Hlc>,
    store: Arc<Store<V>>,
    machine: Mutex<Machine<V>>,
    waiters: Waiters<V>,
    loads: Loads<V>,
    sinking: Option<Sinking<V>>,
    gate: Gate,
    /// Whether a miss is worth asking peers about while this node is being filled.
    finds: bool,
    is_ready: AtomicBool,
    /// Whether the store may hold keys of the audit.
    has_probes: AtomicBool,
    ready: watch::Sender<bool>,
    changes: Arc<Hub<CellChange<V>>>,
    counters: CacheCounters,
}

/// The machine and the list its outputs are collected in, which keeps its memory.
struct Machine<V: Payload> {
    core: CacheCore<V>,
    out: Vec<Output<V>>,
}

impl<V: Payload> std::fmt::Debug for Shell<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<V: Payload> Shell<V> {
    /// A new cache on `node`. It does not know any peer yet.
    pub(crate) fn new(
        node: &Arc<NodeShared>,
        name: &str,
        id: CacheId,
        settings: Settings,
        mut store: StoreConfig,
        load_policy: LoadPolicy,
        sinking: Option<Sinking<V>>,
    ) -> Result<Self, OpenError> {
        store.hash_seed = random();
        store.stale_for = load_policy.stale_for();
        // A cache that no other node has is compared with nobody.
        store.digest_key =
            (settings.mode == ModeKind::Replicated).then(|| node.placement().bytes());
        store.max_entry_bytes = store
            .max_entry_bytes
            .max(settings.max_value_bytes as u64 * 2 + settings.max_key_bytes as u64 + 8192)
            .min(store.max_bytes / 4);
        let store = Arc::new(Store::new(store, node.coarse().clone())?);
        let mut config = ReplicationConfig::default();
        config.agreement.mode = settings.mode;
        config.agreement.codec = settings.codec;
        config.agreement.time_to_live_ms = settings.time_to_live.map_or(0, millis);
        config.agreement.tombstone_ttl_ms = millis(settings.tombstone_ttl);
        config.agreement.split = settings.split;
        config.value_bytes_max = u32::try_from(settings.max_value_bytes).unwrap_or(u32::MAX);
        config.inline_limit = settings.inline_limit;
        config.fetch_bytes_per_second = settings.fetch_bytes_per_second;
        config.fetch_bytes_max = (settings.max_value_bytes * 2).max(FETCH_ROOM_MIN);
        config.join_alone_after = node.join_alone_after();
        config.mesh_max = node.config().mesh_max;
        config.on_disconnect = settings.on_disconnect;
        config.link_timeout = settings.link_timeout;
        config.dead_counts_for = settings.dead_counts_for;
        config.transfer_bytes_per_second = settings.transfer_bytes_per_second;
        #[cfg(feature = "turmoil")]
        {
            config.planted = crate::simulated::planted();
        }
        let hlc = if settings.mode == ModeKind::Local {
            Arc::new(node.hlc().unshared())
        } else {
            Arc::clone(node.hlc())
        };
        let core = CacheCore::new(
            node.now(),
            Arc::clone(&store),
            Arc::clone(&hlc),
            node.epoch(),
            node.placement(),
            config,
        );
        let is_ready = core.is_ready();
        let gate = Gate::new(core.read_bound(), core.write_until());
        let finds = core.finds();
        let changes = Arc::new(Hub::default());
        let loads = Loads::new(load_policy, node.metrics(), name);
        let watcher = watchers::StoreWatcher::new(Arc::clone(&changes), loads.sources());
        store.set_listener(Arc::new(watcher));
        Ok(Self {
            name: name.to_owned(),
            id,
            settings,
            node: Arc::clone(node),
            hlc,
            store,
            machine: Mutex::new(Machine {
                core,
                out: Vec::new(),
            }),
            waiters: Waiters::default(),
            loads,
            sinking,
            gate,
            finds,
            is_ready: AtomicBool::new(is_ready),
            has_probes: AtomicBool::new(false),
            ready: watch::Sender::new(is_ready),
            changes,
            counters: CacheCounters::new(node.metrics(), name),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn node(&self) -> &Arc<NodeShared> {
        &self.node
    }

    #[inline]
    pub(crate) fn store(&self) -> &Arc<Store<V>> {
        &self.store
    }

    pub(crate) fn counters(&self) -> &CacheCounters {
        &self.counters
    }

    #[inline]
    pub(crate) const fn loads(&self) -> &Loads<V> {
        &self.loads
    }

    pub(crate) fn changes(&self) -> &Arc<Hub<CellChange<V>>> {
        &self.changes
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Whether a miss here is a miss, or peers must be asked first.
    #[inline]
    pub(crate) fn trusts_misses(&self) -> bool {
        !self.finds || self.is_ready()
    }

    /// What reads must compare the clock with.
    #[inline]
    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// One step of the machine that may change what readers go by, and what it asks for.
    fn step<T>(&self, step: impl FnOnce(&mut CacheCore<V>, &mut Vec<Output<V>>) -> T) -> T {
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        let result = step(core, out);
        self.gate.set(core.read_bound(), core.write_until());
        self.carry_out(&mut machine);
        result
    }

    pub(crate) async fn ready(&self) {
        // An error means that the sender is gone, and it lives in self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The largest possible distance of another node's clock, as far as is known.
    pub(crate) fn clock_bound(&self) -> Duration {
        self.machine.lock().core.clock_bound(self.node.now())
    }

    pub(crate) fn freshness(&self) -> Freshness {
        self.machine.lock().core.freshness(self.node.now())
    }

    pub(crate) fn status(&self) -> Status {
        self.machine.lock().core.status(self.node.now())
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let machine = self.machine.lock();
        let mode = machine.core.stats();
        let freshness = machine.core.freshness(self.node.now());
        drop(machine);
        CacheStats::new(
            self.store.stats(),
            mode,
            freshness,
            &self.counters,
            self.loads.stats(),
            self.write_stats(),
        )
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
