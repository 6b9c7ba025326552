//! Reading.

use std::time::Duration;

use super::Cache;
use super::cached::Cached;
use super::errors::ReadError;
use super::scan::{ScanCursor, ScanPage};
use super::shell::{is_fresh, is_leased};
use super::stats::CacheStats;
use super::watch::Watch;
use crate::codec::Codec;
use crate::codec::key::{KeyBuffer, KeyFor};
use crate::limits::{SCAN_COUNT_MAX, WATCH_CAPACITY_DEFAULT};
use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::mode::{Freshness, Status};
use nearcache_protocol::payload::Payload as _;
use nearcache_protocol::probe::is_reserved;
use nearcache_protocol::time::Time;
use nearcache_store::{Handle, Item};

/// What [`Cache::try_get`] found without waiting, or [`Cache::lookup_fresh`] in the end.
#[derive(Debug, Clone)]
pub enum Lookup<T> {
    /// The value.
    Hit(T),
    /// There is none.
    Miss,
    /// There is none here, but the node is still being filled, or the value is a long one that was not read here before: ask with
    /// [`get`](Cache::get), which asks a peer. [`about`](Cache::about) tells one from the other.
    /// Of a read that demands freshness: this node is not as fresh as was demanded.
    Ask,
}

impl<K: ?Sized, V, C: Codec<V>> Cache<K, V, C> {
    /// The value of `key`, or `None` if there is none or this node cannot decode it.
    ///
    /// A hit never waits, allocates nothing (keys of up to 128 bytes) and takes no exclusive lock.
    /// A miss waits only while this node is being filled: then a peer is asked, for at most 1 s.
    /// A value longer than `inline_limit` that was not read here before is fetched from a peer that holds it, for at most 2 s; it is
    /// `None` if no live node holds it any more, or if it takes longer (it is fetched all the same, for the next reader). Many who
    /// read it at once wait for one fetch, which is stopped when the last of them is dropped.
    /// May be as old as [`freshness`](Self::freshness) says. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub async fn get<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
    ) -> Result<Option<Cached<V, C>>, ReadError> {
        match self.try_get(key)? {
            Lookup::Hit(value) => Ok(Some(value)),
            Lookup::Miss => Ok(None),
            Lookup::Ask => {
                let mut buffer = KeyBuffer::new();
                let bytes = key.key_bytes(&mut buffer)?;
                let found = self.shell.find(bytes).await;
                Ok(found.and_then(|handle| self.view(handle)))
            }
        }
    }

    /// What `get` would find without waiting. Counts as a read.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    #[inline]
    pub fn try_get<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
    ) -> Result<Lookup<Cached<V, C>>, ReadError> {
        let mut buffer = KeyBuffer::new();
        let bytes = key.key_bytes(&mut buffer)?;
        self.shell.settings().check_key(bytes)?;
        let bound = self.shell.gate().bound();
        Ok(match self.shell.store().get(bytes) {
            Some(handle) if is_leased(bound, self.shell.node().quick()) => {
                if handle.is_stub() {
                    return Ok(Lookup::Ask);
                }
                self.view(handle).map_or(Lookup::Miss, Lookup::Hit)
            }
            Some(_) => {
                self.shell.counters().bypassed.inc();
                Lookup::Miss
            }
            None if self.shell.trusts_misses() => Lookup::Miss,
            // Peers that are apart as well know no better.
            None if !is_leased(bound, self.shell.node().quick()) => Lookup::Miss,
            None => Lookup::Ask,
        })
    }

    /// The value of `key`, known to be no older than `age_max`: it has every change that any live peer had made that long ago.
    ///
    /// When this node's [`freshness`](Self::freshness) is worse, the peers are asked first, for at most 1 s; if that does not help,
    /// this is a miss. Ages count from this node's own clock when it asked, so a pause, a suspend or a message that waited in a buffer
    /// makes the answer a miss and never staler than it says. Fresh enough, it costs a `get` and a look at a clock; a network round
    /// trip otherwise. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub async fn get_fresh<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        age_max: Duration,
    ) -> Result<Option<Cached<V, C>>, ReadError> {
        let found = match self.try_get_fresh(key, age_max)? {
            Lookup::Ask => self.lookup_refreshed(key, age_max).await?,
            found => found,
        };
        Ok(match found {
            Lookup::Hit(value) => Some(value),
            Lookup::Miss | Lookup::Ask => None,
        })
    }

    /// As [`get_fresh`](Self::get_fresh), and tells a miss from not knowing: [`Lookup::Miss`] if there is no such entry, [`Lookup::Ask`]
    /// if this node could not make sure of that, or of an entry that it has, within 1 s. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    pub async fn lookup_fresh<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        age_max: Duration,
    ) -> Result<Lookup<Cached<V, C>>, ReadError> {
        match self.try_get_fresh(key, age_max)? {
            Lookup::Ask => self.lookup_refreshed(key, age_max).await,
            found => Ok(found),
        }
    }

    /// What [`get_fresh`](Self::get_fresh) would find without waiting; [`Lookup::Ask`] if peers must be asked first. Counts as a read.
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] when the key cannot be one.
    #[inline]
    pub fn try_get_fresh<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        age_max: Duration,
    ) -> Result<Lookup<Cached<V, C>>, ReadError> {
        let bound = self.shell.gate().bound();
        let found = self.try_get(key)?;
        if is_fresh(bound, age_max, self.shell.node().quick()) {
            Ok(found)
        } else {
            Ok(Lookup::Ask)
        }
    }

    /// The slow path of [`lookup_fresh`](Self::lookup_fresh): a miss while joining, or not fresh enough.
    async fn lookup_refreshed<Q: KeyFor<K> + ?Sized>(
        &self,
        key: &Q,
        age_max: Duration,
    ) -> Result<Lookup<Cached<V, C>>, ReadError> {
        let clock = self.shell.node().quick();
        let bound = self.shell.gate().bound();
        let is_known = is_fresh(bound, age_max, clock);
        if !is_known {
            let since = Time::ZERO + (clock.exact() - Time::ZERO).saturating_sub(age_max);
            if !self.shell.refresh(since).await {
                return Ok(Lookup::Ask);
            }
        }
        let value = self.get(key).await?;
        // What was asked for is what the caller needed when it asked: the way back is not held against it.
        if is_known && !is_fresh(bound, age_max, clock) {
            return Ok(Lookup::Ask);
        }
        Ok(value.map_or(Lookup::Miss, Lookup::Hit))
    }

    /// How long ago this node is known to have had every change that any live peer had made: what [`freshness`](Self::freshness) calls
    /// the worst. Zero without peers; `None` if some peer was never heard to the end. Asked before a read, it bounds how old what is
    /// read may be. Cost: two loads and a look at the clock; takes no lock.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let bound = self.shell.gate().bound();
        bound.worst_age(self.shell.node().quick().exact())
    }

    /// What this node's memory holds under `key` now. Never waits, is not counted as a read and
    /// does not keep the entry from making room. `None` also for what cannot be a key, and for a long value that is not here.
    pub fn peek<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Option<Cached<V, C>> {
        let mut buffer = KeyBuffer::new();
        let bytes = key.key_bytes(&mut buffer).ok()?;
        self.shell.settings().check_key(bytes).ok()?;
        let bound = self.shell.gate().bound();
        let handle = self.shell.store().peek(bytes)?;
        is_leased(bound, self.shell.node().quick()).then(|| self.view(handle))?
    }

    /// The values of many keys, in the order of the keys. Waits and is cancel-safe as
    /// [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// [`ReadError::Key`] at the first key that cannot be one.
    pub async fn get_many<'a, Q>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Result<Vec<Option<Cached<V, C>>>, ReadError>
    where
        Q: KeyFor<K> + ?Sized + 'a,
    {
        let keys = keys.into_iter();
        let mut values = Vec::with_capacity(keys.size_hint().0);
        for key in keys {
            values.push(self.get(key).await?);
        }
        Ok(values)
    }

    /// Goes through the entries of this node: about `count` of them (at most 10,000) from
    /// `cursor` on, in no order. Starts with [`ScanCursor::default`].
    ///
    /// Whatever is there from the first page to the last is returned at least once. Neither counts
    /// as a read nor holds up writers.
    pub fn scan(&self, cursor: ScanCursor, count: usize) -> ScanPage<V, C> {
        let count = count.clamp(1, SCAN_COUNT_MAX);
        let bound = self.shell.gate().bound();
        let (items, next) = self.shell.store().walk(cursor.0, count);
        let leased = is_leased(bound, self.shell.node().quick());
        let mut entries = Vec::with_capacity(items.len());
        let mut elsewhere = Vec::new();
        for item in items.into_iter().filter(|_| leased) {
            if let Item::Entry(handle) = item
                && !is_reserved(handle.key())
            {
                if handle.is_stub() {
                    elsewhere.push(handle.key().into());
                } else {
                    entries.extend(self.view(handle));
                }
            }
        }
        ScanPage {
            entries,
            elsewhere,
            next: next.map(ScanCursor),
        }
    }

    /// The changes of this cache from now on, whoever makes them. A watcher that lags more than
    /// 1,024 changes behind misses the oldest and is told how many.
    ///
    /// Changes of one key arrive in the order of their versions, except that two of the same
    /// instant may come in either order: compare [`Cached::version`] where it matters.
    #[must_use]
    pub fn watch(&self) -> Watch<V, C> {
        self.watch_with_capacity(WATCH_CAPACITY_DEFAULT)
    }

    /// As [`watch`](Self::watch), for a watcher that may lag `capacity` changes behind.
    #[must_use]
    pub fn watch_with_capacity(&self, capacity: usize) -> Watch<V, C> {
        let raw = self.shell.changes().subscribe(capacity);
        Watch::new(raw)
    }

    /// Counters and sizes of this cache on this node, and how fresh it is. Cost: a few loads per shard, O(peers) under a short lock;
    /// allocates.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shell.stats()
    }

    /// How old this node's knowledge of each peer is, by this node's own clock.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.shell.freshness()
    }

    /// Whether this node has all that its peers had a moment ago, or what keeps it from that.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shell.status()
    }

    /// Whether a miss is a miss: the node has been filled from a peer, or has nobody to ask. No longer, for a while, when it has
    /// dropped what it held after a netsplit ([`SplitPolicy::Flush`](crate::SplitPolicy::Flush)) or a long absence.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shell.is_ready()
    }

    /// Waits until [`is_ready`](Self::is_ready), or until the node stops. Cancel-safe.
    pub async fn ready(&self) {
        self.shell.ready().await;
    }

    /// Entries on this node. May count some that have expired but are not collected yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shell.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shell.len() == 0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shell.name()
    }

    /// Its mode.
    #[must_use]
    pub fn mode(&self) -> ModeKind {
        self.shell.settings().mode
    }

    /// The most bytes it takes on this node.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.shell.store().max_bytes()
    }

    /// The largest value it takes, in encoded bytes.
    #[must_use]
    pub fn max_value_bytes(&self) -> usize {
        self.shell.settings().max_value_bytes
    }

    /// The longest key it takes, in bytes.
    #[must_use]
    pub fn max_key_bytes(&self) -> usize {
        self.shell.settings().max_key_bytes
    }

    /// Time to live of entries whose write names none.
    #[must_use]
    pub fn time_to_live(&self) -> Option<Duration> {
        self.shell.settings().time_to_live
    }

    /// A handle as a value; one that cannot be decoded is counted and left out.
    pub(super) fn view(&self, handle: Handle<C::Cell>) -> Option<Cached<V, C>> {
        let is_absent = handle.value().is_absent();
        let cached = Cached::of(handle);
        if cached.is_none() && !is_absent {
            self.shell.counters().undecodable.inc();
        }
        cached
    }
}
