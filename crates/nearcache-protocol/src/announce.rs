//! What concerns coherence and must be the same on all nodes, compared when two nodes meet.

use nearcache_store::NodeId;

use crate::ids::Epoch;

/// The settings of a cache that its nodes must share.
///
/// A difference keeps two nodes from syncing this cache with each other; other caches are not touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// The mode.
    pub mode: ModeKind,
    /// The codec of the values ([`CodecTag::codec`](crate::payload::CodecTag::codec)).
    pub codec: u16,
    /// The time to live given to entries that name none, in milliseconds; 0 for none.
    pub time_to_live_ms: u64,
    /// How long removals are remembered, in milliseconds.
    pub tombstone_ttl_ms: u64,
    /// What a node does that is not with most of its cluster.
    pub split: SplitPolicy,
}

/// What a node does with a cache in mode `replicated` while it does not hear most of its cluster.
///
/// Most is more than half of the nodes that have this cache open, or exactly half with the smallest node id among them. Those that
/// left on purpose do not count, those that died count for ten seconds more. Takes effect two seconds after this node
/// last asked somebody who answered and whom it needs to be with most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum SplitPolicy {
    /// It goes on. Both sides of a netsplit read and write; when it heals, the newer version of each key wins.
    #[default]
    Serve = 0,
    /// It reads and refuses writes.
    ReadOnly = 1,
    /// It serves nothing from its memory (every read is a miss, and what is loaded meanwhile is not kept), and about a second later
    /// drops what it holds. When the netsplit heals it is filled again.
    Flush = 2,
}

/// Where entries live and how writes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ModeKind {
    /// Entries live on this node; nothing travels.
    Local = 0,
    /// Entries live on every node; writes are sent to all.
    Replicated = 1,
    /// Entries live on the nodes that loaded or wrote them; writes are sent to all as invalidations, without values.
    Invalidation = 2,
}

/// The first message to a peer about a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// What must be equal.
    pub agreement: Agreement,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The latest number of the sender's stream.
    pub latest: u64,
    /// Whether the sender is ready.
    pub ready: bool,
    /// The sender's physical clock, in milliseconds since the Unix epoch.
    pub physical_ms: u64,
    /// The longest value that the sender takes, in bytes; of longer ones it is told key and version only.
    pub value_bytes_max: u32,
    /// How long after it last had all of a peer's invalidations the sender may serve what that peer may have invalidated, in
    /// milliseconds; 0 in modes without leases.
    pub lease_ms: u64,
}

/// Two nodes do not agree on a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cache is {ours:?} here and {theirs:?} on node {peer}: not synced with that node")]
pub struct Disagreement {
    /// The other node.
    pub peer: NodeId,
    /// What this node was told.
    pub ours: Agreement,
    /// What the other was told.
    pub theirs: Agreement,
}
