//! Where a node finds peers it has never met.
//!
//! A [`Discovery`] answers one question, "whom could I dial?", with socket addresses. It knows
//! nothing of membership: the node dials what it is given, learns who answers, and hears of
//! everyone else from those. It is asked again while the node is alone and now and then later.

#[cfg(feature = "dns")]
mod dns;
mod static_peers;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

#[cfg(feature = "dns")]
pub use dns::Dns;
pub use static_peers::StaticPeers;

/// What [`Discovery::lookup`] returns: boxed, so that discoveries can be swapped at run time.
pub type Lookup<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, DiscoveryError>> + Send + 'a>>;

/// A source of addresses to dial.
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// The addresses known now. May contain the asking node's own; order has no meaning.
    ///
    /// The node bounds the call in time and drops it when it stops.
    fn lookup(&self) -> Lookup<'_>;

    /// Whether there is anybody to look for. A node that has nobody is ready at once.
    fn is_empty(&self) -> bool {
        false
    }
}

/// Peers could not be looked up this time. The node keeps its peers and asks again later.
#[derive(Debug, thiserror::Error)]
#[error("looking up peers by {source_name} failed: {reason}")]
#[non_exhaustive]
pub struct DiscoveryError {
    /// Which discovery, as it is configured.
    pub source_name: String,
    /// What went wrong.
    pub reason: String,
}

impl DiscoveryError {
    /// Says that the source `source_name` failed for `reason`.
    pub fn new(source_name: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            source_name: source_name.into(),
            reason: reason.to_string(),
        }
    }
}
