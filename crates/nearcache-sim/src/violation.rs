//! What a checker reports: a rule that a run broke.

use std::fmt;

use nearcache_protocol::time::Time;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, by its number in the specification.
    pub rule: &'static str,
    /// When it was seen, in virtual time.
    pub at: Time,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {:?}: {}", self.rule, self.at, self.what)
    }
}
