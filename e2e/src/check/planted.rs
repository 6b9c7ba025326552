//! Shows that the checkers bite: a recorded history, spoiled in one way, must be complained about.
//!
//! Done to the first clean history of every run, so that it is shown on what is really recorded and not only on the
//! small histories of the unit tests.

use super::order::Order;
use super::spoil;
use crate::cache::Cache;
use crate::history::{History, Kind, Op, Outcome, Value};

/// One way to spoil a history.
pub(crate) struct Plant {
    /// What it pretends.
    pub(crate) name: &'static str,
    /// Rules of which one must be found broken.
    pub(crate) rules: &'static [&'static str],
    /// The caches whose promise that breaks.
    pub(crate) of: &'static [Cache],
    /// Spoils it; `None` when the history has nothing to spoil in this way.
    pub(crate) spoil: fn(&History) -> Option<History>,
}

const REPLICATED: &[Cache] = &[Cache::Replicated];
const EVERY: &[Cache] = &Cache::ALL;

/// Every way.
pub(crate) const PLANTS: [Plant; 11] = [
    Plant {
        name: "a node serves an older value",
        rules: &["C2", "C12"],
        of: REPLICATED,
        spoil: older_value,
    },
    Plant {
        name: "a node serves a removed value",
        rules: &["R3"],
        of: REPLICATED,
        spoil: removed_value,
    },
    Plant {
        name: "a node differs at the end",
        rules: &["R1"],
        of: EVERY,
        spoil: different_end,
    },
    Plant {
        name: "an acknowledged write is gone at the end",
        rules: &["K4"],
        of: REPLICATED,
        spoil: lost_write,
    },
    Plant {
        name: "a ready node misses a key that all have",
        rules: &["R9"],
        of: REPLICATED,
        spoil: missed_key,
    },
    Plant {
        name: "most operations fail before the first fault",
        rules: &["void"],
        of: REPLICATED,
        spoil: nothing_happens,
    },
    Plant {
        name: "a copy outlives its change",
        rules: &["I1"],
        of: &Cache::COPIES,
        spoil: spoil::outdated_copy,
    },
    Plant {
        name: "a copy is served without a lease",
        rules: &["I9"],
        of: &Cache::COPIES,
        spoil: spoil::unleased_copy,
    },
    Plant {
        name: "a node calls itself fresh and hears nobody",
        rules: &["C11"],
        of: EVERY,
        spoil: spoil::fresh_in_silence,
    },
    Plant {
        name: "a node calls itself fresh and reads what is older",
        rules: &["C11"],
        of: EVERY,
        spoil: spoil::fresh_and_older,
    },
    Plant {
        name: "a node without most of the cluster writes or serves",
        rules: &["split"],
        of: &Cache::SPLIT,
        spoil: spoil::apart_and_active,
    },
];

/// A successful read on some node that lived from start to end, later than everything.
fn late_read(history: &History, key: usize, value: Option<Value>) -> Option<Op> {
    let last = history.ops.iter().map(|op| op.end).max()?;
    let seen = |op: &&Op| op.ok() && op.key == key && matches!(op.kind, Kind::Read(Some(_)));
    let sample = history.ops.iter().filter(seen).max_by_key(|op| op.end)?;
    Some(Op {
        start: last + 1,
        end: last + 2,
        kind: Kind::Read(value),
        ..*sample
    })
}

fn with(history: &History, op: Op) -> History {
    let mut spoiled = history.clone();
    spoiled.ops.push(op);
    spoiled
}

/// A value that is proven to be older than what its key ends with, with the key.
fn superseded(history: &History) -> Option<(usize, Value)> {
    let finals = history.finals.first()?;
    let written = history.ops.iter().filter_map(|op| match op.kind {
        Kind::Write(value) if op.ok() => Some((op.key, value)),
        _ => None,
    });
    written.into_iter().find(|(key, value)| {
        let end = finals.get(*key).copied().flatten();
        end.is_some_and(|end| {
            Order::of_key(history, *key)
                .newer_than(*value)
                .contains(&end)
        })
    })
}

fn older_value(history: &History) -> Option<History> {
    let (key, value) = superseded(history)?;
    Some(with(history, late_read(history, key, Some(value))?))
}

fn removed_value(history: &History) -> Option<History> {
    history.ops.iter().find_map(|removal| {
        let Kind::Delete(_) = removal.kind else {
            return None;
        };
        let before = history.ops.iter().find(|op| {
            op.ok()
                && (op.key, op.node, op.life) == (removal.key, removal.node, removal.life)
                && matches!(op.kind, Kind::Write(_) | Kind::Read(Some(_)))
                && op.end < removal.start
        })?;
        let (Kind::Write(value) | Kind::Read(Some(value))) = before.kind else {
            return None;
        };
        let last = history.ops.iter().map(|op| op.end).max()?;
        removal.ok().then(|| {
            let kind = Kind::Read(Some(value));
            let (start, end) = (last + 1, last + 2);
            let op = Op {
                start,
                end,
                kind,
                ..*removal
            };
            with(history, op)
        })
    })
}

fn different_end(history: &History) -> Option<History> {
    let mut spoiled = history.clone();
    let end = spoiled
        .finals
        .last_mut()?
        .iter_mut()
        .find(|end| end.is_some())?;
    *end = None;
    Some(spoiled)
}

fn lost_write(history: &History) -> Option<History> {
    let (key, value) = superseded(history)?;
    let mut spoiled = history.clone();
    for finals in &mut spoiled.finals {
        *finals.get_mut(key)? = Some(value);
    }
    Some(spoiled)
}

fn missed_key(history: &History) -> Option<History> {
    let op = late_read(history, history.stable_from, None)?;
    Some(with(history, op))
}

fn nothing_happens(history: &History) -> Option<History> {
    let mut spoiled = history.clone();
    for op in &mut spoiled.ops {
        if op.end < history.first_fault {
            op.outcome = Outcome::Unknown;
        }
    }
    Some(spoiled)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Violation;
    use super::*;
    use crate::history::{By, Claim, Life, Silence};

    /// A history of key 0 on three nodes, one operation after the other.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Script {
        history: History,
        now: u64,
        lives: [usize; 3],
    }

    impl Script {
        pub(crate) fn new() -> Self {
            let mut script = Self::default();
            script.history.stable_from = usize::MAX;
            script
        }

        /// It is a history of that cache.
        pub(crate) fn of(mut self, cache: Cache) -> Self {
            self.history.cache = cache;
            self
        }

        /// All nodes are ready from the start.
        pub(crate) fn all_ready(mut self) -> Self {
            self.history.lives = (0..3).map(ready).collect();
            self
        }

        /// Nothing happens for so many microseconds.
        pub(crate) fn wait(mut self, time: u64) -> Self {
            self.now += time;
            self
        }

        fn push(mut self, node: usize, kind: Kind, outcome: Outcome) -> Self {
            let (start, end) = (self.now + 1, self.now + 2);
            self.now += 2;
            let life = self.lives[node];
            self.history.ops.push(Op {
                start,
                end,
                node,
                life,
                key: 0,
                kind,
                outcome,
            });
            self
        }

        pub(crate) fn write(self, node: usize, value: Value) -> Self {
            self.push(node, Kind::Write(value), Outcome::Done)
        }

        pub(crate) fn write_failed(self, node: usize, value: Value) -> Self {
            self.push(node, Kind::Write(value), Outcome::Unknown)
        }

        pub(crate) fn delete(self, node: usize, value: Value) -> Self {
            self.push(node, Kind::Delete(value), Outcome::Done)
        }

        pub(crate) fn read(self, node: usize, value: Value) -> Self {
            self.push(node, Kind::Read(Some(value)), Outcome::Done)
        }

        pub(crate) fn load(self, node: usize, value: Value) -> Self {
            self.push(node, Kind::Load(value), Outcome::Done)
        }

        pub(crate) fn read_none(self, node: usize) -> Self {
            self.push(node, Kind::Read(None), Outcome::Done)
        }

        /// From here on, faults.
        pub(crate) fn fault(mut self) -> Self {
            self.now += 1;
            self.history.first_fault = self.now;
            self
        }

        /// The node leaves in order and starts again.
        pub(crate) fn restart(mut self, node: usize) -> Self {
            self.lives[node] += 1;
            self
        }

        /// The node's process is killed and started again.
        pub(crate) fn kill(mut self, node: usize) -> Self {
            self.history.lives.push(Life {
                node,
                life: self.lives[node],
                ready: None,
                killed: true,
            });
            self.restart(node)
        }

        pub(crate) fn history(self) -> History {
            self.history
        }

        /// The nodes agree on `value`.
        pub(crate) fn ends(mut self, value: Option<Value>) -> History {
            self.history.finals = vec![vec![value]; 3];
            self.history.quiet = self.now;
            self.history.converged = Some(self.now);
            self.history
        }
    }

    pub(crate) fn rules(found: &[Violation]) -> Vec<&'static str> {
        found.iter().map(|violation| violation.rule).collect()
    }

    fn ready(node: usize) -> Life {
        Life {
            node,
            ready: Some(0),
            ..Life::default()
        }
    }

    /// A history in which node 2 was alone for a while and after which all agree.
    fn clean(cache: Cache) -> History {
        let script = Script::new().of(cache).all_ready().write(0, 1).read(1, 1);
        let script = script.write(0, 2).fault();
        let script = match cache.is_copies() {
            true => script.write(0, 4).read(1, 4),
            false => script.delete(0, 3).write(0, 4).read(1, 4),
        };
        // What was dropped meanwhile is loaded again.
        let script = match cache.is_copies() {
            true => script.wait(10_000_000).load(2, 4),
            false => script.wait(10_000_000),
        };
        let mut clean = script.read(2, 4).ends(Some(4));
        clean.stable_from = 0;
        let silence = |a| Silence {
            a,
            b: 2,
            from: clean.first_fault,
            to: 6_000_000,
            by: By::Cut,
        };
        clean.silences = vec![silence(0), silence(1)];
        let last = clean.ops.last().copied().unwrap();
        let claim = |start, end, node| Claim {
            start,
            end,
            node,
            ages: vec![Some(9_000), None, None],
        };
        let claims = [
            claim(4_000_000, 4_000_001, 1),
            claim(last.start, last.end, 2),
        ];
        clean.claims = claims.to_vec();
        clean.claims[0].ages = vec![None, None, Some(4_000)];
        clean.claims[1].ages = vec![Some(900), None, None];
        clean
    }

    #[test]
    fn every_plant_is_found_in_a_history_that_is_clean_without_it() {
        for cache in Cache::ALL {
            let clean = clean(cache);
            assert_eq!(rules(&super::super::all(&clean)), [""; 0], "{cache}");
            for plant in PLANTS.iter().filter(|plant| plant.of.contains(&cache)) {
                let spoiled = (plant.spoil)(&clean);
                let found = spoiled.map(|spoiled| rules(&super::super::all(&spoiled)));
                assert!(
                    found
                        .as_ref()
                        .is_some_and(|found| found.iter().any(|rule| plant.rules.contains(rule))),
                    "{cache}: {}: {found:?}",
                    plant.name
                );
            }
        }
    }
}
