//! Why an operation on a cache failed, one enum per family of operations.
//!
//! Every variant says what to do next, and whether anything was changed. An error that leaves it
//! open whether the operation took effect says so in its documentation; all others mean "it did
//! not and will not".

use std::time::Duration;

use nearcache_store::Timestamp;

use crate::codec::{EncodeError, KeyError};
use crate::persistence::JournalError;

/// Why a cache could not be opened. The node is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A name is 1 to 128 bytes of letters, digits, `-`, `_`, `.`, `:` or `/`.
    #[error("{name:?} is no name for a cache: use 1 to 128 letters, digits or any of - _ . : /")]
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// The cache is open on this node with other types, another codec or another mode.
    #[error(
        "cache {name:?} is already open on this node with another {what}: open it the same way, or under another name"
    )]
    OpenDifferently {
        /// Name of the cache.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// Two names have the same id on the wire.
    #[error("the names {name:?} and {other:?} collide on the wire: rename one of them")]
    NameCollision {
        /// The name as given.
        name: String,
        /// The cache that is open already.
        other: String,
    },
    /// The node has as many caches as it may.
    #[error(
        "this node has {limit} caches open, which is the limit: use prefixes of keys instead of many caches"
    )]
    TooManyCaches {
        /// Limit in force.
        limit: usize,
    },
    /// A setting is out of its range.
    #[error("{setting} = {value} is out of range: {allowed}")]
    InvalidSetting {
        /// Name of the setting.
        setting: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The store refused its configuration.
    #[error("the bounds of the cache do not fit together")]
    Store(#[from] nearcache_store::ConfigError),
    /// The cache's journal cannot be used. Nothing was changed.
    #[error("the journal of the writes that are still to be made cannot be used")]
    Journal(#[from] JournalError),
    /// The node was shut down.
    #[error("the node has stopped: start a new one")]
    NodeStopped,
}

/// Why a read failed. Reads change nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The key cannot be one.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key cannot be one. Nothing was changed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value cannot be encoded. Nothing was changed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The encoded value is larger than the cache allows on this node or, for a read-modify-write, on the key's home node.
    /// Nothing was changed.
    #[error(
        "value of {len_bytes} bytes exceeds the limit of {limit_bytes}: split it, or raise max_value_bytes when opening the cache"
    )]
    ValueTooLarge {
        /// Length of the encoded value.
        len_bytes: usize,
        /// Limit in force.
        limit_bytes: usize,
    },
    /// A time to live is more than zero and at most ten years. Nothing was changed.
    #[error(
        "a time to live of {ttl:?} is not between 1 ms and 10 years: to have no expiry, leave it out"
    )]
    InvalidTtl {
        /// The time to live as given.
        ttl: Duration,
    },
    /// An entry has at most 64 tags of 1 to 512 bytes; a prefix has at most 512 bytes. Nothing was
    /// changed.
    #[error("tag or prefix number {index} is out of bounds: {allowed}")]
    InvalidTag {
        /// Position of the offender, counted from 0.
        index: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The entry is larger than this node's share of the cache can hold. **It is not stored here;
    /// an older value of the key was dropped**, here and on the peers.
    #[error("entry of {entry_bytes} bytes cannot fit: raise max_bytes when opening the cache")]
    TooLargeForCache {
        /// What the entry would occupy.
        entry_bytes: usize,
    },
    /// Tombstones have used up their share of the cache. Nothing was changed.
    #[error(
        "the cache cannot remember more removed keys: raise max_bytes, or clear by tag or prefix instead of key by key"
    )]
    TombstoneLimit,
    /// A newer version of the key came in while this one was written, so this write lost by the
    /// rule that the newest version wins. The newer value is in place.
    #[error("a newer version ({current:?}) of the key won")]
    Superseded {
        /// Time of the version that won.
        current: Timestamp,
    },
    /// Not enough peers acknowledged in time. **The write is applied here and stays on its way**;
    /// do not repeat it.
    #[error(
        "{acked} of {wanted} peers acknowledged in time: the write is applied here and on its way to the others"
    )]
    AckTimeout {
        /// Peers that have applied it.
        acked: usize,
        /// Peers that were asked for.
        wanted: usize,
    },
    /// [`Ack::All`](crate::Ack::All) where there are more members than a full mesh may have
    /// ([`NodeBuilder::mesh_max`](crate::NodeBuilder::mesh_max)): no node hears from all of them. **The write is applied here and on
    /// its way to all**; do not repeat it. Ask for [`Ack::Peers`](crate::Ack::Peers), or raise `mesh_max` on all nodes.
    #[error(
        "the write is applied here and on its way to all, do not repeat it; but of {members} members no node hears from all (mesh_max is {mesh_max}): ask for the acknowledgement of a number of peers, or raise mesh_max"
    )]
    AckAllBeyondMesh {
        /// Live members, this node included.
        members: usize,
        /// Up to how many members every node is connected to every other.
        mesh_max: usize,
    },
    /// This node's clock cannot give versions now: it is too far from its peers', those that refuse it for that included
    /// ([`Node::clock_skew`](crate::Node::clock_skew) tells how far), or a peer's clock has run ahead, or it is behind what a former start of this node has recorded in the [journal](crate::WriteBehind::journal) of
    /// the cache. Nothing was changed.
    #[error(
        "the clock of this node is out of step with its peers, or with what it recorded before: set the clock of the machine that is wrong and start its node again"
    )]
    ClockSkew,
    /// This node does not hear most of its cluster, and the cache is set to be read-only then
    /// ([`SplitPolicy::ReadOnly`](crate::SplitPolicy::ReadOnly)). Nothing was changed.
    #[error(
        "this node is apart from most of its cluster and the cache is read-only meanwhile: write through a node of the larger side, or again when the network is whole (writes are taken at once then); if the other nodes are gone for good, restart this one"
    )]
    ReadOnly,
    /// As many writes wait for the system of record as may, and none of them was done in time. Nothing was changed; try again later.
    #[error(
        "{queued} writes wait for the system of record, which is the limit: it is too slow for what is written, or down"
    )]
    SinkOverloaded {
        /// Writes that wait.
        queued: usize,
    },
    /// The sink says that this can never be written. Nothing was changed; of a read-modify-write, the key was dropped from the cache.
    #[error("the system of record rejects the write")]
    SinkRejected(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The sink failed, panicked or took too long. **The system of record may or may not have the write**; the key is dropped from the
    /// cache on all nodes, so that the next reader loads what is true. Writing it again does no harm.
    #[error("the system of record may or may not have the write: read it, or write it again")]
    SinkFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The journal refused the write, for example because the disk is full. Nothing was changed; try again when there is room. Of a
    /// read-modify-write, the key was dropped from the cache.
    #[error("the journal cannot take the write")]
    Journal(#[source] JournalError),
    /// The journal's disk failed. **The write may or may not be made after the next start**; the cache does not have it. The node
    /// takes no more writes of this cache until it is started again.
    #[error("the journal's disk failed: the write may or may not be made after the next start")]
    JournalFailed,
    /// The cache writes to a system of record, and this way of writing cannot wait for it. Nothing was changed: use
    /// [`put`](crate::Cache::put) or [`remove`](crate::Cache::remove).
    #[error("this write would have to wait for the system of record: use put or remove")]
    SinkMustWait,
    /// The node was shut down. Nothing was changed, unless the call was waiting for peers: then
    /// the write is applied here and may be lost with the node.
    #[error("the node has stopped: start a new one")]
    NodeStopped,
}

/// Why a read-modify-write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModifyError {
    /// The arguments cannot be a write, or the write failed here. See the source for what was
    /// changed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The value is not a decimal 64-bit integer. Nothing was changed.
    #[error("the value is not an integer or out of range")]
    NotAnInteger,
    /// The sum does not fit 64 bits. Nothing was changed.
    #[error("the sum does not fit a 64-bit integer")]
    Overflow,
    /// The key's home node did not answer in time. **It may or may not have applied the change**:
    /// read before deciding to repeat it.
    #[error(
        "the home node of the key did not answer in time: the change may or may not have been applied"
    )]
    Indeterminate,
    /// The key's home node has too much to do, or is not connected. Nothing was changed; try again
    /// later.
    #[error("the home node of the key cannot take the request now: try again later")]
    Busy,
}

impl From<KeyError> for ModifyError {
    fn from(error: KeyError) -> Self {
        Self::Write(error.into())
    }
}
