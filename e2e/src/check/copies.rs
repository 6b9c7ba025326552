//! Mode `invalidation`: how long copies outlive what superseded them (I1), that they are served under a lease only (I9, `on_disconnect`), and
//! that a node never goes back (C2) and sees its own changes at once (C3).
//!
//! The record of a key only grows, so of two values the greater is the newer one.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::cache::Cache;
use crate::history::{History, Kind, Op, Outcome, Silence, Value};

/// What a bound is missed by before it is told: a heartbeat and a message (reliability specification, I1).
const SLACK_US: u64 = 600_000;
/// A lease counts from when the node last asked, before it heard nobody: it is over in time, but for the clients' way.
const LEASE_SLACK_US: u64 = 200_000;
/// A lease that begins as early as this before the silence: a heartbeat.
const EARLY_US: u64 = 500_000;
/// Violations told per rule.
const TOLD_AT_MOST: usize = 3;

/// A copy that was served.
#[derive(Clone, Copy)]
struct Served<'a> {
    op: &'a Op,
    value: Value,
    /// When, at the earliest.
    at: u64,
}

/// What is known of one cache.
struct Copies<'a> {
    history: &'a History,
    served: Vec<Served<'a>>,
    /// Changes that were acknowledged, by key.
    changes: BTreeMap<usize, Vec<(&'a Op, Value)>>,
    /// Values that may be written at any time, by a command that was never answered.
    late: BTreeSet<Value>,
}

impl<'a> Copies<'a> {
    fn of(history: &'a History) -> Self {
        let mut copies = Self {
            history,
            served: Vec::new(),
            changes: BTreeMap::new(),
            late: BTreeSet::new(),
        };
        for op in &history.ops {
            match (op.kind, op.outcome) {
                (Kind::Read(Some(value)), Outcome::Done) => copies.served.push(Served {
                    op,
                    value,
                    at: history.answered_after(op.node, op.start, op.end),
                }),
                (Kind::Write(value), Outcome::Done) => {
                    copies.changes.entry(op.key).or_default().push((op, value));
                }
                (Kind::Write(value), Outcome::Unknown) => {
                    copies.late.insert(value);
                }
                _ => {}
            }
        }
        copies
            .served
            .retain(|served| !copies.late.contains(&served.value));
        copies
    }

    /// Changes that superseded what was served.
    fn superseding(&self, served: Served<'a>) -> impl Iterator<Item = (&'a Op, Value)> {
        let changes = self.changes.get(&served.op.key);
        let changes = changes.into_iter().flatten().copied();
        changes.filter(move |(_, value)| *value > served.value)
    }

    /// How long what was served had been superseded then, by a change that was told to another node. That node counts from when this one,
    /// in this life, was ready, which is when it knew all others.
    fn outlived(&self, served: Served<'a>) -> Option<u64> {
        let ready = self.history.ready(served.op.node, served.op.life)?;
        let changes = self.superseding(served);
        let elsewhere = changes.filter(|(change, _)| change.node != served.op.node);
        let since = elsewhere.map(|(change, _)| change.end.max(ready));
        since.map(|since| served.at.saturating_sub(since)).max()
    }
}

/// For how long the most outdated copy that was served had been superseded, in microseconds.
pub(crate) fn most_outdated(history: &History) -> u64 {
    let copies = Copies::of(history);
    let outlived = copies.served.iter();
    let outlived = outlived.filter_map(|served| copies.outlived(*served));
    outlived.max().unwrap_or_default()
}

/// All of them.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let copies = Copies::of(history);
    let mut found = outdated(&copies);
    found.extend(unleased(&copies));
    found.extend(backwards(&copies));
    if history.cache == Cache::Dropped {
        found.extend(kept(&copies));
    }
    found
}

/// I1 and, of own changes, C3.
fn outdated(copies: &Copies<'_>) -> Vec<Violation> {
    let bound = copies.history.cache.lease_us() + SLACK_US;
    let mut found = Vec::new();
    for served in &copies.served {
        let Op {
            node, life, key, ..
        } = *served.op;
        let tell = |change: &Op, value: Value, what: &str| {
            format!(
                "key {key}: node {node} life {life} served {} at {} µs although {value} had superseded it: {what} at {} µs by node {}",
                served.value, served.at, change.end, change.node
            )
        };
        let own = copies.superseding(*served).find(|(change, _)| {
            (change.node, change.life) == (node, life) && change.end < served.at
        });
        if let Some((change, value)) = own {
            found.push(Violation::new("C3", tell(change, value, "told to itself")));
        }
        let age = copies.outlived(*served).unwrap_or_default();
        if age > bound
            && let Some((change, value)) = copies.superseding(*served).min_by_key(|(c, _)| c.end)
        {
            let what = format!("{} ms before, acknowledged", age / 1_000);
            found.push(Violation::new("I1", tell(change, value, &what)));
        }
    }
    found.sort_by_key(|violation| violation.rule);
    let (c3, i1): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.rule == "C3");
    let some = |found: Vec<Violation>| found.into_iter().take(TOLD_AT_MOST);
    some(c3).chain(some(i1)).collect()
}

/// I9: a node that has not heard a member for longer than the lease serves no copy, whatever it is.
fn unleased(copies: &Copies<'_>) -> Vec<Violation> {
    let lease = copies.history.cache.lease_us() + LEASE_SLACK_US;
    let mut found = Vec::new();
    for silence in &copies.history.silences {
        let within =
            |served: &&Served<'_>| served.at > silence.from + lease && served.op.end < silence.to;
        for served in copies.served.iter().filter(within) {
            let (node, life) = (served.op.node, served.op.life);
            let heard_before = copies.history.ready(node, life);
            if (node == silence.a || node == silence.b)
                && heard_before.is_some_and(|ready| ready < silence.from)
            {
                let other = silence.a + silence.b - node;
                found.push(Violation::new(
                    "I9",
                    format!(
                        "key {}: node {node} life {life} served a copy {} ms after it last heard node {other}",
                        served.op.key,
                        (served.at - silence.from) / 1_000
                    ),
                ));
            }
        }
    }
    found.truncate(TOLD_AT_MOST);
    found
}

/// C2: a node serves an older copy after a newer one.
fn backwards(copies: &Copies<'_>) -> Vec<Violation> {
    let mut places: BTreeMap<(usize, usize, usize), Vec<&Served<'_>>> = BTreeMap::new();
    for served in &copies.served {
        let op = served.op;
        places
            .entry((op.node, op.life, op.key))
            .or_default()
            .push(served);
    }
    let mut found = Vec::new();
    for ((node, life, key), mut served) in places {
        served.sort_by_key(|served| served.op.end);
        let mut later = served.clone();
        later.sort_by_key(|served| served.op.start);
        let (mut newest, mut ended) = (None::<Value>, served.into_iter().peekable());
        for next in later {
            while let Some(before) = ended.next_if(|before| before.op.end < next.op.start) {
                newest = newest.max(Some(before.value));
            }
            if let Some(newer) = newest.filter(|newer| *newer > next.value) {
                found.push(Violation::new(
                    "C2",
                    format!(
                        "key {key}: node {node} life {life} served {newer}, then {}",
                        next.value
                    ),
                ));
            }
        }
    }
    found.truncate(TOLD_AT_MOST);
    found
}

/// Since when, without a break, a node had not heard one or another.
fn silent_since(history: &History, node: usize, mut from: u64) -> u64 {
    let of_node = |silence: &&Silence| silence.a == node || silence.b == node;
    loop {
        let silences = history.silences.iter().filter(of_node);
        let lasting = silences.filter(|silence| silence.from < from && silence.to >= from);
        match lasting.map(|silence| silence.from).min() {
            Some(earlier) => from = earlier,
            None => return from,
        }
    }
}

/// `on_disconnect = "flush"`: after the lease has run out, a copy is served only if it was loaded or written since.
fn kept(copies: &Copies<'_>) -> Vec<Violation> {
    let lease = copies.history.cache.lease_us();
    let mut found = Vec::new();
    for silence in &copies.history.silences {
        let lapsed = silence.from + lease + SLACK_US;
        if silence.to < lapsed {
            continue;
        }
        for served in copies.served.iter().filter(|served| served.at > lapsed) {
            let Op {
                node, life, key, ..
            } = *served.op;
            let ready = copies.history.ready(node, life);
            let heard_before = ready.is_some_and(|ready| ready < silence.from);
            if (node != silence.a && node != silence.b) || !heard_before {
                continue;
            }
            // The lease may have run out because of somebody else already; what was loaded since is kept.
            let began = silent_since(copies.history, node, silence.from);
            let again = copies.history.ops.iter().any(|op| {
                (op.node, op.life, op.key) == (node, life, key)
                    && matches!(op.kind, Kind::Load(_) | Kind::Write(_))
                    && op.end > began + lease - EARLY_US - SLACK_US
            });
            if !again {
                found.push(Violation::new(
                    "on_disconnect",
                    format!(
                        "key {key}: node {node} life {life} served {} although it was to drop it",
                        served.value
                    ),
                ));
            }
        }
    }
    found.truncate(TOLD_AT_MOST);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::planted::tests::{Script, rules};
    use crate::history::By;

    const LEASE: u64 = 3_000_000;

    fn script() -> Script {
        Script::new().of(Cache::Bypass).all_ready()
    }

    #[test]
    fn i1_a_copy_that_outlives_its_change_by_more_than_the_bound_is_found() {
        let script = script().write(0, 1).read(1, 1).write(0, 2);
        let fine = script.clone().wait(LEASE).read(1, 1);
        assert_eq!(rules(&check(&fine.history())), [""; 0]);
        let bad = script.wait(LEASE + SLACK_US).read(1, 1).history();
        assert_eq!(rules(&check(&bad)), ["I1"]);
        assert!(most_outdated(&bad) > LEASE + SLACK_US);
        let stale = History {
            cache: Cache::Stale,
            ..bad
        };
        assert_eq!(rules(&check(&stale)), [""; 0], "4 s are allowed there");
    }

    #[test]
    fn i1_what_a_stopped_node_answers_was_answered_when_it_went_on() {
        let script = script().write(0, 1).read(1, 1).write(0, 2);
        let mut history = script.wait(100_000).read(1, 1).history();
        let read = history.ops.len() - 1;
        history.ops[read].end += 10 * LEASE;
        assert_eq!(rules(&check(&history)), [""; 0]);
        history.silences = vec![Silence {
            a: 0,
            b: 1,
            from: 10,
            to: 9 * LEASE,
            by: By::Stop,
        }];
        assert_eq!(rules(&check(&history)), ["I1"]);
    }

    #[test]
    fn c3_an_own_change_is_seen_at_once_and_c2_no_node_goes_back() {
        let bad = script().write(0, 1).write(0, 2).read(0, 1).history();
        assert_eq!(rules(&check(&bad)), ["C3"]);
        let bad = script().write(0, 1).write(0, 2).read(1, 2).read(1, 1);
        assert_eq!(rules(&check(&bad.history())), ["C2"]);
    }

    #[test]
    fn i9_a_copy_that_is_served_without_a_lease_is_found() {
        let mut history = script()
            .write(0, 1)
            .read(1, 1)
            .wait(LEASE)
            .read(1, 1)
            .history();
        assert_eq!(rules(&check(&history)), [""; 0]);
        history.ops.last_mut().unwrap().start += 2 * LEASE_SLACK_US;
        history.ops.last_mut().unwrap().end += 2 * LEASE_SLACK_US;
        history.silences = vec![Silence {
            a: 2,
            b: 1,
            from: 5,
            to: 2 * LEASE,
            by: By::Cut,
        }];
        assert_eq!(rules(&check(&history)), ["I9"]);
        history.silences[0].b = 0;
        assert_eq!(rules(&check(&history)), [""; 0], "others serve on");
    }

    #[test]
    fn what_was_to_be_dropped_is_found() {
        let script = Script::new().of(Cache::Dropped).all_ready().write(0, 1);
        let mut history = script.read(1, 1).wait(3 * LEASE).read(1, 1).history();
        history.silences = vec![Silence {
            a: 2,
            b: 1,
            from: 5,
            to: 2 * LEASE,
            by: By::Cut,
        }];
        assert_eq!(rules(&check(&history)), ["on_disconnect"]);
        // Its lease was over before that one began: what was loaded meanwhile was not to go.
        let mut early = history.clone();
        let mut load = *early.ops.last().unwrap();
        load.kind = Kind::Load(1);
        (load.start, load.end) = (LEASE - 10, LEASE - 5);
        early.ops.push(load);
        (early.silences[0].from, early.silences[0].to) = (LEASE, 8_000_000);
        assert_eq!(rules(&check(&early)), ["on_disconnect"]);
        early.silences.push(Silence {
            a: 0,
            b: 1,
            from: 5,
            to: LEASE + 5,
            by: By::Stop,
        });
        assert_eq!(rules(&check(&early)), [""; 0]);
        let mut load = *history.ops.last().unwrap();
        load.kind = Kind::Load(1);
        history.ops.push(load);
        assert_eq!(rules(&check(&history)), [""; 0]);
    }
}
