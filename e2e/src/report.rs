//! What is printed, and the totals. The last line has the shape of the test runner's, so that one reader fits both.

/// Totals of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    /// A line of its own.
    pub(crate) fn say(&mut self, line: &str) {
        println!("{line}");
    }

    /// Something held.
    pub(crate) fn passed(&mut self, name: &str, detail: &str) {
        self.passed += 1;
        println!("passed: {name}: {detail}");
    }

    /// Something did not.
    pub(crate) fn failed(&mut self, name: &str, found: &[String]) {
        self.failed += 1;
        println!("FAILED: {name}");
        for line in found {
            println!("    {line}");
        }
    }

    /// Something could not be tried here.
    pub(crate) fn skipped(&mut self, name: &str, why: &str) {
        self.skipped += 1;
        println!("skipped: end to end, {name}: {why}");
    }

    /// Prints the totals; whether all held.
    pub(crate) fn finish(&self) -> bool {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        println!(
            "test result: {word}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out",
            self.passed, self.failed, self.skipped
        );
        self.failed == 0
    }
}
