//! A fixed list of addresses.

use std::net::SocketAddr;

use super::{Discovery, Lookup};

/// Peers whose addresses are known when the node is configured.
///
/// The list may name this node too; it is the same on all nodes then.
#[derive(Debug, Clone, Default)]
pub struct StaticPeers {
    addresses: Vec<SocketAddr>,
}

impl StaticPeers {
    /// Remembers `addresses`.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
        }
    }
}

impl Discovery for StaticPeers {
    fn lookup(&self) -> Lookup<'_> {
        Box::pin(async { Ok(self.addresses.clone()) })
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}
