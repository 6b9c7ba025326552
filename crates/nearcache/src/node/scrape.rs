//! What stores and machines count, read when somebody scrapes the node's registry.
//!
//! They count for themselves, so that counting costs the hot path nothing more; this turns their
//! counters into metrics, one per row of the tables below and cache.

use std::fmt;
use std::sync::{Arc, Weak};

use nearcache_protocol::lane::Lane;
use nearcache_protocol::mode::{PeerFreshness, age_ms};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::audit_metrics;
use super::shared::NodeShared;
use crate::cache::{CachePort, CacheStats};
use crate::transport::Waiting;

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
        "cache_updates_relayed",
        "Beyond the mesh: updates handed to neighbours in the tree, own and others'",
        |stats| stats.mode.relayed,
    ),
    (
        "cache_relayed_bytes",
        "Beyond the mesh: about how many bytes these were",
        |stats| stats.mode.relayed_bytes,
    ),
    (
        "cache_relay_wanted",
        "Beyond the mesh: pieces of streams asked of neighbours because the tree did not bring them",
        |stats| stats.mode.relay_wanted,
    ),
    (
        "cache_relay_replayed",
        "Beyond the mesh: updates sent to neighbours again because they asked",
        |stats| stats.mode.relay_replayed,
    ),
    (
        "cache_splits",
        "Times this node was apart from most of its cluster",
        |stats| stats.mode.splits,
    ),
    (
        "cache_tombstones_folded",
        "Removals forgotten before tombstone_ttl for want of room; an alarm if it grows: older entries of absent keys are refused since",
        |stats| stats.store.tombstones_folded,
    ),
    (
        "cache_writes_accepted",
        "Writes that write-behind has accepted",
        |stats| stats.writes.accepted,
    ),
    (
        "cache_writes_coalesced",
        "Writes whose place a later write of their key took, and that the system of record has not taken",
        |stats| stats.writes.coalesced,
    ),
    (
        "cache_writes_restored",
        "Writes that came back from the journal of write-behind after a restart",
        |stats| stats.writes.restored,
    ),
    (
        "cache_writes_replayed",
        "Dead letters of write-behind that were queued again",
        |stats| stats.writes.replayed,
    ),
    (
        "cache_writes_written",
        "Writes that the system of record has taken later",
        |stats| stats.writes.written,
    ),
    (
        "cache_writes_retried",
        "Writes of write-behind that failed and were queued again",
        |stats| stats.writes.retried,
    ),
    (
        "cache_writes_given_up",
        "Writes of write-behind that became dead letters",
        |stats| stats.writes.given_up,
    ),
    (
        "cache_journal_syncs",
        "Syncs of the journal of write-behind",
        |stats| stats.writes.journal_syncs,
    ),
    (
        "cache_flushes",
        "Times all was dropped because an invalidation may have been missed",
        |stats| stats.mode.flushes,
    ),
];

/// What goes up and down.
const GAUGES: &[Row<Arc<dyn CachePort>>] = &[
    (
        "cache_writes_queued",
        "Keys that write-behind is still to write",
        |cache| cache.stats().writes.queued as u64,
    ),
    (
        "cache_writes_queued_bytes",
        "Their bytes, with their values",
        |cache| cache.stats().writes.queued_bytes,
    ),
    (
        "cache_writes_oldest_milliseconds",
        "How long ago the oldest of them was accepted",
        |cache| number(cache.stats().writes.oldest.as_millis()),
    ),
    (
        "cache_writes_dead_letters",
        "Writes that write-behind has given up",
        |cache| cache.stats().writes.dead_letters as u64,
    ),
    (
        "cache_journal_bytes",
        "What the journal of write-behind takes on the disk",
        |cache| cache.stats().writes.journal_bytes,
    ),
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
        "cache_replay_bytes",
        "Bytes of updates kept for peers that have not got them yet; one buffer for all peers",
        |cache| cache.held().replay_bytes as u64,
    ),
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
            worst.map_or(u64::MAX, age_ms)
        },
    ),
    (
        "cache_clock_bound_microseconds",
        "How far the clock of any other node may be from this node's; for so long after an invalidation of a key its loads are not kept",
        |cache| number(cache.clock_bound().as_micros()),
    ),
];

/// What is known of each peer.
const PEERS: &[Row<PeerFreshness>] = &[
    (
        "cache_peer_freshness_milliseconds",
        "How old the knowledge of each peer is; the largest number if unknown",
        |peer| peer.age.map_or(u64::MAX, age_ms),
    ),
    (
        "cache_peer_round_trip_microseconds",
        "The last measured way to each peer and back; the largest number if unknown",
        |peer| {
            let round_trip = peer.round_trip;
            round_trip.map_or(u64::MAX, |round_trip| number(round_trip.as_micros()))
        },
    ),
    (
        "cache_peer_missing_updates",
        "Updates of each peer that are known to be missing here",
        |peer| peer.missing,
    ),
    (
        "cache_peer_unacknowledged_updates",
        "Own updates that each peer has not acknowledged",
        |peer| peer.unacknowledged,
    ),
];

fn number(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

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
        let skew = shared.clock_skew();
        let stopped = gauge(u64::from(skew.is_some()));
        let kind = stopped.metric_type();
        let help = "1 while this node writes nothing because its clock is too far from its peers'";
        stopped.encode(encoder.encode_descriptor("clock_skewed", help, None, kind)?)?;
        let apart_ms = ConstGauge::new(skew.map_or(0, |skew| skew.peers_ahead_ms));
        let kind = apart_ms.metric_type();
        let help =
            "While clock_skewed: median of the peers' clocks minus this node's, in milliseconds";
        apart_ms.encode(encoder.encode_descriptor("clock_skew_ms", help, None, kind)?)?;
        let freshness: Vec<_> = stats
            .iter()
            .map(|(cache, stats)| (*cache, &stats.freshness))
            .collect();
        for (name, help, read) in PEERS {
            let mut metric = encoder.encode_descriptor(name, help, None, gauge(0).metric_type())?;
            for (cache, freshness) in &freshness {
                for peer in &freshness.per_peer {
                    let labels = [
                        ("cache", (*cache).to_owned()),
                        ("peer", peer.peer.to_string()),
                    ];
                    gauge(read(peer)).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        audit_metrics::encode(&caches, &mut encoder)?;
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
        encode_connections(&shared, &mut encoder)
    }
}

/// How the node is connected.
fn encode_connections(
    shared: &NodeShared,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let links = shared.links_now();
    let rows = [
        (
            "members",
            "Live members",
            shared.cluster_state().others(shared).len() + 1,
        ),
        (
            "peer_sessions",
            "Peers that there is a session with",
            links.sessions,
        ),
        (
            "mesh_max",
            "Up to so many members all are connected to all; the same on all nodes",
            shared.config().mesh_max,
        ),
        (
            "by_tree",
            "1 while there are more members than a full mesh may have: updates travel along a tree",
            usize::from(links.by_tree),
        ),
    ];
    for (name, help, value) in rows {
        let value = gauge(value as u64);
        let kind = value.metric_type();
        value.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
    }
    encode_outboxes(shared, encoder)?;
    let help = "Short-lived connections with members without a session, by who opened them";
    let kind = gauge(0).metric_type();
    let mut metric = encoder.encode_descriptor("peer_probe_connections", help, None, kind)?;
    for (direction, open) in [
        ("dialled", links.probes_dialled),
        ("accepted", links.probes_accepted),
    ] {
        let labels = [("direction", direction)];
        gauge(open as u64).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What waits to be written to each peer, by lane.
fn encode_outboxes(
    shared: &NodeShared,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    type Read = fn(&Waiting) -> usize;
    let rows: [(&str, &str, Read); 2] = [
        (
            "peer_outbox_bytes",
            "Bytes that wait to be written to each peer, by lane",
            |waiting| waiting.bytes,
        ),
        (
            "peer_outbox_peak_bytes",
            "The most that have waited since the session with the peer began",
            |waiting| waiting.peak,
        ),
    ];
    let outboxes = shared.links().waiting();
    for (name, help, read) in rows {
        let kind = gauge(0).metric_type();
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (peer, lane, waiting) in &outboxes {
            let labels = [
                ("peer", peer.to_string()),
                ("lane", lane_name(*lane).to_owned()),
            ];
            gauge(read(waiting) as u64).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Control => "control",
        Lane::Data => "data",
        Lane::Bulk => "bulk",
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
