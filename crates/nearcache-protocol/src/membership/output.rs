//! What membership tells and asks its shell, and why it refuses a peer's message.

use nearcache_store::NodeId;

use super::codec::SwimCodecError;
use super::message::MembershipMessage;
use crate::control::ControlError;
use crate::identity::Identity;

/// What the membership asks its shell to do, or tells it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MembershipOutput {
    /// Send this on the control lane of the session with `to`; without a session it is lost, which is
    /// harmless.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: MembershipMessage,
    },
    /// Beyond the mesh: send this to a member without a session, over a short-lived connection of the control lane. If none can be
    /// had it is lost, which is harmless.
    Reach {
        /// To whom.
        to: Identity,
        /// What.
        message: MembershipMessage,
    },
    /// Beyond the mesh: end the session with this peer, once what was sent is out; the tree does not want it.
    Part(NodeId),
    /// Make one attempt to open a session with this member. When to try again is decided here.
    Dial(Identity),
    /// This node is now a live member.
    MemberUp(Identity),
    /// This node is no longer a live member.
    MemberDown {
        /// Who.
        identity: Identity,
        /// Why.
        reason: DownReason,
    },
    /// We had been declared dead and came back under this identity; handshakes use it from now on.
    Renewed(Identity),
}

/// Why a member is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// It did not answer.
    Failed,
    /// It left on purpose.
    Left,
    /// It was started again; the new start is a member from now on.
    Replaced,
}

/// One live member other than this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub identity: Identity,
    /// Whether there is a session with it.
    pub connected: bool,
}

/// Why a peer's message was refused. The membership is unchanged; the connection closes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// A control message is wrong.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A SWIM packet cannot be read.
    #[error("unreadable membership packet")]
    Packet(#[from] SwimCodecError),
    /// A peer speaks in another's name.
    #[error("{from} sent a message of {claimed}")]
    Impostor {
        /// Whose connection it is.
        from: NodeId,
        /// Who the message says it is from.
        claimed: NodeId,
    },
    /// The SWIM implementation refused the packet.
    #[error("membership packet refused")]
    Swim(#[from] foca::Error),
}
