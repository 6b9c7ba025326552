//! The loads of one cache on one node: who waits for which, and what protects the system of record.
//!
//! The machines are the protocol's ([`nearcache_protocol::load`]); here are their locks, and the places where callers find
//! results. No lock is held while anybody waits or a loader runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::load::breaker::{Admitted, Breaker, BreakerState};
use nearcache_protocol::load::early;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::load::flights::{CallId, FlightId, Flights, Role};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_store::{Expiry, Handle, Version};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};

use super::sources::Sources;
use super::{Shell, is_leased};
use crate::cache::load::{LoadError, LoadPolicy};
use crate::cache::stats::LoadStats;
use crate::metrics::NodeMetrics;
use crate::random::random;

/// What a load came to: an entry, nothing under the key, or an error.
pub(crate) type Landed<V> = Result<Option<Handle<V>>, LoadError>;

/// Where those who wait for a flight find what it came to.
#[derive(Debug)]
pub(crate) struct Slot<V: Payload> {
    landed: watch::Sender<Option<Landed<V>>>,
    /// Tells the leader that there is a place.
    started: Notify,
}

impl<V: Payload> Slot<V> {
    fn new() -> Self {
        Self {
            landed: watch::Sender::new(None),
            started: Notify::new(),
        }
    }

    /// Waits for the flight's end. Cancel-safe.
    pub(crate) async fn landed(&self) -> Landed<V> {
        let mut landed = self.landed.subscribe();
        let landed = landed.wait_for(Option::is_some).await;
        match landed.map(|landed| landed.clone()) {
            Ok(Some(landed)) => landed,
            // The sender lives in self.
            Ok(None) | Err(_) => Err(LoadError::Dropped),
        }
    }

    /// Waits until the flight has a place.
    pub(crate) async fn started(&self) {
        self.started.notified().await;
    }
}

/// That a load may ask; without a circuit breaker nobody has said so.
#[derive(Clone, Copy)]
pub(crate) struct Admission(Option<Admitted>);

/// Loads of one cache.
pub(crate) struct Loads<V: Payload> {
    policy: LoadPolicy,
    flights: Mutex<Flights<Arc<Slot<V>>>>,
    breaker: Mutex<Breaker>,
    sources: Arc<Sources>,
    /// How long a load takes, in microseconds: a moving average.
    takes_us: AtomicU64,
    /// How long before its expiry a reader may have to load an entry anew, in milliseconds: what every hit compares.
    early_ms: AtomicU64,
    counters: LoadCounters,
}

impl<V: Payload> Loads<V> {
    pub(super) fn new(policy: LoadPolicy, metrics: &NodeMetrics, cache: &str) -> Self {
        Self {
            flights: Mutex::new(Flights::new(policy.flights())),
            breaker: Mutex::new(Breaker::new(policy.breaker())),
            policy,
            sources: Arc::default(),
            takes_us: AtomicU64::new(0),
            early_ms: AtomicU64::new(0),
            counters: LoadCounters::new(metrics, cache),
        }
    }

    pub(crate) const fn policy(&self) -> &LoadPolicy {
        &self.policy
    }

    pub(crate) const fn counters(&self) -> &LoadCounters {
        &self.counters
    }

    pub(crate) fn stats(&self) -> LoadStats {
        self.counters.read()
    }

    /// Whether an entry that expires then is so close to it that a number has to be drawn. Cost: one load for an entry
    /// that never expires, three for others.
    #[inline]
    pub(crate) fn is_near_expiry(&self, expiry: Expiry, now_ms: impl FnOnce() -> u64) -> bool {
        !expiry.is_never()
            && expiry.as_millis().saturating_sub(now_ms()) <= self.early_ms.load(Ordering::Relaxed)
    }

    /// Whether this reader loads the entry anew.
    pub(crate) fn draws_refresh(&self, expiry: Expiry, now_ms: u64) -> bool {
        let remaining = expiry.remaining(now_ms).unwrap_or(Duration::MAX);
        let takes = Duration::from_micros(self.takes_us.load(Ordering::Relaxed));
        let beta = self.policy.refresh_beta;
        beta > 0.0 && early::is_due(remaining, takes, beta, random())
    }

    /// A loader has answered after so long.
    pub(crate) fn took(&self, duration: Duration) {
        let took_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 16);
        let old_us = self.takes_us.load(Ordering::Relaxed);
        // The usual weight of a new sample of a round trip (RFC 6298): 1/8.
        let new_us = if old_us == 0 {
            took_us
        } else {
            old_us - old_us / 8 + took_us / 8
        };
        self.takes_us.store(new_us, Ordering::Relaxed);
        let window = early::window(Duration::from_micros(new_us), self.policy.refresh_beta);
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        self.early_ms.store(window_ms, Ordering::Relaxed);
    }

    /// Whether the system of record is not to be asked at all.
    pub(crate) fn is_open(&self, now: Time) -> bool {
        self.policy.circuit_breaker && self.breaker.lock().state(now) == BreakerState::Open
    }

    /// Whether a load may ask the system of record now; how that ends is told to [`ended`](Self::ended) or [`unasked`](Self::unasked).
    pub(crate) fn admits(&self, now: Time) -> Option<Admission> {
        if !self.policy.circuit_breaker {
            return Some(Admission(None));
        }
        let admitted = self.breaker.lock().admit(now)?;
        Some(Admission(Some(admitted)))
    }

    /// A load that was admitted has ended.
    pub(crate) fn ended(&self, now: Time, admission: Admission, answered: bool) {
        if let Some(admitted) = admission.0 {
            self.breaker.lock().ended(now, admitted, answered);
        }
    }

    /// A load that was admitted did not ask.
    pub(crate) fn unasked(&self, admission: Admission) {
        if let Some(admitted) = admission.0 {
            self.breaker.lock().unasked(admitted);
        }
    }

    /// The versions of the system of record that were seen (I7).
    pub(crate) fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources)
    }

    /// Whether what was read in this version of the system of record is as new as all that was seen of the key (I7).
    pub(crate) fn is_newest(&self, key: &[u8], source_version: u64) -> bool {
        self.sources.raise(key, source_version)
    }

    pub(crate) fn began(&self, flight: FlightId, fence: Fence) {
        self.flights.lock().began(flight, fence);
    }

    /// Nothing was found here: the flight goes on.
    pub(crate) fn missed(&self, flight: FlightId) {
        self.flights.lock().missed(flight);
    }

    /// How long a load waits until it may begin.
    pub(crate) fn patience(&self, start: Start) -> Option<Duration> {
        match start {
            Start::Now => None,
            Start::Queued => Some(self.policy.queue_wait),
            // By then the earlier loads have ended: each waits for its turn, and is given up.
            Start::Behind => Some(self.policy.load_timeout + self.policy.load_timeout / 2),
        }
    }
}

/// What is known of a flight that this caller leads.
pub(crate) struct FlightGuard<V: Payload> {
    shell: Arc<Shell<V>>,
    pub(crate) id: FlightId,
    pub(crate) slot: Arc<Slot<V>>,
}

impl<V: Payload> FlightGuard<V> {
    /// Ends the flight: everybody who waits for it gets this.
    pub(crate) fn land(self, landed: Landed<V>) {
        self.end(landed);
        // Dropping it now finds no flight of that name.
    }

    fn end(&self, landed: Landed<V>) {
        let (place, starting) = self.shell.loads.flights.lock().land(self.id);
        if let Some(place) = place {
            place.landed.send_replace(Some(landed));
        }
        for (_, next) in starting {
            next.started.notify_one();
        }
    }
}

impl<V: Payload> Drop for FlightGuard<V> {
    /// However a load ends, its key is free and nobody waits in vain (C8): also when its task is dropped.
    fn drop(&mut self) {
        self.end(Err(LoadError::Dropped));
    }
}

/// How a caller takes part in a load.
pub(crate) enum Part<V: Payload> {
    /// It waits.
    Follows(Arc<Slot<V>>),
    /// It makes the load.
    Leads {
        flight: FlightGuard<V>,
        start: Start,
    },
}

/// When a load may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    /// Once it has a place.
    Queued,
    /// Once an earlier load of its key has ended.
    Behind,
}

impl<V: Payload> Shell<V> {
    /// A call of the loader for several keys.
    pub(crate) fn new_call(&self) -> CallId {
        self.loads.flights.lock().call()
    }

    /// Joins the flight of `key` or begins one, as a part of `call` if there is one.
    pub(crate) fn join_flight(
        self: &Arc<Self>,
        key: &Bytes,
        call: Option<CallId>,
    ) -> Result<Part<V>, LoadError> {
        let counters = self.loads.counters();
        let slot = || Arc::new(Slot::new());
        let joined = self.loads.flights.lock().join(&self.store, key, call, slot);
        let (role, slot) = joined.map_err(|overloaded| {
            counters.overloaded.inc();
            LoadError::Overloaded {
                running: overloaded.running,
                queued: overloaded.queued,
            }
        })?;
        let (id, start) = match role {
            Role::Follows(_) => {
                counters.shared.inc();
                return Ok(Part::Follows(slot));
            }
            Role::Leads(id) => (id, Start::Now),
            Role::Queues(id) => (id, Start::Queued),
            Role::Behind(id) => (id, Start::Behind),
        };
        let shell = Arc::clone(self);
        let flight = FlightGuard { shell, id, slot };
        Ok(Part::Leads { flight, start })
    }

    /// Whether somebody loads `key` and may be joined or not.
    pub(crate) fn is_flying(&self, key: &Bytes) -> bool {
        self.loads.flights.lock().has(key)
    }

    /// Loads that run and loads that wait.
    pub(crate) fn flights(&self) -> (usize, usize) {
        let flights = self.loads.flights.lock();
        (flights.running(), flights.queued())
    }

    /// The entry of `key`, if it may be served now and is newer than `seen`.
    pub(crate) fn newer_than(&self, key: &[u8], seen: Version) -> Option<Handle<V>> {
        let bound = self.gate.bound();
        let entry = self.store.peek(key)?;
        // A value that is elsewhere is not here.
        let is_news = entry.version() > seen && !entry.is_stub();
        (is_news && is_leased(bound, self.node.quick())).then_some(entry)
    }

    /// The entry of `key`, live or expired for less than `stale_max`. Never one that was superseded or invalidated, and
    /// none while this node has no lease.
    pub(crate) fn stale_copy(&self, key: &[u8], stale_max: Duration) -> Option<Handle<V>> {
        let bound = self.gate.bound();
        let entry = self.store.peek_stale(key, stale_max)?;
        is_leased(bound, self.node.quick()).then_some(entry)
    }
}

/// Counters of loads, in the node's registry.
#[derive(Debug)]
pub(crate) struct LoadCounters {
    pub(crate) succeeded: Counter,
    pub(crate) not_kept: Counter,
    pub(crate) failed: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) shared: Counter,
    pub(crate) overloaded: Counter,
    pub(crate) circuit_open: Counter,
    pub(crate) stale_served: Counter,
    pub(crate) refreshed: Counter,
}

impl LoadCounters {
    fn new(metrics: &NodeMetrics, cache: &str) -> Self {
        let counter = |outcome| metrics.loads(cache, outcome);
        Self {
            succeeded: counter("succeeded"),
            not_kept: counter("not_kept"),
            failed: counter("failed"),
            timed_out: counter("timed_out"),
            shared: counter("shared"),
            overloaded: counter("overloaded"),
            circuit_open: counter("circuit_open"),
            stale_served: counter("stale_served"),
            refreshed: counter("refreshed"),
        }
    }

    fn read(&self) -> LoadStats {
        LoadStats {
            succeeded: self.succeeded.get(),
            not_kept: self.not_kept.get(),
            failed: self.failed.get(),
            timed_out: self.timed_out.get(),
            shared: self.shared.get(),
            overloaded: self.overloaded.get(),
            circuit_open: self.circuit_open.get(),
            stale_served: self.stale_served.get(),
            refreshed: self.refreshed.get(),
        }
    }
}
