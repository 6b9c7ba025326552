//! One named map of keys to entries, as a user sees it.
//!
//! ```text
//! get, peek ──────────────────────────▶ store            (no lock, no wait)
//! get that misses while joining, or whose long value is elsewhere ──▶ machine: find ──▶ peers
//! put, remove, … ──▶ stamp, merge into store ──▶ machine: publish ──▶ peers   (one short lock)
//! modify ──▶ machine ──▶ the key's home node
//! get_or_load that misses ──▶ flight ──▶ loader ──▶ fence ──▶ store
//! put with a sink ──▶ sink, then as above (write-through); or queue, as above, and the sink later (write-behind)
//! ```
//!
//! [`Cache`] is the typed face: it encodes keys and values and checks limits. The `shell` below
//! it knows cells only; it drives the cache's state machine and is what peers talk to.

mod about;
mod audit;
mod builder;
mod cached;
mod errors;
mod fill;
mod load;
mod modify;
mod options;
mod read;
mod scan;
mod shell;
mod sink;
mod stats;
mod watch;
mod write;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::codec::{Codec, MessagePack};
use crate::node::NodeGuard;

pub use about::About;
pub use audit::Inspection;
pub use builder::CacheBuilder;
pub use cached::Cached;
pub use errors::{ModifyError, OpenError, ReadError, WriteError};
pub use fill::{Fill, FillToken};
pub use load::{LoadError, LoadPolicy, Loaded, Loader, Loading, Previous};
pub use modify::{Modified, Modify};
pub use options::{Ack, PutOptions};
pub use read::Lookup;
pub use scan::{ScanCursor, ScanPage};
pub use sink::{DeadLetter, FlushError, Sink, SinkError, SinkWrite, WriteBehind, WriteThrough};
pub use stats::{CacheStats, LoadStats, WriteStats};
pub use watch::{Change, Watch};

pub(crate) use shell::{CachePort, Shell};

/// A named map of keys to entries, kept in sync with the other nodes as its mode says.
///
/// Clones share the cache; cloning costs two reference counts. A cache keeps its node alive.
///
/// Reading is asynchronous only because a node that is still being filled asks a peer before it
/// calls a miss a miss, and because a long value is fetched when it is first read: a hit never waits, allocates nothing and takes no exclusive lock.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearcache::Node;
///
/// let node = Node::builder("shop").start().await?;
/// let names = node.cache::<u64, String>("names").open().await?;
///
/// names.put(&7, "Ada".to_owned()).await?;
/// assert_eq!(*names.get(&7).await?.ok_or("missing")?, "Ada");
/// assert!(names.remove(&7).await?);
/// assert!(names.get(&7).await?.is_none());
/// # Ok(()) }
/// ```
pub struct Cache<K: ?Sized, V, C: Codec<V> = MessagePack> {
    pub(crate) shell: Arc<Shell<C::Cell>>,
    pub(crate) node: Arc<NodeGuard>,
    pub(crate) key: PhantomData<fn(&K) -> V>,
}

impl<K: ?Sized, V, C: Codec<V>> Clone for Cache<K, V, C> {
    fn clone(&self) -> Self {
        Self {
            shell: Arc::clone(&self.shell),
            node: Arc::clone(&self.node),
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, V, C: Codec<V>> fmt::Debug for Cache<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.shell.name())
            .field("mode", &self.shell.settings().mode)
            .field("entries", &self.shell.store().len())
            .finish_non_exhaustive()
    }
}
