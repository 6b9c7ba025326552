//! The store itself. (First shape: one map behind one mutex; the sharded one takes its place.)

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::{
    Change, CoarseClock, ConfigError, Event, Expiry, Handle, Item, Known, Listener, MergeError,
    Merged, Scope, StoreConfig, StoreStats, Tags, Version, WalkCursor, Weigh,
};

enum Held<V> {
    Entry(Handle<V>),
    Tombstone { version: Version, recorded_ms: u64 },
}

struct Inner<V> {
    held: BTreeMap<Box<[u8]>, Held<V>>,
    order: BTreeMap<u64, Box<[u8]>>,
    next: u64,
    floors: Vec<(Scope, Version)>,
}

/// A bounded, concurrent map of versioned entries. Share it as `Arc<Store<V>>`.
pub struct Store<V> {
    config: StoreConfig,
    clock: CoarseClock,
    inner: Mutex<Inner<V>>,
    hits: AtomicU64,
    misses: AtomicU64,
    listener: OnceLock<Arc<dyn Listener<V>>>,
}

impl<V> std::fmt::Debug for Store<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("max_bytes", &self.config.max_bytes)
            .finish_non_exhaustive()
    }
}

impl<V: Weigh> Store<V> {
    /// An empty store that goes by `clock`.
    ///
    /// # Errors
    /// [`ConfigError`] if the settings contradict each other.
    pub fn new(config: StoreConfig, clock: CoarseClock) -> Result<Self, ConfigError> {
        config.validate()?;
        let inner = Inner {
            held: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 1,
            floors: Vec::new(),
        };
        Ok(Self {
            config,
            clock,
            inner: Mutex::new(inner),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            listener: OnceLock::new(),
        })
    }

    /// The entry of `key`, if it is live: not expired, not invalidated. Counted, and marks the entry as used.
    pub fn get(&self, key: &[u8]) -> Option<Handle<V>> {
        let found = self.peek(key);
        if found.is_some() {
            &self.hits
        } else {
            &self.misses
        }
        .fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Like [`Store::get`], but neither counted nor marking the entry as used.
    pub fn peek(&self, key: &[u8]) -> Option<Handle<V>> {
        self.known(key).live().cloned()
    }

    /// What the store knows of `key`: what a merge would be compared with.
    pub fn known(&self, key: &[u8]) -> Known<V> {
        self.known_in(&self.inner.lock(), key)
    }

    fn known_in(&self, inner: &Inner<V>, key: &[u8]) -> Known<V> {
        let now_ms = self.clock.now_ms();
        let whole_key_floor = floor(inner, key, &Tags::NONE);
        match inner.held.get(key) {
            Some(Held::Entry(e)) if e.version() > whole_key_floor => {
                let dead =
                    e.expiry().is_expired(now_ms) || e.version() <= floor(inner, key, e.tags());
                if dead {
                    Known::Removed(e.version())
                } else {
                    Known::Live(e.clone())
                }
            }
            Some(Held::Tombstone { version, .. }) if *version > whole_key_floor => {
                Known::Removed(*version)
            }
            Some(_) | None => Known::Absent {
                floor: whole_key_floor,
            },
        }
    }

    /// Merges one update: the only way in.
    ///
    /// # Errors
    /// [`MergeError`]; each variant says what changed.
    pub fn merge(
        &self,
        key: &[u8],
        version: Version,
        change: Change<V>,
    ) -> Result<Merged<V>, MergeError> {
        self.merge_if(key, version, |_| Some(change))
    }

    /// Merges what `decide` makes of what is known, in the same atomic step; nothing if it says `None`. The
    /// update's version is fixed before: if what is known turns out as new, the answer is [`Merged::Stale`].
    ///
    /// `decide` runs under the shard's lock: keep it short and do not call the store.
    ///
    /// # Errors
    /// As [`Store::merge`].
    pub fn merge_if(
        &self,
        key: &[u8],
        version: Version,
        decide: impl FnOnce(&Known<V>) -> Option<Change<V>>,
    ) -> Result<Merged<V>, MergeError> {
        let mut inner = self.inner.lock();
        let known = self.known_in(&inner, key);
        let Some(change) = decide(&known) else {
            return Ok(Merged::Declined);
        };
        if version <= known.version() {
            return Ok(Merged::Stale {
                current: known.version(),
            });
        }
        let replaced = known.live().cloned();
        let (value, expiry, tags) = match (change, &replaced) {
            (
                Change::Put {
                    value,
                    expiry,
                    tags,
                },
                _,
            ) => (Some(value), expiry, tags),
            (Change::Expire { expiry }, Some(e)) => {
                (Some(e.value().clone()), expiry, e.tags().clone())
            }
            (Change::Expire { .. }, None) => return Ok(Merged::Declined),
            (Change::Remove, _) => (None, Expiry::NEVER, Tags::NONE),
        };
        let now_ms = self.clock.now_ms();
        let dead = expiry.is_expired(now_ms) || version <= floor(&inner, key, &tags);
        let entry = value.filter(|_| !dead).map(|value| {
            let weight = Handle::weight_of(key.len(), &value, &tags);
            let weight = u32::try_from(weight).unwrap_or(u32::MAX);
            Handle::new(key, 0, version, expiry, tags, value, weight)
        });
        let held = match &entry {
            Some(e) => Held::Entry(e.clone()),
            None => Held::Tombstone {
                version,
                recorded_ms: now_ms,
            },
        };
        if inner.held.insert(key.into(), held).is_none() {
            let next = inner.next;
            inner.next += 1;
            inner.order.insert(next, key.into());
        }
        drop(inner);
        if let Some(listener) = self.listener.get() {
            listener.on_event(match &entry {
                Some(entry) => Event::Updated {
                    entry,
                    replaced: replaced.as_ref(),
                },
                None => Event::Removed {
                    key,
                    version,
                    removed: replaced.as_ref(),
                },
            });
        }
        Ok(Merged::Applied { entry, replaced })
    }

    /// Invalidates everything that `scope` covers and that is not newer than `version`. Such entries are misses
    /// when this returns and are swept later; [`Scope::All`] frees them at once. Returns false if nothing
    /// changed because a wider or equal floor was there.
    pub fn invalidate(&self, scope: Scope, version: Version) -> bool {
        let mut inner = self.inner.lock();
        if inner
            .floors
            .iter()
            .any(|(s, v)| *s == scope && *v >= version)
        {
            return false;
        }
        inner.floors.retain(|(s, _)| *s != scope);
        inner.floors.push((scope, version));
        true
    }

    /// The floors of group invalidations in force: a joining node needs them as much as the entries.
    pub fn floors(&self) -> Vec<(Scope, Version)> {
        self.inner.lock().floors.clone()
    }

    /// Goes on with a walk: up to about `limit` items from `cursor` on, and where to continue (`None` at the end).
    ///
    /// Every item present from the walk's start to its end is returned, possibly twice; writers are held up only as
    /// long as copying a few dozen handles takes.
    pub fn walk(&self, cursor: WalkCursor, limit: usize) -> (Vec<Item<V>>, Option<WalkCursor>) {
        let inner = self.inner.lock();
        let mut items = Vec::new();
        let from = Bound::Excluded(cursor.0);
        for (n, key) in inner.order.range((from, Bound::Unbounded)) {
            match (self.known_in(&inner, key), inner.held.get(key)) {
                (Known::Live(e), _) => items.push(Item::Entry(e)),
                (Known::Removed(version), Some(Held::Tombstone { recorded_ms, .. })) => {
                    items.push(Item::Tombstone {
                        key: key.clone(),
                        version,
                        recorded_ms: *recorded_ms,
                    })
                }
                (Known::Removed(version), _) => items.push(Item::Tombstone {
                    key: key.clone(),
                    version,
                    recorded_ms: self.clock.now_ms(),
                }),
                (Known::Absent { .. }, _) => {}
            }
            if items.len() >= limit {
                return (items, Some(WalkCursor(*n)));
            }
        }
        (items, None)
    }

    /// Does what is due: expires entries, collects old tombstones, sweeps invalidated entries. At most about
    /// `budget` items per shard; the owner calls it every ten milliseconds or so.
    pub fn tick(&self, budget: usize) {
        let _ = budget;
    }

    /// Sets who hears of changes; false if somebody does already.
    pub fn set_listener(&self, listener: Arc<dyn Listener<V>>) -> bool {
        self.listener.set(listener).is_ok()
    }

    /// Number of entries held (expired and invalidated ones included until they are collected).
    pub fn len(&self) -> usize {
        self.inner
            .lock()
            .held
            .values()
            .filter(|h| matches!(h, Held::Entry(_)))
            .count()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tombstones held.
    pub fn tombstones(&self) -> usize {
        self.inner.lock().held.len() - self.len()
    }

    /// Bytes counted against the bound.
    pub fn weight_bytes(&self) -> u64 {
        let inner = self.inner.lock();
        let weight = |h: &Held<V>| {
            if let Held::Entry(e) = h {
                e.weight_bytes()
            } else {
                0
            }
        };
        inner.held.values().map(weight).sum()
    }

    /// The bound, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.config.max_bytes
    }

    /// The most one entry may weigh, in bytes.
    pub fn max_entry_bytes(&self) -> u64 {
        self.config.max_entry_bytes
    }

    /// The clock this store goes by.
    pub fn clock(&self) -> &CoarseClock {
        &self.clock
    }

    /// A reading of the counters.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.len() as u64,
            ..StoreStats::default()
        }
    }
}

fn floor<V>(inner: &Inner<V>, key: &[u8], tags: &Tags) -> Version {
    let covering = inner
        .floors
        .iter()
        .filter(|(scope, _)| scope.covers(key, tags));
    covering
        .map(|(_, version)| *version)
        .max()
        .unwrap_or(Version::ZERO)
}
