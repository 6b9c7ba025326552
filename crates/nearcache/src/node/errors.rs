//! Why a node could not start, or not connect.

use std::io;
use std::net::SocketAddr;

use nearcache_store::NodeId;

/// Why a node did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A name is 1 to 128 bytes of letters, digits, `-`, `_`, `.`, `:` or `/`.
    #[error("{name:?} cannot name {what}: use 1 to 128 letters, digits or any of - _ . : /")]
    InvalidName {
        /// What was to be named.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The address to listen on is none.
    #[error("{address:?} is no address to listen on: use IP:PORT, for example 127.0.0.1:7400")]
    InvalidAddress {
        /// The address as given.
        address: String,
    },
    /// Peers would be reachable from the network without authentication.
    #[error(
        "refusing to listen for peers on {address}: peers are not authenticated. \
         Listen on 127.0.0.1, or put an encrypted network (WireGuard, a service mesh) between the \
         nodes and call allow_insecure_network(true), or wait for the release with mutual TLS"
    )]
    InsecureNetwork {
        /// The address as given.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {address}")]
    Bind {
        /// The address as given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The membership refused its settings.
    #[error("the settings of the membership do not fit together")]
    Membership(#[from] nearcache_protocol::membership::MembershipConfigError),
    /// The thread that advances the clock could not be started.
    #[error("cannot start the clock thread")]
    Clock {
        /// What the system said.
        source: io::Error,
    },
}

/// Why a peer could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers there, or the network is in the way.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The address as given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The connection stood but the handshake did not complete in time.
    #[error("{address} did not complete the handshake in time: is it a peer port?")]
    Silent {
        /// The address as given.
        address: SocketAddr,
    },
    /// The other side refused, and does not say why: its log does.
    #[error("{address} refused the connection: its log says why (often another cluster name)")]
    Refused {
        /// The address as given.
        address: SocketAddr,
    },
    /// What answers there is not a peer of this cluster.
    #[error("{address} is no peer of this cluster: {reason}")]
    NotAPeer {
        /// The address as given.
        address: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// The address is this node's own.
    #[error("{address} is this node itself ({id})")]
    Myself {
        /// The address as given.
        address: SocketAddr,
        /// This node.
        id: NodeId,
    },
    /// The node was shut down.
    #[error("the node has stopped: start a new one")]
    NodeStopped,
}
