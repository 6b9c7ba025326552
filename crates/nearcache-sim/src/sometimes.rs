//! What must happen sometimes, or the runs prove less than they seem to.
//!
//! Each run counts how often it came by the places named here; over a thousand seeds every one must
//! have been reached. A place that is no longer reached is a hole in the tests, not in the product.

use std::fmt;

macro_rules! places {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A fault that was injected or a state of the protocol that was reached.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Place { $($(#[$doc])* $name),* }

        impl Place {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

places! {
    /// A partition that cuts both directions between two groups.
    SymmetricPartition,
    /// A partition that cuts one direction only.
    OneWayPartition,
    /// Two nodes did not see each other, all others saw both.
    PartialMesh,
    /// Two groups did not see each other, one node saw both.
    Bridge,
    /// Nodes were cut off one after the other and came back in another order.
    Swizzle,
    /// A node died and its connections were reset.
    Crash,
    /// A node died and its connections hung.
    SilentCrash,
    /// A crashed node came back with empty memory and a new epoch.
    Restart,
    /// A node stopped running for a while.
    Pause,
    /// A node stopped running for half a minute.
    LongPause,
    /// A node ran and stopped in turn.
    Doze,
    /// All that a node sent and got took long.
    SlowPeer,
    /// Messages from one node to another took up to two seconds.
    Lag,
    /// A message took up to two seconds, which others did not.
    LateMessage,
    /// A message of the control lane was lost, where those of the membership may be.
    MembershipLoss,
    /// A node's links took few bytes a second.
    NarrowLink,
    /// A cut lasted for half a minute or longer.
    LongCut,
    /// A node stopped for two minutes.
    LongestStop,
    /// A node left while others came and went.
    LeftUnderFaults,
    /// A node was started with a clock that is a second off, or more.
    ClockJump,
    /// Its clock was still wrong when all other faults ended.
    ClockStaysWrong,
    /// It had stopped writing for that.
    StoppedBySkew,
    /// A session ended because an echo showed that the peer's clock is too far away.
    EndedForItsClock,
    /// Bytes that are no message arrived, and the connection was closed.
    Garbled,
    /// A node came back with another wall clock.
    ClockStep,
    /// A node outside the core stayed broken for good.
    RestBroken,
    /// A connection was reset under two healthy nodes.
    Reset,
    /// A message was lost.
    Loss,
    /// A message was delivered twice.
    Duplicate,
    /// A message overtook an earlier one.
    Reorder,
    /// Two nodes connected to each other at the same time.
    CrossedConnections,
    /// A member was declared dead.
    MemberFailed,
    /// A member that was declared dead by mistake came back as its next renewal.
    MemberRenewed,
    /// A member was seen to have been started again.
    MemberReplaced,
    /// A peer came back with a higher epoch.
    EpochChange,
    /// A receiver asked for a stream from where it stood.
    Replay,
    /// The origin's replay buffer no longer had what was asked for.
    Gone,
    /// A receiver saw a hole in a stream.
    Gap,
    /// A node filled itself from a peer.
    Transfer,
    /// A transfer was cut.
    TransferCut,
    /// A node changed a key and told nobody.
    Diverged,
    /// Two nodes compared what they know.
    Compared,
    /// A comparison brought something.
    Reconciled,
    /// Updates that a later one supersedes were left out of a batch.
    Coalesced,
    /// An update of a peer was older than what the store held.
    Superseded,
    /// A write was acknowledged by all.
    AckedByAll,
    /// A write was not acknowledged in time.
    AckTimeout,
    /// A read-modify-write was made.
    Modified,
    /// A read-modify-write failed.
    ModifyFailed,
    /// A group invalidation of a peer was applied.
    RemoteInvalidation,
    /// All was dropped because an invalidation may have been missed (mode `invalidation`).
    Flushed,
    /// A lease ran out, and the copies went with it.
    FlushedByLapse,
    /// In the end a write that waited for all was acknowledged by all who were left.
    WaitedForAll,
    /// A loaded value was kept (mode `invalidation`).
    Filled,
    /// A caller waited for a load of somebody else on its node.
    FlightShared,
    /// A node got what another had loaded.
    LoadedElsewhere,
    /// A load was refused for want of a place.
    LoaderOverloaded,
    /// A load was not made because of the circuit breaker.
    CircuitOpen,
    /// The first load after an outage succeeded, on a node whose circuit was open.
    CircuitProbed,
    /// A reader of an entry that was about to expire had it loaded anew.
    RefreshedAhead,
    /// A loaded value was kept.
    LoadKept,
    /// A load found that there is nothing under its key.
    AbsenceLoaded,
    /// A loaded value was returned and not kept.
    LoadNotKept,
    /// A loader failed, panicked or never returned.
    LoadFailed,
    /// An expired copy was served instead of an error.
    StaleServed,
    /// A journal's frame was put on the disk.
    JournalSynced,
    /// A node found writes in its host's journal.
    JournalReplayed,
    /// A write reached the system of record behind the cache.
    WrittenBehind,
    /// A write became a dead letter.
    GivenUp,
    /// A write was refused for want of room in the queue.
    QueueFull,
    /// A caller got what was still to be written.
    PendingServed,
    /// A read of a joining node asked a peer.
    FoundWhileJoining,
    /// A clock was pushed ahead as far as it may be.
    ClockAhead,
    /// An update was refused by the drift bound.
    DriftRefused,
    /// A node that was away for longer than removals are remembered started clean.
    StartedClean,
    /// A node was not with most of its cluster.
    Apart,
    /// It was again.
    Together,
    /// It had dropped its contents meanwhile (`split = "flush"`).
    Dropped,
    /// It refused a write meanwhile (`split = "read-only"`).
    WriteRefused,
    /// A node left on purpose when all its peers had what it had.
    LeftToAll,
    /// A node left on purpose before all of them had.
    LeftInHaste,
    /// All nodes were restarted one after the other.
    RolledAll,
    /// An entry made room for others.
    Eviction,
    /// A long value was fetched.
    LongFetched,
    /// A fetch went on at another holder, or from where a piece was missing.
    LongFetchMoved,
    /// A long value that no live node held was read.
    LongUnheld,
    /// An update was passed on by a node that had not made it.
    Relayed,
    /// A neighbour was asked for what the tree had not brought.
    NeighbourAsked,
    /// A member without a session was reached over a short-lived connection.
    ReachedFar,
    /// A session was ended because the tree did not want it.
    Parted,
    /// A node opened the cache long after it had started.
    OpenedLate,
    /// A node has audited the others.
    Audited,
}

/// How often each [`Place`] was reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Sometimes([u64; Place::ALL.len()]);

impl Default for Sometimes {
    fn default() -> Self {
        Self([0; Place::ALL.len()])
    }
}

impl Sometimes {
    /// Counts one visit.
    pub fn reach(&mut self, place: Place) {
        self.0[place as usize] += 1;
    }

    /// Adds the visits of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How often the place was reached.
    #[must_use]
    pub fn count(&self, place: Place) -> u64 {
        self.0[place as usize]
    }

    /// The places never reached.
    pub fn missing(&self) -> impl Iterator<Item = Place> {
        Place::ALL
            .iter()
            .copied()
            .filter(|place| self.count(*place) == 0)
    }
}

impl fmt::Debug for Sometimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(Place::ALL.iter().map(|place| (place, self.count(*place))))
            .finish()
    }
}
