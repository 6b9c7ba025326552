//! What protects the system of record, and for how long: [`LoadPolicy`].

use std::time::Duration;

use nearcache_protocol::load::breaker::BreakerConfig;
use nearcache_protocol::load::flights::FlightConfig;

use crate::limits::{
    LOAD_QUEUE_WAIT_DEFAULT, LOAD_RAMP_DEFAULT, LOAD_RAMP_MAX, LOAD_TIMEOUT_DEFAULT, LOAD_WAIT_MAX,
    LOADS_DEFAULT, LOADS_MAX, LOADS_QUEUED_DEFAULT, LOADS_QUEUED_MAX, STALE_FOR_MAX, TTL_MAX,
};

/// How misses are loaded. `new()` is safe as it stands: everything is bounded, and nothing expired is served.
///
/// ```
/// use std::time::Duration;
/// use nearcache::LoadPolicy;
///
/// // The database may be gone for an hour, and pages are better old than missing.
/// let policy = LoadPolicy::new()
///     .stale_if_error(Duration::from_secs(3600))
///     .stale_while_revalidate(Duration::from_secs(10))
///     .soft_timeout(Duration::from_millis(100));
/// # let _ = policy;
/// ```
///
/// `docs/loading.md` has a table of all knobs, and timelines of what they do. A value out of its range is refused when the cache is
/// opened.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a policy does nothing until a cache is opened with it"]
pub struct LoadPolicy {
    pub(crate) load_timeout: Duration,
    pub(crate) soft_timeout: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) refresh_beta: f64,
    pub(crate) ttl_jitter: f64,
    pub(crate) absent_ttl: Duration,
    pub(crate) loads_max: usize,
    pub(crate) queued_max: usize,
    pub(crate) queue_wait: Duration,
    pub(crate) circuit_breaker: bool,
    pub(crate) ramp: Duration,
    pub(crate) cluster_flights: bool,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadPolicy {
    /// The defaults, which each knob names.
    pub const fn new() -> Self {
        Self {
            load_timeout: LOAD_TIMEOUT_DEFAULT,
            soft_timeout: Duration::from_millis(500),
            stale_if_error: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            refresh_beta: 1.0,
            ttl_jitter: 0.1,
            absent_ttl: Duration::from_secs(1),
            loads_max: LOADS_DEFAULT,
            queued_max: LOADS_QUEUED_DEFAULT,
            queue_wait: LOAD_QUEUE_WAIT_DEFAULT,
            circuit_breaker: true,
            ramp: LOAD_RAMP_DEFAULT,
            cluster_flights: true,
        }
    }

    /// The hard timeout: a loader that takes longer is dropped, and everybody who waits gets
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut) or a stale copy. Default 10 s; 1 ms to 10 min. Set it above what the slowest
    /// query that is worth its answer takes. A call waits at most [`queue_wait`](Self::queue_wait), half of this for another node's
    /// load in mode `replicated`, and this. A loader that blocks its thread is not dropped in time.
    pub const fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// How long a caller waits for a load when there is a copy that [`stale_if_error`](Self::stale_if_error) allows: then it gets the
    /// copy, and the load goes on for the next. Default 500 ms; 0 (a copy at once) to 10 min; without effect while `stale_if_error` is zero or
    /// if it is longer than `load_timeout`. Set it to what your callers may wait.
    pub const fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = timeout;
        self
    }

    /// For how long after its expiry a copy is served when it cannot be loaded anew: the loader fails, is too slow, or is not asked
    /// (overload, open circuit). Default zero: an error is an error. Set it to the longest outage that your users should not
    /// notice; at most 7 days, and no longer than [`tombstone_ttl`](crate::CacheBuilder::tombstone_ttl) after the entry was loaded.
    /// Expired copies take room in memory for that long. Never served: what was removed or invalidated.
    pub const fn stale_if_error(mut self, limit: Duration) -> Self {
        self.stale_if_error = limit;
        self
    }

    /// For how long after its expiry a copy is served at once while it is loaded anew in the background. Default zero: who comes first
    /// after the expiry waits. Adds itself to the time to live as far as readers are concerned; bounds as
    /// [`stale_if_error`](Self::stale_if_error).
    pub const fn stale_while_revalidate(mut self, limit: Duration) -> Self {
        self.stale_while_revalidate = limit;
        self
    }

    /// How eagerly readers load an entry anew in the background before it expires: by chance, the likelier the closer the expiry and the
    /// longer loads take (XFetch; Vattani et al., VLDB 2015). Default 1.0: about one load's length before the expiry, once among all readers of a
    /// busy key. 2.0 is twice as early; zero turns it off; at most 1,000. Higher if readers of busy keys still wait, lower if loads are dear. It never serves
    /// anything expired.
    pub const fn refresh_beta(mut self, beta: f64) -> Self {
        self.refresh_beta = beta;
        self
    }

    /// By up to which share a loaded entry's time to live is shortened at random, so that entries loaded together do not expire
    /// together. Default 0.1; 0 to 0.9. It never lengthens. More if many entries are loaded in the same second, zero if expiry must be exact.
    pub const fn ttl_jitter(mut self, share: f64) -> Self {
        self.ttl_jitter = share;
        self
    }

    /// How long it is remembered that the system of record has nothing under a key ([`Loaded::absent`](crate::Loaded::absent)), unless the
    /// loader's answer says otherwise. Default 1 s. Longer protects better from floods of keys that do not exist; whoever creates
    /// such a key must write or invalidate it in the cache. Zero: not at all, and nothing is stored; at most 10 years.
    pub const fn absent_ttl(mut self, ttl: Duration) -> Self {
        self.absent_ttl = ttl;
        self
    }

    /// Calls of the loader at once, of this cache on this node; a `load_many` is one until the last of its keys is answered. Default 64; 1 to 4,096. Set it to this node's share of what the
    /// system of record takes: its connections divided by the nodes.
    pub const fn loads_max(mut self, loads: usize) -> Self {
        self.loads_max = loads;
        self
    }

    /// Loads that wait for a place beyond [`loads_max`](Self::loads_max). Default 1,024; at most 65,536. More are refused with
    /// [`LoadError::Overloaded`](crate::LoadError::Overloaded). Callers of one key wait as one, and so do the keys of one `load_many`. More if bursts of cold keys are normal.
    pub const fn queued_max(mut self, loads: usize) -> Self {
        self.queued_max = loads;
        self
    }

    /// How long a load waits for a place; then it is refused in the same way. Default 5 s; 0 to 10 min. Longer than callers wait themselves is of
    /// no use. A third load of one key, after two invalidations, waits for the earlier two instead, for one and a half
    /// [`load_timeout`](Self::load_timeout) at most.
    pub const fn queue_wait(mut self, wait: Duration) -> Self {
        self.queue_wait = wait;
        self
    }

    /// Whether the loader is left alone for a while when it fails: when of at least 20 loads of the last 10 s half failed, none is
    /// made for 1 s (2 s, 4 s … 30 s after relapses), then one, and after the first success more and more ([`ramp`](Self::ramp)).
    /// Default: yes. Turn it off if the loader's errors are not the system of record's, for example if it refuses bad keys.
    pub const fn circuit_breaker(mut self, on: bool) -> Self {
        self.circuit_breaker = on;
        self
    }

    /// How long it takes after an outage until all [`loads_max`](Self::loads_max) loads are made at once again, from one, in proportion.
    /// Default 5 s; 0 (all at once) to 1 h. Longer for a system of record that has to warm up its own caches.
    pub const fn ramp(mut self, ramp: Duration) -> Self {
        self.ramp = ramp;
        self
    }

    /// Mode `replicated`: whether nodes that miss the same key make one load of it, through the key's home node. Default: yes; a miss
    /// costs a round trip more. Turn it off if the loader takes less time than that.
    pub const fn cluster_flights(mut self, on: bool) -> Self {
        self.cluster_flights = on;
        self
    }

    /// How long the expired stay in memory.
    pub(crate) fn stale_for(&self) -> Duration {
        self.stale_if_error.max(self.stale_while_revalidate)
    }

    pub(crate) fn flights(&self) -> FlightConfig {
        FlightConfig {
            running_max: self.loads_max,
            queued_max: self.queued_max,
            ..FlightConfig::default()
        }
    }

    pub(crate) fn breaker(&self) -> BreakerConfig {
        BreakerConfig {
            ramp: self.ramp,
            running_max: self.loads_max,
            ..BreakerConfig::default()
        }
    }

    /// The first setting that is out of its range, its value and what is allowed.
    pub(crate) fn invalid(&self) -> Option<(&'static str, String, &'static str)> {
        let timeouts = Duration::from_millis(1)..=LOAD_WAIT_MAX;
        if !timeouts.contains(&self.load_timeout) {
            let value = format!("{:?}", self.load_timeout);
            return Some(("load_timeout", value, "1 ms to 10 min"));
        }
        for (setting, wait) in [
            ("soft_timeout", self.soft_timeout),
            ("queue_wait", self.queue_wait),
        ] {
            if wait > LOAD_WAIT_MAX {
                return Some((setting, format!("{wait:?}"), "at most 10 min"));
            }
        }
        if self.ramp > LOAD_RAMP_MAX {
            return Some(("ramp", format!("{:?}", self.ramp), "at most 1 h"));
        }
        for (setting, limit) in [
            ("stale_if_error", self.stale_if_error),
            ("stale_while_revalidate", self.stale_while_revalidate),
        ] {
            if limit > STALE_FOR_MAX {
                return Some((setting, format!("{limit:?}"), "at most 7 days"));
            }
        }
        if !(0.0..=0.9).contains(&self.ttl_jitter) {
            return Some(("ttl_jitter", self.ttl_jitter.to_string(), "0 to 0.9"));
        }
        if !(0.0..=1_000.0).contains(&self.refresh_beta) {
            return Some(("refresh_beta", self.refresh_beta.to_string(), "0 to 1,000"));
        }
        if self.absent_ttl > TTL_MAX {
            let value = format!("{:?}", self.absent_ttl);
            return Some(("absent_ttl", value, "at most 10 years"));
        }
        if !(1..=LOADS_MAX).contains(&self.loads_max) {
            return Some(("loads_max", self.loads_max.to_string(), "1 to 4,096"));
        }
        (self.queued_max > LOADS_QUEUED_MAX)
            .then(|| ("queued_max", self.queued_max.to_string(), "at most 65,536"))
    }
}
