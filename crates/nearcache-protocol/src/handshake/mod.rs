//! The first three frames of every connection between nodes.
//!
//! ```text
//! dialer                              acceptor
//!   Handshake::dial ── Hello ──▶ accept ──▶ Ok(Accepted) ── Welcome ──▶ Handshake::complete
//!                                       └─▶ Err(Refusal) ── Refused ──▶ Err(RefusedByPeer)
//!   Ok(Completed) ──── Ready ──▶ Accepted::complete ──▶ Ok(Peer)
//!   Err(ClockApart) ─ Refused ─▶                    ├─▶ Err(ClockApart)
//!                                                   └─▶ Err(Refusal) ── Refused ──▶ the connection ends
//! ```
//!
//! Both sides check the other with the same rules (M5, `rules`): they must be of one cluster, be two different
//! nodes, share a protocol version and tell credible times. Our side learns the precise reason of a
//! refusal ([`refusal`]); the other side only that it is refused, except that it is told our protocol versions when
//! there is none in common, and the clock of whoever refuses it for its clock. What is known of other nodes is asked from a [`Registry`]; nothing here
//! keeps state but each side between its own frame and the answer (`exchange`).
//!
//! Each side measures the other's clock by the answer to its own frame: welcome answers hello, ready answers welcome (R5,
//! [`OffsetRange`]). A hello may have waited for as long as its reader was stopped, so its clock alone shows nothing. Refused is who is
//! certainly further away than the drift bound; where an answer takes too long to tell, the connection is made, and each of a session's
//! three lanes measures again, then every echo.

mod exchange;
pub mod refusal;
mod rules;

use std::fmt;
use std::sync::Arc;

use nearcache_store::NodeId;

pub use self::exchange::{Accepted, Completed, Handshake, accept};
pub use self::refusal::Refusal;
use crate::clock::offset::OffsetRange;
use crate::identity::Identity;
use crate::lane::Lane;
use crate::planted::PlantedBug;

/// The oldest protocol version this build can talk.
pub const PROTOCOL_MIN: u32 = 1;

/// The newest protocol version this build can talk.
pub const PROTOCOL_MAX: u32 = 1;

/// How far from our clock a peer's clock may be, in milliseconds (R5; CockroachDB's `max_offset`).
pub const MAX_DRIFT_MS: u64 = 500;

/// By how much a node's renewals may grow between two meetings (M5).
pub const RENEWAL_JUMP_MAX: u32 = 1_000;

/// The most bytes a cluster's or a node's name may have.
pub const NAME_BYTES_MAX: usize = 256;

/// The protocol versions that a node can talk, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl ProtocolRange {
    /// What this build talks.
    pub const OURS: Self = Self {
        min: PROTOCOL_MIN,
        max: PROTOCOL_MAX,
    };

    /// The newest version in both ranges.
    #[must_use]
    pub fn newest_common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Optional abilities of a node, one bit each. Two nodes use those that both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// The abilities that both have.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Ties the three lanes of one session together. Made up at random by the side that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionToken(pub u64);

/// What a node says of itself in every handshake.
#[derive(Debug, Clone)]
pub struct Local {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The node's name, for people.
    pub name: Arc<str>,
    /// The node, as the membership knows it at this moment.
    pub identity: Identity,
    /// The protocol versions it talks.
    pub protocols: ProtocolRange,
    /// Its optional abilities.
    pub features: Features,
    /// How far from our clock the peer's may be, in milliseconds.
    pub max_drift_ms: u64,
    /// Up to how many members every node is connected to every other; 0 if this node does not say.
    pub mesh_max: u32,
    /// A rule to break on purpose; without the feature `planted-bugs` it is obeyed all the same. Default: none.
    pub planted: PlantedBug,
}

impl Local {
    /// A node of this build with the default drift bound and no optional abilities.
    #[must_use]
    pub fn new(cluster: &str, name: &str, identity: Identity) -> Self {
        Self {
            cluster: cluster.into(),
            name: name.into(),
            identity,
            protocols: ProtocolRange::OURS,
            features: Features::default(),
            max_drift_ms: MAX_DRIFT_MS,
            mesh_max: 0,
            planted: PlantedBug::None,
        }
    }
}

/// What the handshake must know of the rest of the cluster.
pub trait Registry {
    /// What we know of this node: its newest identity, and whether we have a session with it now.
    fn known(&self, node: NodeId) -> Option<Known>;

    /// The member limit, if it leaves no room for this node.
    fn full_for(&self, node: NodeId) -> Option<usize>;

    /// How many live members there are with this node and that one.
    fn members_with(&self, node: NodeId) -> usize;
}

/// What a [`Registry`] knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its newest identity.
    pub identity: Identity,
    /// Whether there is a session with it now.
    pub connected: bool,
}

/// The other side of a connection, as it showed itself in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// Its name, for people.
    pub name: Arc<str>,
    /// Which lane this connection is.
    pub lane: Lane,
    /// Which session it belongs to.
    pub session: SessionToken,
    /// The protocol version both talk.
    pub protocol: u32,
    /// The optional abilities both have.
    pub features: Features,
    /// How far its clock is from ours, as far as this exchange tells.
    pub clock: OffsetRange,
    /// Up to how many members it wants a full mesh; 0 if it does not say.
    pub mesh_max: u32,
    /// Whether this is a probe connection and no lane of a session.
    pub probe: bool,
}

/// Which of two connections that two nodes opened to each other at the same time both keep: the one that
/// the smaller id opened. `true` if a connection opened by `dialer` stays.
#[must_use]
pub fn stays_when_crossed(dialer: NodeId, acceptor: NodeId) -> bool {
    dialer < acceptor
}

#[cfg(test)]
mod tests;
