//! The store against a naive model: any updates, in any order, by any number of stores.
//!
//! The model keeps everything it was ever told and decides from first principles, with no state to get out of step. Nothing
//! is evicted here: there is room for all, as rule 6 of the design's coherence rules supposes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use nearcache_store::{
    Change, CoarseClock, Expiry, Item, Known, MergeError, Merged, NodeId, Scope, Store,
    StoreConfig, Tags, Timestamp, Version, WalkCursor,
};
use proptest::prelude::*;

type Key = Vec<u8>;

/// One update, as it could reach a store.
#[derive(Clone, Debug)]
enum Update {
    Put {
        key: Key,
        version: Version,
        value: u64,
        expiry: Expiry,
        tags: Vec<Vec<u8>>,
    },
    Remove {
        key: Key,
        version: Version,
    },
    Invalidate {
        scope: Scope,
        version: Version,
    },
}

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Update(usize),
    Tick,
    Read(usize),
}

const START_MS: u64 = 1_000;
const END_MS: u64 = 2_000;

/// Everything a store was told.
#[derive(Default)]
struct Model<'a> {
    told: Vec<&'a Update>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Live(Version, u64),
    Removed(Version),
    Absent(Version),
}

impl Model<'_> {
    fn floor(&self, key: &[u8], tags: &Tags) -> Version {
        let floors = self.told.iter().filter_map(|update| match update {
            Update::Invalidate { scope, version } if scope.covers(key, tags) => Some(*version),
            Update::Invalidate { .. } | Update::Put { .. } | Update::Remove { .. } => None,
        });
        floors.max().unwrap_or(Version::ZERO)
    }

    /// The newest update of a key decides alone; what covers the whole key hides even that.
    fn expected(&self, key: &[u8], now_ms: u64) -> Expected {
        let of_key = self.told.iter().filter_map(|update| match update {
            Update::Put {
                key: k, version, ..
            }
            | Update::Remove { key: k, version }
                if k == key =>
            {
                Some((*version, *update))
            }
            Update::Put { .. } | Update::Remove { .. } | Update::Invalidate { .. } => None,
        });
        let whole_key = self.floor(key, &Tags::NONE);
        match of_key
            .max_by_key(|(version, _)| *version)
            .filter(|(v, _)| *v > whole_key)
        {
            None => Expected::Absent(whole_key),
            Some((
                version,
                Update::Put {
                    value,
                    expiry,
                    tags,
                    ..
                },
            )) if !expiry.is_expired(now_ms)
                && version > self.floor(key, &Tags::new(tags).unwrap()) =>
            {
                Expected::Live(version, *value)
            }
            Some((version, _)) => Expected::Removed(version),
        }
    }
}

fn apply(store: &Store<u64>, update: &Update) -> Option<Result<Merged<u64>, MergeError>> {
    match update {
        Update::Put {
            key,
            version,
            value,
            expiry,
            tags,
        } => {
            let tags = Tags::new(tags).unwrap();
            Some(store.merge(
                key,
                *version,
                Change::Put {
                    value: *value,
                    expiry: *expiry,
                    tags,
                },
            ))
        }
        Update::Remove { key, version } => Some(store.merge(key, *version, Change::Remove)),
        Update::Invalidate { scope, version } => {
            store.invalidate(scope.clone(), *version);
            None
        }
    }
}

fn known(store: &Store<u64>, key: &[u8]) -> Expected {
    match store.known(key) {
        Known::Live(entry) => Expected::Live(entry.version(), *entry),
        Known::Removed(version) => Expected::Removed(version),
        Known::Absent { floor, .. } => Expected::Absent(floor),
    }
}

/// Everything a store holds, as a walk tells it: what replicas compare.
fn contents(store: &Store<u64>) -> BTreeMap<Key, Expected> {
    let mut all = BTreeMap::new();
    let mut cursor = Some(WalkCursor::START);
    while let Some(at) = cursor {
        let (items, next) = store.walk(at, 3);
        all.extend(items.iter().map(|item| {
            let expected = match item {
                Item::Entry(entry) => Expected::Live(entry.version(), **entry),
                Item::Tombstone { version, .. } => Expected::Removed(*version),
            };
            (item.key().to_vec(), expected)
        }));
        cursor = next;
    }
    all
}

fn store(seed: u64) -> Store<u64> {
    let shards = NonZeroUsize::new(1 + usize::try_from(seed % 2).unwrap() * 3);
    let config = StoreConfig {
        hash_seed: seed,
        shards,
        ..StoreConfig::new(1 << 20)
    };
    Store::new(config, CoarseClock::new(START_MS)).unwrap()
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..2, 0..4)
}

/// An update without its version: that comes from its place, because no two updates share one.
fn update() -> impl Strategy<Value = Update> {
    let version = Version::ZERO;
    let expiry = prop_oneof![
        Just(Expiry::NEVER),
        (START_MS - 10..END_MS + 100).prop_map(Expiry::at_millis)
    ];
    let scope = prop_oneof![
        1 => Just(Scope::All),
        4 => name().prop_map(|n| Scope::Prefix(n.into())),
        4 => name().prop_map(|n| Scope::Tag(n.into())),
        1 => name().prop_map(|n| Scope::TagPrefix(n.into())),
    ];
    prop_oneof![
        6 => (name(), any::<u64>(), expiry, prop::collection::vec(name(), 0..3)).prop_map(
            move |(key, value, expiry, tags)| Update::Put { key, version, value, expiry, tags }
        ),
        3 => name().prop_map(move |key| Update::Remove { key, version }),
        2 => scope.prop_map(move |scope| Update::Invalidate { scope, version }),
    ]
}

fn updates() -> impl Strategy<Value = Vec<Update>> {
    prop::collection::vec(update(), 1..40).prop_map(|mut updates| {
        for (n, update) in updates.iter_mut().enumerate() {
            let (Update::Put { version, .. }
            | Update::Remove { version, .. }
            | Update::Invalidate { version, .. }) = update;
            let n = n as u64;
            let time = Timestamp::from_u64(1 + n / 3);
            *version = Version::new(time, NodeId::from_u64(n % 3 + 1));
        }
        updates
    })
}

/// Any order, any repetition, with housekeeping and reads in between.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..1000).prop_map(Step::Update),
        1 => Just(Step::Tick),
        2 => (0_usize..1000).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// At every moment the store knows what the model knows, and reads agree with it (C2-C5, C12).
    #[test]
    fn store_knows_what_the_model_knows(
        updates in updates(),
        steps in steps(),
        seed in any::<u64>(),
    ) {
        let store = store(seed);
        let mut model = Model::default();
        let mut now_ms = START_MS;
        for step in &steps {
            match step {
                Step::Update(n) => {
                    let update = &updates[n % updates.len()];
                    apply(&store, update);
                    model.told.push(update);
                }
                Step::Tick => {
                    now_ms += 37;
                    store.clock().set(now_ms);
                    store.tick(2);
                }
                Step::Read(n) => {
                    if let Update::Put { key, .. } | Update::Remove { key, .. } = &updates[n % updates.len()] {
                        let live = store.get(key).map(|e| Expected::Live(e.version(), *e));
                        let expected = Some(model.expected(key, now_ms)).filter(|e| matches!(e, Expected::Live(..)));
                        prop_assert_eq!(live, expected);
                        prop_assert_eq!(known(&store, key), model.expected(key, now_ms));
                    }
                }
            }
        }
        for update in &updates {
            if let Update::Put { key, .. } | Update::Remove { key, .. } = update {
                prop_assert_eq!(known(&store, key), model.expected(key, now_ms));
            }
        }
    }

    /// Stores that were told the same in any order, with any repetition, hold the same (commutative, associative,
    /// idempotent: design §5, R2).
    #[test]
    fn c12_order_and_repetition_do_not_matter(
        updates in updates(),
        order in prop::collection::vec(any::<u64>(), 40),
        again in steps(),
    ) {
        let (a, b) = (store(1), store(2));
        for update in &updates {
            apply(&a, update);
        }
        let mut shuffled: Vec<&Update> = updates.iter().collect();
        shuffled.sort_by_key(|u| {
            let n = updates.iter().position(|v| std::ptr::eq(*u, v)).unwrap();
            order[n % order.len()].rotate_left(u32::try_from(n).unwrap())
        });
        for (n, update) in shuffled.iter().enumerate() {
            apply(&b, update);
            // Now and then something told before is told again, or housekeeping runs.
            match again.get(n) {
                Some(Step::Update(m)) => { apply(&b, shuffled[m % (n + 1)]); }
                Some(Step::Tick) => b.tick(3),
                Some(Step::Read(_)) | None => {}
            }
        }
        prop_assert_eq!(contents(&a), contents(&b));
        prop_assert_eq!(a.floors(), b.floors());
        // ... also after everything in them that expires has done so, and all is tidied up.
        for store in [&a, &b] {
            store.clock().set(END_MS);
        }
        for _ in 0..50 {
            a.tick(3);
        }
        prop_assert_eq!(contents(&a), contents(&b));
    }
}
