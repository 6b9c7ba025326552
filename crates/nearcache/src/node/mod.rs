//! This process's member of a cluster.
//!
//! ```text
//! Node, Cache ── hold ──▶ NodeGuard ── holds ──▶ NodeShared ◀── hold ── tasks, shells
//! (the user's handles)    (last one stops)       (state)
//! ```
//!
//! A [`Node`] is a handle. When the last handle (of the node or of any of its caches) is dropped,
//! the guard stops the node: its tasks end, its sockets close, its clock thread ends. Tasks and
//! shells hold the shared state only, which never stops anything by itself.

mod audit_metrics;
mod builder;
mod cluster;
mod driver;
mod errors;
mod events;
mod guard;
mod identity;
mod members;
mod scrape;
mod shared;
mod skew;

use std::net::SocketAddr;
use std::sync::Arc;

use nearcache_protocol::ids::Epoch;
use nearcache_store::{CoarseClock, NodeId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::cache::CacheBuilder;
use crate::subscription::Subscription;

pub use builder::NodeBuilder;
pub use errors::{ConnectError, StartError};
pub use events::NodeEvent;
pub use members::{Member, MemberState, NodeLinks};
pub use skew::ClockSkew;

pub(crate) use guard::NodeGuard;
pub(crate) use identity::id_of_name;
pub(crate) use shared::{Caches, NodeShared};

/// Events a subscriber of membership may lag behind (a guess).
const EVENTS_CAPACITY: usize = 256;

/// A member of a cluster, living in this process. Clones are handles to the same member.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = nearcache::Node::builder("shop").name("one").start().await?;
/// node.ready().await;
/// println!("{} ({}) listens on {}", node.name(), node.id(), node.local_addr());
/// node.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Node {
    guard: Arc<NodeGuard>,
}

impl Node {
    /// Starts to configure a node of the cluster called `cluster`. Nodes of other clusters are
    /// refused.
    pub fn builder(cluster: impl Into<String>) -> NodeBuilder {
        NodeBuilder::new(cluster.into())
    }

    pub(crate) const fn new(guard: Arc<NodeGuard>) -> Self {
        Self { guard }
    }

    fn shared(&self) -> &Arc<NodeShared> {
        self.guard.shared()
    }

    /// Starts to configure the cache `name` with keys of type `K` and values of type `V`; ended by
    /// [`open`](CacheBuilder::open).
    pub fn cache<K: ?Sized, V>(&self, name: impl Into<String>) -> CacheBuilder<K, V> {
        CacheBuilder::new(Arc::clone(&self.guard), name.into())
    }

    /// The names of the caches open on this node, sorted.
    #[must_use]
    pub fn cache_names(&self) -> Vec<String> {
        self.shared().cache_names()
    }

    /// The name the node was given, or `node-` and its id.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared().name()
    }

    /// Its cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.shared().cluster()
    }

    /// Its id: derived from the cluster's name and its own, so the same after a restart; random if
    /// it was given no name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared().id()
    }

    /// Its epoch, which is new at every start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared().epoch()
    }

    /// Where it listens for peers: the address others dial.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared().local_addr()
    }

    /// Cluster time, as this node counts it; advances once a millisecond.
    #[must_use]
    pub fn clock(&self) -> &CoarseClock {
        self.shared().coarse()
    }

    /// Whether connections to peers are encrypted and both ends of them authenticated.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.shared().security().is_some()
    }

    /// Every node this one knows of, itself first, then by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.shared().members()
    }

    /// Why this node refuses writes with [`ClockSkew`](crate::WriteError::ClockSkew), if it does.
    #[must_use]
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.shared().clock_skew()
    }

    /// How this node is connected to its cluster now.
    #[must_use]
    pub fn links(&self) -> NodeLinks {
        self.shared().links_now()
    }

    /// The name of this node or of one that it has been connected to, member or not.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> Option<String> {
        if node == self.id() {
            return Some(self.name().to_owned());
        }
        self.shared().cluster_state().name_of(node)
    }

    /// What happens to members from now on. A subscriber that lags more than 256 events behind
    /// misses the oldest and is told how many.
    #[must_use]
    pub fn events(&self) -> Subscription<NodeEvent> {
        self.shared().events().subscribe(EVENTS_CAPACITY)
    }

    /// Connects to whoever listens at `address`, now and again when the connection is lost, until
    /// [`disconnect`](Self::disconnect). Returns the peer's id once the connection stands.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; the node keeps no memory of the address then.
    pub async fn connect(&self, address: SocketAddr) -> Result<NodeId, ConnectError> {
        crate::transport::connect(self.shared(), address).await
    }

    /// Ends the connection to `peer` and refuses new ones, whoever dials, until
    /// [`connect`](Self::connect) is called with its address. Says whether there was a connection.
    ///
    /// The peer stays a member; it is caught up when the two are connected again.
    pub fn disconnect(&self, peer: NodeId) -> bool {
        self.shared().disconnect(peer)
    }

    /// Whether every cache open on this node has been filled from a peer, or nobody was there to
    /// fill it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared().is_ready()
    }

    /// Waits until [`is_ready`](Self::is_ready), or until the node stops. Cancel-safe.
    ///
    /// A node that has peers to look for and reaches none within a few seconds is ready with what
    /// it has: it may be the first of its cluster.
    pub async fn ready(&self) {
        self.shared().ready().await;
    }

    /// The node's metrics, to serve them or to add to them.
    #[must_use]
    pub fn metrics(&self) -> Arc<Mutex<Registry>> {
        self.shared().metrics().registry()
    }

    /// Leaves the cluster: hands over to the peers what only this node has, long values included, sends what is still on its way (at most 10 s in all), tells
    /// the peers, and stops. Writes are refused from the beginning, as those of a node that has stopped; reads from the end.
    /// Calling it twice does no harm. Dropped half way, the node goes on without writing anything.
    pub async fn shutdown(&self) {
        self.shared().shutdown().await;
    }

    /// Whether the node has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared().is_stopped()
    }
}
