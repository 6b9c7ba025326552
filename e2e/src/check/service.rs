//! Nodes that nothing happened to go on answering (C10), a node that is ready misses nothing (R9), and a run in which
//! little happened before the first fault shows nothing and is void.

use super::Violation;
use crate::history::{History, Kind, Outcome};

/// Of a hundred operations on an untouched node, how many must succeed.
const ANSWERED_PERCENT: usize = 95;

/// Answers, completeness, and that there was anything to judge.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let (asked, answered) = count(history, |op| op.end < history.first_fault);
    if asked == 0 || answered * 2 < asked {
        found.push(Violation::new(
            "void",
            format!("{answered} of {asked} operations before the first fault succeeded"),
        ));
    }
    for node in &history.untouched {
        let (asked, answered) = count(history, |op| op.node == *node);
        if answered * 100 < asked * ANSWERED_PERCENT {
            found.push(Violation::new(
                "C10",
                format!("node {node}, untouched, answered {answered} of {asked} operations"),
            ));
        }
    }
    let missed = missed(history);
    if let Some((node, life, key, at)) = missed.first() {
        found.push(Violation::new(
            "R9",
            format!(
                "{} reads on nodes that were ready missed a key that all nodes had: first node {node} life {life} key {key} at {at} µs",
                missed.len()
            ),
        ));
    }
    found
}

fn count(history: &History, of: impl Fn(&crate::history::Op) -> bool) -> (usize, usize) {
    let chosen = || history.ops.iter().filter(|op| of(op));
    // A refusal is an answer.
    let answered = |op: &&crate::history::Op| op.outcome != Outcome::Unknown;
    (chosen().count(), chosen().filter(answered).count())
}

/// Reads that found nothing where every node had something before the first fault.
fn missed(history: &History) -> Vec<(usize, usize, usize, u64)> {
    history
        .ops
        .iter()
        .filter(|op| op.ok() && op.kind == Kind::Read(None))
        .filter(|op| op.key >= history.stable_from && op.start > history.first_fault)
        .filter(|op| {
            history.lives.iter().any(|life| {
                (life.node, life.life) == (op.node, op.life)
                    && life.ready.is_some_and(|ready| ready < op.start)
            })
        })
        .map(|op| (op.node, op.life, op.key, op.start))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};
    use crate::history::Life;

    #[test]
    fn a_run_in_which_most_operations_failed_from_the_start_is_void() {
        let fine = Script::new()
            .write(0, 1)
            .write_failed(0, 2)
            .fault()
            .history();
        assert_eq!(rules(&check(&fine)), [""; 0]);
        let void = Script::new()
            .write(0, 1)
            .write_failed(1, 2)
            .write_failed(1, 3)
            .fault()
            .history();
        assert_eq!(rules(&check(&void)), ["void"]);
        assert_eq!(rules(&check(&Script::new().fault().history())), ["void"]);
    }

    #[test]
    fn c10_an_untouched_node_that_does_not_answer_is_found() {
        let mut history = Script::new()
            .write(0, 1)
            .fault()
            .write_failed(0, 2)
            .history();
        assert_eq!(rules(&check(&history)), [""; 0]);
        history.untouched = vec![0];
        assert_eq!(rules(&check(&history)), ["C10"]);
    }

    #[test]
    fn r9_a_miss_of_a_key_that_all_have_is_found_once_the_node_is_ready() {
        let script = Script::new().write(0, 1).fault().restart(1).read_none(1);
        let mut history = script.history();
        history.stable_from = 0;
        let mut life = Life {
            node: 1,
            life: 1,
            ready: None,
            killed: false,
        };
        history.lives = vec![life];
        assert_eq!(rules(&check(&history)), [""; 0]);
        life.ready = Some(history.first_fault);
        history.lives = vec![life];
        assert_eq!(rules(&check(&history)), ["R9"]);
    }
}
