//! The checkers: recorded history in, violations out. They know nothing of the machine or of Nearcache.
//!
//! Every value is written once, so it stands for one version, and versions are totally ordered. Nobody tells the
//! checkers that order; [`order`] derives what every history proves of it, and all else is judged against that.

pub(crate) mod convergence;
pub(crate) mod copies;
pub(crate) mod freshness;
pub(crate) mod loss;
pub(crate) mod order;
pub(crate) mod planted;
pub(crate) mod service;
pub(crate) mod split;
pub(crate) mod spoil;

use std::fmt;

use crate::history::History;

/// A broken rule, with what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The rule, by its id in the reliability specification.
    pub(crate) rule: &'static str,
    /// What was seen.
    pub(crate) seen: String,
}

impl Violation {
    fn new(rule: &'static str, seen: impl Into<String>) -> Self {
        Self {
            rule,
            seen: seen.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.seen)
    }
}

/// Runs every checker of what the history's cache promises.
pub(crate) fn all(history: &History) -> Vec<Violation> {
    let judged = split::without_withheld(history);
    let mut found = if history.cache.is_copies() {
        copies::check(history)
    } else {
        let mut found = order::check(&judged);
        found.extend(loss::check(&judged));
        found.extend(split::check(history));
        found
    };
    found.extend(convergence::check(history));
    found.extend(service::check(&judged));
    found.extend(freshness::check(&judged));
    found
}
