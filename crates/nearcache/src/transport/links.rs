//! The peers this node is connected to.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use nearcache_protocol::frame::{FrameError, FrameLimit};
use nearcache_protocol::ids::{CacheId, Epoch};
use nearcache_protocol::lane::Lane;
use nearcache_store::NodeId;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::cache::CachePort;
use crate::metrics::NodeMetrics;

/// All connected peers.
#[derive(Debug)]
pub(crate) struct Links {
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    metrics: Arc<NodeMetrics>,
}

/// A connected peer: its three lanes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) epoch: Epoch,
    pub(super) name: Arc<str>,
    pub(super) outboxes: [Outbox; 3],
    pub(super) closed: CancellationToken,
}

impl Link {
    pub(super) fn outbox(&self, lane: Lane) -> &Outbox {
        let [control, data, bulk] = &self.outboxes;
        match lane {
            Lane::Control => control,
            Lane::Data => data,
            Lane::Bulk => bulk,
        }
    }
}

impl Links {
    pub(crate) fn new(metrics: Arc<NodeMetrics>) -> Self {
        Self {
            links: RwLock::default(),
            metrics,
        }
    }

    pub(super) fn get(&self, peer: NodeId) -> Option<Arc<Link>> {
        self.links.read().get(&peer).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.links.read().values().cloned().collect()
    }

    /// Queues a message for `peer`; without a connection it is lost, which the machines know how
    /// to live with. A full outbox closes the session.
    pub(crate) fn send(
        &self,
        peer: NodeId,
        lane: Lane,
        encode: impl FnOnce(FrameLimit, &mut BytesMut) -> Result<(), FrameError>,
    ) {
        let Some(link) = self.get(peer) else { return };
        let pushed = link.outbox(lane).push(|buffer| {
            if let Err(error) = encode(FrameLimit::MAX, buffer) {
                tracing::error!(%peer, %error, "a message cannot be sent");
            }
        });
        if pushed.is_err() {
            tracing::warn!(%peer, ?lane, "the peer does not drain its outbox: closing the session");
            self.metrics.outboxes_dropped.inc();
            link.closed.cancel();
        }
    }

    /// Has the writer of this lane pull from `cache`.
    pub(crate) fn pull(&self, peer: NodeId, lane: Lane, cache: CacheId) {
        if let Some(link) = self.links.read().get(&peer) {
            link.outbox(lane).pull(cache);
        }
    }

    /// Tells a cache that was just opened of the peers that are there already.
    pub(crate) fn introduce(&self, cache: &Arc<dyn CachePort>) {
        for link in self.all() {
            cache.peer_up(link.peer, link.epoch);
        }
    }

    /// Closes all sessions.
    pub(crate) fn close_all(&self) {
        for link in self.all() {
            link.closed.cancel();
        }
    }
}
