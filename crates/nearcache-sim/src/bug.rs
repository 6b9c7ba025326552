//! Bugs planted on purpose, to prove that the checkers bite. One build holds all of them; a run is given one, or none.
//!
//! Each names the rules that must find it: a checker is only shown to bite if it finds what it is there for.

use nearcache_protocol::planted::PlantedBug as ProtocolBug;
use nearcache_store::{PlantedBug as StoreBug, Store};

use crate::value::Value;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal by [$($rule:literal),+]),* $(,)?) => {
        /// A bug that a run can be given.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug { $($(#[doc = $doc])* $bug),* }

        impl Bug {
            /// Every bug, by the name it has on the command line.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$bug)),*];

            /// The rules that are about it. That another one is broken as well says nothing of whether these are looked after.
            #[must_use]
            pub const fn rules(self) -> &'static [&'static str] {
                match self { $(Self::$bug => &[$($rule),+]),* }
            }
        }
    };
}

bugs! {
    /// A merge applies whatever it is given, older or not.
    NoVersionCheck = "no-version-check" by ["C2", "R2"],
    /// A removal leaves no tombstone.
    NoTombstones = "no-tombstones" by ["C2", "R3"],
    /// A group invalidation does not stay in force.
    NoGroupFloors = "no-group-floors" by ["C4"],
    /// An evicted entry leaves no floor.
    NoKeyFloors = "no-key-floors" by ["C2"],
    /// A store forgets its tombstones after a tenth of the time that was agreed on.
    TombstonesCollectedEarly = "tombstones-collected-early" by ["C2", "R3"],
    /// A node that has started again makes versions at once.
    StampsAtOnce = "stamps-at-once" by ["R6"],
    /// Versions are readings of the wall clock, whatever was seen before.
    WallClock = "wall-clock" by ["R6"],
    /// A version from any future is taken in.
    NoDriftBound = "no-drift-bound" by ["R5"],
    /// The clock in a hello counts as if it had been read when it arrives, however long it waited.
    HandshakeClockBelievedLate = "handshake-clock-believed-late" by ["R5"],
    /// Who is refused for its clock, or refuses another for it, does not learn how far it is off.
    SkewNotTold = "skew-not-told" by ["R5"],
    /// A session goes on when an echo shows that the peer's clock is too far away.
    ApartStaysTogether = "apart-stays-together" by ["R5"],
    /// Removals that arrive are skipped.
    TombstonesDropped = "tombstones-dropped" by ["R1", "C11", "design §6.3"],
    /// A gap of one update is taken for none.
    OneGapTolerated = "one-gap-tolerated" by ["R1", "C11", "design §6.3"],
    /// A joining node is ready at once.
    MissesTrustedWhileJoining = "misses-trusted-while-joining" by ["R9"],
    /// A dead origin's last updates are not fetched from those who have them.
    DeadOriginsKept = "dead-origins-kept" by ["R1"],
    /// Who is declared dead no longer counts when a node asks whether it is with most of its cluster.
    DeadCountForNothing = "dead-count-for-nothing" by ["design §5 (split)"],
    /// What makes room on one node is removed from all.
    EvictionReplicated = "eviction-replicated" by ["R10 (removals)"],
    /// A node that was away for longer than removals are remembered keeps what it has.
    StateKeptWhenAway = "state-kept-when-away" by ["R1", "R3"],
    /// A stream goes on past a hole, and nobody repairs it.
    ResumesPastAHole = "resumes-past-a-hole" by ["R1", "C11", "design §6.3"],
    /// Tombstones do not count in the digest.
    DigestWithoutTombstones = "digest-without-tombstones" by ["R1"],
    /// What was evicted is known no longer, so that anti-entropy brings it back.
    DigestWithoutEvicted = "digest-without-evicted" by ["R10"],
    /// A stub that arrives does not drop the older value.
    StubKeepsTheOld = "stub-keeps-the-old" by ["R1", "C11", "design §6.3"],
    /// A long value that arrives late is taken for the newer version.
    LateValueTakenForNewer = "late-value-taken-for-newer" by ["C6"],
    /// Pieces of a long value are put together in the order in which they come.
    PiecesInAnyOrder = "pieces-in-any-order" by ["C6"],
    /// What is known to be missing is taken to be here without a comparison.
    MendsWithoutComparing = "mends-without-comparing" by ["R1", "C11"],
    /// Freshness counts from the arrival of an answer, and not from the question.
    FreshFromTheAnswer = "fresh-from-the-answer" by ["C11"],
    /// A node's clock does not count the time in which it was paused.
    ClockStopsWhenPaused = "clock-stops-when-paused" by ["C11"],
    /// A share of a transfer whose peer died in the middle is taken to be complete.
    ResumesPastAMissingPart = "resumes-past-a-missing-part" by ["C11", "R1"],
    /// A node that leaves does not wait until others have what only it has.
    LeavesWithoutHandOver = "leaves-without-hand-over" by ["K4"],
    /// Beyond the mesh: what comes behind a gap counts as if nothing were missing.
    TreeClaimsPastAGap = "tree-claims-past-a-gap" by ["C11", "R1"],
    /// Beyond the mesh: the age of what a neighbour tells is not added.
    TreeAddsNoAge = "tree-adds-no-age" by ["C11"],
    /// Beyond the mesh: who opened the cache after its session was ended counts for nobody's freshness.
    StrangersLeftOut = "strangers-left-out" by ["C11"],
    /// Mode `invalidation`: an echo extends the lease although the number that it carries is not applied.
    LeaseOnEcho = "lease-on-echo" by ["I1", "C11"],
    /// Mode `invalidation`: an invalidation evicts whatever is held, newer or not.
    EchoEvicts = "echo-evicts" by ["I5"],
    /// Mode `invalidation`: a stream goes on past a hole as if nothing were missing.
    HoleSkipped = "hole-skipped" by ["I1", "C11"],
    /// A node that has asked a home node for a change waits for it to come with the home node's updates.
    AnswerNotKept = "answer-not-kept" by ["C3"],
    /// Mode `invalidation`: a node tells all others of an invalidation, and keeps its own copy.
    OwnCopiesKept = "own-copies-kept" by ["C3"],
    /// Loads: that there is nothing under a key is remembered when something was written there on the same node.
    AbsenceKept = "absence-kept" by ["C3"],
    /// What has expired is served until the store's chores take it away.
    ExpiryBySweeperOnly = "expiry-by-sweeper-only" by ["C5"],
    /// The ring for replay holds one update more than it may.
    ReplayBeyondBound = "replay-beyond-bound" by ["K5"],
    /// Who does not answer at once has no time to refute that it is dead.
    NoTimeToRefute = "no-time-to-refute" by ["K10 (M1)"],
    /// Who does not answer has two and a half seconds to refute that it is dead.
    DeathsNoticedLate = "deaths-noticed-late" by ["K10 (M3)"],
    /// Who waits for an acknowledgement is not told when its time is over.
    AckWaitsForEver = "ack-waits-for-ever" by ["C10"],
    /// Who waits for a home node is not told when its time is over.
    ModifyWaitsForEver = "modify-waits-for-ever" by ["C10"],
    /// Removals are forgotten so early that in the end nobody knows of them, not even who made them.
    RemovalsForgotten = "removals-forgotten" by ["K4 (survivors)"],
    /// Mode `invalidation`: after a reconnection nothing extends the lease.
    LeaseNotGivenAgain = "lease-not-given-again" by ["I1 (liveness)"],
    /// Mode `invalidation`: a write that waits for all waits for a dead member too, however long.
    WaitsForTheDead = "waits-for-the-dead" by ["I8 (liveness)"],
    /// Mode `invalidation`, `on_disconnect = "flush"`: copies stay when the lease runs out.
    FlushForgotten = "flush-forgotten" by ["on_disconnect"],
    /// Loads: stamped at their end, compared with nothing.
    FenceDropped = "fence-dropped" by ["C1"],
    /// Loads: stamped at their end, compared with what is known of the key but not of its tags.
    FenceDroppedForTags = "fence-dropped-for-tags" by ["C1"],
    /// Loads: no allowance for clocks that are behind.
    LoadIgnoresClockBound = "load-ignores-clock-bound" by ["C1"],
    /// Loads: who misses joins a load that began before an invalidation.
    JoinsOldFlights = "joins-old-flights" by ["C1"],
    /// Loads: one that panics tells nobody.
    WaiterLostOnPanic = "waiter-lost-on-panic" by ["C8"],
    /// Loads: a home node gives the lease of a key to all who ask.
    LeaseForAll = "lease-for-all" by ["K7"],
    /// Loads: a home node takes itself for overloaded, and gives nobody a lease.
    LeaseForNobody = "lease-for-nobody" by ["K7"],
    /// Loads: a home node does not answer who asks for a lease.
    HomeSaysNothing = "home-says-nothing" by ["K7"],
    /// Loads: stamped at their end, and not voided by what other nodes invalidate by tag, prefix or clearing.
    GroupsOfOthersIgnored = "groups-of-others-ignored" by ["C1"],
    /// Loads: more run at once on a node than may.
    PlacesForAll = "places-for-all" by ["O6"],
    /// Loads: one that has landed keeps its place.
    PlacesLost = "places-lost" by ["O6", "C8"],
    /// Loads: the circuit breaker does not open.
    BreakerStaysClosed = "breaker-stays-closed" by ["O11 (open)"],
    /// Loads: after an outage all are let through at once.
    RampsAtOnce = "ramps-at-once" by ["O11 (ramp)"],
    /// Loads: refreshed ahead as if loads took eight times as long.
    RefreshesEarly = "refreshes-early" by ["refresh ahead (early)"],
    /// Loads: refreshed ahead as if loads took an eighth of the time.
    RefreshesLate = "refreshes-late" by ["refresh ahead (late)"],
    /// Loads: an expired copy is served for as long as it is in memory.
    StaleBeyondLimit = "stale-beyond-limit" by ["stale limit"],
    /// Write-behind: a write is acknowledged before its journal record is on the disk.
    JournalAckedEarly = "journal-acked-early" by ["K4"],
    /// Audit: every other probe that arrives is acknowledged, and not applied.
    ProbeAckedNotApplied = "probe-acked-not-applied" by ["audit"],
    /// A node that leaves has nobody fetch the long values that only it holds.
    LongValuesLeftBehind = "long-values-left-behind" by ["K4"],
}

impl Bug {
    /// The bug of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bug)| *bug)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, bug)| *bug == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether it is one of mode `invalidation`, which it is looked for in.
    #[must_use]
    pub const fn is_of_invalidation(self) -> bool {
        matches!(
            self,
            Self::LeaseOnEcho
                | Self::EchoEvicts
                | Self::HoleSkipped
                | Self::OwnCopiesKept
                | Self::LeaseNotGivenAgain
                | Self::WaitsForTheDead
                | Self::FlushForgotten
        )
    }

    /// Whether it is one of loads, which it is looked for in.
    #[must_use]
    pub const fn is_of_loads(self) -> bool {
        matches!(
            self,
            Self::FenceDropped
                | Self::AbsenceKept
                | Self::RefreshesEarly
                | Self::RefreshesLate
                | Self::FenceDroppedForTags
                | Self::LoadIgnoresClockBound
                | Self::JoinsOldFlights
                | Self::WaiterLostOnPanic
                | Self::LeaseForAll
                | Self::LeaseForNobody
                | Self::HomeSaysNothing
                | Self::GroupsOfOthersIgnored
                | Self::PlacesForAll
                | Self::PlacesLost
                | Self::BreakerStaysClosed
                | Self::RampsAtOnce
                | Self::StaleBeyondLimit
                | Self::JournalAckedEarly
        )
    }

    /// Whether it is one of the tree, which it is looked for in.
    #[must_use]
    pub const fn is_of_tree(self) -> bool {
        matches!(
            self,
            Self::TreeClaimsPastAGap | Self::TreeAddsNoAge | Self::StrangersLeftOut
        )
    }

    /// Whether it needs clocks that are far off, which only runs at full strength have.
    #[must_use]
    pub const fn is_at_full_strength(self) -> bool {
        matches!(
            self,
            Self::HandshakeClockBelievedLate | Self::SkewNotTold | Self::ApartStaysTogether
        )
    }

    /// Whether it is one that the audit is to report.
    #[must_use]
    pub const fn is_of_audit(self) -> bool {
        matches!(self, Self::ProbeAckedNotApplied)
    }

    /// Plants it if it is one of a store.
    pub(crate) fn plant(self, store: &Store<Value>) {
        let bug = match self {
            Self::NoVersionCheck => StoreBug::NoVersionCheck,
            Self::NoTombstones => StoreBug::NoTombstones,
            Self::NoGroupFloors => StoreBug::NoGroupFloors,
            Self::NoKeyFloors => StoreBug::NoKeyFloors,
            Self::DigestWithoutTombstones => StoreBug::DigestWithoutTombstones,
            Self::DigestWithoutEvicted => StoreBug::DigestWithoutEvicted,
            Self::StaleBeyondLimit => StoreBug::StaleBeyondLimit,
            Self::ExpiryBySweeperOnly => StoreBug::ExpiryBySweeperOnly,
            _ => return,
        };
        store.plant(bug);
    }

    /// What it is to the machine of a cache.
    pub(crate) const fn of_protocol(self) -> ProtocolBug {
        match self {
            Self::TombstonesDropped => ProtocolBug::TombstonesDropped,
            Self::OneGapTolerated => ProtocolBug::OneGapTolerated,
            Self::MissesTrustedWhileJoining => ProtocolBug::MissesTrustedWhileJoining,
            Self::DeadCountForNothing => ProtocolBug::DeadCountForNothing,
            Self::StateKeptWhenAway => ProtocolBug::StateKeptWhenAway,
            Self::DeadOriginsKept => ProtocolBug::DeadOriginsKept,
            Self::ResumesPastAHole => ProtocolBug::ResumesPastAHole,
            Self::MendsWithoutComparing => ProtocolBug::MendsWithoutComparing,
            Self::FreshFromTheAnswer => ProtocolBug::FreshFromTheAnswer,
            Self::ResumesPastAMissingPart => ProtocolBug::ResumesPastAMissingPart,
            Self::LeavesWithoutHandOver => ProtocolBug::LeavesWithoutHandOver,
            Self::StubKeepsTheOld => ProtocolBug::StubKeepsTheOld,
            Self::LateValueTakenForNewer => ProtocolBug::LateValueTakenForNewer,
            Self::PiecesInAnyOrder => ProtocolBug::PiecesInAnyOrder,
            Self::TreeClaimsPastAGap => ProtocolBug::TreeClaimsPastAGap,
            Self::TreeAddsNoAge => ProtocolBug::TreeAddsNoAge,
            Self::StrangersLeftOut => ProtocolBug::StrangersLeftOut,
            Self::LeaseOnEcho => ProtocolBug::LeaseOnEcho,
            Self::EchoEvicts => ProtocolBug::EchoEvicts,
            Self::HoleSkipped => ProtocolBug::HoleSkipped,
            Self::AnswerNotKept => ProtocolBug::AnswerNotKept,
            Self::ReplayBeyondBound => ProtocolBug::ReplayBeyondBound,
            Self::AckWaitsForEver => ProtocolBug::AckWaitsForEver,
            Self::ModifyWaitsForEver => ProtocolBug::ModifyWaitsForEver,
            Self::LeaseNotGivenAgain => ProtocolBug::LeaseNotGivenAgain,
            Self::WaitsForTheDead => ProtocolBug::WaitsForTheDead,
            Self::FlushForgotten => ProtocolBug::FlushForgotten,
            Self::FenceDropped => ProtocolBug::FenceDropped,
            Self::FenceDroppedForTags => ProtocolBug::FenceDroppedForTags,
            Self::LoadIgnoresClockBound => ProtocolBug::LoadIgnoresClockBound,
            Self::JoinsOldFlights => ProtocolBug::JoinsOldFlights,
            Self::LeaseForAll => ProtocolBug::LeaseForAll,
            Self::LeaseForNobody => ProtocolBug::LeaseForNobody,
            Self::HomeSaysNothing => ProtocolBug::HomeSaysNothing,
            Self::GroupsOfOthersIgnored => ProtocolBug::GroupsOfOthersIgnored,
            Self::PlacesForAll => ProtocolBug::PlacesForAll,
            Self::PlacesLost => ProtocolBug::PlacesLost,
            Self::BreakerStaysClosed => ProtocolBug::BreakerStaysClosed,
            Self::RampsAtOnce => ProtocolBug::RampsAtOnce,
            Self::ProbeAckedNotApplied => ProtocolBug::ProbeAckedNotApplied,
            Self::LongValuesLeftBehind => ProtocolBug::LongValuesLeftBehind,
            Self::HandshakeClockBelievedLate => ProtocolBug::HandshakeClockBelievedLate,
            _ => ProtocolBug::None,
        }
    }
}
