//! Modes: where entries live and how writes travel, each a strategy behind [`Mode`].
//!
//! ```text
//! put ─ stamp ─ store.merge ─▶ publish ─▶ Transmit{peer} ─▶ poll_transmit ─▶ wire
//! wire ─▶ handle ─▶ store.merge ─ progress ─▶ Done{waiter}, Ready, Event
//! ```
//!
//! Reads and merges of local writes go straight to the store; only what is said here passes through the machine,
//! which the shell keeps behind one lock.

pub mod invalidation;
pub mod local;
mod refresh;
pub mod replicated;
mod stream;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId, Scope, Version};

use crate::announce::Disagreement;
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::load::lease::{Lease, Turn};
use crate::message::CacheMessage;
use crate::modify::{Modified, ModifyError, ModifyOp};
use crate::payload::Payload;
use crate::probe::inspect::Inspected;
use crate::time::Time;

/// Whom a write waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ack {
    /// Nobody: applied here and on its way.
    #[default]
    Local,
    /// This many peers have applied it. Beyond `mesh_max` members only those count that this node is connected to, about twice
    /// the logarithm of the number of members.
    Peers(u32),
    /// Every peer that is alive has applied it. Beyond `mesh_max` members nobody hears from everybody: there the waiter is told
    /// [`NotAcked::BeyondMesh`] at once, and those that wait when the members become so many are too.
    All,
}

/// A caller who waits for a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Its name.
    pub id: WaiterId,
    /// When it must have an answer.
    pub deadline: Time,
}

/// A local write that the store has accepted and that peers must learn of.
#[derive(Debug)]
pub enum Published<V> {
    /// An entry, as returned by the merge.
    Entry(Handle<V>),
    /// The removal of a key.
    Removal {
        /// The key.
        key: Bytes,
        /// The tombstone's version.
        version: Version,
    },
    /// A group invalidation.
    Floor {
        /// What it covers.
        scope: Scope,
        /// Below this nothing is accepted.
        version: Version,
    },
    /// An entry read from the system of record, as returned by the merge. It supersedes nothing that others hold: where values do
    /// not travel, nobody needs to know.
    Fill(Handle<V>),
}

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
    /// There is something to pull for this peer on this lane: call [`Mode::poll_transmit`] until it has nothing more.
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
    /// [`Ack::All`] with more members than a full mesh may have.
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

/// What the read path compares the clock with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadBound {
    /// Nothing may be served after this time. [`Time::MAX`] where no lease is needed.
    pub serve_until: Time,
    /// All that every peer had at this time is here. [`Time::MAX`] if there is no peer, [`Time::ZERO`] if some peer was never heard
    /// to the end.
    pub fresh_since: Time,
}

impl ReadBound {
    /// Nobody has to be asked for anything.
    pub const ALONE: Self = Self {
        serve_until: Time::MAX,
        fresh_since: Time::MAX,
    };

    /// How old the knowledge of the peer is that is known worst: [`Freshness::worst`].
    #[must_use]
    pub fn worst_age(&self, now: Time) -> Option<Duration> {
        match self.fresh_since {
            Time::MAX => Some(Duration::ZERO),
            Time::ZERO => None,
            fresh_since => Some(now - fresh_since),
        }
    }
}

/// What one cache knows of its peers, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// All that peers had a moment ago is here.
    Synced,
    /// Something is missing and being fetched.
    CatchingUp,
    /// This node hears some of its peers, and not most of its cluster: what `split` says holds here.
    Degraded,
    /// There are peers, and none can be reached.
    Isolated,
}

impl Status {
    /// The word: `synced`, `catching-up`, `degraded` or `isolated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::CatchingUp => "catching-up",
            Self::Degraded => "degraded",
            Self::Isolated => "isolated",
        }
    }
}

/// Which peers have all that a node has that is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HandedOver {
    /// None, as far as is known.
    ToNobody,
    /// At least one.
    ToSome,
    /// Every one that is connected, or there is none.
    ToAll,
}

/// How old this node's knowledge of its peers is (counted by its own clock).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Freshness {
    /// The worst of all peers; zero without peers. `None`: some peer was never heard to the end.
    pub worst: Option<Duration>,
    /// Per peer.
    pub per_peer: Vec<PeerFreshness>,
}

/// An age in whole milliseconds, as it is told to others: rounded up, because an age is never told shorter than it is (C11).
#[must_use]
pub fn age_ms(age: Duration) -> u64 {
    u64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// How old this node's knowledge of one peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerFreshness {
    /// The peer.
    pub peer: NodeId,
    /// How long ago this node is known to have had all of the peer's updates; `None` if never.
    pub age: Option<Duration>,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
    /// The peer's physical clock minus ours, in milliseconds, by the last echo; half the round trip may be wrong.
    pub clock_offset_ms: Option<i64>,
    /// How many of the peer's updates are known to be missing here.
    pub missing: u64,
    /// How many of our updates the peer has not acknowledged.
    pub unacknowledged: u64,
}

/// Counters of one cache's machine; they only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ModeStats {
    /// Own updates appended to the stream.
    pub published: u64,
    /// Updates of others that were applied.
    pub applied: u64,
    /// Updates of others that were older than what the store held.
    pub superseded: u64,
    /// Updates left out of batches because a later one in the batch supersedes them.
    pub coalesced: u64,
    /// Gaps seen.
    pub gaps: u64,
    /// Comparisons completed, as asker.
    pub comparisons: u64,
    /// Entries and removals that came of comparisons.
    pub reconciled: u64,
    /// Those that peers wanted of this node.
    pub reconciled_sent: u64,
    /// Transfers completed, as receiver.
    pub transfers: u64,
    /// Entries, removals and floors that transfers brought.
    pub transferred: u64,
    /// Their bytes, about.
    pub transferred_bytes: u64,
    /// Bytes that transfers took from here, about.
    pub transferred_bytes_sent: u64,
    /// Gauge: parts of the key space, of 64, that the current transfer has not completed.
    pub parts_left: u64,
    /// Updates of others whose value is longer than this node takes: their keys are misses here.
    pub withheld: u64,
    /// Long values that were fetched from a peer.
    pub fetched: u64,
    /// Their bytes, and those of fetches that came to nothing.
    pub fetched_bytes: u64,
    /// Fetches that went on at another peer, or again at the same.
    pub fetches_moved: u64,
    /// Reads of a long value that no live member holds: misses.
    pub fetches_unheld: u64,
    /// Bytes of long values that were sent to peers.
    pub fetch_sent_bytes: u64,
    /// Messages or updates refused by the drift bound.
    pub drift_refused: u64,
    /// Times that this node was not with most of its cluster.
    pub splits: u64,
    /// Times that all held here was dropped because an invalidation may have been missed.
    pub flushes: u64,
    /// Beyond the mesh: updates handed to neighbours in the tree, own and others'.
    pub relayed: u64,
    /// The same in bytes, about.
    pub relayed_bytes: u64,
    /// Beyond the mesh: pieces of streams that neighbours were asked for, because the tree had not brought them.
    pub relay_wanted: u64,
    /// Updates that neighbours were sent because they had asked.
    pub relay_replayed: u64,
}

/// How much a machine holds of what has a bound ([`ReplicationConfig`](crate::config::ReplicationConfig)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Held {
    /// Updates kept for replay.
    pub replay_updates: usize,
    /// Bytes of keys and values kept for replay.
    pub replay_bytes: usize,
    /// Callers that wait for acknowledgements, modifies and freshness.
    pub waiters: usize,
    /// Streams followed.
    pub streams: usize,
    /// Walks and lists on which peers are served.
    pub serving: usize,
}

/// A strategy for one cache. The words are those of [`CacheCore`](crate::core::CacheCore), which passes every call on.
pub trait Mode<V: Payload>: Send + fmt::Debug {
    /// Tells the peers of a local write that the store has accepted. Returns its number in the own stream.
    fn publish(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64;
    /// A connection to a peer stands.
    fn peer_up(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>);
    /// The connection is gone, whatever the reason.
    fn peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Membership knows a live node, connected or not, and which start of it lives.
    fn member_up(&mut self, now: Time, peer: NodeId, epoch: Epoch);
    /// The node has left the cluster on purpose.
    fn peer_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Membership has declared the node dead.
    fn peer_dead(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Takes a message.
    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    );
    /// Lets time pass.
    fn tick(&mut self, now: Time, out: &mut Vec<Output<V>>);
    /// When to tick next.
    fn next_tick(&self) -> Time;
    /// The next message for `peer` on `lane` (`Data` or `Bulk`), of about `budget_bytes`, or nothing.
    fn poll_transmit(
        &mut self,
        now: Time,
        peer: NodeId,
        lane: Lane,
        budget_bytes: usize,
        out: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>>;
    /// Read-modify-write at the key's home node.
    fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    );
    /// Asks the peers how far they are, and tells the waiter [`Outcome::Fresh`] once all that they had at `since` is here.
    fn refresh(&mut self, now: Time, since: Time, waiter: Waiter, out: &mut Vec<Output<V>>);
    /// What a read must compare the clock with. Changes only when this machine is called.
    fn read_bound(&self) -> ReadBound;
    /// Local writes must be refused after this time. Changes only when this machine is called.
    fn write_until(&self) -> Time {
        Time::MAX
    }
    /// The largest possible distance between this node's clock and that of any other.
    fn clock_bound(&self, now: Time) -> Duration;
    /// Somebody is about to load, and will ask for that: it is to be narrow.
    fn loads_begin(&mut self, _: Time) {}
    /// Whether something is being sent at a limited rate, so that a tick every millisecond spreads it evenly.
    fn is_paced(&self, _: Time) -> bool {
        false
    }
    /// Whether peers may hold what is missing here, so that they are worth asking.
    fn finds(&self) -> bool {
        true
    }
    /// Asks peers for a key that is missing here.
    fn find(&mut self, now: Time, key: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>);
    /// A key is about to be loaded: who else does so? Told as [`Outcome::Turn`].
    fn begin_load(
        &mut self,
        _: Time,
        _: Bytes,
        _: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Turn(Turn::Yours(None)),
        });
    }
    /// A load that had a lease is over.
    fn end_load(&mut self, _: Time, _: Lease, _: Option<&Handle<V>>, _: &mut Vec<Output<V>>) {}
    /// The caller no longer waits. No result will be told.
    fn forget(&mut self, waiter: WaiterId);
    /// This node is about to leave: from now on it makes sure that its peers have all that it has.
    fn hand_over(&mut self, _now: Time, _out: &mut Vec<Output<V>>) {}
    /// Who has all that this node has, since [`hand_over`](Self::hand_over).
    fn handed_over(&self) -> HandedOver {
        HandedOver::ToAll
    }
    /// Tells the peers that this node leaves.
    fn leave(&mut self, now: Time, out: &mut Vec<Output<V>>);
    /// How old the knowledge of each peer is.
    fn freshness(&self, now: Time) -> Freshness;
    /// In one word.
    fn status(&self, now: Time) -> Status;
    /// Whether a miss is a miss.
    fn is_ready(&self) -> bool;
    /// Whether there are more members than a full mesh may have, so that most have no session with each other.
    fn is_by_tree(&self) -> bool {
        false
    }
    /// How much it holds of what has a bound.
    fn held(&self) -> Held {
        Held::default()
    }
    /// Counters.
    fn stats(&self) -> ModeStats;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_an_age_is_never_told_shorter_than_it_is() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, 7_499_999] {
            let age = Duration::from_nanos(nanos);
            let told = Duration::from_millis(age_ms(age));
            assert!(
                told >= age && told < age + Duration::from_millis(1),
                "{age:?}"
            );
        }
        assert_eq!(age_ms(Duration::MAX), u64::MAX);
    }
}
