//! What the HTTP listener counts, in the node's registry.

use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the HTTP listener of one node.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Family<StatusLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    pub(super) connections: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Metrics {
    /// Makes the counters and registers them in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::default();
        registry.register(
            "http_requests",
            "HTTP requests answered, by status",
            metrics.requests.clone(),
        );
        registry.register(
            "http_connections_refused",
            "HTTP connections not served or cut off, by reason",
            metrics.refused.clone(),
        );
        registry.register(
            "http_connections",
            "HTTP connections open",
            metrics.connections.clone(),
        );
        Arc::new(metrics)
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.requests
            .get_or_create(&StatusLabel {
                status: status.as_u16(),
            })
            .inc();
    }

    /// How many requests were answered so.
    pub(super) fn answers(&self, status: StatusCode) -> u64 {
        let status = status.as_u16();
        self.requests.get_or_create(&StatusLabel { status }).get()
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}
