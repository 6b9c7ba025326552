//! Counters of one cache on one node.

use std::time::Duration;

use nearcache_protocol::mode::{Freshness, ModeStats};
use nearcache_protocol::write::queue::QueueCounts;
use nearcache_store::StoreStats;
use prometheus_client::metrics::counter::Counter;

use crate::metrics::NodeMetrics;

/// A reading of a cache's counters. All but the gauges of the store only grow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// What the store counts: hits, misses, evictions, sizes.
    pub store: StoreStats,
    /// What the mode counts: updates sent, applied, missed.
    pub mode: ModeStats,
    /// Reads that found a value which this node cannot decode, and so were misses.
    pub undecodable: u64,
    /// Times a peer was met that has this cache open with other settings.
    pub disagreements: u64,
    /// Reads that found an entry and were misses nevertheless, because this node had no lease (mode `invalidation`) or was apart
    /// from most of its cluster (`split = "flush"`).
    pub bypassed: u64,
    /// Writes refused because this node is not with most of its cluster (`split = "read-only"`).
    pub refused_by_split: u64,
    /// How old this node's knowledge of each peer is, and of the worst of them.
    pub freshness: Freshness,
    /// What became of loads.
    pub loads: LoadStats,
    /// What became of write-behind.
    pub writes: WriteStats,
}

/// What waits to be written to the system of record, and what became of what was: write-behind of one cache on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteStats {
    /// Keys that wait to be written, or are with the sink.
    pub queued: usize,
    /// Their bytes, with their values.
    pub queued_bytes: u64,
    /// How long ago the oldest of them was accepted; zero if there is none.
    pub oldest: Duration,
    /// Dead letters kept now.
    pub dead_letters: usize,
    /// What the journal takes on the disk, in bytes; zero without one.
    pub journal_bytes: u64,
    /// Syncs of the journal, each for all writes that waited for it.
    pub journal_syncs: u64,
    /// Writes accepted.
    pub accepted: u64,
    /// Writes that were accepted before a restart and came back from the journal.
    pub restored: u64,
    /// Dead letters that were queued again, each time counted.
    pub replayed: u64,
    /// Writes whose place a later write of their key took, and that the sink has not taken.
    pub coalesced: u64,
    /// Writes that the sink has taken.
    pub written: u64,
    /// Calls of the sink that succeeded.
    pub batches: u64,
    /// Writes that failed and were queued again, each time counted.
    pub retried: u64,
    /// Writes that became dead letters.
    pub given_up: u64,
}

impl WriteStats {
    pub(crate) fn new(
        counts: QueueCounts,
        (queued, queued_bytes, dead_letters): (usize, u64, usize),
        oldest: Option<Duration>,
        (journal_bytes, journal_syncs): (u64, u64),
    ) -> Self {
        Self {
            queued,
            queued_bytes,
            oldest: oldest.unwrap_or_default(),
            dead_letters,
            journal_bytes,
            journal_syncs,
            accepted: counts.accepted,
            restored: counts.restored,
            replayed: counts.replayed,
            coalesced: counts.coalesced,
            written: counts.written,
            batches: counts.batches,
            retried: counts.retried,
            given_up: counts.given_up,
        }
    }
}

/// What became of the loads of one cache on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoadStats {
    /// Loads whose loader answered in time.
    pub succeeded: u64,
    /// Of these, the ones that were not kept, because the key was written or invalidated meanwhile, or the loader reported an
    /// older version than had been seen.
    pub not_kept: u64,
    /// Loads whose loader failed or panicked.
    pub failed: u64,
    /// Loads that took too long.
    pub timed_out: u64,
    /// Callers who waited for a load of somebody else instead of making their own.
    pub shared: u64,
    /// Misses that were refused for want of a place.
    pub overloaded: u64,
    /// Misses that were refused because the circuit was open.
    pub circuit_open: u64,
    /// Expired copies that were served.
    pub stale_served: u64,
    /// Loads begun before the entry had expired, or while its expired copy was served.
    pub refreshed: u64,
}

impl CacheStats {
    pub(crate) fn new(
        store: StoreStats,
        mode: ModeStats,
        freshness: Freshness,
        counters: &CacheCounters,
        loads: LoadStats,
        writes: WriteStats,
    ) -> Self {
        Self {
            store,
            mode,
            undecodable: counters.undecodable.get(),
            disagreements: counters.disagreements.get(),
            bypassed: counters.bypassed.get(),
            refused_by_split: counters.refused_by_split.get(),
            freshness,
            loads,
            writes,
        }
    }
}

/// What the shell itself counts, in the node's registry.
#[derive(Debug)]
pub(crate) struct CacheCounters {
    pub(crate) undecodable: Counter,
    pub(crate) disagreements: Counter,
    pub(crate) bypassed: Counter,
    pub(crate) refused_by_split: Counter,
}

impl CacheCounters {
    pub(crate) fn new(metrics: &NodeMetrics, cache: &str) -> Self {
        Self {
            undecodable: metrics.undecodable(cache),
            disagreements: metrics.disagreements(cache),
            bypassed: metrics.bypassed(cache),
            refused_by_split: metrics.refused_by_split(cache),
        }
    }
}
