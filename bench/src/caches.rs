//! The caches that are compared in one process, behind one trait: [`Side`].
//!
//! Every side gets the same randomly keyed hasher (aHash), keys as bytes looked up by `&[u8]`, and typed values of 100
//! bytes handed out by shared ownership. Capacities are in entries of one size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nearcache_store::{
    Change, CoarseClock, Expiry, Handle, NodeId, Store, StoreConfig, Tags, Timestamp, Version,
    Weigh,
};

/// Shards of every side that can be told: what quick_cache takes on two cores.
const SHARDS: usize = 8;

/// One cache.
pub(crate) trait Side: Send + Sync {
    /// Looks `key` up as `get` of the cache does and returns the first byte of the value.
    fn read(&self, key: &[u8]) -> Option<u8>;

    /// Puts a new value.
    fn write(&self, key: &[u8]);
}

/// What is cached: 100 bytes, all zero, which only we know.
#[derive(Clone)]
pub(crate) struct Value([u8; Self::LEN]);

impl Value {
    pub(crate) const LEN: usize = 100;

    #[inline]
    fn new() -> Self {
        Self([std::hint::black_box(0); Self::LEN])
    }
}

impl Weigh for Value {
    fn weight(&self) -> usize {
        0
    }
}

/// The store of this workspace, with a version on every entry, and an expiry if wanted.
pub(crate) struct Ours {
    store: Store<Value>,
    version: AtomicU64,
    expiry: Expiry,
}

impl Ours {
    /// Room for `entries` entries with keys of `key_len` bytes, which expire (some day) or not.
    pub(crate) fn new(entries: usize, key_len: usize, expires: bool) -> anyhow::Result<Self> {
        let entry_bytes = Self::entry_bytes(key_len)?;
        let config = StoreConfig {
            shards: std::num::NonZeroUsize::new(SHARDS),
            // As on a node of a cluster.
            digest_key: Some(rand::random()),
            hash_seed: rand::random(),
            ..StoreConfig::new((entries as u64 * entry_bytes).max(1 << 20))
        };
        let expiry = if expires {
            Expiry::at_millis(1 << 40)
        } else {
            Expiry::NEVER
        };
        let store = Store::new(config, CoarseClock::new(1_000))?;
        Ok(Self {
            store,
            version: AtomicU64::new(1),
            expiry,
        })
    }

    /// The store itself.
    pub(crate) fn store(&self) -> &Store<Value> {
        &self.store
    }

    fn entry_bytes(key_len: usize) -> anyhow::Result<u64> {
        let store = Store::new(StoreConfig::new(1 << 20), CoarseClock::new(1_000))?;
        let one = Self {
            store,
            version: AtomicU64::new(1),
            expiry: Expiry::NEVER,
        };
        one.write(&vec![0; key_len]);
        Ok(one
            .store
            .peek(&vec![0; key_len])
            .map_or(1, |entry: Handle<_>| entry.weight_bytes()))
    }
}

impl Side for Ours {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.store.get(key).map(|value| value.0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        let number = self.version.fetch_add(1, Ordering::Relaxed);
        let version = Version::new(Timestamp::from_u64(number), NodeId::from_u64(1));
        let change = Change::Put {
            value: Value::new(),
            expiry: self.expiry,
            tags: Tags::NONE,
        };
        drop(self.store.merge(key, version, change));
    }
}

/// quick_cache with `Arc<Value>` values.
pub(crate) struct QuickCache(
    quick_cache::sync::Cache<Bytes, Arc<Value>, quick_cache::UnitWeighter, ahash::RandomState>,
);

impl QuickCache {
    /// Room for `entries` entries; `hot` is its hot allocation if not the default.
    pub(crate) fn new(entries: usize, shards: usize, hot: Option<f64>) -> anyhow::Result<Self> {
        Ok(Self(quick_cache::sync::Cache::with_options(
            quick_options(entries, shards, hot)?,
            quick_cache::UnitWeighter,
            hasher(),
            quick_cache::sync::DefaultLifecycle::default(),
        )))
    }

    /// As many shards as it takes itself on two cores.
    pub(crate) fn sharded(entries: usize) -> anyhow::Result<Self> {
        Self::new(entries, SHARDS, None)
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Side for QuickCache {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.0.get(key).map(|value| value.0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        self.0
            .insert(Bytes::copy_from_slice(key), Arc::new(Value::new()));
    }
}

/// quick_cache offering what the store offers: a bound in bytes, and the hot share that keeps most on service traces.
pub(crate) struct QuickCacheBytes(
    quick_cache::sync::Cache<Bytes, Arc<Value>, ByBytes, ahash::RandomState>,
);

/// Weighs the bytes of key and value.
#[derive(Clone)]
struct ByBytes;

impl quick_cache::Weighter<Bytes, Arc<Value>> for ByBytes {
    #[inline]
    fn weight(&self, key: &Bytes, value: &Arc<Value>) -> u64 {
        (key.len() + value.0.len()) as u64
    }
}

impl QuickCacheBytes {
    /// Room for `entries` entries with keys of `key_len` bytes.
    pub(crate) fn new(entries: usize, key_len: usize) -> anyhow::Result<Self> {
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(entries)
            .weight_capacity((entries * (key_len + Value::LEN)) as u64)
            .shards(SHARDS)
            .hot_allocation(0.5)
            .build()?;
        Ok(Self(quick_cache::sync::Cache::with_options(
            options,
            ByBytes,
            hasher(),
            quick_cache::sync::DefaultLifecycle::default(),
        )))
    }
}

impl Side for QuickCacheBytes {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.0.get(key).map(|value| value.0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        self.0
            .insert(Bytes::copy_from_slice(key), Arc::new(Value::new()));
    }
}

/// quick_cache with the plain record one would put behind its pointer by hand: version, expiry, value.
pub(crate) struct QuickCacheRecord(
    quick_cache::sync::Cache<Bytes, Arc<Record>, quick_cache::UnitWeighter, ahash::RandomState>,
);

pub(crate) struct Record {
    _version: Version,
    expiry: Expiry,
    value: Value,
}

impl QuickCacheRecord {
    /// Room for `entries` entries.
    pub(crate) fn new(entries: usize) -> anyhow::Result<Self> {
        Ok(Self(quick_cache::sync::Cache::with_options(
            quick_options(entries, SHARDS, None)?,
            quick_cache::UnitWeighter,
            hasher(),
            quick_cache::sync::DefaultLifecycle::default(),
        )))
    }
}

impl QuickCacheRecord {
    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Side for QuickCacheRecord {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        let record = self.0.get(key)?;
        (!record.expiry.is_expired(1_000)).then(|| record.value.0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        let value = Value::new();
        let record = Record {
            _version: Version::ZERO,
            expiry: Expiry::NEVER,
            value,
        };
        self.0.insert(Bytes::copy_from_slice(key), Arc::new(record));
    }
}

fn quick_options(
    entries: usize,
    shards: usize,
    hot: Option<f64>,
) -> anyhow::Result<quick_cache::Options> {
    let mut options = quick_cache::OptionsBuilder::new();
    options
        .estimated_items_capacity(entries)
        .weight_capacity(entries as u64)
        .shards(shards);
    if let Some(hot) = hot {
        options.hot_allocation(hot);
    }
    Ok(options.build()?)
}

/// moka's synchronous cache.
pub(crate) struct Moka(moka::sync::Cache<Bytes, Arc<Value>, ahash::RandomState>);

impl Moka {
    /// Room for `entries` entries.
    pub(crate) fn new(entries: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(entries as u64);
        Self(builder.build_with_hasher(hasher()))
    }

    /// Lets it do what it put off.
    pub(crate) fn settle(&self) {
        self.0.run_pending_tasks();
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.0.entry_count()).unwrap_or(usize::MAX)
    }
}

impl Side for Moka {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.0.get(key).map(|value| value.0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        self.0
            .insert(Bytes::copy_from_slice(key), Arc::new(Value::new()));
    }
}

/// foyer's cache in memory with its S3-FIFO.
pub(crate) struct Foyer(foyer_memory::Cache<Bytes, Arc<Value>, ahash::RandomState>);

impl Foyer {
    /// Room for `entries` entries.
    pub(crate) fn new(entries: usize, shards: usize) -> Self {
        let builder = foyer_memory::CacheBuilder::new(entries)
            .with_shards(shards)
            .with_eviction_config(foyer_memory::EvictionConfig::S3Fifo(
                foyer_memory::S3FifoConfig::default(),
            ))
            .with_hash_builder(hasher());
        Self(builder.build())
    }

    /// As many shards as the others.
    pub(crate) fn sharded(entries: usize) -> Self {
        Self::new(entries, SHARDS)
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.0.usage()
    }
}

impl Side for Foyer {
    #[inline]
    fn read(&self, key: &[u8]) -> Option<u8> {
        self.0.get(key).map(|entry| entry.value().0[0])
    }

    #[inline]
    fn write(&self, key: &[u8]) {
        self.0
            .insert(Bytes::copy_from_slice(key), Arc::new(Value::new()));
    }
}

fn hasher() -> ahash::RandomState {
    let seeds: [u64; 4] = rand::random();
    ahash::RandomState::with_seeds(seeds[0], seeds[1], seeds[2], seeds[3])
}
