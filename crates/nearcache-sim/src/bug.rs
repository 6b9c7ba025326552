//! Bugs planted on purpose, to prove that the checkers bite. One build holds all of them; a run is given one, or none.

use nearcache_protocol::planted::PlantedBug as ProtocolBug;
use nearcache_store::{PlantedBug as StoreBug, Store};

use crate::value::Value;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal),* $(,)?) => {
        /// A bug that a run can be given.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug { $($(#[doc = $doc])* $bug),* }

        impl Bug {
            /// Every bug, by the name it has on the command line.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$bug)),*];
        }
    };
}

bugs! {
    /// A merge applies whatever it is given, older or not.
    NoVersionCheck = "no-version-check",
    /// A removal leaves no tombstone.
    NoTombstones = "no-tombstones",
    /// A group invalidation does not stay in force.
    NoGroupFloors = "no-group-floors",
    /// An evicted entry leaves no floor.
    NoKeyFloors = "no-key-floors",
    /// A store forgets its tombstones after a tenth of the time that was agreed on.
    TombstonesCollectedEarly = "tombstones-collected-early",
    /// A node that has started again makes versions at once.
    StampsAtOnce = "stamps-at-once",
    /// Versions are readings of the wall clock, whatever was seen before.
    WallClock = "wall-clock",
    /// A version from any future is taken in.
    NoDriftBound = "no-drift-bound",
    /// Removals that arrive are skipped.
    TombstonesDropped = "tombstones-dropped",
    /// A gap of one update is taken for none.
    OneGapTolerated = "one-gap-tolerated",
    /// A joining node is ready at once.
    MissesTrustedWhileJoining = "misses-trusted-while-joining",
    /// A dead origin's last updates are not fetched from those who have them.
    DeadOriginsKept = "dead-origins-kept",
    /// Who is declared dead no longer counts when a node asks whether it is with most of its cluster.
    DeadCountForNothing = "dead-count-for-nothing",
    /// What makes room on one node is removed from all.
    EvictionReplicated = "eviction-replicated",
    /// A node that was away for longer than removals are remembered keeps what it has.
    StateKeptWhenAway = "state-kept-when-away",
    /// A stream goes on past a hole, and nobody repairs it.
    ResumesPastAHole = "resumes-past-a-hole",
    /// Tombstones do not count in the digest.
    DigestWithoutTombstones = "digest-without-tombstones",
    /// What was evicted is known no longer, so that anti-entropy brings it back.
    DigestWithoutEvicted = "digest-without-evicted",
    /// A stub that arrives does not drop the older value.
    StubKeepsTheOld = "stub-keeps-the-old",
    /// A long value that arrives late is taken for the newer version.
    LateValueTakenForNewer = "late-value-taken-for-newer",
    /// Pieces of a long value are put together in the order in which they come.
    PiecesInAnyOrder = "pieces-in-any-order",
    /// What is known to be missing is taken to be here without a comparison.
    MendsWithoutComparing = "mends-without-comparing",
    /// Freshness counts from the arrival of an answer, and not from the question.
    FreshFromTheAnswer = "fresh-from-the-answer",
    /// A node's clock does not count the time in which it was paused.
    ClockStopsWhenPaused = "clock-stops-when-paused",
    /// A share of a transfer whose peer died in the middle is taken to be complete.
    ResumesPastAMissingPart = "resumes-past-a-missing-part",
    /// A node that leaves does not wait until others have what only it has.
    LeavesWithoutHandOver = "leaves-without-hand-over",
    /// Beyond the mesh: what comes behind a gap counts as if nothing were missing.
    TreeClaimsPastAGap = "tree-claims-past-a-gap",
    /// Beyond the mesh: the age of what a neighbour tells is not added.
    TreeAddsNoAge = "tree-adds-no-age",
    /// Beyond the mesh: who opened the cache after its session was ended counts for nobody's freshness.
    StrangersLeftOut = "strangers-left-out",
    /// Mode `invalidation`: an echo extends the lease although the number that it carries is not applied.
    LeaseOnEcho = "lease-on-echo",
    /// Mode `invalidation`: an invalidation evicts whatever is held, newer or not.
    EchoEvicts = "echo-evicts",
    /// Mode `invalidation`: a stream goes on past a hole as if nothing were missing.
    HoleSkipped = "hole-skipped",
    /// Loads: stamped at their end, compared with nothing.
    FenceDropped = "fence-dropped",
    /// Loads: stamped at their end, compared with what is known of the key but not of its tags.
    FenceDroppedForTags = "fence-dropped-for-tags",
    /// Loads: no allowance for clocks that are behind.
    LoadIgnoresClockBound = "load-ignores-clock-bound",
    /// Loads: who misses joins a load that began before an invalidation.
    JoinsOldFlights = "joins-old-flights",
    /// Loads: one that panics tells nobody.
    WaiterLostOnPanic = "waiter-lost-on-panic",
    /// Loads: a home node gives the lease of a key to all who ask.
    LeaseForAll = "lease-for-all",
    /// Loads: an expired copy is served for as long as it is in memory.
    StaleBeyondLimit = "stale-beyond-limit",
    /// Write-behind: a write is acknowledged before its journal record is on the disk.
    JournalAckedEarly = "journal-acked-early",
    /// Audit: every other probe that arrives is acknowledged, and not applied.
    ProbeAckedNotApplied = "probe-acked-not-applied",
    /// A node that leaves has nobody fetch the long values that only it holds.
    LongValuesLeftBehind = "long-values-left-behind",
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
            Self::LeaseOnEcho | Self::EchoEvicts | Self::HoleSkipped
        )
    }

    /// Whether it is one of loads, which it is looked for in.
    #[must_use]
    pub const fn is_of_loads(self) -> bool {
        matches!(
            self,
            Self::FenceDropped
                | Self::FenceDroppedForTags
                | Self::LoadIgnoresClockBound
                | Self::JoinsOldFlights
                | Self::WaiterLostOnPanic
                | Self::LeaseForAll
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
            Self::FenceDropped => ProtocolBug::FenceDropped,
            Self::FenceDroppedForTags => ProtocolBug::FenceDroppedForTags,
            Self::LoadIgnoresClockBound => ProtocolBug::LoadIgnoresClockBound,
            Self::JoinsOldFlights => ProtocolBug::JoinsOldFlights,
            Self::LeaseForAll => ProtocolBug::LeaseForAll,
            Self::ProbeAckedNotApplied => ProtocolBug::ProbeAckedNotApplied,
            Self::LongValuesLeftBehind => ProtocolBug::LongValuesLeftBehind,
            _ => ProtocolBug::None,
        }
    }
}
