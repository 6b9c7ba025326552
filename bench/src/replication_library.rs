//! Three nodes of the library in this process, each with a runtime and sockets of its own.

use crate::replication::{Throughput, Visible};

/// The three nodes and their caches.
#[derive(Debug)]
pub(crate) struct LibraryCluster {}

impl LibraryCluster {
    /// Starts three nodes on loopback and waits until they know each other.
    ///
    /// # Errors
    /// When a node cannot be started.
    pub(crate) fn start() -> anyhow::Result<Self> {
        anyhow::bail!("not measured yet")
    }

    /// Writes on the first node, and asks the two others in memory until both have it.
    pub(crate) fn visible(&self, _writes: u64, _busy: u64, _rate: u64) -> anyhow::Result<Visible> {
        anyhow::bail!("not measured yet")
    }

    /// Writes on the first node as fast as the others follow.
    pub(crate) fn updates(&self, _updates: u64) -> anyhow::Result<Throughput> {
        anyhow::bail!("not measured yet")
    }
}
