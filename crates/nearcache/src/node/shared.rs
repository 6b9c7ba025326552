//! The state of a node that its handles, tasks and caches share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use nearcache_protocol::clock::Hlc;
use nearcache_protocol::frame::FrameLimit;
use nearcache_protocol::ids::{CacheId, Epoch};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::rendezvous::PlacementKey;
use nearcache_protocol::time::Time;
use nearcache_store::{CoarseClock, NodeId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cluster::ClusterState;
use super::errors::StartError;
use super::events::NodeEvent;
use super::skew::SkewWatch;
use crate::cache::{CachePort, OpenError, Shell};
use crate::clock::NodeClock;
use crate::limits::CACHES_MAX;
use crate::metrics::NodeMetrics;
use crate::quick_clock::QuickClock;
use crate::security::PeerSecurity;
use crate::subscription::Hub;
use crate::transport::{Links, ProbePool, Questions, drain};

/// The caches of a node; replaced as a whole when one is opened, so that reading takes no lock.
pub(crate) type Caches = BTreeMap<CacheId, Arc<dyn CachePort>>;

/// What a frame holds besides its largest values and key: tags, header and batch, about.
const FRAME_OVERHEAD_BYTES: usize = 64 * 1024;

/// What the builder settled.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) local_addr: SocketAddr,
    pub(crate) advertised: SocketAddr,
    pub(crate) join_alone_after: Duration,
    /// A former start may have made versions under this node's id (rule R6).
    pub(crate) may_have_run_before: bool,
    pub(crate) allow_insecure_network: bool,
    /// Up to so many members all are connected to all.
    pub(crate) mesh_max: usize,
    pub(crate) member_limit: usize,
    /// Probe connections of each direction.
    pub(crate) probe_connections: usize,
}

/// The state of a node.
pub(crate) struct NodeShared {
    config: NodeConfig,
    epoch: Epoch,
    clock: NodeClock,
    quick: Arc<QuickClock>,
    coarse: CoarseClock,
    hlc: Arc<Hlc>,
    skew: SkewWatch,
    placement: PlacementKey,
    caches: ArcSwap<Caches>,
    /// Held while a cache is opened, so that two openings of one name meet.
    opening: Mutex<()>,
    links: Links,
    probes: ProbePool,
    questions: Questions,
    cluster_state: ClusterState,
    security: Option<Arc<PeerSecurity>>,
    metrics: Arc<NodeMetrics>,
    events: Hub<NodeEvent>,
    cache_ready: watch::Sender<()>,
    /// The largest frame that peers may send: room for the largest value of any cache open here.
    frame_limit_bytes: AtomicU32,
    stopped: CancellationToken,
    is_stopped: AtomicBool,
    /// Nothing is written here any more.
    is_leaving: AtomicBool,
}

impl std::fmt::Debug for NodeShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeShared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl NodeShared {
    pub(super) fn new(
        config: NodeConfig,
        security: Option<Arc<PeerSecurity>>,
        clock: NodeClock,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(NodeMetrics::new());
        let hlc = Hlc::new(config.id, clock.wall_ms_at_start(), Hlc::DEFAULT_MAX_DRIFT);
        if config.may_have_run_before {
            hlc.hold_after_start();
        }
        let epoch = Epoch::from_u64(clock.wall_ms_at_start());
        Ok(Self {
            epoch,
            cluster_state: ClusterState::new(&config, epoch, clock.now())?,
            coarse: CoarseClock::new(clock.now_ms()),
            hlc: Arc::new(hlc),
            skew: SkewWatch::default(),
            placement: PlacementKey::of_cluster(&config.cluster),
            quick: Arc::new(QuickClock::new(clock)),
            clock,
            caches: ArcSwap::default(),
            opening: Mutex::default(),
            links: Links::new(Arc::clone(&metrics)),
            probes: ProbePool::new(config.probe_connections, Arc::clone(&metrics)),
            questions: Questions::default(),
            security,
            metrics,
            events: Hub::default(),
            cache_ready: watch::Sender::new(()),
            frame_limit_bytes: AtomicU32::new(FrameLimit::DEFAULT.bytes()),
            stopped: CancellationToken::new(),
            is_stopped: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            config,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.config.cluster
    }

    pub(crate) const fn id(&self) -> NodeId {
        self.config.id
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.config.local_addr
    }

    pub(crate) const fn join_alone_after(&self) -> Duration {
        self.config.join_alone_after
    }

    pub(crate) const fn config(&self) -> &NodeConfig {
        &self.config
    }

    pub(crate) const fn coarse(&self) -> &CoarseClock {
        &self.coarse
    }

    /// The clock of the read path.
    pub(crate) const fn quick(&self) -> &Arc<QuickClock> {
        &self.quick
    }

    /// What was said of clocks that are too far apart.
    pub(super) const fn skew(&self) -> &SkewWatch {
        &self.skew
    }

    pub(crate) const fn hlc(&self) -> &Arc<Hlc> {
        &self.hlc
    }

    /// Waits until this node may make versions: above all that a former start of it can have made (rule R6).
    pub(crate) async fn may_write(&self) {
        let held_for = self.hlc.held_for(self.now());
        if !held_for.is_zero() {
            tracing::info!(
                ?held_for,
                "opening a cache waits until no former start of this node can have made newer versions"
            );
            tokio::time::sleep(held_for).await;
        }
    }

    pub(crate) const fn placement(&self) -> PlacementKey {
        self.placement
    }

    pub(crate) const fn links(&self) -> &Links {
        &self.links
    }

    /// Connections to members that there is no session with.
    pub(crate) const fn probes(&self) -> &ProbePool {
        &self.probes
    }

    /// What waits for such a connection.
    pub(crate) const fn questions(&self) -> &Questions {
        &self.questions
    }

    pub(crate) const fn cluster_state(&self) -> &ClusterState {
        &self.cluster_state
    }

    /// How connections are secured; nothing if they are not.
    pub(crate) fn security(&self) -> Option<&PeerSecurity> {
        self.security.as_deref()
    }

    pub(crate) fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    pub(crate) const fn events(&self) -> &Hub<NodeEvent> {
        &self.events
    }

    pub(crate) const fn stopped(&self) -> &CancellationToken {
        &self.stopped
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.coarse.now_ms()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Whether this node stops or has stopped: nothing is written here any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire) || self.is_stopped()
    }

    pub(crate) fn caches(&self) -> arc_swap::Guard<Arc<Caches>> {
        self.caches.load()
    }

    pub(crate) fn cache_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .caches()
            .values()
            .map(|cache| cache.name().to_owned())
            .collect();
        names.sort_unstable();
        names
    }

    /// Whether the cache called `name` is open.
    pub(crate) fn has_cache(&self, name: &str) -> bool {
        let id = CacheId::of_name(self.placement.bytes(), name);
        self.caches.load().contains_key(&id)
    }

    /// The cache called `name`, made by `make` if it is not open yet.
    pub(crate) fn open_cache<V: Payload>(
        self: &Arc<Self>,
        name: &str,
        make: impl FnOnce(&Arc<Self>, CacheId) -> Result<Shell<V>, OpenError>,
    ) -> Result<Arc<Shell<V>>, OpenError> {
        let id = CacheId::of_name(self.placement.bytes(), name);
        let _opening = self.opening.lock();
        if self.is_stopped() {
            return Err(OpenError::NodeStopped);
        }
        let caches = self.caches.load_full();
        let made = make(self, id)?;
        if let Some(open) = caches.get(&id) {
            return same(open, name, &made);
        }
        if caches.len() >= CACHES_MAX {
            return Err(OpenError::TooManyCaches { limit: CACHES_MAX });
        }
        // The answer to a read-modify-write holds two values.
        let largest = made.settings().max_value_bytes * 2 + made.settings().max_key_bytes;
        let limit = u32::try_from(largest + FRAME_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        self.frame_limit_bytes.fetch_max(limit, Ordering::Relaxed);
        let shell = Arc::new(made);
        let port: Arc<dyn CachePort> = Arc::clone(&shell) as Arc<dyn CachePort>;
        let mut more = Caches::clone(&caches);
        more.insert(id, Arc::clone(&port));
        self.links.introduce(&port, || {
            self.caches.store(Arc::new(more));
            self.cluster_state.introduce(&*port);
        });
        // Who has nobody to wait for is ready now, before a peer asks whether it is.
        let _ = port.tick();
        Ok(shell)
    }

    /// The largest frame that peers may send now.
    pub(crate) fn frame_limit(&self) -> FrameLimit {
        FrameLimit::new(self.frame_limit_bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn cache_became_ready(&self) {
        self.cache_ready.send_replace(());
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.caches().values().all(|cache| cache.is_ready())
    }

    pub(crate) async fn ready(&self) {
        let mut changed = self.cache_ready.subscribe();
        while !self.is_ready() && !self.is_stopped() {
            // An error means that the sender is gone, and it lives in self.
            let _ = changed.changed().await;
        }
    }

    /// Leaves the cluster and stops.
    pub(super) async fn shutdown(self: &Arc<Self>) {
        if self.is_stopped() {
            return;
        }
        self.is_leaving.store(true, Ordering::Release);
        drain::write_out(self).await;
        drain::hand_over(self).await;
        for cache in self.caches().values() {
            cache.leave();
        }
        self.cluster_state.leave(self);
        drain::close(self).await;
        let caches = self.caches.load_full();
        self.stop();
        drain::close_journals(&caches).await;
    }

    /// Ends everything at once, without telling anybody.
    pub(crate) fn stop(&self) {
        if self.is_stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        self.stopped.cancel();
        self.links.close_all();
        let caches = {
            let _opening = self.opening.lock();
            self.caches.swap(Arc::default())
        };
        for cache in caches.values() {
            cache.close();
        }
        self.events.close();
        self.cache_ready.send_replace(());
        tracing::info!(node = self.name(), "node stopped");
    }
}

/// The open cache, if it is what is asked for.
fn same<V: Payload>(
    open: &Arc<dyn CachePort>,
    name: &str,
    asked: &Shell<V>,
) -> Result<Arc<Shell<V>>, OpenError> {
    if open.name() != name {
        return Err(OpenError::NameCollision {
            name: name.to_owned(),
            other: open.name().to_owned(),
        });
    }
    let differs = |what| OpenError::OpenDifferently {
        name: name.to_owned(),
        what,
    };
    let (ours, theirs) = (asked.settings(), open.settings());
    if ours.mode != theirs.mode {
        return Err(differs("mode"));
    }
    if ours.codec != theirs.codec {
        return Err(differs("codec"));
    }
    Arc::clone(open)
        .into_any()
        .downcast()
        .map_err(|_| differs("type of values"))
}
