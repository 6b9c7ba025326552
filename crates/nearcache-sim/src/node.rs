//! One start of a simulated node: the shipped state machines over the real store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::clock::Hlc;
use nearcache_protocol::config::ReplicationConfig;
use nearcache_protocol::core::CacheCore;
use nearcache_protocol::handshake::Local;
use nearcache_protocol::identity::{Identity, Zone};
use nearcache_protocol::ids::{CacheId, Epoch, WaiterId};
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::membership::{MEMBER_LIMIT_MAX, Membership, MembershipConfig};
use nearcache_protocol::mode::{Output, Waiter};
use nearcache_protocol::planted::PlantedBug as ProtocolBug;
use nearcache_protocol::rendezvous::PlacementKey;
use nearcache_protocol::time::Time;
use nearcache_store::{
    CoarseClock, Event, Expiry, Handle, Listener, NodeId, Scope, Store, StoreConfig, Tags,
    Timestamp, Version,
};

use crate::bug::Bug;
use crate::cluster::Leaving;
use crate::cluster::load::{NodeLoads, STALE_FOR};
use crate::cluster::write::NodeWrites;
use crate::long::Long;
use crate::plan::{COUNTS_AFTER, Plan};
use crate::value::Value;

/// Wall clock at the start of every run, in milliseconds since 1970.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// How often a node lets its store do its chores.
const STORE_TICK: Duration = Duration::from_millis(50);

/// When a store with that bug forgets what was removed.
const TOO_EARLY: Duration = Duration::from_millis(300);

/// How long the dead have to refute with the bug that is about it.
const TOO_LATE: Duration = Duration::from_millis(2_500);

/// How long members have to answer, and to refute, with the bug that is about it.
const TOO_SOON: Duration = Duration::from_millis(5);

/// R5: the drift bound of the nodes.
pub(crate) const DRIFT_MS: u64 = 500;

/// The cluster's name.
pub(crate) const CLUSTER: &str = "simulated";

const MILLION: i64 = 1_000_000;

/// `nanos` × `times` / `by`.
fn scaled(nanos: u64, times: i64, by: i64) -> u64 {
    let scaled = i128::from(nanos) * i128::from(times) / i128::from(by);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The settings of the cache.
fn replication(plan: &Plan, bug: Option<Bug>) -> ReplicationConfig {
    let shipped = ReplicationConfig {
        planted: bug.map_or(Default::default(), Bug::of_protocol),
        // Runs are short: what nobody knows of must be found within their five seconds, in rounds of one peer each.
        compare_every: Duration::from_millis(if plan.checks { 500 } else { 0 }),
        compare_confirm_after: Duration::from_millis(100),
        replay_updates_max: plan.replay_updates_max,
        mesh_max: plan.mesh_max,
        transfer_chunk_bytes: plan.transfer_chunk_bytes,
        ..ReplicationConfig::default()
    };
    let mut shipped = shipped;
    if plan.as_shipped {
        let usual = ReplicationConfig::default();
        shipped.compare_every = usual.compare_every;
        shipped.compare_confirm_after = usual.compare_confirm_after;
    }
    if let Some(long) = &plan.long {
        long.configure(&mut shipped);
    }
    shipped.agreement.tombstone_ttl_ms = plan.tombstone_ttl_ms;
    shipped.agreement.mode = plan.mode;
    shipped.agreement.split = plan.split;
    shipped.on_disconnect = plan.on_disconnect;
    // Runs are short: something must be old enough to be dropped.
    shipped.split_keeps = Duration::from_millis(500);
    // Where single messages go astray, which on real connections they do not, retries must be quick for
    // the bound on convergence to mean anything.
    match plan.weather.chaos {
        None => shipped,
        Some(_) if plan.as_shipped => shipped,
        Some(_) => ReplicationConfig {
            replay_retry_after: Duration::from_millis(100),
            transfer_stall_after: Duration::from_millis(600),
            fetch_patience: Duration::from_millis(100),
            fetch_stall_after: Duration::from_millis(600),
            ..shipped
        },
    }
}

/// The machine of the cache.
fn core_of(
    own: Time,
    store: &Arc<Store<Value>>,
    clock: &Arc<Hlc>,
    epoch: Epoch,
    config: ReplicationConfig,
) -> CacheCore<Value> {
    let placement = PlacementKey::of_cluster(CLUSTER);
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    CacheCore::new(own, store, clock, epoch, placement, config)
}

/// The id of the node on a host.
pub(crate) fn node_id(host: usize) -> NodeId {
    // Spread, so that the order of ids is not that of the hosts.
    let host = host as u64;
    NodeId::from_u64(if host < 11 {
        (host * 7 + 3) % 11 + 1
    } else {
        host + 1
    })
}

/// Where the node on a host listens.
pub(crate) fn address(host: usize) -> SocketAddr {
    let byte = |number: usize| u8::try_from(number % 250).unwrap_or(0);
    SocketAddr::from((
        [10, byte(host / 62_500), byte(host / 250), byte(host) + 1],
        7000,
    ))
}

/// The host that listens there.
pub(crate) fn host_at(address: SocketAddr) -> Option<usize> {
    let std::net::IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let [_, a, b, c] = ip.octets().map(usize::from);
    Some(a * 62_500 + b * 250 + c.checked_sub(1)?)
}

/// The cache that every run is about.
pub(crate) fn cache_id() -> CacheId {
    CacheId::of_name(PlacementKey::of_cluster(CLUSTER).bytes(), "default")
}

/// A key was changed in a node's store.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) key: Vec<u8>,
    pub(crate) version: Version,
    /// The entry; nothing if it is a removal, or was expired or invalidated on arrival.
    pub(crate) entry: Option<Handle<Value>>,
}

impl Heard {
    /// The key, for people.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.key).into_owned()
    }
}

/// Writes down every change of the store.
struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
    evicted: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Listener<Value> for Ear {
    fn on_event(&self, event: Event<'_, Value>) {
        let heard = match event {
            Event::Updated { entry, .. } => Heard {
                key: entry.key().to_vec(),
                version: entry.version(),
                entry: Some(entry.clone()),
            },
            Event::Removed { key, version, .. } => Heard {
                key: key.to_vec(),
                version,
                entry: None,
            },
            Event::Evicted(entry) => {
                let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
                evicted.push(entry.key().to_vec());
                return;
            }
            _ => return,
        };
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(heard);
    }
}

/// What a caller has been told is done, by the node that it asked.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// A key holds a value that expires then and has these tags, or nothing.
    Key {
        key: Bytes,
        version: Version,
        value: Option<(Expiry, Tags)>,
    },
    /// A group is invalidated.
    Group { scope: Scope, version: Version },
}

/// What a caller of the node waits for.
#[derive(Debug, Clone)]
pub(crate) enum Awaited {
    /// The acknowledgement of a write; by all, if there is a key to check.
    Ack {
        by_all: Option<(Vec<u8>, Version)>,
        /// Whom the writer knew when it wrote.
        members: Vec<(NodeId, Epoch)>,
    },
    /// The end of a read-modify-write of this key.
    Modify { key: Bytes },
    /// Whether a key was found.
    Find,
    /// Whether a load is to be made.
    Turn { place: u64 },
}

/// One start of a node.
pub(crate) struct Node {
    /// When it started; its own time is zero then.
    pub(crate) started: Time,
    /// The same, whatever a bug does to its clock.
    born: Time,
    /// By how much its clock runs too fast, in millionths.
    ppm: i64,
    pub(crate) id: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) membership: Membership,
    /// When the membership is due, by its own clock; renewed after whatever it did, because to ask it costs O(members).
    pub(crate) membership_due: Time,
    pub(crate) core: CacheCore<Value>,
    /// When it opens the cache, in virtual time, and whether it has.
    pub(crate) opens_at: Time,
    pub(crate) is_open: bool,
    pub(crate) store: Arc<Store<Value>>,
    pub(crate) clock: Arc<Hlc>,
    coarse: CoarseClock,
    heard: Arc<Mutex<Vec<Heard>>>,
    evicted: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Sessions that stand, by peer.
    pub(crate) sessions: BTreeMap<NodeId, usize>,
    /// Sessions being opened by this node, by host.
    pub(crate) dialling: BTreeMap<usize, usize>,
    /// Sessions that others are opening, by host.
    pub(crate) accepting: BTreeMap<usize, usize>,
    /// Short-lived connections to others, by host, and when each was last used.
    pub(crate) pool: BTreeMap<usize, Time>,
    /// Versions made for writes since the last look.
    pub(crate) stamped: Vec<Version>,
    /// What callers were told is done since the last look.
    pub(crate) done: Vec<Done>,
    /// A version that was not newer than what its maker knew.
    pub(crate) overtaken: Option<(Version, Version)>,
    /// Values are generations of the system of record.
    pub(crate) numbers: bool,
    /// The least length of values.
    pub(crate) value_bytes: usize,
    /// Those that are long.
    pub(crate) long: Option<Long>,
    /// Makes versions of the wall clock alone.
    pub(crate) by_wall_clock: bool,
    /// What its handshakes break on purpose.
    planted: ProtocolBug,
    /// Tells others of an invalidation, and keeps its own copy.
    pub(crate) keeps_own_copies: bool,
    /// Keeps that it knows of nothing under a key when something is written there.
    pub(crate) keeps_absence: bool,
    /// Transfers completed.
    pub(crate) transfers: u64,
    /// It is about to leave on purpose.
    pub(crate) leaving: Option<Leaving>,
    /// Callers that wait, and until when by the node's time.
    pub(crate) waiting: BTreeMap<u64, (Time, Awaited)>,
    /// Epochs of peers met, to see them grow.
    pub(crate) epochs: BTreeMap<NodeId, Epoch>,
    /// Who loads what, and who waits for it.
    pub(crate) loads: NodeLoads,
    /// What is to be written to the system of record.
    pub(crate) writes: NodeWrites,
    waiters: u64,
    /// When it last looked for others at the addresses it was configured with.
    pub(crate) looked_at: Time,
    store_tick_at: Time,
    /// The earliest wake-up that is scheduled, in virtual time.
    pub(crate) wake_at: Time,
}

impl Node {
    /// Starts the node of `host` with empty memory.
    pub(crate) fn start(
        host: usize,
        now: Time,
        plan: &Plan,
        offset_ms: i64,
        bug: Option<Bug>,
    ) -> Option<Self> {
        let id = node_id(host);
        let wall_ms = (EPOCH_MS + now.as_millis()).saturating_add_signed(offset_ms);
        let epoch = Epoch::from_u64(wall_ms);
        let max_drift = match bug {
            Some(Bug::NoDriftBound) => Duration::from_secs(3_600),
            _ => Hlc::DEFAULT_MAX_DRIFT,
        };
        let clock = Hlc::new(id, wall_ms, max_drift);
        // By what it should be: with no drift bound there would be no end of waiting.
        if bug != Some(Bug::StampsAtOnce) {
            clock.hold_after_start_for(Hlc::DEFAULT_MAX_DRIFT);
        }
        let clock = Arc::new(clock);
        let coarse = CoarseClock::new(wall_ms);
        let config = StoreConfig {
            hash_seed: plan.seed ^ host as u64,
            digest_key: Some(PlacementKey::of_cluster(CLUSTER).bytes()),
            tombstone_ttl: match bug {
                Some(Bug::TombstonesCollectedEarly | Bug::RemovalsForgotten) => TOO_EARLY,
                _ => Duration::from_millis(plan.tombstone_ttl_ms),
            },
            stale_for: if plan.loads {
                STALE_FOR
            } else {
                Duration::ZERO
            },
            ..StoreConfig::new(plan.store_bytes)
        };
        let store = Arc::new(Store::new(config, coarse.clone()).ok()?);
        if let Some(bug) = bug {
            bug.plant(&store);
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let evicted = Arc::new(Mutex::new(Vec::new()));
        store.set_listener(Arc::new(Ear {
            heard: Arc::clone(&heard),
            evicted: Arc::clone(&evicted),
        }));
        let identity = Identity::new(id, epoch, address(host), Zone::default());
        let seed = plan.seed ^ (host as u64) << 56 ^ now.as_nanos();
        let usual = match bug {
            Some(Bug::DeathsNoticedLate) => MembershipConfig {
                suspicion: TOO_LATE,
                suspicion_after_loss: TOO_LATE,
                ..MembershipConfig::default()
            },
            Some(Bug::NoTimeToRefute) => MembershipConfig {
                probe_period: TOO_SOON * 4,
                probe_timeout: TOO_SOON,
                suspicion: TOO_SOON,
                ..MembershipConfig::default()
            },
            _ => MembershipConfig::default(),
        };
        let membership_config = MembershipConfig {
            mesh_max: plan.mesh_max,
            mesh_grace: plan.mesh_grace,
            member_limit: MEMBER_LIMIT_MAX,
            ..usual
        };
        let membership = Membership::new(membership_config, identity, seed, Time::ZERO).ok()?;
        let config = replication(plan, bug);
        let core = core_of(Time::ZERO, &store, &clock, epoch, config);
        let opens_at = plan.opens_at(host, now);
        Some(Self {
            started: now,
            born: now,
            ppm: plan.clock_ppm[host],
            id,
            epoch,
            membership_due: membership.next_tick(),
            membership,
            core,
            opens_at,
            is_open: opens_at <= now,
            store,
            clock,
            coarse,
            heard,
            evicted,
            sessions: BTreeMap::new(),
            dialling: BTreeMap::new(),
            accepting: BTreeMap::new(),
            pool: BTreeMap::new(),
            stamped: Vec::new(),
            done: Vec::new(),
            overtaken: None,
            numbers: false,
            value_bytes: plan.value_bytes,
            long: plan.long.clone(),
            by_wall_clock: bug == Some(Bug::WallClock),
            planted: bug.map_or(ProtocolBug::None, Bug::of_protocol),
            keeps_absence: bug == Some(Bug::AbsenceKept),
            keeps_own_copies: bug == Some(Bug::OwnCopiesKept),
            transfers: 0,
            leaving: None,
            waiting: BTreeMap::new(),
            epochs: BTreeMap::new(),
            loads: NodeLoads::new(plan, bug),
            writes: NodeWrites::new(),
            waiters: 0,
            looked_at: now,
            store_tick_at: Time::ZERO,
            wake_at: Time::MAX,
        })
    }

    /// Opens the cache, on a node that has run for a while.
    pub(crate) fn open(&mut self, own: Time, plan: &Plan, bug: Option<Bug>) -> Vec<Output<Value>> {
        let mut out = Vec::new();
        let config = replication(plan, bug);
        self.core = core_of(own, &self.store, &self.clock, self.epoch, config);
        self.is_open = true;
        for member in self.membership.members() {
            let identity = &member.identity;
            self.core.member_up(own, identity.node, identity.epoch);
        }
        for peer in self.sessions.keys() {
            if let Some(epoch) = self.epochs.get(peer) {
                self.core.peer_up(own, *peer, *epoch, &mut out);
            }
        }
        out
    }

    /// Whether what it writes now may not be missed by anybody: it has not just opened the cache.
    pub(crate) fn is_known(&self, now: Time) -> bool {
        self.opens_at <= self.started || now >= self.opens_at + COUNTS_AFTER
    }

    /// The version of a write.
    pub(crate) fn stamp(&self, own: Time) -> Option<Version> {
        if self.by_wall_clock {
            let wall = Timestamp::from_parts(self.clock.physical_ms(own), 0);
            return Some(Version::new(wall, self.id));
        }
        self.clock.stamp(own).ok()
    }

    /// Whether it has made this version in its present life: it makes none below the drift bound after its start (R6).
    pub(crate) fn has_made(&self, version: Version) -> bool {
        let held_until_ms = self.epoch.as_u64().saturating_add(DRIFT_MS);
        version.origin == self.id && version.time.millis() > held_until_ms
    }

    /// The node's own time. Moves the clock of its store along.
    pub(crate) fn time(&self, now: Time) -> Time {
        let elapsed = now.as_nanos().saturating_sub(self.started.as_nanos());
        let own = Time::from_nanos(scaled(elapsed, MILLION + self.ppm, MILLION));
        self.coarse.set(self.clock.physical_ms(own));
        own
    }

    /// What a boot-time clock on its machine shows: the wall clock at its start and all the time since, pauses too, at the machine's speed.
    pub(crate) fn boot_ms(&self, now: Time) -> u64 {
        let elapsed = now.as_nanos().saturating_sub(self.born.as_nanos());
        let elapsed = scaled(elapsed, MILLION + self.ppm, MILLION);
        self.epoch.as_u64() + elapsed / 1_000_000
    }

    /// What it says of itself in a handshake.
    pub(crate) fn local(&self) -> Local {
        Local {
            planted: self.planted,
            ..Local::new(CLUSTER, "n", self.membership.identity().clone())
        }
    }

    /// A caller with `patience`.
    pub(crate) fn waiter(&mut self, own: Time, patience: Duration, awaited: Awaited) -> Waiter {
        self.waiters += 1;
        let deadline = own + patience;
        self.waiting.insert(self.waiters, (deadline, awaited));
        Waiter {
            id: WaiterId(self.waiters),
            deadline,
        }
    }

    /// Lets the store do its chores if they are due.
    pub(crate) fn tick_store(&mut self, own: Time) {
        if own >= self.store_tick_at {
            self.store.tick(64);
            self.store_tick_at = own + STORE_TICK;
        }
    }

    /// When the node wants to run next, in virtual time.
    pub(crate) fn next_wake(&self) -> Time {
        let of_cache = if self.is_open {
            self.core.next_tick()
        } else {
            Time::MAX
        };
        let own = self.membership_due.min(of_cache).min(self.store_tick_at);
        if own == Time::MAX {
            return Time::MAX;
        }
        // A nanosecond later, so that the node's own clock has got there.
        let elapsed = scaled(own.as_nanos(), MILLION, MILLION + self.ppm).saturating_add(1);
        Time::from_nanos(elapsed.saturating_add(self.started.as_nanos()))
    }

    /// What the node's clock counts as `own`, in virtual time.
    pub(crate) fn in_virtual_time(&self, own: Duration) -> Duration {
        let nanos = u64::try_from(own.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(scaled(nanos, MILLION, MILLION + self.ppm))
    }

    /// Keys that made room since the last call.
    pub(crate) fn take_evicted(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.evicted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes of the store since the last call.
    pub(crate) fn take_heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
