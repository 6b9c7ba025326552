//! A cache with a loader of its own: [`Loading`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{BoxError, LoadError};
use super::fly::{Seat, fly_many};
use super::{Found, Got, Loaded, OnceLoader, Previous};
use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::read::Lookup;
use crate::cache::shell::{Part, Slot};
use crate::codec::key::KeyFor;
use crate::codec::{Codec, MessagePack};
use crate::limits::LOAD_MANY_MAX;

/// Reads the system of record.
///
/// Called in a task of the cache's own and never twice at once for a key on one node, except when the key was invalidated meanwhile.
/// May fail, panic or take for ever: those who wait are told.
pub trait Loader<K, V, C = MessagePack>: Send + Sync + 'static
where
    K: Sync,
    V: Send,
    C: Codec<V>,
{
    /// What it fails with.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send;

    /// Reads one key. `previous` is what the cache held, to be confirmed with [`Loaded::not_modified`] if it is still right.
    ///
    /// # Errors
    ///
    /// Whatever the callers shall get, as [`LoadError::Failed`]. That there is nothing is no error: [`Loaded::absent`].
    fn load(
        &self,
        key: &K,
        previous: Previous<V, C>,
    ) -> impl Future<Output = Result<Loaded<V>, Self::Error>> + Send;

    /// Reads up to [`LOAD_MANY_MAX`](crate::limits::LOAD_MANY_MAX) keys, and answers in their order, one for each. By default one after
    /// the other; override it if the system of record can do better. Counts as one load, with one timeout.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), for all of the keys.
    fn load_many(
        &self,
        keys: &[K],
    ) -> impl Future<Output = Result<Vec<Loaded<V>>, Self::Error>> + Send {
        async move {
            let mut loaded = Vec::with_capacity(keys.len());
            for key in keys {
                loaded.push(self.load(key, Previous::new(None)).await?);
            }
            Ok(loaded)
        }
    }
}

/// A cache that loads what it misses; made by [`Cache::loading`]. Clones share cache and loader.
pub struct Loading<K, V, L, C: Codec<V> = MessagePack> {
    cache: Cache<K, V, C>,
    loader: Arc<L>,
}

impl<K, V, L, C: Codec<V>> Loading<K, V, L, C> {
    pub(super) const fn new(cache: Cache<K, V, C>, loader: Arc<L>) -> Self {
        Self { cache, loader }
    }
}

impl<K, V, L, C: Codec<V>> Clone for Loading<K, V, L, C> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            loader: Arc::clone(&self.loader),
        }
    }
}

impl<K, V, L, C: Codec<V>> fmt::Debug for Loading<K, V, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loading")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<K, V, L, C> Loading<K, V, L, C>
where
    K: KeyFor<K> + Clone + Send + Sync + 'static,
    V: Send + 'static,
    L: Loader<K, V, C>,
    C: Codec<V>,
{
    /// The value of `key`, loaded if there is none here; `None` if there is none anywhere. Everything about
    /// [`Cache::get_or_load`] is true of it.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing was changed, and the next caller tries again.
    pub async fn get(&self, key: &K) -> Result<Option<Cached<V, C>>, LoadError> {
        match self.cache.try_get(key)? {
            Lookup::Hit(value) if self.cache.is_settled(&value) => Ok(Some(value)),
            found => {
                let bytes = self.cache.owned_key(key)?;
                let loader = self.one(key);
                self.cache.get_or_fly(bytes, found, loader).await
            }
        }
    }

    /// The values of many keys, in their order, each as [`get`](Self::get) would have it. What is missing and loaded by nobody else is
    /// asked of [`Loader::load_many`], up to 1,000 keys at once; beyond the bound of loads at once each key waits for a place by itself.
    /// Cancel-safe.
    pub async fn get_many(&self, keys: &[K]) -> Vec<Result<Option<Cached<V, C>>, LoadError>> {
        let mut results = Vec::with_capacity(keys.len());
        let mut seats = Vec::new();
        for key in keys {
            let step = self.step(key, &mut seats).await;
            results.push(step.unwrap_or_else(|error| Step::Done(Err(error))));
            if seats.len() >= LOAD_MANY_MAX {
                self.depart(std::mem::take(&mut seats));
            }
        }
        self.depart(seats);
        let mut got = Vec::with_capacity(keys.len());
        for step in results {
            got.push(match step {
                Step::Done(result) => result,
                Step::Waits(key, slot) => self.cache.wait(&key, &slot).await,
            });
        }
        got
    }

    /// The cache itself: for writes, invalidations and plain reads.
    #[must_use]
    pub const fn cache(&self) -> &Cache<K, V, C> {
        &self.cache
    }

    fn one(&self, key: &K) -> OnceLoader<V, C> {
        let (loader, key) = (Arc::clone(&self.loader), key.clone());
        Box::new(move |previous| {
            Box::pin(async move { loader.load(&key, previous).await.map_err(Into::into) })
        })
    }

    /// One key of many: served, joined, or given a seat in the next call.
    async fn step(
        &self,
        key: &K,
        seats: &mut Vec<(Seat<C::Cell>, K)>,
    ) -> Result<Step<V, C>, LoadError> {
        let cache = &self.cache;
        let found = cache.try_get(key)?;
        if let Lookup::Hit(value) = &found
            && cache.is_settled(value)
        {
            return Ok(Step::Done(Ok(Some(value.clone()))));
        }
        let bytes = cache.owned_key(key)?;
        let seen = match cache.without_load(&bytes, found).await {
            Found::Here(value) => return Ok(Step::Done(Ok(value))),
            Found::Aging(value) => {
                cache.refresh(bytes, value.version(), self.one(key));
                return Ok(Step::Done(Ok(Some(value))));
            }
            Found::Nothing { seen } => seen,
        };
        let joined = cache
            .check_circuit()
            .and_then(|()| cache.shell.join_flight(&bytes, !seats.is_empty()));
        let (flight, queues) = match joined {
            Ok(Part::Follows(slot)) => return Ok(Step::Waits(bytes, slot)),
            Ok(Part::Leads { flight, queues }) => (flight, queues),
            Err(error) => return Ok(Step::Done(cache.or_stale(&bytes, error))),
        };
        let slot = Arc::clone(&flight.slot);
        let seat = Seat {
            key: bytes.clone(),
            seen,
            flight,
        };
        if queues {
            let loader = self.one(key);
            tokio::spawn(super::fly::fly(cache.clone(), seat, true, loader));
        } else {
            seats.push((seat, key.clone()));
        }
        Ok(Step::Waits(bytes, slot))
    }

    fn depart(&self, seats: Vec<(Seat<C::Cell>, K)>) {
        if seats.is_empty() {
            return;
        }
        let loader = Arc::clone(&self.loader);
        let load_many = move |keys: Vec<K>| -> super::Answer<Vec<Loaded<V>>> {
            Box::pin(async move {
                loader
                    .load_many(&keys)
                    .await
                    .map_err(Into::<BoxError>::into)
            })
        };
        tokio::spawn(fly_many(self.cache.clone(), seats, load_many));
    }
}

/// Where one key of many stands.
enum Step<V, C: Codec<V>> {
    Done(Got<V, C>),
    Waits(Bytes, Arc<Slot<C::Cell>>),
}
