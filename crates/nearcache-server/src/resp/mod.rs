//! The Redis protocol (RESP2 and RESP3) over the node's caches.
//!
//! ```text
//! listener ── admits ──▶ worker ── one task each ──▶ connection
//!    │                                                 │ bytes       ▲ bytes
//!    └─ watchdog: closes what is slow, idle, too full  ▼             │
//!                                     parser ──▶ commands ──▶ writer
//!                                                   │
//!                                                   ▼
//!                                                caches
//! ```
//!
//! [`serve`] accepts connections and shares them out among a few workers, each of one thread. A connection's task reads
//! what has arrived, lets its `Conversation` answer every complete request in order, and writes all
//! replies at once. Plain reads and writes are answered from this node's memory without waiting; what
//! another node must decide is awaited, and only by that connection.

mod buffers;
mod clients;
mod commands;
mod connection;
mod conversation;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod glob;
mod listener;
mod metrics;
mod parser;
mod session;
mod watchdog;
mod worker;
mod writer;

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    auth::Credentials,
    caches::RawCache,
    limits::{ConnectionBudget, Limits, MemoryBudget},
};

pub use listener::serve;
pub use metrics::Metrics;

/// Silence on a connection after which the kernel asks whether the other side still exists.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// At most one line of log per kind of odd visitor in this time.
const LOG_INTERVAL_MS: u64 = 60_000;

/// How this server introduces itself.
#[derive(Debug)]
struct Identity {
    /// The version of Redis whose replies and errors these are.
    redis_version: &'static str,
    version: &'static str,
}

const IDENTITY: Identity = Identity {
    redis_version: "7.0.15",
    version: env!("CARGO_PKG_VERSION"),
};

/// What the RESP listener serves, and within which bounds.
#[derive(Debug)]
pub struct Context {
    /// What `SELECT n` selects; there must be a first one.
    pub databases: Vec<RawCache>,
    /// The node the databases belong to.
    pub node: nearcache::Node,
    /// Bounds on clients.
    pub limits: Arc<Limits>,
    /// Connections of all listeners of this node.
    pub connections: Arc<ConnectionBudget>,
    /// Request and reply bytes held by all listeners of this node.
    pub memory: Arc<MemoryBudget>,
    /// What clients must present before they may run commands; `None`: nothing.
    pub auth: Option<Arc<Credentials>>,
    /// Counters, made with [`Metrics::register`].
    pub metrics: Arc<Metrics>,
    /// Where HTTP listens, named to a client that speaks HTTP to this port.
    pub http_address: Option<SocketAddr>,
    /// Workers that serve connections, each on one thread; `None` chooses by the number of processors.
    pub threads: Option<NonZeroUsize>,
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) context: Arc<Context>,
    pub(crate) clients: clients::Clients,
    pub(crate) time: clients::CoarseTime,
    /// The port listened on.
    pub(crate) port: u16,
    http_logged_ms: AtomicU64,
}

impl Server {
    fn new(context: Arc<Context>, port: u16) -> Arc<Self> {
        Arc::new(Self {
            context,
            clients: clients::Clients::new(),
            time: clients::CoarseTime::new(),
            port,
            http_logged_ms: AtomicU64::new(0),
        })
    }

    /// Tells the operator, once a minute at most, that somebody speaks HTTP to this port.
    pub(crate) fn log_http_on_resp_port(&self, peer: &str) {
        let now_ms = self.time.now_ms();
        let logged_ms = self.http_logged_ms.load(Ordering::Relaxed);
        let is_due = logged_ms == 0 || now_ms.saturating_sub(logged_ms) >= LOG_INTERVAL_MS;
        let swap = |from, to| {
            self.http_logged_ms
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
        };
        if is_due && swap(logged_ms, now_ms).is_ok() {
            tracing::warn!(
                peer,
                "a client speaks HTTP to the RESP port, perhaps a page in a browser; closed"
            );
        }
    }
}
