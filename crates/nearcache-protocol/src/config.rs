//! Every bound and interval of a replicated cache, with its default.

use std::time::Duration;

use crate::announce::{Agreement, ModeKind, SplitPolicy};
use crate::planted::PlantedBug;

/// What bounds a replicated cache and paces its repair. The same words as in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// What all nodes must share.
    pub agreement: Agreement,
    /// Updates kept for replay, and so the longest backlog of a peer. Default 65,536. A peer further behind is
    /// resynced by a transfer.
    pub replay_updates_max: usize,
    /// Bytes of keys and values kept for replay. Default 16 MiB. Whichever of the two bounds is met first holds.
    pub replay_bytes_max: usize,
    /// Updates that one batch covers at most. Default 4,096.
    pub batch_updates_max: u64,
    /// How often each peer is told our latest number and asked for its own. Default 500 ms. Freshness is about
    /// this long on a quiet network.
    pub heartbeat_every: Duration,
    /// How long a hole may stay without any progress before its replay is asked for again. Default 1 s; doubles
    /// each time, up to 16 times as long.
    pub replay_retry_after: Duration,
    /// How long a transfer may stand still before it is cut and asked for again, from another peer if there is one. Default 5 s.
    pub transfer_stall_after: Duration,
    /// The least time between two transfers to this node that repair holes. Default 1 s.
    pub repair_every: Duration,
    /// How often a node compares its digest with that of one peer, in turn, in case anything was lost that nobody knows of.
    /// Default 10 s, give or take a quarter; `repair_every` while there is something to heal, and when a peer has come back. Zero: only when one was cut short.
    pub compare_every: Duration,
    /// How long what differs in such a comparison must do so: updates are always on their way. Default 500 ms.
    pub compare_confirm_after: Duration,
    /// Bytes of a transfer that may be on their way. Default 1 MiB; must be at least `transfer_chunk_bytes`.
    pub transfer_credit_bytes: u32,
    /// Bytes of one chunk of a transfer, about. Default 64 KiB.
    pub transfer_chunk_bytes: usize,
    /// Bytes per second that this node sends at most of what it holds, to all peers together: transfers and what comparisons bring.
    /// Update streams are not limited. Default 64 MiB, half of what a link of 1 Gbit/s carries. Zero: no limit.
    pub transfer_bytes_per_second: u64,
    /// How long a joining node waits, once it has met a peer that can fill it, for others to share the work. Default 100 ms.
    pub join_gather_for: Duration,
    /// A node that has met no peer for this long after its start is ready with what it has. Default 2 s.
    pub join_alone_after: Duration,
    /// How long a home node waits for its peers' answers before it decides that a key is absent. Default 200 ms;
    /// at most half of what the caller still waits.
    pub find_wait: Duration,
    /// How long a modify waits for its home node to come back once the connection is lost. Default 500 ms.
    pub modify_grace: Duration,
    /// How soon a modify that found the wrong home node is sent again. Default 50 ms.
    pub modify_redrive_after: Duration,
    /// Callers that may wait for acknowledgements, finds and modifies, each. Default 65,536.
    pub waiters_max: usize,
    /// Answers to modifies kept so that a repeated request is not applied twice. Default 1,024.
    pub modify_replies_max: usize,
    /// The same in bytes of entries. Default 1 MiB. A request that is repeated when its answer is gone is answered as indeterminate.
    pub modify_replies_bytes_max: usize,
    /// Streams followed. Default 4,096: 4 epochs of 1,024 members. Beyond it the oldest of the dead are forgotten.
    pub streams_max: usize,
    /// Up to so many members, this node included, updates go from each to each; above, along a broadcast tree. Default 64; the same on
    /// all nodes.
    pub mesh_max: usize,
    /// Pieces of streams, of all origins, that are kept to be passed on and to be asked for again beyond the mesh. Default 16,384.
    pub relay_updates_max: usize,
    /// The same in bytes of keys and values. Default 8 MiB. What neither has any more is found by comparing digests.
    pub relay_bytes_max: usize,
    /// How long a neighbour in the tree may be ahead of this node before it is asked for what is missing. Default 200 ms: longer than a
    /// broadcast takes, so that little is sent twice.
    pub relay_patience: Duration,
    /// The longest value this node takes from peers, in bytes. Each node's own affair: of a longer one the peer sends key
    /// and version only, this node drops its older copy, and the key is a miss here. Default 1 MiB.
    pub value_bytes_max: u32,
    /// With `split = "flush"`: what was written within this time before this node was last with most of its cluster is not dropped but
    /// kept, unserved: the others may not have it. Default 5 s, within which all nodes agree once faults have ended (R1).
    pub split_keeps: Duration,
    /// The longest value that travels inside its update, in bytes; of a longer one key, version and length travel, and the value is
    /// fetched by each node when it is first read there. Each node's own affair: it concerns what the node sends. Default 64 KiB.
    pub inline_limit: usize,
    /// Bytes of long values that this node sends to all its peers together, per second; 0 for no limit. Default 160 MiB:
    /// an eighth of a 10 Gbit/s link.
    pub fetch_bytes_per_second: u64,
    /// Bytes of long values that may be arriving here at once, half of them from one peer; what would exceed it waits, unless nothing
    /// else is arriving. Default 128 MiB: two of the longest.
    pub fetch_bytes_max: usize,
    /// How long a peer that was asked for a long value may send nothing before another that may hold it is asked as well. Default 1 s.
    pub fetch_patience: Duration,
    /// How long nothing may come of a long value before it is asked for again, or given up if nobody waits for it any more. Default
    /// 5 s: over a slow link a piece takes a while.
    pub fetch_stall_after: Duration,
    /// Mode `invalidation`: how long after it last had all of a peer's invalidations a node may serve what that peer may have
    /// invalidated since. Default 3 s; at least a few times `heartbeat_every`, because each heartbeat renews it.
    pub link_timeout: Duration,
    /// Mode `invalidation`: what becomes of the copies when `link_timeout` has passed. Default: they are not served.
    pub on_disconnect: OnDisconnect,
    /// Mode `invalidation`: for how long a member that died without leaving still counts as one whose invalidations are missed.
    /// Default 60 s: a netsplit up to that long makes no copy stale beyond `link_timeout`. Afterwards all copies are dropped and the
    /// cache serves again without it.
    pub dead_counts_for: Duration,
    /// A rule to break on purpose; without the feature `planted-bugs` it is obeyed all the same. Default: none.
    #[doc(hidden)]
    pub planted: PlantedBug,
}

/// What a node in mode `invalidation` does with its copies while it does not get the invalidations of some peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDisconnect {
    /// It keeps them and serves none, until it has got all that it missed.
    #[default]
    Bypass,
    /// It drops them.
    Flush,
    /// It serves them for so long after it last had all of every peer's invalidations, instead of `link_timeout`.
    ServeStale {
        /// How long.
        max: Duration,
    },
}

impl OnDisconnect {
    /// Whether the copies go when the lease does.
    #[must_use]
    pub const fn flushes(self) -> bool {
        matches!(self, Self::Flush)
    }
}

impl ReplicationConfig {
    /// How long after it last had all of a peer's invalidations a node may serve what that peer may have invalidated.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        match self.on_disconnect {
            OnDisconnect::Bypass | OnDisconnect::Flush => self.link_timeout,
            OnDisconnect::ServeStale { max } => max,
        }
    }
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            agreement: Agreement {
                mode: ModeKind::Replicated,
                codec: 0,
                time_to_live_ms: 0,
                tombstone_ttl_ms: 24 * 60 * 60 * 1000,
                split: SplitPolicy::Serve,
            },
            replay_updates_max: 65_536,
            replay_bytes_max: 16 << 20,
            batch_updates_max: 4_096,
            heartbeat_every: Duration::from_millis(500),
            replay_retry_after: Duration::from_secs(1),
            transfer_stall_after: Duration::from_secs(5),
            repair_every: Duration::from_secs(1),
            compare_every: Duration::from_secs(10),
            compare_confirm_after: Duration::from_millis(500),
            transfer_credit_bytes: 1 << 20,
            transfer_chunk_bytes: 64 << 10,
            transfer_bytes_per_second: 64 << 20,
            join_gather_for: Duration::from_millis(100),
            join_alone_after: Duration::from_secs(2),
            find_wait: Duration::from_millis(200),
            modify_grace: Duration::from_millis(500),
            modify_redrive_after: Duration::from_millis(50),
            waiters_max: 65_536,
            modify_replies_max: 1_024,
            modify_replies_bytes_max: 1 << 20,
            streams_max: 4_096,
            mesh_max: 64,
            relay_updates_max: 16_384,
            relay_bytes_max: 8 << 20,
            relay_patience: Duration::from_millis(200),
            value_bytes_max: 1 << 20,
            split_keeps: Duration::from_secs(5),
            inline_limit: 64 << 10,
            fetch_bytes_per_second: 160 << 20,
            fetch_bytes_max: 128 << 20,
            fetch_patience: Duration::from_secs(1),
            fetch_stall_after: Duration::from_secs(5),
            link_timeout: Duration::from_secs(3),
            on_disconnect: OnDisconnect::Bypass,
            dead_counts_for: Duration::from_secs(60),
            planted: PlantedBug::None,
        }
    }
}
