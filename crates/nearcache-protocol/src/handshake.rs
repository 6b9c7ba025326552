//! The first two frames of every connection between nodes.
//!
//! ```text
//! dialer                              acceptor
//!   Handshake::dial ── Hello ──▶ accept ──▶ Ok(Accepted) ── Welcome ──▶ Handshake::complete
//!                                       └─▶ Err(Refusal) ── Refused ──▶ Err(RefusedByPeer)
//! ```
//!
//! Both sides check the other with the same rules (M5): they must be of one cluster, be two different
//! nodes, share a protocol version and tell credible times. Our side learns the precise reason of a
//! refusal; the other side only that it is refused, except that it is told our protocol versions when
//! there is none in common. What is known of other nodes is asked from a [`Registry`]; nothing here
//! keeps state but the dialer between its hello and the answer.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nearcache_store::{NodeId, Timestamp};

use crate::control::{self, ControlError, Hello, Refused, Welcome, WireIdentity};
use crate::frame::{self, Frame, FrameError, FrameLimit, Kind};
use crate::identity::Identity;
use crate::lane::Lane;

/// The oldest protocol version this build can talk.
pub const PROTOCOL_MIN: u32 = 1;

/// The newest protocol version this build can talk.
pub const PROTOCOL_MAX: u32 = 1;

/// How far ahead of our clock a peer's clock may be, in milliseconds (R5; CockroachDB's `max_offset`).
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
    /// How far ahead of our clock the peer's may be, in milliseconds.
    pub max_drift_ms: u64,
    /// Up to how many members every node is connected to every other; 0 if this node does not say.
    pub mesh_max: u32,
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
    /// Its clock when it spoke.
    pub time: Timestamp,
    /// Up to how many members it wants a full mesh; 0 if it does not say.
    pub mesh_max: u32,
    /// Whether this is a probe connection and no lane of a session.
    pub probe: bool,
}

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
    /// The peer's clock is too far ahead: its versions would win every conflict.
    #[error("clock of the peer is {ahead_ms} ms ahead of ours, the limit is {limit_ms} ms")]
    ClockAhead {
        /// How far ahead it is.
        ahead_ms: u64,
        /// How far ahead it may be.
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
    /// The frame to send before closing. It tells the peer nothing but the versions that would do.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let told = match self {
            Self::VersionMismatch { ours, .. } => Refused {
                protocol_min: ours.min,
                protocol_max: ours.max,
            },
            _ => Refused {
                protocol_min: 0,
                protocol_max: 0,
            },
        };
        handshake_frame(Kind::REFUSED, &told)
    }
}

/// A connection whose hello was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Who connected.
    pub peer: Peer,
    /// The frame to answer with.
    pub welcome: Bytes,
}

/// Decides about a connection by its first frame, on the side that was connected to.
///
/// `now` is our hybrid logical clock. On refusal send [`Refusal::frame`] and close.
///
/// # Errors
///
/// [`Refusal`] with the precise reason. No state is changed either way.
pub fn accept(
    local: &Local,
    registry: &impl Registry,
    now: Timestamp,
    frame: &Frame,
) -> Result<Accepted, Refusal> {
    let hello: Hello = body_of(frame, Kind::HELLO)?;
    let peer = check(local, registry, now, &hello)?;
    let answer = Welcome {
        hello: Some(Hello {
            probe: peer.probe,
            ..introduction(local, peer.lane, peer.session, now)
        }),
        protocol: peer.protocol,
    };
    Ok(Accepted {
        peer,
        welcome: handshake_frame(Kind::WELCOME, &answer),
    })
}

/// The dialer's half: made with the hello, completed by the answer.
#[derive(Debug)]
pub struct Handshake {
    local: Local,
    lane: Lane,
    session: SessionToken,
    probe: bool,
}

impl Handshake {
    /// Starts a handshake on a connection that we opened; send the returned frame first.
    ///
    /// `now` is our hybrid logical clock; `session` is the same for the three lanes of a session.
    #[must_use]
    pub fn dial(local: Local, lane: Lane, session: SessionToken, now: Timestamp) -> (Self, Bytes) {
        Self::open(local, lane, session, false, now)
    }

    /// The same for a probe connection: it carries what the membership says to a member without a session, and is no part of one.
    #[must_use]
    pub fn dial_probe(local: Local, session: SessionToken, now: Timestamp) -> (Self, Bytes) {
        Self::open(local, Lane::Control, session, true, now)
    }

    fn open(
        local: Local,
        lane: Lane,
        session: SessionToken,
        probe: bool,
        now: Timestamp,
    ) -> (Self, Bytes) {
        let hello = Hello {
            probe,
            ..introduction(&local, lane, session, now)
        };
        let hello = handshake_frame(Kind::HELLO, &hello);
        let handshake = Self {
            local,
            lane,
            session,
            probe,
        };
        (handshake, hello)
    }

    /// Decides about the connection by the peer's answer.
    ///
    /// # Errors
    ///
    /// [`Refusal`], by the same rules as [`accept`], or [`Refusal::RefusedByPeer`]. Close the connection.
    pub fn complete(
        self,
        registry: &impl Registry,
        now: Timestamp,
        frame: &Frame,
    ) -> Result<Peer, Refusal> {
        if frame.kind == Kind::REFUSED {
            return Err(self.refused(frame));
        }
        let welcome: Welcome = body_of(frame, Kind::WELCOME)?;
        let hello = welcome
            .hello
            .as_ref()
            .ok_or(ControlError::Missing { field: "hello" })?;
        let peer = check(&self.local, registry, now, hello)?;
        let same = [
            ("lane", peer.lane == self.lane),
            ("session", peer.session == self.session),
            ("kind of connection", peer.probe == self.probe),
            ("protocol version", peer.protocol == welcome.protocol),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((field, _)) => Err(Refusal::OtherAnswer { field }),
            None => Ok(peer),
        }
    }

    fn refused(&self, frame: &Frame) -> Refusal {
        let theirs = match body_of::<Refused>(frame, Kind::REFUSED) {
            Ok(told) => ProtocolRange {
                min: told.protocol_min,
                max: told.protocol_max,
            },
            Err(refusal) => return refusal,
        };
        // A version hint is believed only where it explains the refusal.
        if theirs.max > 0 && self.local.protocols.newest_common(theirs).is_none() {
            return Refusal::VersionMismatch {
                ours: self.local.protocols,
                theirs,
            };
        }
        Refusal::RefusedByPeer
    }
}

/// Which of two connections that two nodes opened to each other at the same time both keep: the one that
/// the smaller id opened. `true` if a connection opened by `dialer` stays.
#[must_use]
pub fn stays_when_crossed(dialer: NodeId, acceptor: NodeId) -> bool {
    dialer < acceptor
}

fn introduction(local: &Local, lane: Lane, session: SessionToken, now: Timestamp) -> Hello {
    Hello {
        cluster: local.cluster.as_ref().to_owned(),
        identity: Some(WireIdentity::from(&local.identity)),
        name: local.name.as_ref().to_owned(),
        protocol_min: local.protocols.min,
        protocol_max: local.protocols.max,
        features: local.features.0,
        lane: u32::from(lane.number()),
        session: session.0,
        time: now.as_u64(),
        mesh_max: local.mesh_max,
        probe: false,
    }
}

fn handshake_frame(kind: Kind, message: &impl prost::Message) -> Bytes {
    let mut out = BytesMut::new();
    // Names and zones are bounded far below the limit; should one not be, the peer sees the
    // connection close without a handshake.
    let _ = frame::encode(
        kind,
        0,
        &message.encode_to_vec(),
        FrameLimit::HANDSHAKE,
        &mut out,
    );
    out.freeze()
}

fn body_of<M: prost::Message + Default>(frame: &Frame, expected: Kind) -> Result<M, Refusal> {
    if frame.kind != expected {
        return Err(Refusal::Unexpected {
            kind: frame.kind.0,
            expected: expected.0,
        });
    }
    Ok(control::decode(&frame.body)?)
}

/// The rules, the same for both sides. Cheap and revealing ones first: an operator who mixed up two
/// clusters wants to read that, not that the clocks differ.
fn check(
    local: &Local,
    registry: &impl Registry,
    now: Timestamp,
    hello: &Hello,
) -> Result<Peer, Refusal> {
    check_name("cluster name", &hello.cluster)?;
    check_name("node name", &hello.name)?;
    if hello.cluster != *local.cluster {
        return Err(Refusal::WrongCluster {
            ours: local.cluster.as_ref().to_owned(),
            theirs: hello.cluster.clone(),
        });
    }
    let theirs = ProtocolRange {
        min: hello.protocol_min,
        max: hello.protocol_max,
    };
    let protocol = local
        .protocols
        .newest_common(theirs)
        .ok_or(Refusal::VersionMismatch {
            ours: local.protocols,
            theirs,
        })?;
    let identity = control::required_identity(hello.identity.as_ref())?;
    check_identity(local, registry, &identity)?;
    let time = Timestamp::from_u64(hello.time);
    check_times(local, now, time, &identity)?;
    check_mesh(local, registry, &identity, hello.mesh_max)?;
    let lane = u8::try_from(hello.lane)
        .ok()
        .and_then(Lane::from_number)
        .ok_or(ControlError::Impossible { field: "lane" })?;
    Ok(Peer {
        identity,
        name: hello.name.as_str().into(),
        lane,
        session: SessionToken(hello.session),
        protocol,
        features: local.features.both(Features(hello.features)),
        time,
        mesh_max: hello.mesh_max,
        probe: hello.probe,
    })
}

/// Two nodes may disagree about the size of a full mesh as long as the cluster is within both.
fn check_mesh(
    local: &Local,
    registry: &impl Registry,
    identity: &Identity,
    theirs: u32,
) -> Result<(), Refusal> {
    let ours = local.mesh_max;
    if ours == theirs || ours == 0 || theirs == 0 {
        return Ok(());
    }
    let members = registry.members_with(identity.node);
    if members <= ours.min(theirs) as usize {
        return Ok(());
    }
    Err(Refusal::MeshMax {
        ours,
        theirs,
        members,
    })
}

fn check_name(field: &'static str, name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        let limit_bytes = NAME_BYTES_MAX;
        return Err(Refusal::NameTooLong {
            field,
            len_bytes: name.len(),
            limit_bytes,
        });
    }
    Ok(())
}

fn check_identity(
    local: &Local,
    registry: &impl Registry,
    theirs: &Identity,
) -> Result<(), Refusal> {
    let ours = &local.identity;
    if theirs.node == ours.node {
        if theirs.epoch == ours.epoch && theirs.address == ours.address {
            return Err(Refusal::SelfConnection);
        }
        return Err(Refusal::DuplicateNodeId {
            known: ours.clone().into(),
            theirs: theirs.clone().into(),
        });
    }
    let Some(Known {
        identity: known,
        connected,
    }) = registry.known(theirs.node)
    else {
        return match registry.full_for(theirs.node) {
            Some(limit) => Err(Refusal::MemberLimit { limit }),
            None => Ok(()),
        };
    };
    // A node that was started again comes from the same address, or when the sessions of its former
    // self have ended. One that comes from elsewhere while they live is a second node.
    let elsewhere = theirs.epoch != known.epoch && theirs.address != known.address;
    let split = theirs.epoch == known.epoch && theirs.address != known.address;
    if split || (connected && elsewhere) {
        return Err(Refusal::DuplicateNodeId {
            known: known.into(),
            theirs: theirs.clone().into(),
        });
    }
    if theirs.epoch < known.epoch {
        return Err(Refusal::Replaced {
            known: known.into(),
            theirs: theirs.clone().into(),
        });
    }
    let jump = theirs.renewal.saturating_sub(known.renewal);
    if theirs.epoch == known.epoch && jump > RENEWAL_JUMP_MAX {
        return Err(Refusal::ImplausibleRenewal {
            known: known.renewal,
            theirs: theirs.renewal,
            limit: RENEWAL_JUMP_MAX,
        });
    }
    Ok(())
}

fn check_times(
    local: &Local,
    now: Timestamp,
    theirs: Timestamp,
    identity: &Identity,
) -> Result<(), Refusal> {
    let (ours_ms, limit_ms) = (now.millis(), local.max_drift_ms);
    let ahead_ms = theirs.millis().saturating_sub(ours_ms);
    if ahead_ms > limit_ms {
        return Err(Refusal::ClockAhead { ahead_ms, limit_ms });
    }
    let epoch_ms = identity.epoch.as_u64();
    if epoch_ms.saturating_sub(ours_ms) > limit_ms {
        return Err(Refusal::ImplausibleEpoch {
            epoch_ms,
            ours_ms,
            limit_ms,
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
