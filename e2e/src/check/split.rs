//! Who is apart from most of the cluster neither writes (`split = "read-only"`) nor serves (`"flush"`), from 2 s on; what was refused never
//! takes effect (C7); and once the network is whole, every node takes writes again.
//!
//! Judged are netsplits in two groups: who can hear whom is known then, and with it who is apart.

use std::collections::BTreeSet;

use super::Violation;
use super::convergence::BOUND_US;
use crate::cache::Cache;
use crate::history::{By, History, Kind, Outcome, Silence, Value};

/// After the last question that was answered, and a look at the clock.
const WINDOW_US: u64 = 2_500_000;
/// Violations told.
const TOLD_AT_MOST: usize = 3;

/// A node that is apart from most of the cluster, and when.
#[derive(Clone, Copy)]
struct Apart {
    node: usize,
    from: u64,
    to: u64,
}

fn apart(history: &History) -> Vec<Apart> {
    let nodes = history.finals.len();
    let cuts = || history.silences.iter().filter(|s| s.by == By::Cut);
    let times: BTreeSet<(u64, u64)> = cuts().map(|cut| (cut.from, cut.to)).collect();
    let mut found = Vec::new();
    for (from, to) in times {
        for node in 0..nodes {
            let other = |cut: &Silence| match node {
                _ if node == cut.a => Some(cut.b),
                _ if node == cut.b => Some(cut.a),
                _ => None,
            };
            let now = cuts().filter(|cut| (cut.from, cut.to) == (from, to));
            let silent: BTreeSet<usize> = now.filter_map(other).collect();
            if (nodes - silent.len()) * 2 < nodes {
                found.push(Apart { node, from, to });
            }
        }
    }
    found
}

/// What is judged like any other cache: without the misses of a node that serves nothing because it is apart, or is being filled again.
pub(crate) fn without_withheld(history: &History) -> History {
    let apart = match history.cache {
        Cache::Flush => apart(history),
        _ => Vec::new(),
    };
    let mut judged = history.clone();
    judged.ops.retain(|op| {
        let withheld = apart.iter().any(|apart| {
            op.node == apart.node && op.end > apart.from && op.start < apart.to + BOUND_US
        });
        op.kind != Kind::Read(None) || !withheld
    });
    judged
}

/// All of it.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = refused_and_served(history);
    for apart in apart(history) {
        let within = history.ops.iter().filter(|op| {
            op.node == apart.node
                && op.ok()
                && op.start > apart.from + WINDOW_US
                && op.end < apart.to
        });
        let wrong = within.filter(|op| {
            matches!(
                (history.cache, op.kind),
                (Cache::ReadOnly, Kind::Write(_) | Kind::Delete(_))
                    | (Cache::Flush, Kind::Read(Some(_)))
            )
        });
        for op in wrong {
            found.push(Violation::new(
                "split",
                format!(
                    "key {}: node {} was apart from most for {} ms and answered {:?}",
                    op.key,
                    op.node,
                    (op.start - apart.from) / 1_000,
                    op.kind
                ),
            ));
        }
        let writes = |ok: bool| {
            history.ops.iter().any(|op| {
                op.node == apart.node
                    && op.ok() == ok
                    && matches!(op.kind, Kind::Write(_))
                    && op.start > apart.to
                    && op.end < apart.to + BOUND_US
            })
        };
        if writes(false) && !writes(true) {
            found.push(Violation::new(
                "split",
                format!(
                    "node {} takes no writes although it is with all others again",
                    apart.node
                ),
            ));
        }
    }
    let with_most = |node: usize, at: u64| {
        !history.silences.iter().any(|silence| silence.by != By::Cut)
            && !apart(history)
                .iter()
                .any(|apart| apart.node == node && apart.from < at && at < apart.to + BOUND_US)
    };
    for op in &history.ops {
        if op.outcome == Outcome::Refused && with_most(op.node, op.end) {
            found.push(Violation::new(
                "split",
                format!(
                    "key {}: node {} refused a write and was with most",
                    op.key, op.node
                ),
            ));
        }
    }
    found.truncate(TOLD_AT_MOST);
    found
}

fn refused_and_served(history: &History) -> Vec<Violation> {
    let refused: BTreeSet<Value> = history
        .ops
        .iter()
        .filter_map(|op| match op.kind {
            Kind::Write(value) if op.outcome == Outcome::Refused => Some(value),
            _ => None,
        })
        .collect();
    let served = history.ops.iter().find_map(|op| match op.kind {
        Kind::Read(Some(value)) if refused.contains(&value) => Some((op.node, op.key, value)),
        _ => None,
    });
    let tell = |(node, key, value)| {
        let seen = format!("key {key}: node {node} served {value}, which had been refused");
        Violation::new("C7", seen)
    };
    served.map(tell).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};

    /// Node 2 is alone from the start on, for 5 s.
    fn alone(cache: Cache, script: Script) -> History {
        let mut history = script.of(cache).history();
        history.finals = vec![Vec::new(); 3];
        let silence = |a| Silence {
            a,
            b: 2,
            from: 0,
            to: 5_000_000,
            by: By::Cut,
        };
        history.silences = vec![silence(0), silence(1)];
        history
    }

    #[test]
    fn a_write_on_the_side_without_most_is_found() {
        let late = || Script::new().wait(WINDOW_US);
        let fine = alone(
            Cache::ReadOnly,
            Script::new().write(2, 1).wait(WINDOW_US).write(1, 2),
        );
        assert_eq!(rules(&check(&fine)), [""; 0]);
        let bad = alone(Cache::ReadOnly, late().write(2, 1));
        assert_eq!(rules(&check(&bad)), ["split"]);
        let other = alone(Cache::Flush, late().write(2, 1));
        assert_eq!(rules(&check(&other)), [""; 0]);
        let served = alone(Cache::Flush, late().read(2, 1));
        assert_eq!(rules(&check(&served)), ["split"]);
    }

    #[test]
    fn c7_a_refused_write_that_is_served_and_one_that_was_refused_by_mistake_are_found() {
        let mut history = alone(Cache::ReadOnly, Script::new().write(2, 1).read(1, 1));
        history.ops[0].outcome = Outcome::Refused;
        assert_eq!(rules(&check(&history)), ["C7"]);
        let mut history = alone(Cache::ReadOnly, Script::new().write(1, 1));
        history.ops[0].outcome = Outcome::Refused;
        assert_eq!(rules(&check(&history)), ["split"]);
    }

    #[test]
    fn what_a_node_withholds_on_purpose_is_no_miss() {
        let history = alone(Cache::Flush, Script::new().read_none(2).read_none(1));
        assert_eq!(without_withheld(&history).ops.len(), 1);
        let history = alone(Cache::ReadOnly, Script::new().read_none(2).read_none(1));
        assert_eq!(without_withheld(&history).ops.len(), 2);
    }
}
