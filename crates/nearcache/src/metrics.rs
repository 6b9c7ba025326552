//! The metrics of one node, in a registry of its own.
//!
//! Counters of the hot path are the store's and the machine's own; they are read when the registry
//! is scraped, so that counting costs the path nothing more.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Names a cache in a metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfCache {
    cache: String,
}

/// Says why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ForReason {
    reason: &'static str,
}

/// Names a cache and what became of a load of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfLoad {
    cache: String,
    outcome: &'static str,
}

/// The registry and what the library itself counts in it.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    registry: Arc<Mutex<Registry>>,
    undecodable: Family<OfCache, Counter>,
    disagreements: Family<OfCache, Counter>,
    pub(crate) writes_refused_by_clock: Counter,
    bypassed: Family<OfCache, Counter>,
    refused_by_split: Family<OfCache, Counter>,
    loads: Family<OfLoad, Counter>,
    pub(crate) frames_skipped: Counter,
    frames_refused: Family<ForReason, Counter>,
    handshakes_refused: Family<ForReason, Counter>,
    pub(crate) outboxes_dropped: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) probes_opened: Counter,
    pub(crate) probes_failed: Counter,
    pub(crate) sessions_apart: Counter,
    pub(crate) probes_dropped: Counter,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("nearcache"))),
            undecodable: Family::default(),
            disagreements: Family::default(),
            writes_refused_by_clock: Counter::default(),
            bypassed: Family::default(),
            refused_by_split: Family::default(),
            loads: Family::default(),
            frames_skipped: Counter::default(),
            frames_refused: Family::default(),
            handshakes_refused: Family::default(),
            outboxes_dropped: Counter::default(),
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
            probes_opened: Counter::default(),
            probes_failed: Counter::default(),
            sessions_apart: Counter::default(),
            probes_dropped: Counter::default(),
        };
        metrics.register();
        metrics
    }

    /// Where the node's metrics are, for whoever serves or extends them.
    pub(crate) fn registry(&self) -> Arc<Mutex<Registry>> {
        Arc::clone(&self.registry)
    }

    pub(crate) fn undecodable(&self, cache: &str) -> Counter {
        self.undecodable
            .get_or_create(&OfCache {
                cache: cache.to_owned(),
            })
            .clone()
    }

    pub(crate) fn disagreements(&self, cache: &str) -> Counter {
        self.disagreements
            .get_or_create(&OfCache {
                cache: cache.to_owned(),
            })
            .clone()
    }

    pub(crate) fn bypassed(&self, cache: &str) -> Counter {
        self.bypassed
            .get_or_create(&OfCache {
                cache: cache.to_owned(),
            })
            .clone()
    }

    pub(crate) fn refused_by_split(&self, cache: &str) -> Counter {
        self.refused_by_split
            .get_or_create(&OfCache {
                cache: cache.to_owned(),
            })
            .clone()
    }

    pub(crate) fn loads(&self, cache: &str, outcome: &'static str) -> Counter {
        let cache = cache.to_owned();
        self.loads.get_or_create(&OfLoad { cache, outcome }).clone()
    }

    /// Counts a frame that closed its connection.
    pub(crate) fn frame_refused(&self, reason: &'static str) {
        self.frames_refused
            .get_or_create(&ForReason { reason })
            .inc();
    }

    /// Counts a connection that was refused before it was one of a peer.
    pub(crate) fn handshake_refused(&self, reason: &'static str) {
        self.handshakes_refused
            .get_or_create(&ForReason { reason })
            .inc();
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register(
            "undecodable_values",
            "Reads of values that this node cannot decode",
            self.undecodable.clone(),
        );
        registry.register(
            "disagreements",
            "Peers met that have the cache open with other settings",
            self.disagreements.clone(),
        );
        registry.register(
            "cache_reads_bypassed",
            "Reads that found an entry and were misses: no lease, or apart from most of the cluster",
            self.bypassed.clone(),
        );
        registry.register(
            "cache_writes_refused_by_split",
            "Writes refused because this node is apart from most of its cluster",
            self.refused_by_split.clone(),
        );
        registry.register(
            "cache_loads",
            "What became of reads that had to load, by outcome",
            self.loads.clone(),
        );
        registry.register(
            "peer_frames_refused",
            "Frames that closed their connection",
            self.frames_refused.clone(),
        );
        registry.register(
            "peer_handshakes_refused",
            "Handshakes refused",
            self.handshakes_refused.clone(),
        );
        let plain = [
            (
                "writes_refused_by_clock",
                "Writes refused because this node's clock is too far from its peers'",
                &self.writes_refused_by_clock,
            ),
            (
                "peer_frames_skipped",
                "Frames of caches not open here",
                &self.frames_skipped,
            ),
            (
                "peer_outboxes_dropped",
                "Connections closed over a full outbox",
                &self.outboxes_dropped,
            ),
            (
                "peer_sent_bytes",
                "Bytes written to peers",
                &self.bytes_sent,
            ),
            (
                "peer_received_bytes",
                "Bytes read from peers",
                &self.bytes_received,
            ),
            (
                "peer_probe_connections_opened",
                "Short-lived connections opened to members without a session",
                &self.probes_opened,
            ),
            (
                "peer_sessions_ended_for_clocks",
                "Sessions ended because an echo showed that the peer's clock is too far away",
                &self.sessions_apart,
            ),
            (
                "peer_probe_connections_failed",
                "Short-lived connections that could not be opened",
                &self.probes_failed,
            ),
            (
                "peer_probe_messages_dropped",
                "Messages to members without a session for which there was no room, and connections of such members refused",
                &self.probes_dropped,
            ),
        ];
        for (name, help, counter) in plain {
            registry.register(name, help, counter.clone());
        }
    }
}
