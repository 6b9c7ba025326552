//! Why a connection is refused, and what the other side is told: [`Refusal`].

use bytes::Bytes;
use nearcache_store::Timestamp;

use super::exchange::handshake_frame;
use super::{Peer, ProtocolRange};
use crate::control::{ControlError, Refused};
use crate::frame::{FrameError, Kind};
use crate::identity::Identity;

/// Why we do not want this connection. It closes; nothing else changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no handshake.
    #[error("unreadable handshake")]
    Unreadable(#[from] ControlError),
    /// The bytes are no frames.
    #[error("unreadable handshake")]
    Frame(#[from] FrameError),
    /// Another frame came where the handshake was due.
    #[error("frame of kind {kind:#04x} where {expected:#04x} was due")]
    Unexpected {
        /// The kind that came.
        kind: u8,
        /// The kind that was due.
        expected: u8,
    },
    /// A name is too long.
    #[error("{field} of {len_bytes} bytes exceeds the limit of {limit_bytes}")]
    NameTooLong {
        /// Which name.
        field: &'static str,
        /// Its bytes.
        len_bytes: usize,
        /// The most it may have.
        limit_bytes: usize,
    },
    /// The peer is of another cluster.
    #[error("peer is of cluster {theirs:?}, we are of {ours:?}")]
    WrongCluster {
        /// Our cluster.
        ours: String,
        /// The peer's cluster.
        theirs: String,
    },
    /// No protocol version in common.
    #[error("peer talks protocol versions {theirs}, we talk {ours}")]
    VersionMismatch {
        /// The versions we talk.
        ours: ProtocolRange,
        /// The versions the peer talks.
        theirs: ProtocolRange,
    },
    /// We connected to ourselves.
    #[error("connected to ourselves")]
    SelfConnection,
    /// Two running nodes have one id.
    #[error("two running nodes have the id of {theirs:?}: the other is {known:?}")]
    DuplicateNodeId {
        /// The one we know, or are.
        known: Box<Identity>,
        /// The one that connected.
        theirs: Box<Identity>,
    },
    /// The peer has been started again since it was what it says it is.
    #[error("{theirs:?} has been replaced by {known:?}")]
    Replaced {
        /// The later one.
        known: Box<Identity>,
        /// The one that connected.
        theirs: Box<Identity>,
    },
    /// The peer says that it starts in the future.
    #[error("epoch {epoch_ms} of the peer is more than {limit_ms} ms ahead of our clock {ours_ms}")]
    ImplausibleEpoch {
        /// Its epoch, in milliseconds since 1970.
        epoch_ms: u64,
        /// Our clock, in milliseconds since 1970.
        ours_ms: u64,
        /// How far ahead it may be.
        limit_ms: u64,
    },
    /// The peer says that it was declared dead more often than can be.
    #[error("renewals of the peer went from {known} to {theirs}, more than {limit} at once")]
    ImplausibleRenewal {
        /// What we know.
        known: u32,
        /// What it says.
        theirs: u32,
        /// The most they may grow by.
        limit: u32,
    },
    /// The peer's clock is certainly too far away: the versions of whose clock is ahead would win every conflict.
    #[error(
        "clock of the peer is at least {} ms {} ours, the limit is {limit_ms} ms: set the clock of the machine that is wrong and start its node again",
        peer.clock.nearest_ms().unsigned_abs(),
        if peer.clock.nearest_ms() > 0 { "ahead of" } else { "behind" }
    )]
    ClockApart {
        /// The peer, with [`Peer::clock`]. It is who it says it is as far as the handshake tells.
        peer: Box<Peer>,
        /// How far away it may be.
        limit_ms: u64,
    },
    /// The cluster is full.
    #[error("cluster has reached its limit of {limit} members")]
    MemberLimit {
        /// The limit in force.
        limit: usize,
    },
    /// The peer wants another number of members in a full mesh, and there are so many that it matters: one would drop connections
    /// that the other needs.
    #[error(
        "the peer's mesh_max is {theirs}, ours {ours}, and there are {members} members: make them the same"
    )]
    MeshMax {
        /// Ours.
        ours: u32,
        /// The peer's.
        theirs: u32,
        /// Live members with this one and the peer.
        members: usize,
    },
    /// The answer is for another session, lane or protocol version than asked for.
    #[error("peer answered for another {field}")]
    OtherAnswer {
        /// What differs.
        field: &'static str,
    },
    /// The peer does not want us; its own log says why.
    #[error("peer refused the connection; its log says why")]
    RefusedByPeer,
}

impl Refusal {
    /// The frame to send before closing, when this node's physical clock reads `now`. It tells the peer nothing but the versions that would
    /// do, or our clock where clocks are the reason: so it too learns how far they are apart.
    #[must_use]
    pub fn frame(&self, now: Timestamp) -> Bytes {
        let nothing = Refused {
            protocol_min: 0,
            protocol_max: 0,
            time: 0,
        };
        let told = match self {
            Self::VersionMismatch { ours, .. } => Refused {
                protocol_min: ours.min,
                protocol_max: ours.max,
                ..nothing
            },
            Self::ClockApart { .. } => Refused {
                time: now.as_u64(),
                ..nothing
            },
            _ => nothing,
        };
        handshake_frame(Kind::REFUSED, &told)
    }
}
