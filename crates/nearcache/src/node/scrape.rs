//! What stores and machines count, read when somebody scrapes the node's registry.
//!
//! They count for themselves, so that counting costs the hot path nothing more; this turns their
//! counters into metrics, one per row of the tables below and cache.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::shared::NodeShared;
use crate::cache::{CachePort, CacheStats};

/// Name, help text and source of a metric.
type Row<S> = (&'static str, &'static str, fn(&S) -> u64);

/// What only grows.
const COUNTERS: &[Row<CacheStats>] = &[
    ("cache_hits", "Reads that found a live entry", |stats| {
        stats.store.hits
    }),
    ("cache_misses", "Reads that did not", |stats| {
        stats.store.misses
    }),
    (
        "cache_merges_applied",
        "Merges that were applied",
        |stats| stats.store.merges_applied,
    ),
    (
        "cache_merges_stale",
        "Merges that lost against something newer",
        |stats| stats.store.merges_stale,
    ),
    (
        "cache_evictions",
        "Entries that made room for others",
        |stats| stats.store.evictions,
    ),
    (
        "cache_expirations",
        "Entries whose deadline passed",
        |stats| stats.store.expirations,
    ),
    (
        "cache_updates_published",
        "Own updates sent to peers",
        |stats| stats.mode.published,
    ),
    (
        "cache_updates_applied",
        "Updates of peers applied",
        |stats| stats.mode.applied,
    ),
    (
        "cache_updates_superseded",
        "Updates of peers that were older than what is here",
        |stats| stats.mode.superseded,
    ),
    (
        "cache_updates_coalesced",
        "Updates left out for a later one of the same key",
        |stats| stats.mode.coalesced,
    ),
    ("cache_gaps", "Gaps seen in streams of peers", |stats| {
        stats.mode.gaps
    }),
    (
        "cache_transfers",
        "Transfers completed, as receiver",
        |stats| stats.mode.transfers,
    ),
    (
        "cache_transferred",
        "Entries, removals and floors that transfers brought",
        |stats| stats.mode.transferred,
    ),
    (
        "cache_transferred_bytes",
        "Bytes that transfers brought",
        |stats| stats.mode.transferred_bytes,
    ),
    (
        "cache_transferred_sent_bytes",
        "Bytes that transfers took from here",
        |stats| stats.mode.transferred_bytes_sent,
    ),
    (
        "cache_updates_withheld",
        "Updates of peers whose value is longer than this node takes; their keys are misses here",
        |stats| stats.mode.withheld,
    ),
    (
        "cache_values_fetched",
        "Long values fetched from peers",
        |stats| stats.mode.fetched,
    ),
    (
        "cache_fetch_bytes_received",
        "Bytes of long values that came from peers",
        |stats| stats.mode.fetched_bytes,
    ),
    (
        "cache_fetch_bytes_sent",
        "Bytes of long values sent to peers",
        |stats| stats.mode.fetch_sent_bytes,
    ),
    (
        "cache_fetches_moved",
        "Fetches of long values that went on at another peer, or again at the same",
        |stats| stats.mode.fetches_moved,
    ),
    (
        "cache_fetches_unheld",
        "Fetches of long values that no live node holds: their reads were misses",
        |stats| stats.mode.fetches_unheld,
    ),
    (
        "cache_drift_refused",
        "Updates refused because their stamp is in the future",
        |stats| stats.mode.drift_refused,
    ),
    (
        "cache_splits",
        "Times this node was apart from most of its cluster",
        |stats| stats.mode.splits,
    ),
    (
        "cache_flushes",
        "Times all was dropped because an invalidation may have been missed",
        |stats| stats.mode.flushes,
    ),
];

/// What goes up and down.
const GAUGES: &[Row<Arc<dyn CachePort>>] = &[
    ("cache_entries", "Entries held", |cache| {
        cache.stats().store.entries
    }),
    ("cache_bytes", "Bytes counted against the bound", |cache| {
        cache.stats().store.weight_bytes
    }),
    ("cache_tombstones", "Tombstones held", |cache| {
        cache.stats().store.tombstones
    }),
    (
        "cache_transfer_parts_left",
        "Parts of the key space, of 64, that the current transfer has not completed",
        |cache| cache.stats().mode.parts_left,
    ),
    ("cache_ready", "1 once the cache has been filled", |cache| {
        u64::from(cache.is_ready())
    }),
    (
        "cache_state",
        "0 synced, 1 catching up, 2 degraded (apart from most of the cluster), 3 isolated",
        |cache| cache.status() as u64,
    ),
    (
        "cache_leased",
        "1 while this node's copies may be served",
        |cache| u64::from(cache.is_leased()),
    ),
    (
        "cache_freshness_milliseconds",
        "How old the knowledge of the slowest peer is; the largest number if unknown",
        |cache| {
            let worst = cache.freshness().worst;
            worst.map_or(u64::MAX, |age| {
                u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
            })
        },
    ),
];

/// Reads the node's counters at each scrape.
pub(super) struct Scrape(pub(super) Weak<NodeShared>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(shared) = self.0.upgrade() else {
            return Ok(());
        };
        let caches: Vec<_> = shared.caches().values().cloned().collect();
        let stats: Vec<_> = caches
            .iter()
            .map(|cache| (cache.name(), cache.stats()))
            .collect();
        for (name, help, read) in COUNTERS {
            let kind = ConstCounter::new(0u64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (cache, stats) in &stats {
                let labels = [("cache", *cache)];
                ConstCounter::new(read(stats)).encode(metric.encode_family(&labels)?)?;
            }
        }
        for (name, help, read) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, gauge(0).metric_type())?;
            for cache in &caches {
                let labels = [("cache", cache.name())];
                gauge(read(cache)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let skew_ms = shared.hlc().stopped_by_skew_ms();
        let stopped = gauge(u64::from(skew_ms != 0));
        let kind = stopped.metric_type();
        let help = "1 while this node writes nothing because its clock is too far from its peers'";
        stopped.encode(encoder.encode_descriptor("clock_skewed", help, None, kind)?)?;
        let name = "cache_peer_freshness_milliseconds";
        let help = "How old the knowledge of each peer is; the largest number if unknown";
        let mut metric = encoder.encode_descriptor(name, help, None, gauge(0).metric_type())?;
        for cache in &caches {
            for peer in cache.freshness().per_peer {
                let labels = [
                    ("cache", cache.name().to_owned()),
                    ("peer", peer.peer.to_string()),
                ];
                let age = peer.age.map_or(u64::MAX, |age| {
                    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
                });
                gauge(age).encode(metric.encode_family(&labels)?)?;
            }
        }
        if let Some(security) = shared.security() {
            let left = gauge(security.valid_for().as_secs());
            let kind = left.metric_type();
            let help = "How long the certificate for peers is still valid";
            left.encode(encoder.encode_descriptor(
                "peer_certificate_valid_seconds",
                help,
                None,
                kind,
            )?)?;
        }
        let members = shared.cluster_state().others(&shared).len() + 1;
        let members = gauge(members as u64);
        let kind = members.metric_type();
        members.encode(encoder.encode_descriptor("members", "Live members", None, kind)?)
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
