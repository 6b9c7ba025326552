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

mod audit;
mod batch;
mod behind;
mod carry;
mod fill;
mod gate;
mod journaling;
mod leases;
mod loads;
mod port;
mod sinking;
mod sources;
mod through;
mod turns;
mod waiters;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::clock::{ClockError, Hlc};
use nearcache_protocol::config::{OnDisconnect, ReplicationConfig};
use nearcache_protocol::core::CacheCore;
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::mode::{Freshness, NotAcked, Outcome, Output, Published, Status, Waiter};
use nearcache_protocol::modify::ModifyOp;
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_store::{Change, Handle, MergeError, Merged, Scope, Store, StoreConfig, Version};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::errors::{ModifyError, OpenError, WriteError};
use super::load::LoadPolicy;
use super::options::Ack;
use super::stats::{CacheCounters, CacheStats};
use crate::codec::key::{KeyError, check_len};
use crate::limits::{OPERATION_TIMEOUT_DEFAULT, OPERATION_TIMEOUT_MAX};
use crate::node::NodeShared;
use crate::random::random;
use crate::subscription::Hub;
use gate::Gate;
use waiters::{Waiters, Waiting};

pub(crate) use behind::{Behind, Op};
pub(crate) use gate::{is_fresh, is_leased};
pub(crate) use leases::{Load, LoadLease};
pub(crate) use loads::{Admission, FlightGuard, Loads, Part, Slot, Start};
pub(crate) use port::CachePort;
pub(crate) use sinking::Sinking;
pub(crate) use through::Through;
pub(crate) use watchers::CellChange;

/// How long a read of a joining node waits for a peer's answer.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a read waits for a long value to be fetched.
const FETCH_TIMEOUT: Duration = OPERATION_TIMEOUT_DEFAULT;

/// Room for arriving long values: at least so many bytes, and two of the longest.
const FETCH_ROOM_MIN: usize = 4 << 20;

/// How long a read that demands freshness waits for the peers' answers (reliability specification, 3.2: a peer's answer).
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a read of a node that has not met a peer yet looks whether it has (a guess; only
/// while starting).
const FIND_PAUSE: Duration = Duration::from_millis(2);

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

    /// Makes this node as fresh as `since`, if its peers answer in time.
    pub(crate) async fn refresh(&self, since: Time) -> bool {
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + REFRESH_TIMEOUT,
        };
        self.step(|core, out| core.refresh(now, since, waiter, out));
        matches!(self.outcome(waiting).await, Some(Outcome::Fresh(true)))
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

    /// A new version for a write of this node.
    pub(crate) fn stamp(&self) -> Result<Version, WriteError> {
        self.hlc
            .stamp(self.node.now())
            .map_err(|error: ClockError| {
                self.node.metrics().writes_refused_by_clock.inc();
                tracing::warn!(cache = %self.name, %error, "write refused");
                WriteError::ClockSkew
            })
    }

    /// Merges a write of this node into the store and tells the peers. Never waits.
    ///
    /// Returns the version and what was live under the key before.
    pub(crate) fn write(&self, key: &[u8], change: Change<V>) -> Result<Written<V>, WriteError> {
        self.check_open()?;
        let (version, replaced, published) = self.merge(key, change)?;
        if let Some(published) = published {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.publish(self.node.now(), published, Ack::Local.into(), None, out);
            self.carry_out(&mut machine);
        }
        Ok(Written { version, replaced })
    }

    /// As [`write`](Self::write), then waits until as many peers as `ack` says have applied it.
    pub(crate) async fn write_acked(
        &self,
        key: &[u8],
        change: Change<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<Written<V>, WriteError> {
        if ack == Ack::Local {
            return self.write(key, change);
        }
        self.check_open()?;
        let (version, replaced, published) = self.merge(key, change)?;
        if let Some(published) = published {
            self.publish_acked(published, ack, timeout).await?;
        }
        Ok(Written { version, replaced })
    }

    /// Merges many writes and tells the peers of all of them at once.
    pub(crate) fn write_many(
        &self,
        changes: impl IntoIterator<Item = (Bytes, Change<V>)>,
    ) -> Result<(), WriteError> {
        self.check_open()?;
        let mut all = Vec::new();
        let mut result = Ok(());
        for (key, change) in changes {
            match self.merge(&key, change) {
                Ok((_, _, published)) => all.extend(published),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut machine = self.machine.lock();
        let now = self.node.now();
        for published in all {
            let Machine { core, out } = &mut *machine;
            core.publish(now, published, Ack::Local.into(), None, out);
        }
        self.carry_out(&mut machine);
        result
    }

    /// Raises a floor under everything in `scope` and tells the peers.
    pub(crate) async fn invalidate(
        &self,
        scope: Scope,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        self.check_open()?;
        let version = self.stamp()?;
        self.store.invalidate(scope.clone(), version);
        self.changes.send(&CellChange::Invalidated {
            scope: scope.clone(),
        });
        self.publish_acked(Published::Floor { scope, version }, ack, timeout)
            .await
    }

    async fn publish_acked(
        &self,
        published: Published<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        let now = self.node.now();
        let waiting = (ack != Ack::Local).then(|| self.waiters.enter());
        let waiter = waiting.as_ref().map(|waiting| Waiter {
            id: waiting.id(),
            deadline: now + timeout.min(OPERATION_TIMEOUT_MAX),
        });
        {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.publish(now, published, ack.into(), waiter, out);
            self.carry_out(&mut machine);
        }
        match waiting {
            Some(waiting) => self.acked(waiting).await,
            None => Ok(()),
        }
    }

    /// Waits until as many peers as were asked for have applied a write.
    async fn acked(&self, waiting: Waiting<V>) -> Result<(), WriteError> {
        match self.outcome(waiting).await {
            Some(Outcome::Acked(Ok(()))) => Ok(()),
            Some(Outcome::Acked(Err(NotAcked::Timeout(timeout)))) => Err(WriteError::AckTimeout {
                acked: timeout.acked as usize,
                wanted: timeout.wanted as usize,
            }),
            Some(Outcome::Acked(Err(NotAcked::BeyondMesh(beyond)))) => {
                Err(WriteError::AckAllBeyondMesh {
                    members: beyond.members,
                    mesh_max: beyond.mesh_max,
                })
            }
            Some(_) | None => Err(WriteError::NodeStopped),
        }
    }

    /// Changes a key at its home node and, if the cache has a sink, in the system of record; that in a task of its own: a caller that
    /// gives up leaves nothing half done.
    pub(crate) async fn modify_sunk(
        self: &Arc<Self>,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<nearcache_protocol::modify::Modified<V>, ModifyError> {
        let changes_value = !matches!(op, ModifyOp::Expire { .. });
        if self.sinking().is_none() || !changes_value {
            return self.modify(key, op, timeout).await;
        }
        let shell = Arc::clone(self);
        let modifying = tokio::spawn(async move { shell.modify_and_sink(key, op, timeout).await });
        // It does not panic: an error is that of a runtime that stops.
        let stops = |_| Err(WriteError::NodeStopped.into());
        modifying.await.unwrap_or_else(stops)
    }

    async fn modify_and_sink(
        &self,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<nearcache_protocol::modify::Modified<V>, ModifyError> {
        let removes = matches!(op, ModifyOp::Remove { .. });
        let bytes = (key.len() + op.value_len()) as u64;
        let mut got = None;
        let modify = async {
            let modified = self.modify(key.clone(), op, timeout).await?;
            let current = modified.current.clone().filter(|_| !removes);
            // A value that is not here cannot be written: it is as if nobody knew what the key holds.
            if modified.applied && !removes && current.as_ref().is_none_or(Handle::is_stub) {
                return Err(ModifyError::Indeterminate);
            }
            let (applied, version) = (modified.applied, modified.version);
            got = Some(modified);
            // Also if the clock is out of step: the change was made.
            let unsaid = || {
                let version = self.stamp();
                version.unwrap_or_else(|_| self.store.known(&key).version())
            };
            Ok(applied.then(|| Op {
                version: version.unwrap_or_else(unsaid),
                entry: current,
            }))
        };
        match self.sinking() {
            Some(Sinking::Through(through)) => {
                self.modify_through(through, key.clone(), modify).await?;
            }
            Some(Sinking::Behind(behind)) => {
                self.modify_behind(behind, &key, bytes, modify).await?;
            }
            None => return Err(ModifyError::Indeterminate),
        }
        got.ok_or(ModifyError::Indeterminate)
    }

    /// Asks the key's home node to change it.
    pub(crate) async fn modify(
        &self,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<nearcache_protocol::modify::Modified<V>, ModifyError> {
        use nearcache_protocol::modify::ModifyError as Reason;

        self.check_open()?;
        let now = self.node.now();
        let len_bytes = op.value_len();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + timeout.min(OPERATION_TIMEOUT_MAX),
        };
        {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.modify(now, key, op, waiter, out);
            self.carry_out(&mut machine);
        }
        match self.outcome(waiting).await {
            Some(Outcome::Modified(Ok(modified))) => Ok(modified),
            Some(Outcome::Modified(Err(reason))) => Err(match reason {
                Reason::NotAnInteger => ModifyError::NotAnInteger,
                Reason::Overflow => ModifyError::Overflow,
                Reason::TooLarge => WriteError::TooLargeForCache { entry_bytes: 0 }.into(),
                Reason::TooLargeForHome { limit_bytes } => WriteError::ValueTooLarge {
                    len_bytes,
                    limit_bytes: limit_bytes as usize,
                }
                .into(),
                Reason::ClockSkew => WriteError::ClockSkew.into(),
                Reason::Indeterminate => ModifyError::Indeterminate,
                // Overloaded, unreachable, not the home: nothing was changed.
                _ => ModifyError::Busy,
            }),
            Some(_) | None => Err(WriteError::NodeStopped.into()),
        }
    }

    /// Asks peers for a key that is missing while this node is being filled, or for the value of a stub.
    pub(crate) async fn find(&self, key: &[u8]) -> Option<Handle<V>> {
        let started = self.node.now();
        while self.has_nobody_to_ask() && self.node.now() < started + FIND_TIMEOUT {
            tokio::time::sleep(FIND_PAUSE).await;
        }
        loop {
            let was_stub = self.holds_stub(key);
            let timeout = if was_stub {
                FETCH_TIMEOUT
            } else {
                FIND_TIMEOUT
            };
            let found = self.find_until(key, started + timeout).await;
            let bound = self.gate.bound();
            // The answer was merged under its own key (C6), so the store is asked for ours.
            let held = self.store.peek(key).filter(|_| found)?;
            if !is_leased(bound, self.node.quick()) {
                return None;
            }
            if !held.is_stub() {
                return Some(held);
            }
            // A newer one has come since.
            if self.node.now() >= started + FETCH_TIMEOUT {
                return None;
            }
        }
    }

    fn holds_stub(&self, key: &[u8]) -> bool {
        self.store.peek(key).is_some_and(|entry| entry.is_stub())
    }

    async fn find_until(&self, key: &[u8], deadline: Time) -> bool {
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline,
        };
        {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.find(now, Bytes::copy_from_slice(key), waiter, out);
            self.carry_out(&mut machine);
        }
        matches!(self.outcome(waiting).await, Some(Outcome::Found(true)))
    }

    /// Whether this node is still looking for the peers that will fill it.
    fn has_nobody_to_ask(&self) -> bool {
        !self.is_ready() && !self.node.is_stopped() && self.freshness().per_peer.is_empty()
    }

    /// Whether a write may be made on this node now.
    fn check_open(&self) -> Result<(), WriteError> {
        if self.node.is_leaving() {
            return Err(WriteError::NodeStopped);
        }
        if !self.gate.may_write(self.node.quick()) {
            self.counters.refused_by_split.inc();
            return Err(WriteError::ReadOnly);
        }
        Ok(())
    }

    /// Stamps and merges; returns what the peers have to learn.
    #[expect(clippy::type_complexity, reason = "a private step of three callers")]
    fn merge(
        &self,
        key: &[u8],
        change: Change<V>,
    ) -> Result<(Version, Option<Handle<V>>, Option<Published<V>>), WriteError> {
        let version = self.stamp()?;
        match self.store.merge(key, version, change) {
            Ok(Merged::Applied {
                entry: Some(entry),
                replaced,
            }) => Ok((version, replaced, Some(Published::Entry(entry)))),
            Ok(Merged::Applied {
                entry: None,
                replaced,
            }) => {
                let key = Bytes::copy_from_slice(key);
                Ok((version, replaced, Some(Published::Removal { key, version })))
            }
            // Somebody else's newer write got in between: it is what readers see now.
            Ok(Merged::Stale { current }) => Ok((current, None, None)),
            Ok(Merged::Declined) => Ok((version, None, None)),
            Err(MergeError::TooLargeForCache { weight_bytes, .. }) => {
                self.drop_for_all(key, version);
                let entry_bytes = usize::try_from(weight_bytes).unwrap_or(usize::MAX);
                Err(WriteError::TooLargeForCache { entry_bytes })
            }
            Err(MergeError::KeyTooLong {
                len_bytes,
                limit_bytes,
            }) => Err(KeyError::KeyTooLong {
                len_bytes,
                limit_bytes,
            }
            .into()),
            Err(_) => Err(WriteError::TombstoneLimit),
        }
    }

    /// The entry did not fit and the older copy is gone here; peers must not keep serving it.
    fn drop_for_all(&self, key: &[u8], version: Version) {
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        let key = Bytes::copy_from_slice(key);
        let published = Published::Removal { key, version };
        core.publish(self.node.now(), published, Ack::Local.into(), None, out);
        self.carry_out(&mut machine);
    }
}

/// What a write did to the store.
#[derive(Debug)]
pub(crate) struct Written<V> {
    pub(crate) version: Version,
    pub(crate) replaced: Option<Handle<V>>,
}

impl<V: Payload> Written<V> {
    /// Whether a value was here before: not only that there is none anywhere.
    pub(crate) fn held_value(&self) -> bool {
        let replaced = self.replaced.as_ref();
        replaced.is_some_and(|replaced| !replaced.value().is_absent())
    }
}

impl<V> Written<V> {
    /// That of a write that was made elsewhere.
    const fn nothing(version: Version) -> Self {
        Self {
            version,
            replaced: None,
        }
    }
}

impl From<Ack> for nearcache_protocol::mode::Ack {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Local => Self::Local,
            Ack::Peers(count) => Self::Peers(u32::try_from(count).unwrap_or(u32::MAX)),
            Ack::All => Self::All,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
