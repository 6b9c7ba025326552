//! Connections to peers. Nothing outside this folder knows what the wire is.
//!
//! ```text
//! machine ─ Send, Transmit ─▶ Links ─▶ Link ─▶ Outbox (one per lane) ─▶ writer ─▶ socket
//! socket ─▶ reader ─ frame ─▶ cache, or membership
//! listener, dialer ─ handshake ─▶ session (three lanes) ─▶ Link
//! ```

mod links;
mod outbox;

use std::net::SocketAddr;
use std::sync::Arc;

use nearcache_store::NodeId;
use tokio::net::TcpListener;

use crate::discovery::Discovery;
use crate::node::{ConnectError, Member, MemberState, NodeShared};

pub(crate) use links::Links;

/// Starts to accept and to look for peers; all of it ends when the node stops.
pub(crate) fn spawn(
    shared: &Arc<NodeShared>,
    listener: TcpListener,
    discovery: Arc<dyn Discovery>,
) {
    let stopped = shared.stopped().clone();
    tokio::spawn(async move {
        stopped.cancelled().await;
        drop((listener, discovery));
    });
}

/// Lets time pass.
pub(crate) fn tick(_shared: &Arc<NodeShared>) {}

/// Connects by hand.
pub(crate) async fn connect(
    _shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    Err(ConnectError::Silent { address })
}

impl NodeShared {
    pub(crate) fn members(&self) -> Vec<Member> {
        vec![Member {
            id: self.id(),
            name: Some(self.name().to_owned()),
            epoch: self.epoch(),
            address: self.config().advertised,
            state: MemberState::Myself,
        }]
    }

    pub(crate) fn disconnect(&self, _peer: NodeId) -> bool {
        false
    }

    pub(crate) async fn shutdown(&self) {
        self.stop();
    }
}
