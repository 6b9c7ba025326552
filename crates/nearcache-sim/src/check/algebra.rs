//! R2, K2: the merge is commutative, associative and idempotent.
//!
//! All that was written in a run is merged into empty stores in several orders, some of it twice. Every
//! order must end in the same state.

use std::collections::{BTreeMap, BTreeSet};

use nearcache_store::{Change, CoarseClock, Handle, Known, Scope, Store, StoreConfig, Version};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::bug::Bug;
use crate::node::{EPOCH_MS, Heard};
use crate::plan::{KEYS, key};
use crate::value::Value;

/// In how many orders the log is merged.
const ORDERS: usize = 3;

/// Every update of a run, once.
#[derive(Debug, Default)]
pub(crate) struct Log {
    changes: BTreeMap<(Vec<u8>, Version), Option<Handle<Value>>>,
    floors: BTreeSet<(Scope, Version)>,
}

/// One update of the log.
#[derive(Clone)]
enum Step {
    Change(Vec<u8>, Version, Option<Handle<Value>>),
    Floor(Scope, Version),
}

impl Log {
    pub(super) fn change(&mut self, heard: Heard) {
        let known = self.changes.entry((heard.key, heard.version)).or_default();
        // Some nodes see an entry, others only that its time is up.
        *known = known.take().or(heard.entry);
    }

    pub(super) fn floor(&mut self, scope: &Scope, version: Version) {
        self.floors.insert((scope.clone(), version));
    }

    /// The first difference between two orders, in words.
    pub(crate) fn difference(&self, seed: u64, bug: Option<Bug>) -> Option<String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut steps = self.steps();
        let first = merge_all(&steps, bug)?;
        for order in 1..ORDERS {
            // About every eighth update comes twice.
            let again: Vec<Step> = steps
                .iter()
                .filter(|_| rng.random_bool(0.125))
                .cloned()
                .collect();
            steps.extend(again);
            steps.shuffle(&mut rng);
            let state = merge_all(&steps, bug)?;
            if let Some(number) = first.iter().zip(&state).position(|(a, b)| a != b) {
                let (name, a, b) = (key(number), &first[number], &state[number]);
                let name = String::from_utf8_lossy(&name);
                return Some(format!("{name}: {a:?} in order 0, {b:?} in order {order}"));
            }
        }
        None
    }

    fn steps(&self) -> Vec<Step> {
        let changes = self
            .changes
            .iter()
            .map(|((key, version), entry)| Step::Change(key.clone(), *version, entry.clone()));
        let floors = self
            .floors
            .iter()
            .map(|(scope, version)| Step::Floor(scope.clone(), *version));
        changes.chain(floors).collect()
    }
}

/// Per key: the version that stands, and whether it is served.
type State = Vec<(Version, bool)>;

fn merge_all(steps: &[Step], bug: Option<Bug>) -> Option<State> {
    // Before every deadline, so that what is expired does not depend on the order.
    let clock = CoarseClock::new(EPOCH_MS);
    let store = Store::new(StoreConfig::new(1 << 20), clock).ok()?;
    if let Some(bug) = bug {
        bug.plant(&store);
    }
    for step in steps {
        match step.clone() {
            Step::Change(key, version, Some(entry)) => {
                let (value, tags) = (entry.value().clone(), entry.tags().clone());
                let change = Change::Put {
                    value,
                    expiry: entry.expiry(),
                    tags,
                };
                let _ = store.merge(&key, version, change).ok()?;
            }
            Step::Change(key, version, None) => {
                let _ = store.merge(&key, version, Change::Remove).ok()?;
            }
            Step::Floor(scope, version) => {
                store.invalidate(scope, version);
            }
        }
    }
    let state = (0..KEYS).map(|number| match store.known(&key(number)) {
        Known::Live(entry) => (entry.version(), true),
        known => (known.version(), false),
    });
    Some(state.collect())
}
