//! What was seen during a run, and what must never be seen: judged at once, so that a run ends where it breaks.
//!
//! Every value is written once and carries a version, so the checkers need no model of the cluster: what a node served in its
//! present life, and what the system of record held when, is all they look at.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use nearcache::{Epoch, NodeId, Version};

use crate::plan::KEYS;

/// I1: a copy is served for no longer after it was superseded than the lease lasts, and what two ticks and a delay may add.
const STALE_MAX: Duration = Duration::from_millis(3_000 + 60);
/// C10, K6: how much later than its deadline a call may end: two ticks of the simulation and the machine's own.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(60);

/// A rule that was broken, and how.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

/// One change of the system of record.
#[derive(Debug, Clone, Copy)]
struct Changed {
    at: Duration,
    host: usize,
    by: (NodeId, Epoch),
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) broken: Option<Broken>,
    /// Per host and key the newest version it has served in this life, and whether it has been removed there since.
    served: BTreeMap<(usize, usize), (Version, bool)>,
    /// Per key all changes of the system of record; generation n is that of the n-th.
    record: BTreeMap<usize, Vec<Changed>>,
    /// Since when a node, in its present life, has known a start of another.
    known: BTreeMap<(usize, NodeId, Epoch), Duration>,
    /// Per host the calls that have not ended.
    open: BTreeMap<usize, usize>,
    pub(crate) ended: usize,
    pub(crate) hits: usize,
    /// What was read last, so that only changes count.
    last: BTreeMap<(usize, usize, bool), u64>,
    trace: DefaultHasher,
}

impl History {
    fn break_rule(&mut self, rule: &'static str, what: String) {
        self.broken.get_or_insert(Broken { rule, what });
    }

    /// The node on `host` starts, and remembers nothing.
    pub(crate) fn starts(&mut self, now: Duration, host: usize) {
        self.note(now, ("starts", host));
        self.served.retain(|(at, _), _| *at != host);
        self.known.retain(|(at, ..), _| *at != host);
    }

    /// Adds to what two runs of one seed must have in common.
    pub(crate) fn note(&mut self, now: Duration, what: impl Hash + std::fmt::Debug) {
        if std::env::var_os("NEARCACHE_TURMOIL_TRACE").is_some() {
            println!("{now:?} {what:?}");
        }
        (now, what).hash(&mut self.trace);
    }

    /// The hash of all that was noted.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// A node served, or holds after its own write, a version of a key. C2, R3.
    pub(crate) fn serves(
        &mut self,
        now: Duration,
        host: usize,
        key: usize,
        version: Version,
        value: u64,
    ) {
        self.hits += 1;
        if self.last.insert((host, key, true), value) != Some(value) {
            self.note(now, ("serves", host, key, value));
        }
        let Some((newest, removed)) = self.served.insert((host, key), (version, false)) else {
            return;
        };
        if version < newest {
            let what = format!("n{host} serves {version:?} of key {key} after {newest:?}");
            self.break_rule("C2", what);
        } else if removed && version == newest {
            let what = format!("n{host} serves {version:?} of key {key}, which it had removed");
            self.break_rule("R3", what);
        }
    }

    /// A node has removed a key of which it held this version: it never serves that again, nor anything older.
    pub(crate) fn removes(&mut self, host: usize, key: usize, held: Version) {
        if let Some((newest, removed)) = self.served.get_mut(&(host, key)) {
            // Else something newer has come while the removal waited.
            *removed |= *newest == held;
        }
    }

    /// The generation that the system of record holds.
    pub(crate) fn generation(&self, key: usize) -> u64 {
        self.record
            .get(&key)
            .map_or(0, |changes| changes.len() as u64)
    }

    /// The system of record changes; the node says so to its cache in the same moment.
    pub(crate) fn changes(&mut self, at: Duration, host: usize, by: (NodeId, Epoch), key: usize) {
        self.note(at, ("changes", host, key));
        self.record
            .entry(key)
            .or_default()
            .push(Changed { at, host, by });
    }

    /// The node has heard of a start of another.
    pub(crate) fn meets(&mut self, now: Duration, host: usize, node: NodeId, epoch: Epoch) {
        self.known.entry((host, node, epoch)).or_insert(now);
    }

    /// The node served a generation of a key, in mode `invalidation`. I1, and what it changed itself at once.
    pub(crate) fn serves_copy(&mut self, now: Duration, host: usize, key: usize, generation: u64) {
        self.hits += 1;
        if self.last.insert((host, key, false), generation) != Some(generation) {
            self.note(now, ("copy", host, key, generation));
        }
        let held = usize::try_from(generation).unwrap_or(usize::MAX);
        let later = self
            .record
            .get(&key)
            .and_then(|changes| changes.get(held..));
        for change in later.unwrap_or_default() {
            let known = if change.host == host {
                // Of a former start it may know nothing.
                self.known
                    .get(&(host, change.by.0, change.by.1))
                    .map(|_| Duration::MAX)
            } else {
                self.known.get(&(host, change.by.0, change.by.1)).copied()
            };
            let Some(known) = known else { continue };
            let (own, since) = (known == Duration::MAX, change.at.max(known));
            if own || now.saturating_sub(since) > STALE_MAX {
                let what = format!(
                    "n{host} serves generation {generation} of key {key} at {now:?}, superseded by {change:?}"
                );
                self.break_rule("I1", what);
                return;
            }
        }
    }

    /// An invalidation that waited for all has come back: nobody serves anything older. I8.
    pub(crate) fn serves_nothing_older(
        &mut self,
        now: Duration,
        key: usize,
        generation: u64,
        served: impl Iterator<Item = (usize, u64)>,
    ) {
        for (host, held) in served {
            if held < generation {
                let what = format!(
                    "n{host} serves generation {held} of key {key} at {now:?}, although all have dropped {generation}"
                );
                self.break_rule("I8", what);
            }
        }
    }

    /// A call begins.
    pub(crate) fn begins(&mut self, now: Duration, host: usize, number: usize) {
        self.note(now, ("begins", host, number));
        *self.open.entry(host).or_default() += 1;
    }

    /// The process on `host` is gone, and so are its callers.
    pub(crate) fn crashes(&mut self, host: usize) {
        self.open.remove(&host);
    }

    /// Calls that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.values().sum()
    }

    /// A call has ended. C10, K6.
    pub(crate) fn ends(
        &mut self,
        now: Duration,
        host: usize,
        what: &str,
        took: Duration,
        bound: Duration,
    ) {
        if let Some(open) = self.open.get_mut(&host) {
            *open -= 1;
        }
        self.ended += 1;
        self.note(now, ("ends", host, took));
        if took > bound + LATE_MAX {
            self.break_rule(
                "C10",
                format!("n{host}: {what} took {took:?}, its deadline was {bound:?}"),
            );
        }
    }

    /// Whatever a host can serve now, key by key.
    pub(crate) fn keys() -> impl Iterator<Item = (usize, String)> {
        (0..KEYS).map(|number| (number, crate::plan::key(number)))
    }
}
