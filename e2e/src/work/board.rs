//! What clients, watchers and the round share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::history::Value;

/// Time, lives, values, and how far the round is.
#[derive(Debug)]
pub(crate) struct Board {
    began: Instant,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) token: String,
    lives: Vec<AtomicUsize>,
    next_value: AtomicU64,
    /// No more writes.
    pub(crate) read_only: AtomicBool,
    /// No more of anything.
    pub(crate) over: AtomicBool,
    /// Clients that know that there are no more writes.
    pub(crate) quiet: AtomicUsize,
}

impl Board {
    /// For nodes at these addresses.
    pub(crate) fn new(addresses: Vec<SocketAddr>, token: String) -> Self {
        Self {
            began: Instant::now(),
            lives: addresses.iter().map(|_| AtomicUsize::new(0)).collect(),
            addresses,
            token,
            next_value: AtomicU64::new(1),
            read_only: AtomicBool::new(false),
            over: AtomicBool::new(false),
            quiet: AtomicUsize::new(0),
        }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The life the node is in.
    pub(crate) fn life(&self, node: usize) -> usize {
        self.lives
            .get(node)
            .map_or(0, |life| life.load(Ordering::SeqCst))
    }

    /// The node's process has ended and what it held is gone. Called after it ended and before it starts again.
    pub(crate) fn next_life(&self, node: usize) {
        if let Some(life) = self.lives.get(node) {
            life.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A value that nobody has used.
    pub(crate) fn new_value(&self) -> Value {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.addresses.len()
    }
}
