//! Bugs on purpose, so that the simulator's checkers can be shown to find them. Without the feature `planted-bugs` every
//! question below is answered `false` at compile time.

use std::time::Duration;

use crate::time::Time;

/// A rule that a machine breaks on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum PlantedBug {
    /// None.
    #[default]
    None,
    /// Removals that arrive are not kept as tombstones: they are skipped (breaks R3).
    TombstonesDropped,
    /// A gap of one update is taken for none (breaks I2).
    OneGapTolerated,
    /// A joining node is ready at once (breaks R9).
    MissesTrustedWhileJoining,
    /// A dead origin's last updates are not fetched from those who have them (breaks R1).
    DeadOriginsKept,
    /// An echo extends the lease although the number that it carries is not applied (breaks I9).
    LeaseOnEcho,
    /// An invalidation that arrives evicts whatever is held, newer or not (breaks I4, I5).
    EchoEvicts,
    /// A stream goes on past a hole as if nothing were missing (breaks I3).
    HoleSkipped,
    /// A node that was away for longer than removals are remembered keeps what it has (breaks R4).
    StateKeptWhenAway,
    /// A subscription goes on from the latest number when the ring no longer reaches back, and nobody is told (breaks I3).
    ResumesPastAHole,
    /// Who is declared dead no longer counts in the view, at once (breaks what `split` says).
    DeadCountForNothing,
    /// Who is declared dead counts for nobody's freshness, whether this node is with most or not.
    DeadMakeFresh,
    /// A stub that arrives does not drop the older value (breaks R1, C2 for whoever waited for `Ack::All`).
    StubKeepsTheOld,
    /// The value of an older version that arrives late is taken for that of the newer one (breaks C6).
    LateValueTakenForNewer,
    /// A piece is appended wherever the value stands (breaks C6).
    PiecesInAnyOrder,
    /// What is known to be missing is taken to be here without a comparison (breaks R1, R8).
    MendsWithoutComparing,
    /// Freshness counts from the arrival of an answer, and not from when it was asked for (breaks C11).
    FreshFromTheAnswer,
    /// A share whose peer died in the middle is taken to be complete (breaks R9).
    ResumesPastAMissingPart,
    /// A node that leaves does not wait until others have what only it holds (breaks K4).
    LeavesWithoutHandOver,
    /// What a home node answers is told to the caller and not kept here (breaks C3).
    AnswerNotKept,
    /// The ring for replay holds one update more than it may (breaks K5).
    ReplayBeyondBound,
    /// Who waits for an acknowledgement is not told when its time is over (breaks C10).
    AckWaitsForEver,
    /// Who waits for a home node is not told when its time is over (breaks C10).
    ModifyWaitsForEver,
    /// Mode `invalidation`: after a reconnection nothing extends the lease (breaks liveness of I1).
    LeaseNotGivenAgain,
    /// Mode `invalidation`: a write that waits for all waits for a dead member although that one's lease has run out (breaks I8).
    WaitsForTheDead,
    /// Mode `invalidation`, `on_disconnect = "flush"`: copies stay when the lease runs out (breaks what it says).
    FlushForgotten,
    /// A load is stamped at its end, and compared with nothing (breaks C1).
    FenceDropped,
    /// A load is stamped at its end, and compared with what is known of its key, but not of its tags (breaks C4).
    FenceDroppedForTags,
    /// A load's version does not allow for clocks that are behind (breaks C1).
    LoadIgnoresClockBound,
    /// Who misses joins a load that began before an invalidation (breaks C1).
    JoinsOldFlights,
    /// Who misses joins a load that began before an invalidation of a group (breaks C4).
    JoinsOverGroups,
    /// What comes by the tree behind a gap counts as if nothing were missing (breaks I2, R1).
    TreeClaimsPastAGap,
    /// A home node gives the lease of a key to all who ask (breaks P6).
    LeaseForAll,
    /// A home node takes itself for overloaded, and gives nobody a lease (breaks P6).
    LeaseForNobody,
    /// A home node does not answer who asks for a lease (breaks P6).
    HomeSaysNothing,
    /// A load is stamped at its end, and invalidations of groups by other nodes do not void it (breaks C4 across nodes).
    GroupsOfOthersIgnored,
    /// More loads run at once than may (breaks O6).
    PlacesForAll,
    /// A load that has landed keeps its place (breaks O6).
    PlacesLost,
    /// The circuit breaker counts failures and does not open (breaks O11).
    BreakerStaysClosed,
    /// After an outage all loads are let through at once (breaks O11).
    RampsAtOnce,
    /// What a neighbour knows of others counts as if it were as of now (breaks C11).
    TreeAddsNoAge,
    /// Beyond the mesh who opened the cache after its session was ended counts for nobody's freshness (breaks C11).
    StrangersLeftOut,
    /// Every other update of a key of the audit that arrives counts as applied, and is not (breaks R1, for keys that nothing but the audit
    /// looks at).
    ProbeAckedNotApplied,
    /// A node that leaves has nobody fetch the long values that only it holds (breaks K4 for them).
    LongValuesLeftBehind,
    /// The clock in a hello counts as if it were read when it arrives (breaks R5).
    HandshakeClockBelievedLate,
}

impl PlantedBug {
    const fn is(self, bug: Self) -> bool {
        cfg!(feature = "planted-bugs") && self as u8 == bug as u8
    }

    pub(crate) const fn drops_tombstones(self) -> bool {
        self.is(Self::TombstonesDropped)
    }

    pub(crate) const fn tolerates_a_gap(self) -> bool {
        self.is(Self::OneGapTolerated)
    }

    pub(crate) const fn trusts_misses_while_joining(self) -> bool {
        self.is(Self::MissesTrustedWhileJoining)
    }

    pub(crate) const fn keeps_state_when_away(self) -> bool {
        self.is(Self::StateKeptWhenAway)
    }

    pub(crate) const fn is_fresh_without_the_dead(self) -> bool {
        self.is(Self::DeadMakeFresh)
    }

    pub(crate) const fn resumes_past_a_hole(self) -> bool {
        self.is(Self::ResumesPastAHole)
    }

    pub(crate) const fn mends_without_comparing(self) -> bool {
        self.is(Self::MendsWithoutComparing)
    }

    /// Since when a peer's answer, asked for at `asked` and here at `now`, makes this node fresh.
    pub(crate) const fn fresh_since(self, asked: Time, now: Time) -> Time {
        if self.is(Self::FreshFromTheAnswer) {
            now
        } else {
            asked
        }
    }

    pub(crate) const fn counts_no_dead(self) -> bool {
        self.is(Self::DeadCountForNothing)
    }

    pub(crate) const fn resumes_past_a_missing_part(self) -> bool {
        self.is(Self::ResumesPastAMissingPart)
    }

    pub(crate) const fn leaves_without_hand_over(self) -> bool {
        self.is(Self::LeavesWithoutHandOver)
    }

    pub(crate) const fn keeps_what_a_stub_supersedes(self) -> bool {
        self.is(Self::StubKeepsTheOld)
    }

    pub(crate) const fn takes_late_values_for_newer(self) -> bool {
        self.is(Self::LateValueTakenForNewer)
    }

    pub(crate) const fn takes_pieces_in_any_order(self) -> bool {
        self.is(Self::PiecesInAnyOrder)
    }

    pub(crate) const fn claims_past_a_gap(self) -> bool {
        self.is(Self::TreeClaimsPastAGap)
    }

    /// How old a neighbour's knowledge of an origin is taken to be, that says it is of this age.
    pub(crate) const fn age_told(self, age: Duration) -> Duration {
        if self.is(Self::TreeAddsNoAge) {
            Duration::ZERO
        } else {
            age
        }
    }

    pub(crate) const fn leaves_out_strangers(self) -> bool {
        self.is(Self::StrangersLeftOut)
    }

    /// Whether an update of this version is skipped, of a key that is the audit's or is not.
    pub(crate) const fn skips_probe(self, is_probe: bool, millis: u64) -> bool {
        self.is(Self::ProbeAckedNotApplied) && is_probe && millis.is_multiple_of(2)
    }

    pub(crate) const fn leaves_long_values_behind(self) -> bool {
        self.is(Self::LongValuesLeftBehind)
    }

    /// How many updates a ring holds that may hold `max`.
    pub(crate) const fn replay_max(self, max: usize) -> usize {
        if self.is(Self::ReplayBeyondBound) {
            max.saturating_add(1)
        } else {
            max
        }
    }

    pub(crate) const fn forgets_ack_deadlines(self) -> bool {
        self.is(Self::AckWaitsForEver)
    }

    pub(crate) const fn forgets_modify_deadlines(self) -> bool {
        self.is(Self::ModifyWaitsForEver)
    }

    pub(crate) const fn renews_no_lease(self) -> bool {
        self.is(Self::LeaseNotGivenAgain)
    }

    pub(crate) const fn waits_for_the_dead(self) -> bool {
        self.is(Self::WaitsForTheDead)
    }

    pub(crate) const fn forgets_to_flush(self) -> bool {
        self.is(Self::FlushForgotten)
    }

    pub(crate) const fn keeps_no_answer(self) -> bool {
        self.is(Self::AnswerNotKept)
    }

    pub(crate) const fn believes_late_clocks(self) -> bool {
        self.is(Self::HandshakeClockBelievedLate)
    }

    pub(crate) const fn keeps_dead_origins(self) -> bool {
        self.is(Self::DeadOriginsKept)
    }

    pub(crate) const fn extends_lease_on_echo(self) -> bool {
        self.is(Self::LeaseOnEcho)
    }

    pub(crate) const fn evicts_newer(self) -> bool {
        self.is(Self::EchoEvicts)
    }

    pub(crate) const fn drops_fence(self) -> bool {
        self.is(Self::FenceDropped)
    }

    pub(crate) const fn drops_fence_for_tags(self) -> bool {
        self.is(Self::FenceDroppedForTags)
    }

    pub(crate) const fn ignores_clock_bound(self) -> bool {
        self.is(Self::LoadIgnoresClockBound)
    }

    pub(crate) const fn joins_old_flights(self) -> bool {
        self.is(Self::JoinsOldFlights)
    }

    pub(crate) const fn joins_over_groups(self) -> bool {
        self.is(Self::JoinsOverGroups)
    }

    pub(crate) const fn gives_lease_to_all(self) -> bool {
        self.is(Self::LeaseForAll)
    }

    pub(crate) const fn gives_lease_to_nobody(self) -> bool {
        self.is(Self::LeaseForNobody)
    }

    pub(crate) const fn says_nothing(self) -> bool {
        self.is(Self::HomeSaysNothing)
    }

    pub(crate) const fn ignores_groups_of_others(self) -> bool {
        self.is(Self::GroupsOfOthersIgnored)
    }

    pub(crate) const fn has_places_for_all(self) -> bool {
        self.is(Self::PlacesForAll)
    }

    pub(crate) const fn loses_places(self) -> bool {
        self.is(Self::PlacesLost)
    }

    pub(crate) const fn stays_closed(self) -> bool {
        self.is(Self::BreakerStaysClosed)
    }

    pub(crate) const fn ramps_at_once(self) -> bool {
        self.is(Self::RampsAtOnce)
    }

    pub(crate) const fn skips_holes(self) -> bool {
        self.is(Self::HoleSkipped)
    }
}
