//! The bounded map that readers look at: [`Engine`], one per shard.
//!
//! Handles go in under the shard's mutex and come out by key; what has to leave comes back to the caller as
//! [`Displaced`], to be dropped outside every lock. Another engine can take this one's place by offering the
//! same methods: nothing outside this file knows `quick_cache`.
//!
//! `quick_cache` 0.7 implements a Clock-PRO variant with a small first queue and ghosts, after S3-FIFO (Yang et al.,
//! "FIFO Queues are All You Need for Cache Eviction", SOSP 2023). We use one cache of one internal shard per shard
//! of ours, so that its bound and ours are the same, and let it hold nothing but one pointer per entry: key
//! and value both live behind it. Its `get` returns a clone of the value, which here is `()`; the handle itself is
//! picked up by the probe at the moment the key is compared, under the engine's read lock.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;

use crate::hash::BuildPassThrough;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::{Handle, Weigh};

/// Share of the room that entries read more than once may fill. Measured on the service traces of
/// `cargo xtask bench hit-ratio`: half keeps 86 % of the optimum where the engine's default (0.97) keeps 81 %.
const HOT_SHARE: f64 = 0.5;
/// Recently evicted keys remembered, as a share of the expected entries (the engine's default).
const GHOST_SHARE: f64 = 0.5;

/// A bounded map from key to [`Handle`] with an eviction policy.
pub(crate) struct Engine<V> {
    cache: Cache<Keyed<V>, (), ByWeight, BuildPassThrough, Displace<V>>,
    lifecycle: Displace<V>,
}

/// Handles that left the engine during an operation: evicted, or replaced by a newer entry of their key.
pub(crate) struct Displaced<V>(SmallVec<[Handle<V>; 4]>);

impl<V> Displaced<V> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Handle<V>> {
        self.0.iter()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl<V> Default for Displaced<V> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<V: Weigh> Engine<V> {
    /// An empty engine for `capacity_bytes`, tuned for about `expected_entries`.
    pub(crate) fn new(capacity_bytes: u64, expected_entries: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(expected_entries)
            .weight_capacity(capacity_bytes)
            .hot_allocation(HOT_SHARE)
            .ghost_allocation(GHOST_SHARE)
            .build();
        let lifecycle = Displace::default();
        #[expect(
            clippy::expect_used,
            reason = "fails only if a capacity is not set, and both are"
        )]
        let options = options.expect("both capacities are set");
        let cache = Cache::with_options(options, ByWeight, BuildPassThrough, lifecycle.clone());
        Self { cache, lifecycle }
    }

    /// The most that one entry may weigh in an engine of `capacity_bytes`: the engine silently refuses what does
    /// not fit into the hot share.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a size"
    )]
    pub(crate) fn max_entry_bytes(capacity_bytes: u64) -> u64 {
        // One percent less than the engine's limit, which loses a byte to rounding at every change of capacity.
        (capacity_bytes as f64 * HOT_SHARE * 0.99) as u64
    }

    /// The entry of `key`, marked as used. One shared lock, no allocation.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<Handle<V>> {
        let probe = Probe {
            hash,
            key,
            found: Cell::new(None),
        };
        self.cache.get(&probe)?;
        probe.found.into_inner()
    }

    /// The entry of `key`, not marked.
    #[inline]
    pub(crate) fn peek(&self, hash: u64, key: &[u8]) -> Option<Handle<V>> {
        let probe = Probe {
            hash,
            key,
            found: Cell::new(None),
        };
        self.cache.peek(&probe)?;
        probe.found.into_inner()
    }

    /// Puts `entry` in, in place of an older entry of its key. What leaves is added to `displaced`; the entry itself is
    /// among it if it did not fit.
    pub(crate) fn insert(&self, entry: Handle<V>, displaced: &mut Displaced<V>) {
        self.cache
            .insert_with_lifecycle(Keyed(entry), (), displaced);
    }

    /// Takes out the entry of `key`.
    pub(crate) fn remove(&self, hash: u64, key: &[u8]) -> Option<Handle<V>> {
        let probe = Probe {
            hash,
            key,
            found: Cell::new(None),
        };
        self.cache.remove(&probe).map(|(keyed, ())| keyed.0)
    }

    /// Changes the bound; what has to leave is added to `displaced`.
    pub(crate) fn set_capacity(&self, capacity_bytes: u64, displaced: &mut Displaced<V>) {
        self.lifecycle.0.collecting.store(true, Ordering::Relaxed);
        self.cache.set_capacity(capacity_bytes);
        self.lifecycle.0.collecting.store(false, Ordering::Relaxed);
        displaced.0.append(&mut self.lifecycle.0.collected.lock());
    }

    /// Makes room in the tables for `entries` more at once, where they would else double.
    pub(crate) fn reserve(&self, entries: usize) {
        self.cache.reserve(entries);
    }

    pub(crate) fn weight_bytes(&self) -> u64 {
        self.cache.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }
}

/// What the engine holds: the handle, compared by key.
struct Keyed<V>(Handle<V>);

impl<V> PartialEq for Keyed<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.record().hash == other.0.record().hash && self.0.key() == other.0.key()
    }
}

impl<V> Eq for Keyed<V> {}

impl<V> Hash for Keyed<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.record().hash);
    }
}

/// A key being looked for, and the handle that answered to it.
struct Probe<'a, V> {
    hash: u64,
    key: &'a [u8],
    found: Cell<Option<Handle<V>>>,
}

impl<V> Hash for Probe<'_, V> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<V> Equivalent<Keyed<V>> for Probe<'_, V> {
    #[inline]
    fn equivalent(&self, keyed: &Keyed<V>) -> bool {
        // The hash need not be compared too: the table has matched seven bits of it.
        let same = keyed.0.key() == self.key;
        if same {
            self.found.set(Some(keyed.0.clone()));
        }
        same
    }
}

#[derive(Clone)]
struct ByWeight;

impl<V> Weighter<Keyed<V>, ()> for ByWeight {
    #[inline]
    fn weight(&self, keyed: &Keyed<V>, (): &()) -> u64 {
        keyed.0.weight_bytes()
    }
}

/// Hands what leaves to the caller. A change of capacity has no request state to put it in, so for that
/// time it is collected aside.
struct Displace<V>(Arc<Aside<V>>);

struct Aside<V> {
    collecting: AtomicBool,
    collected: Mutex<SmallVec<[Handle<V>; 4]>>,
}

impl<V> Clone for Displace<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Default for Displace<V> {
    fn default() -> Self {
        Self(Arc::new(Aside {
            collecting: AtomicBool::new(false),
            collected: Mutex::new(SmallVec::new()),
        }))
    }
}

impl<V> Lifecycle<Keyed<V>, ()> for Displace<V> {
    type RequestState = Displaced<V>;

    fn on_evict(&self, displaced: &mut Displaced<V>, keyed: Keyed<V>, (): ()) {
        if self.0.collecting.load(Ordering::Relaxed) {
            self.0.collected.lock().push(keyed.0);
        } else {
            displaced.0.push(keyed.0);
        }
    }
}
