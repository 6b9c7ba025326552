//! Once faults are over and nobody writes, all nodes serve the same within the bound (R1).

use super::Violation;
use crate::history::{History, Value};

/// R1's bound, in microseconds.
pub(crate) const BOUND_US: u64 = 5_000_000;

/// Differing keys told.
const TOLD_AT_MOST: usize = 4;

/// All nodes equal, in time.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let differing = differing(&history.finals);
    if !differing.is_empty() {
        let examples: Vec<String> = differing
            .iter()
            .take(TOLD_AT_MOST)
            .map(|key| {
                let values: Vec<_> = history
                    .finals
                    .iter()
                    .map(|values| at(values, *key))
                    .collect();
                format!("key {key}: {values:?}")
            })
            .collect();
        return vec![Violation::new(
            "R1",
            format!(
                "{} keys differ among the nodes at the end: {}",
                differing.len(),
                examples.join(", ")
            ),
        )];
    }
    match history.converged {
        None => vec![Violation::new("R1", "the nodes never agreed")],
        Some(at) if at.saturating_sub(history.quiet) > BOUND_US => vec![Violation::new(
            "R1",
            format!(
                "the nodes agreed {} ms after the last fault and write, the bound is {} ms",
                at.saturating_sub(history.quiet) / 1_000,
                BOUND_US / 1_000
            ),
        )],
        Some(_) => Vec::new(),
    }
}

/// Keys that not all nodes serve alike.
pub(crate) fn differing(finals: &[Vec<Option<Value>>]) -> Vec<usize> {
    let Some(first) = finals.first() else {
        return Vec::new();
    };
    (0..first.len())
        .filter(|key| {
            finals
                .iter()
                .any(|values| at(values, *key) != at(first, *key))
        })
        .collect()
}

fn at(values: &[Option<Value>], key: usize) -> Option<Value> {
    values.get(key).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};

    #[test]
    fn r1_a_node_that_differs_and_one_that_agrees_too_late_are_found() {
        let mut history = Script::new().write(0, 1).ends(Some(1));
        assert_eq!(rules(&check(&history)), [""; 0]);
        history.converged = Some(history.quiet + BOUND_US + 1);
        assert_eq!(rules(&check(&history)), ["R1"]);
        history.converged = None;
        assert_eq!(rules(&check(&history)), ["R1"]);
        history.converged = Some(history.quiet);
        history.finals[2] = vec![None];
        assert_eq!(rules(&check(&history)), ["R1"]);
    }
}
