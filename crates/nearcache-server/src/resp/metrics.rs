//! Counters of the RESP listener.
//!
//! What happens per request is counted by each serving thread for itself, in cells no other thread
//! writes, and summed when somebody looks. What happens per connection or per error is counted in
//! ordinary counters.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::{Registry, Unit},
};

use super::{
    commands::{COMMANDS, CommandId},
    error::ErrorKind,
};

/// Counters of the RESP listener of one node.
#[derive(Debug, Default)]
pub struct Metrics {
    threads: Mutex<Vec<Arc<ThreadCounters>>>,
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) closed: Family<ClosedLabels, Counter>,
    pub(crate) errors: Family<ErrorLabels, Counter>,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum CloseReason {
    /// The client closed it, or said `QUIT`.
    Client,
    /// The client's bytes were no request.
    Protocol,
    /// The client spoke HTTP.
    Http,
    /// The client spoke TLS.
    Tls,
    /// Reading or writing failed.
    Io,
    /// Nothing was heard for the idle timeout.
    Idle,
    /// A request arrived too slowly.
    Slow,
    /// Replies waited beyond a bound of the output buffer.
    OutputBuffer,
    /// As many connections were open as may be.
    Refused,
    /// It did not authenticate in time, or failed too often, or had to make room.
    Unauthenticated,
    /// The server stops.
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ClosedLabels {
    pub(crate) reason: CloseReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ErrorLabels {
    pub(crate) kind: ErrorKind,
}

/// What one serving thread counts. Only that thread writes.
#[derive(Debug)]
pub(crate) struct ThreadCounters {
    commands: Vec<AtomicU64>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl ThreadCounters {
    pub(crate) fn count_command(&self, id: CommandId) {
        if let Some(cell) = self.commands.get(id.index()) {
            add(cell, 1);
        }
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        add(&self.received_bytes, bytes as u64);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        add(&self.sent_bytes, bytes as u64);
    }
}

/// Adds without the price of a shared counter: the cell has one writer.
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(amount),
        Ordering::Relaxed,
    );
}

/// Sums over all serving threads.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) commands: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl Metrics {
    /// Makes the counters and registers them in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::new(Self::default());
        registry.register(
            "resp_connections",
            "Open RESP connections",
            metrics.connections.clone(),
        );
        registry.register(
            "resp_connections_accepted",
            "RESP connections accepted since the start, those refused included",
            metrics.accepted.clone(),
        );
        registry.register(
            "resp_connections_closed",
            "RESP connections closed since the start, by reason",
            metrics.closed.clone(),
        );
        registry.register(
            "resp_errors",
            "RESP commands refused since the start, by kind of error",
            metrics.errors.clone(),
        );
        registry.register_collector(Box::new(PerThread(Arc::clone(&metrics))));
        metrics
    }

    /// Cells for one more serving thread.
    pub(crate) fn add_thread(&self) -> Arc<ThreadCounters> {
        let counters = Arc::new(ThreadCounters {
            commands: COMMANDS.iter().map(|_| AtomicU64::new(0)).collect(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        });
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&counters));
        counters
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for thread in self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            totals.commands += thread
                .commands
                .iter()
                .map(|cell| cell.load(Ordering::Relaxed))
                .sum::<u64>();
            totals.received_bytes += thread.received_bytes.load(Ordering::Relaxed);
            totals.sent_bytes += thread.sent_bytes.load(Ordering::Relaxed);
        }
        totals
    }

    /// How often `id` ran since the start.
    pub(crate) fn calls(&self, id: CommandId) -> u64 {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = threads
            .iter()
            .filter_map(|thread| thread.commands.get(id.index()));
        cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Connections refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.closed
            .get_or_create(&ClosedLabels {
                reason: CloseReason::Refused,
            })
            .get()
    }

    pub(crate) fn count_closed(&self, reason: CloseReason) {
        self.closed.get_or_create(&ClosedLabels { reason }).inc();
    }

    pub(crate) fn count_error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&ErrorLabels { kind }).inc();
    }
}

/// Renders the sums when the registry is read.
#[derive(Debug)]
struct PerThread(Arc<Metrics>);

impl Collector for PerThread {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut commands = encoder.encode_descriptor(
            "resp_commands",
            "RESP commands run since the start, by name",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for id in CommandId::all() {
            let calls = self.0.calls(id);
            if calls > 0 {
                let labels = [("command", id.command().name)];
                ConstCounter::new(calls).encode(commands.encode_family(&labels)?)?;
            }
        }
        let totals = self.0.totals();
        for (name, help, bytes) in [
            (
                "resp_received",
                "Bytes of requests since the start",
                totals.received_bytes,
            ),
            (
                "resp_sent",
                "Bytes of replies since the start",
                totals.sent_bytes,
            ),
        ] {
            let counter = ConstCounter::new(bytes);
            let metric =
                encoder.encode_descriptor(name, help, Some(&Unit::Bytes), counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
