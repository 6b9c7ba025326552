//! One running server: a node, its caches, and the listeners before them.
//!
//! ```text
//! start   bind RESP and HTTP ─ start the node ─ open the caches ─ serve
//! stop    accept no more ─ finish requests (drain timeout) ─ leave the cluster
//! ```
//!
//! `serve` runs one, `dev` several in one process; they share nothing here either.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nearcache::{Node, Raw, RawValue};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::Credentials;
use crate::caches::{Caches, RawCache};
use crate::config::{Config, DEFAULT_CACHE};
use crate::failure::{Failure, chain};
use crate::http::Addresses;
use crate::limits::{ConnectionBudget, Lockout, MemoryBudget};
use crate::runtime::{self, SideThreads};
use crate::seeds::Seeds;
use crate::{http, protected, resp};

/// Connections the system queues for a listener until they are accepted.
const BACKLOG: u32 = 1_024;
/// How often an accepted risk is repeated in the log.
const RISK_INTERVAL: Duration = Duration::from_secs(60);
/// Beyond the drain timeout, how long the listeners get to notice that it is over.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// A node that serves clients.
#[derive(Debug)]
pub struct Server {
    node: Node,
    caches: Caches,
    addresses: Addresses,
    drain_timeout: Duration,
    stop: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    http_threads: Option<SideThreads>,
}

impl Server {
    /// Starts everything `config` asks for. `resp_threads` is the number of threads that serve RESP
    /// connections, by the number of processors if absent.
    ///
    /// On a runtime of one thread, that is one of them, and HTTP gets threads of its own.
    ///
    /// Returns as soon as clients can connect; whether the caches have been filled from peers is
    /// [`Node::is_ready`].
    ///
    /// # Errors
    /// What could not be had, in one line: a port, the token file, a name. Nothing is left behind.
    pub async fn start(
        config: &Config,
        resp_threads: Option<NonZeroUsize>,
    ) -> Result<Self, Failure> {
        let credentials = match &config.auth.token_file {
            Some(path) => Some(Arc::new(
                Credentials::from_file(path).map_err(Failure::misuse)?,
            )),
            None => None,
        };
        let resp_listener = match config.resp.enabled {
            true => Some(bind(config.resp.listen, "resp.listen")?),
            false => None,
        };
        let http_listener = match config.http.enabled {
            true => Some(bind(config.http.listen, "http.listen")?),
            false => None,
        };
        let node = start_node(config).await?;
        let caches = open_caches(&node, config).await?;
        let addresses = Addresses {
            resp: resp_listener
                .as_ref()
                .and_then(|listener| listener.local_addr().ok()),
            http: http_listener
                .as_ref()
                .and_then(|listener| listener.local_addr().ok()),
            peers: node.local_addr(),
        };
        let mut server = Self {
            node,
            caches,
            addresses,
            drain_timeout: config.limits.drain_timeout,
            stop: CancellationToken::new(),
            listeners: Vec::new(),
            http_threads: None,
        };
        let limits = Arc::new(config.limits.clone());
        let connections = ConnectionBudget::new(&limits);
        let memory = MemoryBudget::new(&limits);
        if let Some(listener) = resp_listener {
            let metrics = resp::Metrics::register(&mut server.node.metrics().lock());
            let databases = config.resp.databases.iter();
            let context = Arc::new(resp::Context {
                databases: databases
                    .filter_map(|name| server.caches.get(name).cloned())
                    .collect(),
                node: server.node.clone(),
                auth: credentials.clone(),
                limits: Arc::clone(&limits),
                connections: Arc::clone(&connections),
                memory: Arc::clone(&memory),
                metrics,
                http_address: server.addresses.http,
                threads: resp_threads,
            });
            let stop = server.stop.clone();
            server.listeners.push(tokio::spawn(async move {
                if let Err(error) = resp::serve(listener, context, stop).await {
                    tracing::error!(%error, "the RESP listener has failed");
                }
            }));
        }
        if let Some(listener) = http_listener {
            let metrics = http::Metrics::register(&mut server.node.metrics().lock());
            let context = Arc::new(http::Context {
                node: server.node.clone(),
                caches: server.caches.clone(),
                config: config.http.clone(),
                limits,
                connections,
                memory,
                credentials,
                lockout: Lockout::new(&config.limits),
                metrics,
                addresses: server.addresses.clone(),
                started: Instant::now(),
            });
            let stop = server.stop.clone();
            let threads = http_threads()?;
            let handle = threads
                .as_ref()
                .map_or_else(Handle::current, SideThreads::handle);
            server.http_threads = threads;
            server
                .listeners
                .push(handle.spawn(http::serve(listener, context, stop)));
        }
        warn_of_risks(protected::accepted_risks(config), server.stop.clone());
        Ok(server)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where it listens; with port 0 in the configuration, what the system chose.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The cache of this name.
    #[must_use]
    pub fn cache(&self, name: &str) -> Option<&RawCache> {
        self.caches.get(name)
    }

    /// The cache called `default`; configuration makes sure that there is one.
    #[must_use]
    pub fn default_cache(&self) -> Option<&RawCache> {
        self.cache(DEFAULT_CACHE)
    }

    /// Accepts nothing more, lets requests under way finish for at most the drain timeout, then leaves
    /// the cluster.
    pub async fn stop(self) {
        self.stop.cancel();
        for listener in self.listeners {
            let abort = listener.abort_handle();
            if timeout(self.drain_timeout + DRAIN_GRACE, listener)
                .await
                .is_err()
            {
                abort.abort();
            }
        }
        self.node.shutdown().await;
    }
}

/// Threads for HTTP, where the current runtime has only the one that peers and RESP clients wait for.
fn http_threads() -> Result<Option<SideThreads>, Failure> {
    if !runtime::is_of_one_thread() {
        return Ok(None);
    }
    let threads = SideThreads::start("http");
    threads
        .map(Some)
        .map_err(|error| Failure::no_threads(&error))
}

fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| cannot_listen(address, setting, &error))
}

/// As tokio's own `bind`, with a longer queue.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A port whose last connections are still winding down can be taken again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn cannot_listen(address: SocketAddr, setting: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is taken; stop what listens there or choose another".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need privileges".to_owned()
        }
        _ => error.to_string(),
    };
    Failure::misuse(format!("cannot listen on {address} ({setting}): {reason}"))
}

async fn start_node(config: &Config) -> Result<Node, Failure> {
    let seeds = Seeds::new(&config.peers).map_err(Failure::misuse)?;
    let mut builder = Node::builder(&config.node.cluster)
        .listen(config.peers.listen.to_string())
        .discovery(seeds)
        .new_identity(config.node.new_identity)
        .allow_insecure_network(config.peers.allow_insecure_network)
        .mesh_max(config.peers.mesh_max)
        .member_limit(config.peers.member_limit)
        .probe_connections(config.peers.probe_connections);
    if let Some(name) = &config.node.name {
        builder = builder.name(name);
    }
    if let Some(tls) = config.peers.tls.settings() {
        builder = builder.tls(tls);
    }
    if let Some(address) = config.peers.advertise {
        builder = builder.advertise(address);
    }
    builder.start().await.map_err(|error| match error {
        nearcache::StartError::Bind { address, source } => {
            cannot_listen(address, "peers.listen", &source)
        }
        other => Failure::misuse(chain(&other)),
    })
}

async fn open_caches(node: &Node, config: &Config) -> Result<Caches, Failure> {
    let mut caches = Caches::default();
    for (name, settings) in &config.caches {
        let mut builder = node
            .cache::<Vec<u8>, RawValue>(name)
            .codec::<Raw>()
            .mode(settings.mode.kind())
            .split(settings.split)
            .on_disconnect(settings.on_disconnect)
            .link_timeout(settings.link_timeout)
            .dead_counts_for(settings.dead_counts_for)
            .transfer_bytes_per_second(settings.transfer_bytes_per_second)
            .max_bytes(settings.max_bytes)
            .inline_limit(settings.inline_limit)
            .fetch_bytes_per_second(settings.fetch_bytes_per_second)
            .max_key_bytes(config.limits.key_bytes)
            .allow_empty_key(true)
            .max_value_bytes(config.limits.value_bytes);
        if let Some(ttl) = settings.time_to_live {
            builder = builder.time_to_live(ttl);
        }
        if let Some(idle) = settings.time_to_idle {
            builder = builder.time_to_idle(idle);
        }
        let opened = builder.open().await;
        let opened = opened
            .map_err(|error| Failure::misuse(format!("cache `{name}`: {}", chain(&error))))?;
        if let Some(every) = settings.audit_every {
            opened.audit(every, None);
        }
        caches.insert(opened);
    }
    Ok(caches)
}

fn warn_of_risks(risks: Vec<String>, stop: CancellationToken) {
    if risks.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let mut minutes = interval(RISK_INTERVAL);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = minutes.tick() => {}
                () = stop.cancelled() => return,
            }
            for risk in &risks {
                tracing::warn!("{risk}");
            }
        }
    });
}
