//! What a machine of a cache asks of its shell, and tells it.

use std::time::Duration;

use nearcache_store::{NodeId, Scope, Version};

use crate::announce::Disagreement;
use crate::ids::WaiterId;
use crate::lane::Lane;
use crate::load::lease::Turn;
use crate::message::CacheMessage;
use crate::modify::{Modified, ModifyError};
use crate::probe::inspect::Inspected;

/// What a machine of a cache asks of its shell.
#[derive(Debug)]
pub enum Output<V> {
    /// Send this to a peer on [`CacheMessage::lane`].
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: CacheMessage<V>,
    },
    /// There is something to pull for this peer on this lane: call [`Mode::poll_transmit`](super::Mode::poll_transmit) until it has nothing more.
    /// Not repeated before it has said so.
    Transmit {
        /// For whom.
        peer: NodeId,
        /// `Data` or `Bulk`.
        lane: Lane,
    },
    /// Beyond the mesh: something is to be asked of this member, or was. There shall be a session with it for a while; see
    /// [`Membership::meet`](crate::membership::Membership::meet). Repeated as long as it is needed.
    Meet(NodeId),
    /// Beyond the mesh: send this to a member that there is no session with, over a short-lived connection. Lost if that cannot be; where no
    /// connection can be opened, [`CacheCore::unreached`](crate::core::CacheCore::unreached) is to be told.
    Reach {
        /// To whom.
        to: NodeId,
        /// What: a question of [`probe`](crate::probe) or its answer, and nothing else.
        message: CacheMessage<V>,
    },
    /// A waiter's result.
    Done {
        /// Whose.
        waiter: WaiterId,
        /// What.
        result: Outcome<V>,
    },
    /// The cache is filled: from now on a miss is a miss. Once in a node's life per cache, and again after each
    /// [`Event::StartedClean`].
    Ready,
    /// Something to log, count or show.
    Event(Event),
}

/// What a waiter was told.
#[derive(Debug)]
pub enum Outcome<V> {
    /// A publish with an acknowledgement has ended.
    Acked(Result<(), NotAcked>),
    /// A modify has ended. What the key holds now is in this node's store.
    Modified(Result<Modified<V>, ModifyError>),
    /// A find has ended: whether the key was found. If so it is in this node's store.
    Found(bool),
    /// A refresh has ended: whether this node is as fresh as was asked for.
    Fresh(bool),
    /// An inspection has ended: how the key stands on every member.
    Inspected(Inspected),
    /// Whether the caller is to load a key, or somebody else has.
    Turn(Turn),
}

/// Why a write was not acknowledged. It is applied here, and on its way to all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAcked {
    /// Not in time.
    #[error(transparent)]
    Timeout(#[from] AckTimeout),
    /// [`Ack::All`](super::Ack::All) with more members than a full mesh may have.
    #[error(transparent)]
    BeyondMesh(#[from] BeyondMesh),
}

/// Nobody hears from all members where there are more than a full mesh may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "write is applied here and on its way; of {members} members nobody hears from all (mesh_max is {mesh_max})"
)]
pub struct BeyondMesh {
    /// Live members, this node included.
    pub members: usize,
    /// Up to how many members there are connections between all.
    pub mesh_max: usize,
}

/// A write is applied here, but not known to be applied by all it waited for. It is still on its way to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("write is applied here but acknowledged by {acked} of {wanted} peers only")]
pub struct AckTimeout {
    /// How many peers have applied it.
    pub acked: u32,
    /// How many should have.
    pub wanted: u32,
}

/// Something worth a log line or a counter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer runs this cache with other settings.
    Disagreement(Disagreement),
    /// A group invalidation of another node was applied here.
    Invalidated {
        /// What it covers.
        scope: Scope,
        /// Its version.
        version: Version,
    },
    /// Something of a peer was refused because its stamp is too far ahead of this node's clock (R5).
    DriftRefused {
        /// The peer.
        peer: NodeId,
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
    /// Updates of a stream were missed and must be got again.
    Gap {
        /// The origin.
        origin: NodeId,
        /// How many numbers are missing.
        missing: u64,
    },
    /// This node begins to fill itself from a peer.
    TransferStarted {
        /// From whom.
        from: NodeId,
    },
    /// A peer has brought its share of a transfer.
    TransferDone {
        /// From whom.
        from: NodeId,
        /// How many entries, removals and floors it brought.
        updates: u64,
        /// How long it took.
        took: Duration,
    },
    /// This node was cut off from most of its cluster for longer than removals are remembered: it dropped what it held of
    /// the time before and is filled again (R4).
    StartedClean {
        /// For how long.
        away: Duration,
        /// How many entries were dropped.
        dropped: u64,
    },
    /// A comparison with a peer has ended, and what differed was exchanged.
    Compared {
        /// With whom.
        with: NodeId,
        /// How many ranges of keys differed.
        differing: u64,
        /// How many entries and removals came of it.
        updates: u64,
        /// How long it took.
        took: Duration,
    },
    /// All parts of a transfer are here, or a comparison in its place is complete.
    Filled {
        /// How many peers brought it.
        sources: usize,
        /// How many entries, removals and floors came.
        updates: u64,
        /// Their bytes, about. Zero for a comparison.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// How far a transfer is; once a second.
    TransferProgress {
        /// How many entries, removals and floors have come.
        updates: u64,
        /// Their bytes, about.
        bytes: u64,
        /// How long it has taken so far.
        took: Duration,
        /// Parts of the key space, of 64, that are not complete.
        parts_left: u32,
    },
    /// A transfer was cut and will be tried again.
    TransferCut {
        /// From whom.
        from: NodeId,
    },
    /// This node is not with most of its cluster: what `split` says holds here until it is again.
    Apart {
        /// How many nodes it hears, itself included.
        heard: usize,
        /// How many count.
        of: usize,
    },
    /// It is with most of its cluster again.
    Together {
        /// For how long it was not.
        after: Duration,
    },
    /// The contents were dropped because this node is not with most of its cluster.
    Dropped {
        /// How many entries.
        dropped: u64,
    },
    /// Everything that was held here was dropped, because an invalidation may have been missed.
    Flushed {
        /// Why.
        cause: FlushCause,
        /// Everything up to this version is gone.
        version: Version,
    },
}

/// Why a node dropped all it held of a cache in mode `invalidation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushCause {
    /// A peer no longer has the invalidations that this node missed.
    Hole(NodeId),
    /// A peer was met that had written before this node heard of it: what was loaded then was stamped without regard to its clock.
    Met(NodeId),
    /// A peer was started again, and nobody knows what it did last.
    Restarted(NodeId),
    /// A peer is gone for good, and nobody knows what it did last.
    Gone(NodeId),
    /// The lease ran out, and the cache is set to flush then.
    Disconnected,
    /// The mesh has given way to the tree: clocks of members are no longer measured, and what was loaded by them may pass for newer than
    /// what others invalidate.
    Crossed,
}
