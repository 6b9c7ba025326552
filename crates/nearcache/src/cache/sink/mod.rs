//! Writing the system of record through the cache.
//!
//! ```text
//! write-through:  put ─▶ sink ─▶ store, peers ─▶ answered
//! write-behind:   put ─▶ queue (and journal) ─▶ store, peers ─▶ answered      … later: queue ─▶ sink ─▶ peers drop what they read before
//! ```
//!
//! Here is what a user sees; who waits for what is in `shell/through` and `shell/behind`, and the rules of the queue are in
//! [`nearcache_protocol::write`].

mod cells;
mod error;
mod letters;
mod policy;

use std::fmt;
use std::future::Future;

use nearcache_store::Version;

pub use error::{FlushError, SinkError};
pub use letters::DeadLetter;
pub use policy::{WriteBehind, WriteThrough};

pub(crate) use cells::{CellSink, CellWrite, Celled, ErasedSink, Typed};
pub(crate) use error::SinkFault;

/// Writes the system of record.
///
/// Called in tasks of the cache's own, with at most one write of a key at a time on one node, in the order in which the writes were
/// accepted. May fail, panic or take for ever: whoever waits is told. **Must be idempotent**: what failed or was cut off by a crash is
/// written again, and may have been written before. Two nodes that write the same key are not put in order: to have the newer one win,
/// compare [`SinkWrite::version`] with the one in the row (`... WHERE version < $n`).
///
/// ```
/// use nearcache::{Sink, SinkError, SinkWrite};
///
/// struct Names(/* a pool of connections */);
///
/// impl Names {
///     # async fn upsert(&self, _: u64, _: &str, _: u128) -> Result<(), std::io::Error> { Ok(()) }
///     # async fn delete(&self, _: u64, _: u128) -> Result<(), std::io::Error> { Ok(()) }
/// }
///
/// impl Sink<u64, String> for Names {
///     async fn write(&self, write: &SinkWrite<'_, u64, String>) -> Result<(), SinkError> {
///         let version = u128::from_be_bytes(write.version().to_bytes());
///         match write.value() {
///             Some(name) if name.is_empty() => return Err(SinkError::rejected("a name is not empty")),
///             Some(name) => self.upsert(*write.key(), name, version).await?,
///             None => self.delete(*write.key(), version).await?,
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Sink<K, V>: Send + Sync + 'static
where
    K: Sync,
    V: Sync,
{
    /// Writes or removes one key.
    ///
    /// # Errors
    ///
    /// Any error means that the write may or may not have been made, and that trying again may help: `?` makes one. If it has not been made
    /// and never will be as it is, answer [`SinkError::rejected`].
    fn write(
        &self,
        write: &SinkWrite<'_, K, V>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Writes or removes many keys, all different. By default one after the other; override it if the system of record can do better.
    /// Counts as one call, with one timeout.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), for all of them: after a rejection each is written by itself, so that one row does not stop the others.
    fn write_many(
        &self,
        writes: &[SinkWrite<'_, K, V>],
    ) -> impl Future<Output = Result<(), SinkError>> + Send {
        async move {
            for write in writes {
                self.write(write).await?;
            }
            Ok(())
        }
    }
}

/// One write of the system of record.
pub struct SinkWrite<'a, K, V> {
    pub(super) key: K,
    pub(super) value: Option<&'a V>,
    pub(super) version: Version,
}

impl<K, V> SinkWrite<'_, K, V> {
    /// The key.
    pub const fn key(&self) -> &K {
        &self.key
    }

    /// The value to be written; `None` if the key is to be removed.
    #[must_use]
    pub const fn value(&self) -> Option<&V> {
        self.value
    }

    /// Grows with each write of the key, also among nodes (within how far their clocks are apart), and stays the same when the write is
    /// made again. 16 bytes whose order is that of the versions: [`Version::to_bytes`].
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl<K, V> fmt::Debug for SinkWrite<'_, K, V> {
    /// What kind of write; key and value stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.value.is_some() {
            "put"
        } else {
            "remove"
        };
        f.debug_struct("SinkWrite")
            .field("what", &what)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
