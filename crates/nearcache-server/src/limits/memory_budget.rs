//! How many bytes of requests and replies the process holds for its clients.
//!
//! A connection charges what its buffers hold beyond the ordinary and returns it when they are
//! freed. The sum tells every connection whether the process is under pressure.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Limits;

/// The request and reply bytes that all connections of one node hold together.
#[derive(Debug)]
pub struct MemoryBudget {
    max_bytes: usize,
    held_bytes: AtomicUsize,
}

/// How close the process is to its bound on request and reply bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// At most 80 % of the bound is held.
    None,
    /// More than 80 %: reads are answered `BUSY`.
    Shed,
    /// All of it: connections are not read from until some of it is free.
    Full,
}

impl MemoryBudget {
    /// A budget with the bound of `limits` and nothing held.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max_bytes: limits.in_flight_bytes,
            held_bytes: AtomicUsize::new(0),
        })
    }

    /// Pressure at this moment. Cost: one relaxed load.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let held_bytes = self.held_bytes.load(Ordering::Relaxed);
        if held_bytes >= self.max_bytes {
            Pressure::Full
        } else if held_bytes > self.max_bytes / 5 * 4 {
            Pressure::Shed
        } else {
            Pressure::None
        }
    }

    /// Bytes held at this moment.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

/// What one connection holds of a [`MemoryBudget`]; dropping it returns all of it.
#[derive(Debug)]
pub struct MemoryCharge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryCharge {
    /// A charge of nothing yet.
    #[must_use]
    pub fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: 0,
        }
    }

    /// Sets what this connection holds to `bytes`. Cost: nothing when it did not change.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget
                .held_bytes
                .fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget
                .held_bytes
                .fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// The budget this charge is held against.
    #[must_use]
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_follows_what_is_held_and_a_dropped_charge_returns_all() {
        let budget = MemoryBudget::new(&Limits {
            in_flight_bytes: 1_000,
            ..Limits::default()
        });
        let mut charge = MemoryCharge::new(&budget);
        charge.set(800);
        assert_eq!(budget.pressure(), Pressure::None);
        charge.set(801);
        assert_eq!(budget.pressure(), Pressure::Shed);
        let mut other = MemoryCharge::new(&budget);
        other.set(199);
        assert_eq!(budget.pressure(), Pressure::Full);
        drop((charge, other));
        assert_eq!(budget.held_bytes(), 0);
    }
}
