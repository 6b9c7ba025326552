//! Refresh ahead of expiry: neither too early nor too late.
//!
//! Of a reader of an entry that lives for another `r`, where a load takes `d` in the mean, the chance is to be exp(-r / d). One reader says nothing of a
//! chance, and one run has few; so this is judged over all runs together.

use std::time::Duration;

/// By how many standard deviations readers may differ from what is to be expected: by chance once in a thousand million.
const DEVIATIONS_MAX: f64 = 6.0;
/// And by how many in any case, because few of them are no bell curve.
const DIFFERENCE_MIN: f64 = 10.0;

/// What readers did and what was to be expected of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refreshes {
    /// How many had an entry loaded anew.
    made: f64,
    /// How many were to be expected to.
    expected: f64,
    /// The variance of that.
    variance: f64,
}

impl Refreshes {
    /// Somebody reads an entry that lives for another `remaining`, where a load takes `takes`.
    pub(crate) fn read(&mut self, remaining: Duration, takes: Duration, refreshes: bool) {
        if takes.is_zero() {
            return;
        }
        let chance = (-remaining.as_secs_f64() / takes.as_secs_f64()).exp();
        self.expected += chance;
        self.variance += chance * (1.0 - chance);
        self.made += if refreshes { 1.0 } else { 0.0 };
    }

    /// Those of another run as well.
    pub fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.expected += other.expected;
        self.variance += other.variance;
    }

    /// The rule that is broken, if any.
    #[must_use]
    pub fn broken(&self) -> Option<&'static str> {
        let most = DEVIATIONS_MAX * self.variance.sqrt() + DIFFERENCE_MIN;
        let difference = self.made - self.expected;
        if difference.abs() <= most {
            return None;
        }
        Some(if difference > 0.0 {
            "refresh ahead (early)"
        } else {
            "refresh ahead (late)"
        })
    }
}
