//! What was acknowledged and lived on somewhere is still there, or something newer is (issue of lost updates; R3).
//!
//! A write or removal counts when the node that acknowledged it, or one that served it, was not killed: then a survivor
//! has it. It is lost if the final state of its key is proven to be older. A removal that is lost is a resurrection.

use std::collections::BTreeSet;

use super::Violation;
use super::order::{self, Order};
use crate::history::{History, Kind, Op, Value};

/// Compares the final state with everything survivors had.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    // Without convergence there is no final state; that is a violation of its own.
    let (Some(_), Some(finals)) = (history.converged, history.finals.first()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for key in order::keys(history) {
        let order = Order::of_key(history, key);
        let ops: Vec<&Op> = history.ops.iter().filter(|op| op.key == key).collect();
        let outcome = finals.get(key).copied().flatten();
        match outcome {
            Some(value) => {
                let newer = order.newer_than(value);
                for op in ops.iter().filter(|op| survives(history, op)) {
                    match op.kind {
                        Kind::Delete(removal) if newer.contains(&removal) => {
                            found.push(resurrected(key, value, removal));
                        }
                        Kind::Write(kept) | Kind::Read(Some(kept)) if newer.contains(&kept) => {
                            found.push(lost(
                                key,
                                kept,
                                &format!("value {value} is left, which is older"),
                            ));
                        }
                        _ => {}
                    }
                }
            }
            None => {
                let removals: Vec<Value> = ops
                    .iter()
                    .filter_map(|op| match op.kind {
                        Kind::Delete(removal) => Some(removal),
                        Kind::Read(_) | Kind::Load(_) | Kind::Write(_) => None,
                    })
                    .collect();
                let survivors: BTreeSet<Value> = ops
                    .iter()
                    .filter(|op| survives(history, op))
                    .filter_map(|op| match op.kind {
                        Kind::Write(value) | Kind::Read(Some(value)) => Some(value),
                        _ => None,
                    })
                    .collect();
                for value in survivors {
                    // A removal explains the absence unless it is proven to be older than the value.
                    let explained = removals
                        .iter()
                        .any(|removal| !order.newer_than(*removal).contains(&value));
                    if !explained {
                        found.push(lost(
                            key,
                            value,
                            "nothing is left, and no removal explains it",
                        ));
                    }
                }
            }
        }
    }
    found.dedup();
    found
}

/// Whether somebody who lived to the end had what this operation wrote or saw.
fn survives(history: &History, op: &Op) -> bool {
    op.ok() && history.survived(op.node, op.life)
}

fn lost(key: usize, value: Value, what: &str) -> Violation {
    Violation::new("K4", format!("key {key}: value {value} is lost: {what}"))
}

fn resurrected(key: usize, value: Value, removal: Value) -> Violation {
    Violation::new(
        "R3",
        format!("key {key}: value {value} is back at the end although removal {removal} is newer"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};

    #[test]
    fn an_acknowledged_write_that_an_older_value_replaced_is_found() {
        let script = Script::new().write(0, 1).write(0, 2);
        assert_eq!(rules(&check(&script.clone().ends(Some(2)))), [""; 0]);
        assert_eq!(rules(&check(&script.ends(Some(1)))), ["K4"]);
    }

    #[test]
    fn a_write_that_vanished_is_found_unless_a_removal_may_have_been_newer() {
        let script = Script::new().write(0, 1);
        assert_eq!(rules(&check(&script.clone().ends(None))), ["K4"]);
        assert_eq!(rules(&check(&script.delete(1, 2).ends(None))), [""; 0]);
        let older = Script::new().delete(0, 1).write(0, 2);
        assert_eq!(rules(&check(&older.ends(None))), ["K4"]);
    }

    #[test]
    fn what_only_a_killed_node_had_may_be_lost_and_what_was_served_elsewhere_may_not() {
        let killed = Script::new().write(0, 1).write(1, 2).read(1, 2).kill(1);
        assert_eq!(rules(&check(&killed.clone().ends(Some(1)))), [""; 0]);
        let served = Script::new()
            .write(0, 1)
            .read(1, 1)
            .write(1, 2)
            .read(2, 2)
            .kill(1);
        assert_eq!(rules(&check(&served.ends(Some(1)))), ["K4"]);
    }

    #[test]
    fn r3_a_value_older_than_a_surviving_removal_at_the_end_is_found() {
        let script = Script::new().write(0, 1).delete(0, 2);
        assert_eq!(rules(&check(&script.clone().ends(None))), [""; 0]);
        assert_eq!(rules(&check(&script.ends(Some(1)))), ["R3"]);
    }
}
