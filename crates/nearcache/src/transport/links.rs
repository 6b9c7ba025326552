//! The peers this node is connected to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use nearcache_protocol::frame::{FrameError, FrameLimit};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::ids::{CacheId, Epoch};
use nearcache_protocol::lane::Lane;
use nearcache_store::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Waiting};
use crate::cache::CachePort;
use crate::metrics::NodeMetrics;

/// How long the other lanes may take to end after the first (a guess; on a crash all end at once,
/// on a graceful leave each when its last bytes are read).
const LANES_END_WITHIN: Duration = Duration::from_secs(2);

/// How long a session that the tree does not want may take to send what waits (as long as a node that leaves waits).
const PART_WITHIN: Duration = Duration::from_secs(5);

/// All connected peers.
#[derive(Debug)]
pub(crate) struct Links {
    /// Held while a session begins or ends, so that caches and membership hear of it in order.
    pub(super) changing: Mutex<()>,
    /// Ordered, so that whoever walks it does so in the same order every time.
    links: RwLock<BTreeMap<NodeId, Arc<Link>>>,
    metrics: Arc<NodeMetrics>,
}

/// A connected peer: its three lanes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) epoch: Epoch,
    pub(super) name: Arc<str>,
    /// Which side opened the session.
    pub(super) dialer: NodeId,
    /// Cancelled when the session is to end, by whoever finds out first.
    pub(super) closed: CancellationToken,
    outboxes: [Outbox; 3],
    lanes_ended: AtomicUsize,
}

impl Link {
    pub(super) fn new(identity: &Identity, name: Arc<str>, dialer: NodeId) -> Self {
        Self {
            peer: identity.node,
            epoch: identity.epoch,
            name,
            dialer,
            closed: CancellationToken::new(),
            outboxes: Lane::ALL.map(Outbox::new),
            lanes_ended: AtomicUsize::new(0),
        }
    }

    /// The peer has closed one lane. Returns when the session shall end: when all lanes have ended,
    /// because until then bytes of the others may still wait to be read.
    pub(super) async fn lane_ended(&self) {
        if self.lanes_ended.fetch_add(1, Ordering::AcqRel) + 1 < Lane::ALL.len() {
            let _ = tokio::time::timeout(LANES_END_WITHIN, self.closed.cancelled()).await;
        }
    }

    /// Has all writers close their side once they have sent what waits.
    pub(super) fn finish(&self) {
        for outbox in &self.outboxes {
            outbox.finish();
        }
    }

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
            changing: Mutex::default(),
            links: RwLock::default(),
            metrics,
        }
    }

    pub(super) fn insert(&self, link: &Arc<Link>) {
        self.links.write().insert(link.peer, Arc::clone(link));
    }

    /// Takes `link` off; `false` if it is not the current one of its peer.
    pub(super) fn remove(&self, link: &Arc<Link>) -> bool {
        let mut links = self.links.write();
        let is_current = links
            .get(&link.peer)
            .is_some_and(|current| Arc::ptr_eq(current, link));
        if is_current {
            links.remove(&link.peer);
        }
        is_current
    }

    /// Whether there is a session with `peer`.
    pub(crate) fn is_connected(&self, peer: NodeId) -> bool {
        self.links.read().contains_key(&peer)
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.links.read().len()
    }

    /// Ends the session with `peer` once what was queued for it is out: the tree does not want it. At the latest after some seconds.
    pub(crate) fn part(&self, peer: NodeId) {
        let Some(link) = self.get(peer) else { return };
        tracing::debug!(%peer, "the tree does not want this session");
        link.finish();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PART_WITHIN, link.closed.cancelled()).await;
            link.closed.cancel();
        });
    }

    /// Whether there is no session with anybody.
    pub(super) fn is_alone(&self) -> bool {
        self.links.read().is_empty()
    }

    /// Ends the session with `peer`, if there is one.
    pub(crate) fn close(&self, peer: NodeId) -> bool {
        let link = self.get(peer);
        if let Some(link) = &link {
            link.closed.cancel();
        }
        link.is_some()
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

    /// How much waits to be written to each peer, by lane.
    pub(crate) fn waiting(&self) -> Vec<(NodeId, Lane, Waiting)> {
        let links = self.all();
        let lanes = links.iter().flat_map(|link| {
            let of = |lane| (link.peer, lane, link.outbox(lane).waiting());
            Lane::ALL.map(of)
        });
        lanes.collect()
    }

    /// Has the writer of this lane pull from `cache`.
    pub(crate) fn pull(&self, peer: NodeId, lane: Lane, cache: CacheId) {
        if let Some(link) = self.links.read().get(&peer) {
            link.outbox(lane).pull(cache);
        }
    }

    /// Makes a cache that was just opened known by `publish`, and tells it of the peers that are there already.
    ///
    /// Both while no session begins or ends: one that begins meanwhile would tell the cache of its peer too, and what the peer says between
    /// the two times would be forgotten, for good.
    pub(crate) fn introduce(&self, cache: &Arc<dyn CachePort>, publish: impl FnOnce()) {
        let _changing = self.changing.lock();
        publish();
        for link in self.all() {
            cache.peer_up(link.peer, link.epoch);
        }
    }

    /// Closes all sessions.
    pub(crate) fn close_all(&self) {
        let _changing = self.changing.lock();
        for link in self.all() {
            link.closed.cancel();
        }
    }
}
