//! What a history proves about the order of versions, and whether that contradicts itself (C2, R3, C12).
//!
//! Within one life of one node: what was seen by an operation that had ended before another began is not newer than
//! what the other saw (a node never goes back), and an own write or removal is newer than all that was seen before it.
//! Taken over all nodes, "older than" must have no cycle, because each value has one version. A cycle of two on one
//! node is a node that served an older value after a newer one; one with a removal in it is a resurrection.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{History, Kind, Outcome, Value};

/// Violations told per rule; one broken key tends to break many.
const TOLD_AT_MOST: usize = 5;

/// When something was seen on one life of one node.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The end of the first operation that saw it; never, if it was only tried.
    first_end: u64,
    /// The start of the last one.
    last_start: u64,
}

/// What is known of one key's versions: values and removals, and for each those that are newer.
#[derive(Debug, Default)]
pub(crate) struct Order {
    newer: BTreeMap<Value, BTreeSet<Value>>,
}

impl Order {
    /// What the operations on `key` prove.
    pub(crate) fn of_key(history: &History, key: usize) -> Self {
        let mut order = Self::default();
        for seen in sightings(history, key).values() {
            for (older, a) in seen {
                for (newer, b) in seen {
                    if older != newer && a.first_end < b.last_start {
                        order.newer.entry(*older).or_default().insert(*newer);
                    }
                }
            }
        }
        order
    }

    /// Everything proven to be newer than `value`.
    pub(crate) fn newer_than(&self, value: Value) -> BTreeSet<Value> {
        let mut found = BTreeSet::new();
        let mut open = vec![value];
        while let Some(next) = open.pop() {
            for newer in self.newer.get(&next).into_iter().flatten() {
                if found.insert(*newer) {
                    open.push(*newer);
                }
            }
        }
        found
    }

    /// A value that would be newer than itself.
    fn contradiction(&self) -> Option<Value> {
        // Values without a predecessor are taken away until none is left; what stays lies on a cycle or behind one.
        let mut waiting: BTreeMap<Value, usize> = BTreeMap::new();
        for (older, newer) in &self.newer {
            waiting.entry(*older).or_default();
            for value in newer {
                *waiting.entry(*value).or_default() += 1;
            }
        }
        let mut free: Vec<Value> = waiting
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(value, _)| *value)
            .collect();
        while let Some(value) = free.pop() {
            waiting.remove(&value);
            for newer in self.newer.get(&value).into_iter().flatten() {
                if let Some(count) = waiting.get_mut(newer) {
                    *count -= 1;
                    if *count == 0 {
                        free.push(*newer);
                    }
                }
            }
        }
        waiting
            .keys()
            .copied()
            .find(|value| self.newer_than(*value).contains(value))
    }
}

/// A life of a node.
type Place = (usize, usize);

/// What each life saw of a key, and when: values, and removals under their numbers.
fn sightings(history: &History, key: usize) -> BTreeMap<Place, BTreeMap<Value, Seen>> {
    let mut places: BTreeMap<Place, BTreeMap<Value, Seen>> = BTreeMap::new();
    let happened = |op: &&crate::history::Op| op.outcome != Outcome::Refused;
    let of_key = history.ops.iter().filter(|op| op.key == key);
    for op in of_key.filter(happened) {
        let value = match op.kind {
            Kind::Read(Some(value)) if op.ok() => value,
            Kind::Write(value) | Kind::Delete(value) => value,
            Kind::Read(_) | Kind::Load(_) => continue,
        };
        let end = if op.ok() { op.end } else { u64::MAX };
        let seen = places
            .entry((op.node, op.life))
            .or_default()
            .entry(value)
            .or_insert(Seen {
                first_end: end,
                last_start: op.start,
            });
        seen.first_end = seen.first_end.min(end);
        seen.last_start = seen.last_start.max(op.start);
    }
    places
}

/// Numbers that stand for removals.
fn removals(history: &History, key: usize) -> BTreeSet<Value> {
    let of_key = history.ops.iter().filter(|op| op.key == key);
    of_key
        .filter_map(|op| match op.kind {
            Kind::Delete(value) => Some(value),
            Kind::Read(_) | Kind::Load(_) | Kind::Write(_) => None,
        })
        .collect()
}

/// All keys of a history.
pub(crate) fn keys(history: &History) -> BTreeSet<usize> {
    history.ops.iter().map(|op| op.key).collect()
}

/// No node goes back, nothing removed returns, and no two nodes disagree about which of two values is newer.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut backwards = Vec::new();
    let mut revived = Vec::new();
    let mut contradictions = Vec::new();
    for key in keys(history) {
        let removals = removals(history, key);
        let mut broken_here = false;
        for ((node, life), seen) in sightings(history, key) {
            for (a, b) in pairs(&seen) {
                let (first, again) = match (removals.contains(&a), removals.contains(&b)) {
                    (false, true) => (b, a),
                    _ => (a, b),
                };
                broken_here = true;
                if removals.contains(&first) {
                    revived.push(Violation::new(
                        "R3",
                        format!("key {key}: node {node} life {life} served value {again} after removal {first}, which was asked for after {again} was served"),
                    ));
                } else {
                    backwards.push(Violation::new(
                        "C2",
                        format!("key {key}: node {node} life {life} served value {first}, then {again}, then {first} again"),
                    ));
                }
            }
            for (value, absent) in returned(history, key, (node, life), &seen) {
                revived.push(Violation::new(
                    "R3",
                    format!("key {key}: node {node} life {life} served value {value}, then nothing (at {absent} µs), then {value} again"),
                ));
            }
        }
        if !broken_here && let Some(value) = Order::of_key(history, key).contradiction() {
            contradictions.push(Violation::new(
                "C12",
                format!("key {key}: the orders in which nodes served values contradict each other, value {value} among them"),
            ));
        }
    }
    [backwards, revived, contradictions]
        .into_iter()
        .flat_map(|found| found.into_iter().take(TOLD_AT_MOST))
        .collect()
}

/// Pairs of which each was seen after the other.
fn pairs(seen: &BTreeMap<Value, Seen>) -> Vec<(Value, Value)> {
    let mut found = Vec::new();
    for (a, when_a) in seen {
        for (b, when_b) in seen.range(a + 1..) {
            if when_a.first_end < when_b.last_start && when_b.first_end < when_a.last_start {
                found.push((*a, *b));
            }
        }
    }
    found
}

/// Values that were served, then absent, then served again, with the time of the absence.
fn returned(
    history: &History,
    key: usize,
    (node, life): Place,
    seen: &BTreeMap<Value, Seen>,
) -> Vec<(Value, u64)> {
    let absences: Vec<_> = history
        .ops
        .iter()
        .filter(|op| {
            (op.key, op.node, op.life) == (key, node, life)
                && op.ok()
                && op.kind == Kind::Read(None)
        })
        .collect();
    seen.iter()
        .filter_map(|(value, when)| {
            let between =
                |op: &&&crate::history::Op| op.start > when.first_end && op.end < when.last_start;
            absences.iter().find(between).map(|op| (*value, op.start))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};

    #[test]
    fn c2_an_older_value_after_a_newer_one_is_found() {
        let script = Script::new().write(0, 1).write(0, 2).read(1, 1).read(1, 2);
        assert_eq!(rules(&check(&script.clone().history())), [""; 0]);
        let bad = script.read(1, 1).history();
        assert_eq!(rules(&check(&bad)), ["C2"]);
    }

    #[test]
    fn c2_a_single_step_back_is_found_from_the_order_of_the_writes() {
        let bad = Script::new()
            .write(0, 1)
            .write(0, 2)
            .read(1, 2)
            .read(1, 1)
            .history();
        assert_eq!(rules(&check(&bad)), ["C12"]);
    }

    #[test]
    fn overlapping_reads_may_return_in_any_order() {
        let mut history = Script::new().write(0, 1).write(0, 2).read(1, 2).history();
        let mut slow = history.ops[2];
        slow.kind = Kind::Read(Some(1));
        history.ops.push(slow);
        assert_eq!(rules(&check(&history)), [""; 0]);
    }

    #[test]
    fn a_life_begins_without_memory_but_the_order_of_values_stays() {
        let fine = Script::new()
            .write(0, 1)
            .restart(0)
            .read_none(0)
            .read(0, 1)
            .history();
        assert_eq!(rules(&check(&fine)), [""; 0]);
    }

    #[test]
    fn r3_a_removed_value_on_the_removing_node_is_found() {
        let script = Script::new().write(0, 1).delete(0, 2).read_none(0);
        assert_eq!(rules(&check(&script.clone().history())), [""; 0]);
        let bad = script.read(0, 1).history();
        let found = rules(&check(&bad));
        assert!(!found.is_empty() && found.iter().all(|rule| *rule == "R3"));
    }

    #[test]
    fn r3_a_value_that_comes_back_after_an_absence_is_found() {
        let bad = Script::new()
            .write(0, 1)
            .read(1, 1)
            .read_none(1)
            .read(1, 1)
            .history();
        assert_eq!(rules(&check(&bad)), ["R3"]);
    }

    #[test]
    fn a_write_that_was_not_answered_proves_nothing_about_later_reads() {
        let fine = Script::new()
            .write(0, 1)
            .write_failed(0, 2)
            .read(0, 1)
            .read(0, 2)
            .history();
        assert_eq!(rules(&check(&fine)), [""; 0]);
    }
}
