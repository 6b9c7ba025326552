//! Members as users see them.

use std::net::SocketAddr;

use nearcache_protocol::ids::Epoch;
use nearcache_store::NodeId;

/// A node of the cluster, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name, if this node has ever been connected to it, over a session or a short-lived connection.
    pub name: Option<String>,
    /// Its start.
    pub epoch: Epoch,
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// How it stands.
    pub state: MemberState,
}

/// How a node is connected to its cluster, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NodeLinks {
    /// Peers that there is a session with.
    pub sessions: usize,
    /// Whether there are more members than a full mesh may have, so that updates travel along a tree.
    pub by_tree: bool,
    /// Short-lived connections to members without a session that this node has opened.
    pub probes_dialled: usize,
    /// The same, opened by others.
    pub probes_accepted: usize,
}

/// How a member stands, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// This node itself.
    Myself,
    /// Alive, and connected to this node.
    Connected,
    /// Alive as far as others say, but not connected to this node.
    Unconnected,
}
