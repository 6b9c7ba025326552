//! C11: what a node says of how old its knowledge is never makes it younger than it is.
//!
//! Two ways to see that it does. A node says that it has all that another had at some moment, and serves something older than what that
//! one had acknowledged by then. Or it names a moment at which it could not have heard the other, and cannot hear it yet.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Claim, History, Kind, Op, Outcome, Value};

/// A fault has begun when the tool that makes it has ended, and shortly before.
const BEGINS_US: u64 = 50_000;
/// Violations told.
const TOLD_AT_MOST: usize = 3;

/// Both.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = unheard(history);
    found.extend(contradicted(history));
    found.truncate(TOLD_AT_MOST);
    found
}

/// The moment as of which a claim says that its node has all that `other` had.
fn as_of(history: &History, claim: &Claim, other: usize) -> Option<u64> {
    let age = claim.ages.get(other).copied().flatten()?;
    let answered = history.answered_after(claim.node, claim.start, claim.end);
    Some(answered.saturating_sub(age.saturating_mul(1_000)))
}

/// Claims of something younger than the silence that still lasts.
fn unheard(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for silence in &history.silences {
        for claim in &history.claims {
            let other = match claim.node {
                node if node == silence.a => silence.b,
                node if node == silence.b => silence.a,
                _ => continue,
            };
            let within = silence.from < claim.start && claim.end < silence.to;
            let Some(as_of) = as_of(history, claim, other).filter(|_| within) else {
                continue;
            };
            if as_of > silence.from + BEGINS_US {
                found.push(Violation::new(
                    "C11",
                    format!(
                        "node {} says at {} µs that it has all of node {other} as of {} ms before, and has not heard it for {} ms",
                        claim.node,
                        claim.start,
                        (claim.start - as_of) / 1_000,
                        (claim.start - silence.from) / 1_000
                    ),
                ));
            }
        }
    }
    found
}

/// What one client did to a key through one node, in order.
struct Owned<'a> {
    node: usize,
    done: Vec<&'a Op>,
}

/// Keys that are written through one node only.
fn owned(history: &History) -> BTreeMap<usize, Owned<'_>> {
    let mut keys: BTreeMap<usize, Vec<&Op>> = BTreeMap::new();
    for op in &history.ops {
        if matches!(op.kind, Kind::Write(_) | Kind::Delete(_)) {
            keys.entry(op.key).or_default().push(op);
        }
    }
    let mut owned = BTreeMap::new();
    for (key, mut done) in keys {
        done.sort_by_key(|op| op.start);
        let node = done.first().map_or(0, |op| op.node);
        if done.iter().all(|op| op.node == node) {
            owned.insert(key, Owned { node, done });
        }
    }
    owned
}

fn number(op: &Op) -> Value {
    match op.kind {
        Kind::Write(value) | Kind::Delete(value) | Kind::Load(value) => value,
        Kind::Read(value) => value.unwrap_or_default(),
    }
}

impl Owned<'_> {
    /// The last that was acknowledged by then, unless it may have died with its node.
    fn newest(&self, history: &History, by: u64) -> Option<&Op> {
        let done = self.done.iter().rev().copied();
        let mut acknowledged = done.filter(|op| op.ok() && op.end < by);
        acknowledged
            .next()
            .filter(|op| history.survived(op.node, op.life))
    }

    /// Whether a read of this may have seen all up to `newest`.
    fn explains(&self, history: &History, newest: &Op, read: &Op) -> bool {
        let unknown = |op: &&&Op| op.outcome == Outcome::Unknown;
        match read.kind {
            Kind::Read(Some(value)) => {
                let late = self.done.iter().filter(unknown);
                value >= number(newest) || late.map(|op| number(op)).any(|late| late == value)
            }
            // A copy that is not there is not an old one.
            _ if history.cache.is_copies() => true,
            _ => {
                let gone = |op: &&Op| {
                    matches!(op.kind, Kind::Delete(_))
                        && op.outcome != Outcome::Refused
                        && op.start < read.end
                        && (number(op) >= number(newest) || op.outcome == Outcome::Unknown)
                };
                self.done.iter().any(gone)
            }
        }
    }
}

/// Claims that what was read after them contradicts.
fn contradicted(history: &History) -> Vec<Violation> {
    let owned = owned(history);
    let mut reads: BTreeMap<(usize, u64, u64), Vec<&Op>> = BTreeMap::new();
    for op in &history.ops {
        if matches!(op.kind, Kind::Read(_)) && op.ok() {
            reads
                .entry((op.node, op.start, op.end))
                .or_default()
                .push(op);
        }
    }
    let mut found = Vec::new();
    for claim in &history.claims {
        let read = reads.get(&(claim.node, claim.start, claim.end));
        for read in read.into_iter().flatten() {
            let Some(keys) = owned.get(&read.key) else {
                continue;
            };
            let Some(as_of) = as_of(history, claim, keys.node) else {
                continue;
            };
            if let Some(newest) = keys.newest(history, as_of)
                && !keys.explains(history, newest, read)
            {
                found.push(Violation::new(
                    "C11",
                    format!(
                        "node {} says at {} µs that it has all of node {} as of {as_of} µs, and reads {:?} of key {} although {} was acknowledged at {} µs",
                        claim.node, claim.start, keys.node, read.kind, read.key, number(newest), newest.end
                    ),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};
    use crate::history::{By, Silence};

    /// A claim of node 1 with the last read, of node 0 so many milliseconds ago.
    fn claimed(script: Script, age: u64) -> History {
        let mut history = script.history();
        let read = history.ops.last().copied().unwrap();
        history.claims = vec![Claim {
            start: read.start,
            end: read.end,
            node: read.node,
            ages: vec![Some(age), None, None],
        }];
        history
    }

    #[test]
    fn c11_a_node_that_reads_what_is_older_than_it_says_is_found() {
        let script = Script::new().write(0, 1).write(0, 2).wait(10_000);
        let bad = claimed(script.clone().read(1, 1), 5);
        assert_eq!(rules(&check(&bad)), ["C11"]);
        let older = claimed(script.clone().read(1, 1), 20);
        assert_eq!(rules(&check(&older)), [""; 0]);
        let fine = claimed(script.clone().read(1, 2), 5);
        assert_eq!(rules(&check(&fine)), [""; 0]);
        let missing = claimed(script.read_none(1), 5);
        assert_eq!(rules(&check(&missing)), ["C11"]);
    }

    #[test]
    fn c11_removals_and_what_was_not_answered_explain_what_is_read() {
        let script = Script::new().write(0, 1).delete(0, 2).wait(10_000);
        let fine = claimed(script.read_none(1), 5);
        assert_eq!(rules(&check(&fine)), [""; 0]);
        let script = Script::new().write_failed(0, 1).write(0, 2).wait(10_000);
        let fine = claimed(script.read(1, 1), 5);
        assert_eq!(rules(&check(&fine)), [""; 0]);
    }

    #[test]
    fn c11_a_moment_at_which_a_node_heard_nothing_is_found() {
        let script = Script::new().write(0, 1).wait(400_000).read(1, 1);
        let mut history = claimed(script, 100);
        assert_eq!(rules(&check(&history)), [""; 0]);
        history.silences = vec![Silence {
            a: 0,
            b: 1,
            from: 10,
            to: 500_000,
            by: By::Cut,
        }];
        assert_eq!(rules(&check(&history)), ["C11"]);
        history.claims[0].ages[0] = Some(390);
        assert_eq!(rules(&check(&history)), [""; 0]);
    }
}
