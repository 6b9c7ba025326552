//! A cache with a loader of its own: [`Loading`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nearcache_protocol::load::flights::CallId;
use nearcache_protocol::payload::Payload;
use nearcache_store::Version;

use super::error::{BoxError, LoadError};
use super::fly::Seat;
use super::fly_many::fly_many;
use super::{Found, Got, Loaded, OnceLoader, Previous};
use crate::cache::Cache;
use crate::cache::cached::Cached;
use crate::cache::shell::{Part, Slot, Start};
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

    /// Reads up to [`LOAD_MANY_MAX`](crate::limits::LOAD_MANY_MAX) keys, and answers in their order, one for each;
    /// [`Loaded::failed`] for a key of its own that fails. It is given no old values to confirm. Counts as one load, with one timeout: what is
    /// not answered within [`load_timeout`](crate::LoadPolicy::load_timeout) fails for all of the keys.
    ///
    /// By default [`load`](Self::load) one after the other, which is enough for a few keys that are read fast; override it with one query for all.
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
                let one = self.load(key, Previous::new(None)).await;
                loaded.push(one.unwrap_or_else(Loaded::failed));
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
        let unsettled = match self.cache.settled(key) {
            Ok(value) => return Ok(Some(value)),
            Err(unsettled) => unsettled,
        };
        let found = (*unsettled)?;
        let bytes = self.cache.owned_key(key)?;
        self.cache.get_or_fly(bytes, found, self.one(key)).await
    }

    /// The values of many keys, in their order, each as [`get`](Self::get) would have it. What is missing, or near its expiry, and loaded
    /// by nobody else is asked of [`Loader::load_many`], up to 1,000 keys with one call, which waits for a place as one load.
    ///
    /// What nodes that miss the same keys load for each other is loaded once, and none waits for another before it loads its own part:
    /// so that one `get_many` may make several calls, one after the other. Each key waits as with `get`, and for at most
    /// [`load_timeout`](crate::LoadPolicy::load_timeout) more. Keys whose values are long, or while this node is being filled, are asked of
    /// peers one after the other before anything is loaded. Cancel-safe: the loads that it has begun go on.
    pub async fn get_many(&self, keys: &[K]) -> Vec<Result<Option<Cached<V, C>>, LoadError>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.find(key).await);
        }
        let mut got = Vec::with_capacity(keys.len());
        let steps = self.take_steps(keys, found);
        // One soft timeout for all of them.
        let soft_by = self.cache.soft_by();
        for step in steps {
            got.push(match step {
                Step::Done(result) => result,
                Step::Waits(key, slot) => self.cache.wait(&key, &slot, soft_by).await,
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

    /// One key of many, without a load.
    async fn find(&self, key: &K) -> Sought<V, C> {
        let cache = &self.cache;
        let found = match cache.settled(key) {
            Ok(value) => return Ok((Bytes::new(), Found::Here(Some(value)))),
            Err(unsettled) => (*unsettled)?,
        };
        let bytes = cache.owned_key(key)?;
        let found = cache.without_load(&bytes, found).await;
        Ok((bytes, found))
    }

    /// Each key is served, joined, or given a seat in a call. Never waits: whoever joins a flight that begins here does not
    /// depend on this caller, which may be dropped, or not be polled, wherever it waits.
    fn take_steps(&self, keys: &[K], found: Vec<Sought<V, C>>) -> Vec<Step<V, C>> {
        let mut steps = Vec::with_capacity(keys.len());
        let mut batch = Batch::default();
        for (key, found) in keys.iter().zip(found) {
            steps.push(match found {
                Err(error) => Step::Done(Err(error)),
                Ok((_, Found::Here(value))) => Step::Done(Ok(value)),
                Ok((bytes, Found::Aging(value))) => {
                    // An error is counted; the entry at hand goes on to be served.
                    if !self.cache.shell.is_flying(&bytes)
                        && self.seat(key, &bytes, value.version(), &mut batch).is_ok()
                    {
                        self.cache.shell.loads().counters().refreshed.inc();
                    }
                    Step::Done(Ok(Some(value)))
                }
                Ok((bytes, Found::Nothing { seen })) => {
                    match self.seat(key, &bytes, seen, &mut batch) {
                        Ok(slot) => Step::Waits(bytes, slot),
                        Err(error) => Step::Done(self.cache.or_stale(&bytes, error)),
                    }
                }
            });
            if batch.seats.len() >= LOAD_MANY_MAX {
                self.depart(std::mem::take(&mut batch));
            }
        }
        self.depart(batch);
        steps
    }

    /// Joins the flight of a key or begins one, in the batch unless it has to wait for earlier loads of its key.
    fn seat(
        &self,
        key: &K,
        bytes: &Bytes,
        seen: Version,
        batch: &mut Batch<K, C::Cell>,
    ) -> Result<Arc<Slot<C::Cell>>, LoadError> {
        let cache = &self.cache;
        cache.check_circuit()?;
        let call = *batch.call.get_or_insert_with(|| cache.shell.new_call());
        let (flight, start) = match cache.shell.join_flight(bytes, Some(call))? {
            Part::Follows(slot) => return Ok(slot),
            Part::Leads { flight, start } => (flight, start),
        };
        let slot = Arc::clone(&flight.slot);
        let seat = Seat {
            key: bytes.clone(),
            seen,
            flight,
        };
        if start == Start::Behind {
            let loader = self.one(key);
            tokio::spawn(super::fly::fly(cache.clone(), seat, start, loader));
        } else {
            if batch.seats.is_empty() {
                batch.start = start;
            }
            batch.seats.push((seat, key.clone()));
        }
        Ok(slot)
    }

    fn depart(&self, batch: Batch<K, C::Cell>) {
        if batch.seats.is_empty() {
            return;
        }
        let loader = Arc::clone(&self.loader);
        let load_many = move |keys: Vec<K>| -> super::Answer<Vec<Loaded<V>>> {
            let loader = Arc::clone(&loader);
            Box::pin(async move {
                loader
                    .load_many(&keys)
                    .await
                    .map_err(Into::<BoxError>::into)
            })
        };
        let Batch { start, seats, .. } = batch;
        tokio::spawn(fly_many(self.cache.clone(), start, seats, load_many));
    }
}

/// What there is of one key of many without a load.
type Sought<V, C> = Result<(Bytes, Found<V, C>), LoadError>;

/// Where one key of many stands.
enum Step<V, C: Codec<V>> {
    Done(Got<V, C>),
    Waits(Bytes, Arc<Slot<C::Cell>>),
}

/// The seats of one call of the loader.
struct Batch<K, P: Payload> {
    call: Option<CallId>,
    /// When the first of them may begin, and with it all.
    start: Start,
    seats: Vec<(Seat<P>, K)>,
}

impl<K, P: Payload> Default for Batch<K, P> {
    fn default() -> Self {
        Self {
            call: None,
            start: Start::Now,
            seats: Vec::new(),
        }
    }
}
