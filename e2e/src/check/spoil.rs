//! Ways to spoil the history of a round in which nodes did not hear each other: what the checkers of copies, of freshness and of `split` must find.

use crate::cache::Cache;
use crate::history::{By, History, Kind, Op, Outcome, Silence};

/// Long enough into a silence that nothing may be served or written any more that must not be.
const WELL_WITHIN_US: u64 = 600_000;

/// The longest time for which two nodes did not hear each other because of this.
fn silence(history: &History, by: By) -> Option<Silence> {
    let silences = history.silences.iter().filter(|silence| silence.by == by);
    silences
        .max_by_key(|silence| silence.to.saturating_sub(silence.from))
        .copied()
}

/// A successful operation on a stable key, at that time, on a life of the node that was there from the start.
fn op(history: &History, node: usize, at: u64, kind: Kind) -> Option<Op> {
    let life = history.lives.iter().find(|life| {
        life.node == node && life.ready.is_some_and(|ready| ready < history.first_fault)
    })?;
    Some(Op {
        start: at,
        end: at + 1,
        node,
        life: life.life,
        key: history.stable_from,
        kind,
        outcome: Outcome::Done,
    })
}

fn with(history: &History, op: Op) -> History {
    let mut spoiled = history.clone();
    spoiled.ops.push(op);
    spoiled
}

/// A node serves what was superseded long ago, when everything is over.
pub(super) fn outdated_copy(history: &History) -> Option<History> {
    let last = history.ops.iter().map(|op| op.end).max()?;
    let at = last + history.cache.lease_us() + 2 * WELL_WITHIN_US;
    let changed = history
        .ops
        .iter()
        .find(|op| matches!(op.kind, Kind::Write(_)) && op.ok())?;
    // Older than all that clients wrote.
    let other = (changed.node + 1) % history.finals.len();
    let old = op(history, other, at, Kind::Read(Some(0)))?;
    let key = changed.key;
    Some(with(history, Op { key, ..old }))
}

/// A node that hears nobody serves the newest there is.
pub(super) fn unleased_copy(history: &History) -> Option<History> {
    let silence = silence(history, By::Cut)?;
    let at = silence.from + history.cache.lease_us() + WELL_WITHIN_US;
    let key = history.stable_from;
    let newest = history.finals.first()?.get(key).copied().flatten();
    (at < silence.to).then_some(())?;
    Some(with(
        history,
        op(history, silence.b, at, Kind::Read(newest))?,
    ))
}

/// Nodes call themselves fresh while they hear nobody.
pub(super) fn fresh_in_silence(history: &History) -> Option<History> {
    let silence = silence(history, By::Cut).or_else(|| silence(history, By::Stop))?;
    let mut spoiled = history.clone();
    let mut any = false;
    for claim in &mut spoiled.claims {
        let within = claim.start > silence.from + WELL_WITHIN_US && claim.end < silence.to;
        if within && claim.node == silence.a {
            *claim.ages.get_mut(silence.b)? = Some(0);
            any = true;
        }
    }
    any.then_some(spoiled)
}

/// A node that says that it is fresh reads what is older than everything.
pub(super) fn fresh_and_older(history: &History) -> Option<History> {
    let mut spoiled = history.clone();
    let claim = spoiled
        .claims
        .iter()
        .rev()
        .find(|claim| claim.ages.iter().flatten().any(|age| *age < 1_000))?;
    let mut any = false;
    for op in &mut spoiled.ops {
        if (op.node, op.start, op.end) == (claim.node, claim.start, claim.end)
            && matches!(op.kind, Kind::Read(_))
        {
            op.kind = Kind::Read(Some(0));
            any = true;
        }
    }
    any.then_some(spoiled)
}

/// A node without most of the cluster does what it must not: writes, or serves.
pub(super) fn apart_and_active(history: &History) -> Option<History> {
    let silence = silence(history, By::Cut)?;
    let node = [silence.a, silence.b].into_iter().max_by_key(|node| {
        let of = |s: &&Silence| s.by == By::Cut && (s.a == *node || s.b == *node);
        history.silences.iter().filter(of).count()
    })?;
    let kind = match history.cache {
        Cache::Flush => Kind::Read(Some(1)),
        _ => Kind::Write(u64::MAX / 2),
    };
    let at = silence.to.saturating_sub(WELL_WITHIN_US);
    Some(with(history, op(history, node, at, kind)?))
}
