//! How many checks passed, failed and were skipped, read from the output of the test runner.
//!
//! A line `test result: ok. 6 passed; 0 failed; 1 ignored; ..` adds its figures. A test that cannot
//! do its work on this machine prints `skipped: <name>: <why>` and returns; the runner counts it as
//! passed, so it is moved to the skipped ones here.

use std::fmt;
use std::ops::AddAssign;

/// Totals of a step or of the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Checks that held.
    pub(crate) passed: u64,
    /// Checks that did not.
    pub(crate) failed: u64,
    /// Checks that could not be made here.
    pub(crate) skipped: u64,
}

impl Counts {
    /// One check that held.
    pub(crate) const ONE_PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One check that did not hold.
    pub(crate) const ONE_FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One check that could not be made.
    pub(crate) const ONE_SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// What the lines of a test run add up to.
    pub(crate) fn of_test_run<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut total = Self::default();
        let mut skipped_while_passing = 0;
        for line in lines {
            if let Some(summary) = line.trim().strip_prefix("test result: ") {
                total += Self::of_summary(summary);
            } else if is_skip(line) {
                skipped_while_passing += 1;
            }
        }
        total.passed = total.passed.saturating_sub(skipped_while_passing);
        total.skipped += skipped_while_passing;
        total
    }

    fn of_summary(summary: &str) -> Self {
        let figure = |word: &str| {
            summary
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: figure("passed"),
            failed: figure("failed"),
            skipped: figure("ignored"),
        }
    }
}

/// Whether a test says with this line that it could not do its work here.
pub(crate) fn is_skip(line: &str) -> bool {
    line.trim_start().starts_with("skipped: ")
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_several_binaries_add_up() {
        let lines = [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ];
        assert_eq!(
            Counts::of_test_run(lines),
            Counts {
                passed: 8,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_test_that_says_skipped_is_not_counted_as_passed() {
        let lines = [
            "skipped: redis_py_reads_what_it_wrote: no python with redis-py",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ];
        assert_eq!(
            Counts::of_test_run(lines),
            Counts {
                passed: 2,
                failed: 0,
                skipped: 1
            }
        );
    }

    #[test]
    fn the_last_line_is_plain() {
        let counts = Counts {
            passed: 612,
            failed: 0,
            skipped: 2,
        };
        assert_eq!(counts.to_string(), "612 passed, 0 failed, 2 skipped");
    }
}
