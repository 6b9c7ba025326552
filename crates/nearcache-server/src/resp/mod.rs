//! The Redis protocol (RESP2 and RESP3) over the node's caches.

mod glob;
mod parser;
mod writer;

use std::{net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::limits::{ConnectionBudget, Limits, MemoryBudget};

/// What the RESP listener serves, and within which bounds.
#[derive(Debug)]
pub struct Context {
    /// Bounds on clients.
    pub limits: Arc<Limits>,
    /// Connections of all listeners of this node.
    pub connections: Arc<ConnectionBudget>,
    /// Request and reply bytes held by all listeners of this node.
    pub memory: Arc<MemoryBudget>,
    /// Counters, made with [`Metrics::register`].
    pub metrics: Arc<Metrics>,
    /// Where HTTP listens, named to a client that speaks HTTP to this port.
    pub http_address: Option<SocketAddr>,
    /// Threads that serve connections; `None` chooses by the number of processors.
    pub threads: Option<std::num::NonZeroUsize>,
}

/// Counters of the RESP listener.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// Makes the counters and registers them in `registry`.
    #[must_use]
    pub fn register(_registry: &mut Registry) -> Arc<Self> {
        Arc::default()
    }
}

/// Serves RESP connections from `listener` until `stop` is cancelled and connections are drained,
/// for at most the drain timeout.
///
/// # Errors
/// When the threads that serve connections cannot be started, or the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let _ = (listener, context);
    stop.cancelled().await;
    Ok(())
}
