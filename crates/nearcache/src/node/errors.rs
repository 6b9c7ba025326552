//! Why a node could not start, or not connect.

use std::io;
use std::net::SocketAddr;

use nearcache_store::NodeId;

use crate::security::{Distrust, PeerTlsError};

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
         Give the node certificates and the cluster's secret with tls(..) (`nearcache certs` makes \
         a set), or listen on 127.0.0.1, or, on a network that nobody else can reach, call \
         allow_insecure_network(true)"
    )]
    InsecureNetwork {
        /// The address as given.
        address: SocketAddr,
    },
    /// The certificates or the cluster's secret cannot be used.
    #[error(transparent)]
    Tls(#[from] PeerTlsError),
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {address}")]
    Bind {
        /// The address as given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A number of members or connections is out of range.
    #[error("{what} of {size} must be from 1 to {max}")]
    OutOfRange {
        /// Which setting.
        what: &'static str,
        /// As given.
        size: usize,
        /// The most it may be.
        max: usize,
    },
    /// The membership refused its settings.
    #[error("the settings of the membership do not fit together")]
    Membership(#[from] nearcache_protocol::membership::MembershipConfigError),
    /// The runtime was shut down while the node started.
    #[error("the runtime stopped while the node started")]
    Interrupted,
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
    #[error(
        "{address} refused the connection: its log says why (often another cluster name, another \
         secret, a certificate it does not trust, or TLS on one side only)"
    )]
    Refused {
        /// The address as given.
        address: SocketAddr,
    },
    /// What answers there does not prove that it is a peer of this cluster.
    #[error("{address} is not trusted: {reason}")]
    Untrusted {
        /// The address as given.
        address: SocketAddr,
        /// Why.
        reason: Distrust,
    },
    /// The clock of the node there and this node's are too far apart, and this node or most others are right
    /// ([`Node::clock_skew`](crate::Node::clock_skew) tells which).
    #[error(
        "the clock of {address} is at least {apart_ms} ms away from this node's: set the clock of the machine that is wrong and start its node again"
    )]
    ClockApart {
        /// The address as given.
        address: SocketAddr,
        /// How far it is ahead of this node's at least, in milliseconds; negative if it is behind.
        apart_ms: i64,
    },
    /// What answers there is too old or too new to talk to. It is not tried again for 30 s.
    #[error(
        "{address} talks protocol versions {theirs}, this node {ours}: upgrade the older one \
         first to a release that talks to both"
    )]
    VersionMismatch {
        /// The address as given.
        address: SocketAddr,
        /// The versions this node talks.
        ours: String,
        /// The versions that are talked there.
        theirs: String,
    },
    /// The address is not on this machine and peers are not authenticated.
    #[error(
        "refusing to connect to {address}: peers are not authenticated. Give the node certificates \
         and the cluster's secret with tls(..), or, on a network that nobody else can reach, call \
         allow_insecure_network(true)"
    )]
    InsecureNetwork {
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

impl ConnectError {
    /// Whether somebody must do something about it, where it otherwise passes by itself.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Untrusted { .. }
            | Self::VersionMismatch { .. }
            | Self::InsecureNetwork { .. }
            | Self::NotAPeer { .. } => true,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            // Said once a minute, in `skew.rs`.
            | Self::ClockApart { .. }
            | Self::Myself { .. }
            | Self::NodeStopped => false,
        }
    }
}
