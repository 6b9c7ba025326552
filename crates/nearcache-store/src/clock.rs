//! The time a store goes by: [`CoarseClock`], set by the store's owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cluster time in milliseconds, read by the store and set by its owner about once a millisecond.
///
/// Clones share one reading. Reading is one relaxed load, because a call to the system's clock would
/// cost half a read hit.
#[derive(Clone, Debug, Default)]
pub struct CoarseClock(Arc<AtomicU64>);

impl CoarseClock {
    /// A clock that reads `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Milliseconds of cluster time.
    #[must_use]
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the clock to `now_ms`; a reading that is not later changes nothing.
    pub fn set(&self, now_ms: u64) {
        self.0.fetch_max(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::CoarseClock;

    #[test]
    fn never_runs_backwards() {
        let clock = CoarseClock::new(10);
        let shared = clock.clone();
        shared.set(20);
        shared.set(15);
        assert_eq!(clock.now_ms(), 20);
    }
}
