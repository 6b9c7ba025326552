//! Bounds that hold whatever the configuration says, and the defaults of those one can set.
//!
//! Each bound names what happens when it is reached. The numbers are those of the limits table of
//! the reliability specification (section 3.1); the ones marked as a guess are not measured.

use std::time::Duration;

/// Longest key in bytes, unless the cache was opened with another bound.
///
/// A longer key is refused with [`KeyError::KeyTooLong`](crate::KeyError::KeyTooLong).
pub const KEY_LEN_DEFAULT: usize = 4 * 1024;

/// The most a cache can be configured to accept as the length of a key.
pub const KEY_LEN_MAX: usize = 64 * 1024;

/// Largest encoded value in bytes, unless the cache was opened with another bound.
///
/// A larger value is refused with [`WriteError::ValueTooLarge`](crate::WriteError::ValueTooLarge).
pub const VALUE_LEN_DEFAULT: usize = 1024 * 1024;

/// The most a cache can be configured to accept as the length of a value.
pub const VALUE_LEN_MAX: usize = 64 * 1024 * 1024;

/// Longest value that travels with its update, in bytes, unless the cache was opened with another bound.
///
/// A longer one is fetched by each node that reads it.
pub const INLINE_LIMIT_DEFAULT: usize = 64 * 1024;

/// The least that can be set as [`INLINE_LIMIT_DEFAULT`]'s replacement (a guess: below it the bookkeeping outweighs the value).
pub const INLINE_LIMIT_MIN: usize = 1024;

/// Bytes of long values that a node sends per second, to all peers together, unless the cache was opened with another bound. An
/// eighth of a 10 Gbit/s link: enough to give a value of 32 MiB to four others each second, and little enough that small updates beside it
/// keep within three times their usual p99 on two cores (`cargo xtask bench large`; with 256 MiB they were just above).
pub const FETCH_BYTES_PER_SECOND_DEFAULT: u64 = 160 * 1024 * 1024;

/// The least that can be set instead: a piece a second.
pub const FETCH_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// Longest time to live of an entry: ten years of 365 days.
///
/// A longer one is refused with [`WriteError::InvalidTtl`](crate::WriteError::InvalidTtl).
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Most tags on one entry (a guess). More are refused.
pub const TAGS_MAX: usize = 64;

/// Longest tag or key prefix in bytes (a guess). Longer ones are refused.
pub const TAG_LEN_MAX: usize = 512;

/// Longest name of a node, a cluster or a cache, in bytes.
pub const NAME_LEN_MAX: usize = 128;

/// Most caches open on one node (a guess).
pub const CACHES_MAX: usize = 1024;

/// The most members a cluster can be configured for. More are refused.
pub const MEMBER_LIMIT_MAX: usize = nearcache_protocol::membership::MEMBER_LIMIT_MAX;

/// The most members of a cluster unless the node is started with another bound.
pub const MEMBER_LIMIT_DEFAULT: usize = MEMBER_LIMIT_MAX;

/// Members up to which all nodes are connected to all others, unless the node is started with another bound. Beyond it updates travel
/// along a tree.
pub const MESH_MAX_DEFAULT: usize = 64;

/// Connections that a node opens at a time, and accepts, to watch members it has no session with, unless it is started with another bound
/// (a guess: two probes a second and their indirect ones, each connection for 2 s).
pub const PROBE_CONNECTIONS_DEFAULT: usize = 16;

/// The most it can be configured for.
pub const PROBE_CONNECTIONS_MAX: usize = 256;

/// How long an operation waits for other nodes unless the caller says otherwise.
pub const OPERATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// The longest an operation may be told to wait for other nodes.
pub const OPERATION_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// How long a [`FillToken`](crate::FillToken) may be out of this process's hands (a guess: longer than any load, far shorter than removals
/// are remembered). What is filled with an older one is not kept.
pub const FILL_TOKEN_LASTS: Duration = Duration::from_secs(5 * 60);

/// Changes a watcher may lag behind before it misses some (a guess).
pub const WATCH_CAPACITY_DEFAULT: usize = 1024;

/// Bytes a cache may hold unless it is opened with another bound (the size of a small service's
/// working set; a server sets a share of the machine's memory instead).
pub const CACHE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Most entries a scan looks at in one call.
pub const SCAN_COUNT_MAX: usize = 10_000;

/// Loads that run at once, of one cache on one node, unless its [`LoadPolicy`](crate::LoadPolicy) says otherwise. More wait.
pub const LOADS_DEFAULT: usize = 64;

/// The most that [`LoadPolicy::loads_max`](crate::LoadPolicy::loads_max) may be (reliability specification, 3.1).
pub const LOADS_MAX: usize = 4_096;

/// Loads that wait for a place, unless the policy says otherwise. More are refused with
/// [`LoadError::Overloaded`](crate::LoadError::Overloaded).
pub const LOADS_QUEUED_DEFAULT: usize = 1024;

/// The most that [`LoadPolicy::queued_max`](crate::LoadPolicy::queued_max) may be (a guess: each is a task that waits).
pub const LOADS_QUEUED_MAX: usize = 65_536;

/// How long a load waits for a place unless the policy says otherwise; then it is refused in the same way.
pub const LOAD_QUEUE_WAIT_DEFAULT: Duration = Duration::from_secs(5);

/// How long a loader may take unless the policy says otherwise; then it is dropped.
pub const LOAD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The longest wait that a load policy may name: for a load, a place, or a copy instead.
pub const LOAD_WAIT_MAX: Duration = Duration::from_secs(600);

/// The longest ramp.
pub const LOAD_RAMP_MAX: Duration = Duration::from_secs(60 * 60);

/// How long after an outage until all loads are made at once again, unless the policy says otherwise (O11).
pub const LOAD_RAMP_DEFAULT: Duration = Duration::from_secs(5);

/// Keys that one call of [`Loader::load_many`](crate::Loader::load_many) is asked for (a guess). More are asked for in further calls.
pub const LOAD_MANY_MAX: usize = 1_000;

/// How long one call of a [`Sink`](crate::Sink) may take unless the policy says otherwise; then its outcome is unknown.
pub const SINK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Write-through: calls of a sink at once, of one cache on one node, unless its [`WriteThrough`](crate::WriteThrough) says otherwise.
pub const SINK_CALLS_DEFAULT: usize = 64;

/// Write-through: writes that wait for a call, unless the policy says otherwise. More are refused with
/// [`WriteError::SinkOverloaded`](crate::WriteError::SinkOverloaded).
pub const SINK_QUEUED_DEFAULT: usize = 1024;

/// Bytes that the journal of a cache that writes behind may take, unless the policy says otherwise. Beyond it writes wait, then are
/// refused with [`WriteError::SinkOverloaded`](crate::WriteError::SinkOverloaded).
pub const JOURNAL_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// The least that can be set instead.
pub const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;

/// The longest time for which an expired copy may be served.
pub const STALE_FOR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Whether `name` can name a node, a cluster or a cache.
pub(crate) fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.bytes().all(is_allowed)
}

/// The longest that an inspection of a key waits for other nodes (as a read that demands freshness).
///
/// Who has not answered by then is told with that reason.
pub const INSPECT_MAX: Duration = Duration::from_secs(1);

/// The same beyond `mesh_max` members, where most are asked over connections that are opened for it, a few at a time (a guess: 1,000 members
/// over eight connections at a time, at 20 ms each and some that do not answer).
pub const INSPECT_MAX_BEYOND_MESH: Duration = Duration::from_secs(10);
