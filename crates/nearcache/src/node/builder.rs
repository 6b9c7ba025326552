//! Configuring and starting a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::driver;
use super::errors::StartError;
use super::guard::NodeGuard;
use super::identity;
use super::scrape::Scrape;
use super::shared::{NodeConfig, NodeShared};
use crate::clock::{NodeClock, Ticker};
use crate::discovery::{Discovery, StaticPeers};
use crate::limits::{
    MEMBER_LIMIT_DEFAULT, MEMBER_LIMIT_MAX, MESH_MAX_DEFAULT, PROBE_CONNECTIONS_DEFAULT,
    PROBE_CONNECTIONS_MAX, is_name,
};
use crate::security::{PeerSecurity, PeerTls};
use crate::transport::{self, TcpListener};

/// How long a joining node looks for a peer before it is ready with what it has (a guess: two
/// connection attempts).
const JOIN_ALONE_AFTER: Duration = Duration::from_secs(3);

/// Settings of a node; ended by [`start`](Self::start).
#[derive(Debug)]
#[must_use = "a node is started by .start().await"]
pub struct NodeBuilder {
    cluster: String,
    name: Option<String>,
    listen: String,
    advertise: Option<SocketAddr>,
    discovery: Arc<dyn Discovery>,
    allow_insecure_network: bool,
    tls: Option<PeerTls>,
    join_alone_after: Duration,
    new_identity: bool,
    mesh_max: usize,
    member_limit: usize,
    probe_connections: usize,
}

impl NodeBuilder {
    pub(super) fn new(cluster: String) -> Self {
        Self {
            cluster,
            name: None,
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            discovery: Arc::new(StaticPeers::default()),
            allow_insecure_network: false,
            tls: None,
            join_alone_after: JOIN_ALONE_AFTER,
            new_identity: false,
            mesh_max: MESH_MAX_DEFAULT,
            member_limit: MEMBER_LIMIT_DEFAULT,
            probe_connections: PROBE_CONNECTIONS_DEFAULT,
        }
    }

    /// The node's name, unique in its cluster. A node started again under its name is the same
    /// member as before. Default: the name in its certificate if it has one, else none and a random
    /// identity.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where to listen for peers, as `IP:PORT`; port 0 takes a free one. Default `127.0.0.1:0`.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// The address under which peers reach this node, if it is not the one it listens on.
    pub const fn advertise(mut self, address: SocketAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// How to find peers. Default: nobody is looked for.
    pub fn discovery(mut self, discovery: impl Discovery) -> Self {
        self.discovery = Arc::new(discovery);
        self
    }

    /// As [`discovery`](Self::discovery), for one that is chosen at run time.
    pub fn discovery_dyn(mut self, discovery: Arc<dyn Discovery>) -> Self {
        self.discovery = discovery;
        self
    }

    /// Secures all connections between nodes with mutual TLS and the cluster's secret. All nodes of
    /// a cluster have it or none. Default: none, and the node stays on loopback.
    pub fn tls(mut self, tls: PeerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Allows listening on and connecting to addresses other than loopback although there is no
    /// [`tls`](Self::tls), so that peers are not authenticated and nothing is encrypted: whoever
    /// reaches the port can read and write every cache. Only for networks that are protected by
    /// other means. Has no effect with TLS.
    pub const fn allow_insecure_network(mut self, allow: bool) -> Self {
        self.allow_insecure_network = allow;
        self
    }

    /// How long a starting node that has peers to look for tries to reach one before it is ready
    /// with what it has. Default 3 s. A peer that is reached is waited for, however long it takes.
    pub const fn join_alone_after(mut self, after: Duration) -> Self {
        self.join_alone_after = after;
        self
    }

    /// Whether the node gets an id that no node had before although it has a name. Default: false, the id follows from the name
    /// and lasts longer than the process, so that peers know the node again. For nodes that are started for a moment, as in
    /// tests: opening a cache need not wait until the node's former self cannot have made newer versions.
    /// Has no effect with a certificate that names the node: its id is that of its name.
    pub const fn new_identity(mut self, is_new: bool) -> Self {
        self.new_identity = is_new;
        self
    }

    /// Up to how many members, this one included, every node is connected to every other. In a larger cluster a node is connected to about
    /// 2 log2 of their number, and updates travel along a tree. Default [`MESH_MAX_DEFAULT`]; 1 to [`MEMBER_LIMIT_MAX`].
    ///
    /// The same on all nodes: those that disagree refuse each other as soon as there are more members than the smaller number. Beyond the
    /// mesh updates arrive a few hops later, [`Ack::All`](crate::Ack::All) is refused, and leases of mode `invalidation` are a heartbeat longer for
    /// each hop. See docs/large-clusters.md.
    pub const fn mesh_max(mut self, members: usize) -> Self {
        self.mesh_max = members;
        self
    }

    /// The most members, this one included; more are refused. Default and most [`MEMBER_LIMIT_MAX`].
    pub const fn member_limit(mut self, members: usize) -> Self {
        self.member_limit = members;
        self
    }

    /// How many short-lived connections the node opens at a time, and accepts, to watch members that it has no session with: beyond the
    /// mesh. What finds no room is lost, and a member may be watched by others instead. Default [`PROBE_CONNECTIONS_DEFAULT`]; 1 to
    /// [`PROBE_CONNECTIONS_MAX`].
    pub const fn probe_connections(mut self, connections: usize) -> Self {
        self.probe_connections = connections;
        self
    }

    /// Starts the node on the current tokio runtime. Does not wait for peers: that is
    /// [`Node::ready`].
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left behind.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(mut self) -> Result<Node, StartError> {
        self.check_names()?;
        self.check_sizes()?;
        let address = self.listen_address()?;
        let security = self.load_security().await?;
        let bind_error = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let local_addr = listener.local_addr().map_err(bind_error)?;

        // Peers check that a node has the id of the name in its certificate.
        let is_certified = security
            .as_ref()
            .is_some_and(|security| security.current().node().is_some());
        let named = self
            .name
            .as_ref()
            .filter(|_| is_certified || !self.new_identity);
        let (id, may_have_run_before) = match named {
            Some(name) => (identity::id_of_name(&self.cluster, name), true),
            None => (identity::random_id(), false),
        };
        let join_alone_after = if self.discovery.is_empty() {
            Duration::ZERO
        } else {
            self.join_alone_after
        };
        let config = NodeConfig {
            cluster: self.cluster,
            name: self.name.unwrap_or_else(|| format!("node-{id}")),
            id,
            local_addr,
            advertised: self.advertise.unwrap_or(local_addr),
            join_alone_after,
            may_have_run_before,
            allow_insecure_network: self.allow_insecure_network,
            mesh_max: self.mesh_max,
            member_limit: self.member_limit,
            probe_connections: self.probe_connections,
        };
        let clock = NodeClock::start();
        let shared = Arc::new(NodeShared::new(config, security.clone(), clock)?);
        let ticker = Ticker::spawn(clock, shared.coarse().clone(), Arc::clone(shared.quick()))
            .map_err(|source| StartError::Clock { source })?;
        let guard = Arc::new(NodeGuard::new(Arc::clone(&shared), ticker));
        let scrape = Scrape(Arc::downgrade(&shared));
        shared
            .metrics()
            .registry()
            .lock()
            .register_collector(Box::new(scrape));
        driver::spawn(&shared);
        transport::spawn(&shared, listener, self.discovery);
        if let Some(security) = security {
            let (name, stopped) = (shared.name().to_owned(), shared.stopped().clone());
            tokio::spawn(security.keep_up(name, stopped));
        }
        tracing::info!(node = shared.name(), %id, %local_addr, "node started");
        Ok(Node::new(guard))
    }

    /// Reads the certificates, takes the name from them if there is no other, and checks that it
    /// agrees if there is.
    async fn load_security(&mut self) -> Result<Option<Arc<PeerSecurity>>, StartError> {
        let Some(tls) = self.tls.clone() else {
            return Ok(None);
        };
        let cluster = self.cluster.clone();
        let loading = tokio::task::spawn_blocking(move || PeerSecurity::load(tls, &cluster));
        let security = loading.await.map_err(|_| StartError::Interrupted)??;
        match &self.name {
            Some(name) => security.check_name(name)?,
            None => self.name = security.current().node().map(str::to_owned),
        }
        // A certificate may hold a name that cannot be one here.
        self.check_names()?;
        Ok(Some(Arc::new(security)))
    }

    fn check_names(&self) -> Result<(), StartError> {
        let names = [
            ("the cluster", Some(&self.cluster)),
            ("the node", self.name.as_ref()),
        ];
        for (what, name) in names {
            if let Some(name) = name.filter(|name| !is_name(name)) {
                return Err(StartError::InvalidName {
                    what,
                    name: name.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), StartError> {
        let sizes = [
            ("mesh_max", self.mesh_max, MEMBER_LIMIT_MAX),
            ("member_limit", self.member_limit, MEMBER_LIMIT_MAX),
            (
                "probe_connections",
                self.probe_connections,
                PROBE_CONNECTIONS_MAX,
            ),
        ];
        let wrong = sizes
            .into_iter()
            .find(|(_, size, max)| !(1..=*max).contains(size));
        match wrong {
            Some((what, size, max)) => Err(StartError::OutOfRange { what, size, max }),
            None => Ok(()),
        }
    }

    fn listen_address(&self) -> Result<SocketAddr, StartError> {
        let address: SocketAddr = self
            .listen
            .parse()
            .map_err(|_| StartError::InvalidAddress {
                address: self.listen.clone(),
            })?;
        let is_safe = self.tls.is_some() || address.ip().to_canonical().is_loopback();
        if !is_safe && !self.allow_insecure_network {
            return Err(StartError::InsecureNetwork { address });
        }
        Ok(address)
    }
}
