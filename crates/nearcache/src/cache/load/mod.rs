//! Reading through the cache: a hit, or a load that all who miss the key share.
//!
//! ```text
//! get_or_load ─ hit ──────────────────────────────────────────────▶ value       (what `get` costs)
//!             └ miss ─ join ─▶ follows ──────────────▶ waits for the flight's slot ─▶ value, nothing, error
//!                        └───▶ leads: a task of its own ─▶ place ─▶ loader ─▶ fence ─▶ store, slot
//! ```
//!
//! The load runs in a task of its own: a caller that gives up takes nothing from the others, and what was paid for is
//! kept. Here are the types; who waits for whom is in `shell/loads`, the rules are in [`nearcache_protocol::load`].

mod arrive;
mod call;
mod error;
mod fly;
mod fly_many;
mod loaded;
mod loading;
mod policy;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nearcache_protocol::payload::Payload as _;
use nearcache_store::Version;
use tokio::time::{Instant, timeout_at};

use super::Cache;
use super::cached::Cached;
use super::errors::ReadError;
use super::read::Lookup;
use super::shell::{Part, Slot};
use crate::codec::Codec;
use crate::codec::key::KeyFor;

pub(super) use call::Answer;
use error::BoxError;
use fly::Seat;
pub(super) use loaded::source_version;

pub use error::LoadError;
pub use loaded::{Loaded, Previous};
pub use loading::{Loader, Loading};
pub use policy::LoadPolicy;

/// A loader that is called at most once, whatever its type was.
pub(super) type OnceLoader<V, C> = Box<dyn FnOnce(Previous<V, C>) -> Answer<Loaded<V>> + Send>;

/// What a caller gets.
pub(super) type Got<V, C> = Result<Option<Cached<V, C>>, LoadError>;

impl<K: ?Sized + 'static, V: Send + 'static, C: Codec<V>> Cache<K, V, C> {
    /// The value of `key`, loaded with `loader` if there is none here; `None` if the loader says that there is none anywhere.
    ///
    /// Of all who miss a key at once, on this node and in mode `replicated` on all, one calls its loader; the others wait for that and
    /// get the same value or the same error. What was loaded is kept unless the key was written or invalidated since the load
    /// began; a caller that came after that waits for a newer load. The loader is given what the cache held ([`Previous`]), and
    /// answers with the value, an `Option` of it, or a [`Loaded`], which says more. How long anybody waits, and what is served while the
    /// system of record is slow or down, is the cache's [`LoadPolicy`].
    ///
    /// A hit costs what [`get`](Self::get) costs and allocates nothing. A load runs in a task of its own, on the runtime of the caller
    /// that began it, with a clone of this cache: dropped by all its callers, it goes on and its value is kept. It must not ask this
    /// cache for the same key. Cancel-safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearcache::Node;
    ///
    /// # async fn read_from_database(_: u64) -> Result<Option<String>, std::io::Error> { Ok(Some("Ada".to_owned())) }
    /// let node = Node::builder("shop").start().await?;
    /// let names = node.cache::<u64, String>("names").open().await?;
    /// let name = names.get_or_load(&7, |_| read_from_database(7)).await?;
    /// assert_eq!(name.as_deref().map(String::as_str), Some("Ada"));
    /// assert!(names.get(&7).await?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing was changed, and the next caller tries again.
    pub async fn get_or_load<Q, F, Fut, T, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<Option<Cached<V, C>>, LoadError>
    where
        Q: KeyFor<K> + ?Sized,
        F: FnOnce(Previous<V, C>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<Loaded<V>>,
        E: Into<BoxError>,
    {
        let unsettled = match self.settled(key) {
            Ok(value) => return Ok(Some(value)),
            Err(unsettled) => unsettled,
        };
        let found = (*unsettled)?;
        let key = self.owned_key(key)?;
        let loader: OnceLoader<V, C> = Box::new(move |previous| {
            // Called when first polled, where a panic is caught.
            Box::pin(async move {
                let answered = loader(previous).await;
                answered.map(Into::into).map_err(Into::into)
            })
        });
        self.get_or_fly(key, found, loader).await
    }

    /// This cache with a loader for all its keys.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearcache::{Loaded, Loader, Node, Previous};
    ///
    /// struct Names;
    ///
    /// impl Loader<u64, String> for Names {
    ///     type Error = std::io::Error;
    ///
    ///     async fn load(&self, key: &u64, _: Previous<String>) -> Result<Loaded<String>, Self::Error> {
    ///         Ok(Loaded::value(format!("name {key}")).tags(["names"]))
    ///     }
    /// }
    ///
    /// let node = Node::builder("shop").start().await?;
    /// let names = node.cache::<u64, String>("names").open().await?.loading(Names);
    /// assert_eq!(*names.get(&7).await?.ok_or("nobody")?, "name 7");
    /// assert_eq!(names.get_many(&[7, 8, 9]).await.len(), 3);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn loading<L: Loader<K, V, C>>(&self, loader: L) -> Loading<K, V, L, C>
    where
        K: Sized + Sync,
    {
        Loading::new(self.clone(), Arc::new(loader))
    }

    /// A value that need not be loaded anew, or what else there is. Boxed, and in a function of its own, so that a hit is one pointer
    /// in a register.
    #[inline(never)]
    fn settled<Q: KeyFor<K> + ?Sized>(&self, key: &Q) -> Result<Cached<V, C>, Unsettled<V, C>> {
        let now_ms = || self.shell.node().now_ms();
        match self.try_get(key) {
            Ok(Lookup::Hit(value))
                if !self.shell.loads().is_near_expiry(value.expiry(), now_ms) =>
            {
                Ok(value)
            }
            found => Err(Box::new(found)),
        }
    }

    /// Boxed, so that a hit does not carry around what only a miss needs.
    fn get_or_fly<'a>(
        &'a self,
        key: Bytes,
        found: Lookup<Cached<V, C>>,
        loader: OnceLoader<V, C>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Got<V, C>> + Send + 'a>> {
        Box::pin(async move {
            match self.without_load(&key, found).await {
                Found::Here(value) => Ok(value),
                Found::Aging(value) => {
                    self.refresh(key, value.version(), loader);
                    Ok(Some(value))
                }
                Found::Nothing { seen } => match self.begin(&key, seen, loader) {
                    Ok(slot) => self.wait(&key, &slot, self.soft_by()).await,
                    Err(error) => self.or_stale(&key, error),
                },
            }
        })
    }

    /// What there is to say about a key without loading it.
    async fn without_load(&self, key: &Bytes, found: Lookup<Cached<V, C>>) -> Found<V, C> {
        let (shell, loads) = (&self.shell, self.shell.loads());
        match found {
            Lookup::Hit(value) => {
                return if loads.draws_refresh(value.expiry(), shell.node().now_ms()) {
                    Found::Aging(value)
                } else {
                    Found::Here(Some(value))
                };
            }
            Lookup::Ask => {
                let handle = shell.find(key).await;
                if let Some(value) = handle.and_then(|handle| self.view(handle)) {
                    return Found::Here(Some(value));
                }
            }
            Lookup::Miss => {}
        }
        if let Some(found) = self.here(key, Version::ZERO) {
            return Found::Here(found);
        }
        // What waits to be written stands for the system of record, which does not have it yet.
        if let Some(queued) = shell.queued(key) {
            return Found::Here(queued.and_then(|entry| self.view(entry)));
        }
        let stale = shell.stale_copy(key, loads.policy().stale_for());
        let seen = stale
            .as_ref()
            .map_or(Version::ZERO, |stale| stale.version());
        let revalidating = shell.stale_copy(key, loads.policy().stale_while_revalidate);
        match revalidating.and_then(Cached::of) {
            Some(value) => {
                loads.counters().stale_served.inc();
                Found::Aging(value)
            }
            None => Found::Nothing { seen },
        }
    }

    /// What this node holds that is newer than `seen`: a value, or that there is none.
    fn here(&self, key: &[u8], seen: Version) -> Option<Option<Cached<V, C>>> {
        let handle = self.shell.newer_than(key, seen)?;
        if handle.value().is_absent() {
            return Some(None);
        }
        Cached::of(handle).map(Some)
    }

    /// Loads in the background what is here but old, unless somebody does already.
    fn refresh(&self, key: Bytes, seen: Version, loader: OnceLoader<V, C>) {
        if self.shell.is_flying(&key) {
            return;
        }
        // An error is counted; the entry at hand goes on to be served.
        if self.begin(&key, seen, loader).is_ok() {
            self.shell.loads().counters().refreshed.inc();
        }
    }

    /// Joins the flight of the key or begins one, for something newer than `seen`.
    fn begin(
        &self,
        key: &Bytes,
        seen: Version,
        loader: OnceLoader<V, C>,
    ) -> Result<Arc<Slot<C::Cell>>, LoadError> {
        self.check_circuit()?;
        match self.shell.join_flight(key, None)? {
            Part::Follows(slot) => Ok(slot),
            Part::Leads { flight, start } => {
                let slot = Arc::clone(&flight.slot);
                let seat = Seat {
                    key: key.clone(),
                    seen,
                    flight,
                };
                tokio::spawn(fly::fly(self.clone(), seat, start, loader));
                Ok(slot)
            }
        }
    }

    fn check_circuit(&self) -> Result<(), LoadError> {
        let loads = self.shell.loads();
        if loads.is_open(self.shell.node().now()) {
            loads.counters().circuit_open.inc();
            return Err(LoadError::CircuitOpen);
        }
        Ok(())
    }

    /// Until when a caller that begins to wait now waits if there is a copy to serve instead.
    fn soft_by(&self) -> Instant {
        Instant::now() + self.shell.loads().policy().soft_timeout
    }

    /// Waits for a flight: to its end, or until `soft_by` if there is a copy to serve instead.
    async fn wait(&self, key: &Bytes, slot: &Slot<C::Cell>, soft_by: Instant) -> Got<V, C> {
        let policy = self.shell.loads().policy();
        let landed = if self.shell.stale_copy(key, policy.stale_if_error).is_some() {
            match timeout_at(soft_by, slot.landed()).await {
                Ok(landed) => landed,
                Err(_) => match self.stale(key) {
                    Some(value) => return Ok(Some(value)),
                    // Gone meanwhile: invalidated, or beyond its limit.
                    None => slot.landed().await,
                },
            }
        } else {
            slot.landed().await
        };
        match landed {
            Ok(handle) => Ok(handle.and_then(|handle| self.view(handle))),
            Err(error) => self.or_stale(key, error),
        }
    }

    /// A stale copy if one is allowed, the error otherwise.
    fn or_stale(&self, key: &Bytes, error: LoadError) -> Got<V, C> {
        self.stale(key).map_or(Err(error), |value| Ok(Some(value)))
    }

    fn stale(&self, key: &Bytes) -> Option<Cached<V, C>> {
        let loads = self.shell.loads();
        let stale = self.shell.stale_copy(key, loads.policy().stale_if_error);
        let value = stale.and_then(Cached::of)?;
        loads.counters().stale_served.inc();
        Some(value)
    }
}

/// What a read finds that is not a value to be served as it is.
type Unsettled<V, C> = Box<Result<Lookup<Cached<V, C>>, ReadError>>;

/// What there is without a load.
enum Found<V, C: Codec<V>> {
    /// The value, or that there is none.
    Here(Option<Cached<V, C>>),
    /// A value to be served, and to be loaded anew meanwhile.
    Aging(Cached<V, C>),
    /// Nothing that is newer than this.
    Nothing { seen: Version },
}
