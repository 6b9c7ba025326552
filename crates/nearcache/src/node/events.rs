//! What subscribers of a node are told.

use super::members::Member;
use nearcache_store::NodeId;

/// Something that happened to a member, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A node has joined, or come back.
    MemberUp(Member),
    /// A node does not answer any more, or was started again under the same id.
    MemberDown(Member),
    /// A node has left on purpose.
    MemberLeft(Member),
    /// The connections to a peer stand.
    Connected(NodeId),
    /// The connections to a peer are gone.
    Disconnected(NodeId),
}
