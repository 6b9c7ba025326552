//! The bounded, versioned, concurrent map at the heart of Nearcache.
//!
//! Everything a node holds of a cache lives in one [`Store`]. Data flows in through exactly one
//! door, [`Store::merge`], whoever the caller is (a local write, a peer's update, a load, a
//! transfer): an atomic "insert if newer" per key. It flows out through [`Store::get`], which takes
//! no exclusive lock and allocates nothing, and through [`Store::walk`], which never stalls a writer.
//!
//! ```text
//!   merge ──► shard (one mutex per shard, writers only)
//!               ├─ table        every entry by key; what readers look at
//!               ├─ policy       which entry leaves when room is needed
//!               ├─ tombstones   versions of removed and expired keys
//!               ├─ key floors   versions of evicted keys
//!               ├─ digest       sums of all of these, to be compared with another store's
//!               └─ directory    every entry by slot: walking, sweeping, the timer wheel, the policy's queues
//!   get ────► table only, then expiry and group floors are compared with the entry found
//! ```
//!
//! The crate has no async code, does no I/O and reads no clock: its owner sets a [`CoarseClock`]
//! and calls [`Store::tick`], so that a simulator runs the real thing.

#![forbid(unsafe_code)]

mod change;
mod clock;
mod compare;
mod config;
mod digest;
mod directory;
mod expiry;
mod forget;
mod group_floors;
mod handle;
mod hash;
mod idle;
mod key_floors;
mod listener;
mod merge;
mod node_id;
mod part_walk;
mod planted;
mod policy;
mod reads;
mod scope;
mod shard;
mod stale;
mod stats;
mod store;
mod sync;
mod table;
mod tags;
mod tick;
mod told_floors;
mod tombstones;
mod version;
mod walk;
mod weigh;
mod wheel;

pub use change::{Change, Known, MergeError, Merged};
pub use clock::CoarseClock;
pub use compare::{ListCursor, Listed};
pub use config::{ConfigError, StoreConfig};
pub use digest::{LeafRange, LeafSet};
pub use expiry::Expiry;
pub use handle::Handle;
pub use listener::{Event, Listener};
pub use node_id::NodeId;
pub use part_walk::{PartItem, PartWalk};
#[cfg(feature = "planted-bugs")]
#[doc(hidden)]
pub use planted::PlantedBug;
pub use scope::Scope;
pub use stats::StoreStats;
pub use store::Store;
pub use tags::{Tags, TagsTooLarge};
pub use version::{Timestamp, Version};
pub use walk::{Item, WalkCursor};
pub use weigh::Weigh;
