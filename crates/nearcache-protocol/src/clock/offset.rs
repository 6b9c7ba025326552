//! How far another clock is from this one, as far as one exchange tells: [`OffsetRange`].

/// Both clocks are read in whole milliseconds.
const RESOLUTION_MS: i64 = 1;

/// Between what the offset of a peer's clock lies: its reading minus this node's, in milliseconds.
///
/// A clock reading counts only with the exchange that it belongs to: this node asked when its own clock read `a`, the peer read its
/// clock some time after, and the answer was here when this node's clock read `b`. So the reading was made between `a` and `b`, however
/// long anything waited on its way.
///
/// Source: Marzullo and Owicki, "Maintaining the Time in a Distributed System", PODC 1983 (a clock's answer as an interval). Difference: the intervals of
/// several peers are not intersected; of each only the end that is nearer counts (R5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetRange {
    /// It is not less than this.
    pub least_ms: i64,
    /// It is not more than this.
    pub most_ms: i64,
}

impl OffsetRange {
    /// The peer's clock read `theirs_ms` after this node's read `asked_ms`, and before it read `answered_ms`.
    #[must_use]
    pub fn measured(asked_ms: u64, answered_ms: u64, theirs_ms: u64) -> Self {
        Self {
            least_ms: distance(theirs_ms, answered_ms).saturating_sub(RESOLUTION_MS),
            most_ms: distance(theirs_ms, asked_ms.min(answered_ms)).saturating_add(RESOLUTION_MS),
        }
    }

    /// Whether the same offset may be in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.least_ms <= other.most_ms && other.least_ms <= self.most_ms
    }

    /// The peer's clock read `theirs_ms` at some time before this node's read `heard_ms`: nobody knows how long before.
    #[must_use]
    pub fn unasked(heard_ms: u64, theirs_ms: u64) -> Self {
        Self {
            least_ms: distance(theirs_ms, heard_ms).saturating_sub(RESOLUTION_MS),
            most_ms: i64::MAX,
        }
    }

    /// The offset is at least that far from 0: what is certain.
    #[must_use]
    pub const fn nearest_ms(self) -> i64 {
        if self.least_ms > 0 {
            self.least_ms
        } else if self.most_ms < 0 {
            self.most_ms
        } else {
            0
        }
    }

    /// The offset is at most that far from 0.
    #[must_use]
    pub const fn farthest_ms(self) -> u64 {
        let (least, most) = (self.least_ms.unsigned_abs(), self.most_ms.unsigned_abs());
        if least > most { least } else { most }
    }

    /// Whether the clocks are certainly at most `limit_ms` apart.
    #[must_use]
    pub const fn is_within(self, limit_ms: u64) -> bool {
        self.farthest_ms() <= limit_ms
    }

    /// Whether the clocks are certainly more than `limit_ms` apart.
    #[must_use]
    pub const fn is_beyond(self, limit_ms: u64) -> bool {
        self.nearest_ms().unsigned_abs() > limit_ms
    }

    /// How much it leaves open, in milliseconds.
    #[must_use]
    pub const fn width_ms(self) -> u64 {
        self.most_ms.abs_diff(self.least_ms)
    }
}

/// `a - b`, as far as the type goes.
fn distance(a: u64, b: u64) -> i64 {
    let distance = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a >= b { distance } else { -distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_what_waited_on_its_way_leaves_open_how_far_the_clock_is_and_never_lies() {
        // A clock that is 1,000 ms ahead: asked at 5,000, read at once, the answer waited for 3 s.
        let late = OffsetRange::measured(5_000, 8_000, 6_000);
        assert_eq!((late.least_ms, late.most_ms), (-2_001, 1_001));
        assert!(!late.is_beyond(500) && !late.is_within(500));
        assert_eq!((late.nearest_ms(), late.farthest_ms()), (0, 2_001));
        let prompt = OffsetRange::measured(5_000, 5_010, 6_005);
        assert!(prompt.is_beyond(500));
        assert_eq!(prompt.nearest_ms(), 994);
        let near = OffsetRange::measured(5_000, 5_010, 5_100);
        assert!(near.is_within(500) && near.width_ms() == 12);
    }

    #[test]
    fn r5_a_reading_that_answers_nothing_shows_only_that_a_clock_is_ahead() {
        assert!(OffsetRange::unasked(5_000, 5_600).is_beyond(500));
        let behind = OffsetRange::unasked(5_000, 1_000);
        assert!(!behind.is_beyond(500) && !behind.is_within(500));
    }

    #[test]
    fn any_times_make_a_range() {
        for asked in [0, 7, u64::MAX] {
            for answered in [0, 7, u64::MAX] {
                for theirs in [0, 7, u64::MAX] {
                    let range = OffsetRange::measured(asked, answered, theirs);
                    assert!(range.least_ms <= range.most_ms, "{range:?}");
                    let _ = (range.width_ms(), range.farthest_ms(), range.nearest_ms());
                }
            }
        }
    }
}
