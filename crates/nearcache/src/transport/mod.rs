//! Connections to peers. Nothing outside this folder knows what the wire is.
//!
//! ```text
//! machine ─ Send, Transmit ─▶ Links ─▶ Link ─▶ Outbox (one per lane) ─▶ writer ─▶ socket
//! socket ─▶ reader ─ frame ─▶ cache, or membership
//! listener, dialer ─ secure (TLS, proofs) ─ handshake ─▶ session (three lanes) ─▶ Link
//!                                                    └─▶ probe connection, without a session (`probes`)
//! ```
//!
//! A session is three connections: control (membership, heartbeats), data (updates, requests) and
//! bulk (transfers), so that none waits for another. Each has a reader and a writer task; a frame
//! is applied by the task that read it. When any of the three breaks, the session ends. Up to `mesh_max` members every node has one with
//! every other, beyond it with those that the membership chooses.

mod dialer;
pub(crate) mod drain;
mod lane_stream;
mod links;
mod listener;
mod outbox;
mod peer_stream;
mod probes;
mod read_ahead;
mod reader;
mod reauthenticate;
mod secure;
mod seeds;
mod session;
mod socket;
mod strangers;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;

use nearcache_store::NodeId;

use crate::discovery::Discovery;
use crate::node::{ConnectError, NodeShared};

pub(crate) use dialer::dial;
pub(crate) use links::Links;
pub(crate) use outbox::Waiting;
pub(crate) use probes::{
    Direction, FRAME_BYTES_MAX as PROBE_FRAME_BYTES_MAX, ProbePool, Questions, ask,
    open_for_questions, reach,
};
pub(crate) use socket::TcpListener;

/// Starts to accept and to look for peers; all of it ends when the node stops.
pub(crate) fn spawn(
    shared: &Arc<NodeShared>,
    listener: TcpListener,
    discovery: Arc<dyn Discovery>,
) {
    tokio::spawn(listener::run(Arc::clone(shared), listener));
    tokio::spawn(seeds::run(Arc::clone(shared), discovery));
}

/// Connects by hand, whatever was disconnected by hand before.
pub(crate) async fn connect(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    shared.cluster_state().allow_all();
    let stopped = shared.stopped().clone();
    stopped
        .run_until_cancelled(dialer::dial_given(shared, address))
        .await
        .unwrap_or(Err(ConnectError::NodeStopped))
}
