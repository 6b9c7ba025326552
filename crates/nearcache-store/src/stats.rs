//! What a store counts: [`StoreStats`].

/// A reading of a store's counters. All but the gauges only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Reads that found a live entry.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Merges that were applied.
    pub merges_applied: u64,
    /// Merges that lost against something as new or newer.
    pub merges_stale: u64,
    /// Merges refused because the entry was too large.
    pub merges_too_large: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Entries whose deadline passed, or that were idle for too long.
    pub expirations: u64,
    /// Entries swept after a group invalidation.
    pub invalidations: u64,
    /// Gauge: entries held (expired and invalidated ones included until they are collected).
    pub entries: u64,
    /// Gauge: tombstones held.
    pub tombstones: u64,
    /// Gauge: floors of evicted keys held.
    pub key_floors: u64,
    /// Gauge: floors of group invalidations held.
    pub group_floors: u64,
    /// Gauge: bytes counted against the bound: entries, tombstones and floors.
    pub weight_bytes: u64,
    /// Tombstones that were folded into a shard's floor because there were too many.
    pub tombstones_folded: u64,
    /// Key floors that became part of a floor common to several keys, because there were too many.
    pub key_floors_folded: u64,
}
