//! HTTP/1.1 over the node's caches.
//!
//! ```text
//! accept ─ connection budget ─ TimedStream ─ hyper ─ admission ─ route ─┬─ entries, group ─ caches
//!   │            │                                (Host, Origin, token)  ├─ describe, audit, status page
//!   │            └─ none left: 503 and close                             └─ health, metrics, OpenAPI
//!   └─ stop: accept no more, finish what is under way, then leave
//! ```
//!
//! The accept loop and every timeout are our own: a server that leaves them to defaults waits for slow
//! clients for good. HTTP/2 is not spoken; it comes with gRPC, together with its flood limits.

mod admission;
mod audit;
mod body;
mod connection;
mod demand;
mod describe;
mod entries;
pub(crate) mod figures;
mod framing;
pub(crate) mod fuzzing;
mod group;
mod lifetime;
mod metrics;
mod openapi;
pub(crate) mod path;
mod problem;
mod refusal;
mod service;
mod status_page;
mod stream;
mod version_tag;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;

pub use connection::serve;
pub use describe::Addresses;
pub use metrics::Metrics;

use crate::auth::Credentials;
use crate::caches::Caches;
use crate::config::HttpConfig;
use crate::limits::{ConnectionBudget, Limits, Lockout, MemoryBudget};

/// Every body this server sends is known in full.
type Body = Full<Bytes>;

/// What the HTTP listener serves, and within which bounds.
#[derive(Debug)]
pub struct Context {
    /// The node.
    pub node: nearcache::Node,
    /// Its caches.
    pub caches: Caches,
    /// Hosts and origins.
    pub config: HttpConfig,
    /// Bounds on clients.
    pub limits: Arc<Limits>,
    /// Connections of all listeners of this node.
    pub connections: Arc<ConnectionBudget>,
    /// Request bytes held by all listeners of this node.
    pub memory: Arc<MemoryBudget>,
    /// The token, where one is configured.
    pub credentials: Option<Arc<Credentials>>,
    /// Addresses that presented wrong tokens.
    pub lockout: Lockout,
    /// Counters, made with [`Metrics::register`].
    pub metrics: Arc<Metrics>,
    /// Where the node listens.
    pub addresses: Addresses,
    /// When it started.
    pub started: Instant,
}
