//! What becomes of a loader's answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::payload::Payload;
use nearcache_store::{Expiry, Handle, Tags};

use super::Loaded;
use super::error::{BoxError, LoadError};
use super::loaded::{What, absent, source_version};
use crate::cache::Cache;
use crate::cache::errors::WriteError;
use crate::cache::options::Lifetime;
use crate::cache::write::tags_of;
use crate::codec::Codec;
use crate::random::random;

/// What a load brought.
pub(super) struct Arrived<V> {
    pub(super) entry: Handle<V>,
    /// Whether it is in the store.
    pub(super) kept: bool,
}

/// The least time to live: what is older than nothing at all is worth nothing.
const TTL_MIN: Duration = Duration::from_millis(1);

impl<K: ?Sized + 'static, V: Send + 'static, C: Codec<V>> Cache<K, V, C> {
    /// Keeps what was loaded if nothing speaks against it. Its callers get it in any case.
    pub(super) fn arrive(
        &self,
        key: &[u8],
        fence: &Fence,
        previous: Option<Handle<C::Cell>>,
        loaded: Loaded<V>,
    ) -> Result<Arrived<C::Cell>, LoadError> {
        let ttl = loaded.ttl.unwrap_or(self.shell.loads().policy().absent_ttl);
        // What is here is replaced all the same.
        let forgets = matches!(loaded.what, What::Absent) && ttl.is_zero() && previous.is_none();
        let content = self.loaded_content(loaded, previous.as_ref())?;
        let too_long = content.0.bytes().len() > self.shell.settings().max_value_bytes;
        let entry = self.shell.filled(key, fence, content);
        let is_newest = self.is_newest(key, &entry, previous.as_ref());
        if forgets {
            return Ok(Arrived { entry, kept: false });
        }
        let kept = is_newest && !too_long && self.shell.fill(fence, &entry).unwrap_or(false);
        if !kept {
            self.shell.loads().counters().not_kept.inc();
        }
        Ok(Arrived { entry, kept })
    }

    /// I7: whether the source was read in a version that is as new as all that was seen.
    fn is_newest(
        &self,
        key: &[u8],
        entry: &Handle<C::Cell>,
        previous: Option<&Handle<C::Cell>>,
    ) -> bool {
        let Some(read) = source_version(entry.tags()) else {
            return true;
        };
        if let Some(held) = previous.and_then(|previous| source_version(previous.tags())) {
            self.shell.loads().is_newest(key, held);
        }
        self.shell.loads().is_newest(key, read)
    }

    fn loaded_content(
        &self,
        loaded: Loaded<V>,
        previous: Option<&Handle<C::Cell>>,
    ) -> Result<(C::Cell, Expiry, Tags), LoadError> {
        let policy = self.shell.loads().policy();
        let confirmed = previous.filter(|_| matches!(loaded.what, What::NotModified));
        let tags = tags_of(&loaded.all_tags(confirmed.map(|previous| previous.tags())))?;
        let mut lifetime = loaded.ttl.map_or(Lifetime::OfCache, Lifetime::For);
        let cell = match loaded.what {
            What::Value(value) => {
                // The user's code, and values that it moves: what is half done is seen by nobody.
                let encoded = catch_unwind(AssertUnwindSafe(|| C::encode(value)));
                let encoded = encoded.map_err(|_| LoadError::Panicked)?;
                encoded.map_err(WriteError::from)?
            }
            What::Absent => {
                let ttl = loaded.ttl.unwrap_or(policy.absent_ttl).max(TTL_MIN);
                lifetime = Lifetime::For(ttl);
                absent::<V, C>()
            }
            What::Failed(error) => return Err(LoadError::Failed(error)),
            What::NotModified => {
                let Some(previous) =
                    previous.filter(|entry| !entry.value().is_absent() && !entry.is_stub())
                else {
                    let what = "the loader says that nothing was modified, but was given nothing";
                    return Err(LoadError::Failed(BoxError::from(what).into()));
                };
                let cell = previous.value();
                C::Cell::from_wire(cell.codec(), cell.bytes())
            }
        };
        Ok((cell, self.jittered(lifetime)?, tags))
    }

    /// The expiry of what is loaded now, sooner by chance.
    fn jittered(&self, lifetime: Lifetime) -> Result<Expiry, WriteError> {
        let expiry = self.expiry(lifetime)?;
        let now_ms = self.shell.node().now_ms();
        let Some(ttl) = expiry.remaining(now_ms) else {
            return Ok(expiry);
        };
        let share = self.shell.loads().policy().ttl_jitter * random::<f64>();
        Ok(Expiry::after(now_ms, ttl.mul_f64(1.0 - share).max(TTL_MIN)))
    }
}
