//! Sessions: the three lanes to one peer, from their beginning to their end.
//!
//! Two nodes that dial each other at the same time get two sessions and both keep the same one:
//! that of the smaller id. A session opened by the same side as the one before replaces it, for
//! whoever dials again knows that its last session is gone.

use std::sync::Arc;

use nearcache_protocol::handshake::{Peer, SessionToken, stays_when_crossed};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_store::NodeId;

use super::lane_stream::LaneStream;
use super::links::Link;
use super::{reader, reauthenticate, writer};
use crate::node::NodeShared;

/// The lanes of a session that have come so far.
#[derive(Debug)]
pub(super) struct Lanes {
    identity: Identity,
    name: Arc<str>,
    session: SessionToken,
    lanes: [Option<LaneStream>; 3],
}

impl Lanes {
    pub(super) fn new(peer: &Peer) -> Self {
        Self {
            identity: peer.identity.clone(),
            name: Arc::clone(&peer.name),
            session: peer.session,
            lanes: [None, None, None],
        }
    }

    /// Puts one lane in its place; one that is of another session or start of the peer is closed.
    pub(super) fn put(&mut self, peer: &Peer, stream: LaneStream) {
        let is_same = peer.identity.node == self.identity.node
            && peer.identity.epoch == self.identity.epoch
            && peer.session == self.session;
        let place = self.lanes.get_mut(usize::from(peer.lane.number()));
        if let Some(place) = place.filter(|_| is_same) {
            *place = Some(stream);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.lanes.iter().all(Option::is_some)
    }
}

/// Begins a session that `dialer` opened; closes it at once if another one stays instead.
pub(super) fn begin(shared: &Arc<NodeShared>, lanes: Lanes, dialer: NodeId) {
    let link = Arc::new(Link::new(&lanes.identity, Arc::clone(&lanes.name), dialer));
    let links = shared.links();
    let _changing = links.changing.lock();
    if shared.is_stopped() || shared.cluster_state().is_unwanted(link.peer, shared.now()) {
        return;
    }
    if let Some(current) = links.get(link.peer) {
        if !replaces(&link, &current, shared.id()) {
            return;
        }
        end(shared, &current);
    }
    links.insert(&link);
    tracing::info!(peer = %link.peer, name = %link.name, "connected");
    shared
        .cluster_state()
        .connected(shared, &lanes.identity, &link.name);
    for cache in shared.caches().values() {
        cache.peer_up(link.peer, link.epoch);
    }
    // Only now is anything read: a machine must know a peer before it hears from it.
    for (lane, stream) in Lane::ALL.into_iter().zip(lanes.lanes) {
        let Some(LaneStream { stream, decoder }) = stream else {
            continue;
        };
        let (read, write) = stream.into_split();
        tokio::spawn(reader::run(
            Arc::clone(shared),
            Arc::clone(&link),
            lane,
            read,
            decoder,
        ));
        tokio::spawn(writer::run(
            Arc::clone(shared),
            Arc::clone(&link),
            lane,
            write,
        ));
    }
    if shared.security().is_some() {
        let address = lanes.identity.address;
        tokio::spawn(reauthenticate::run(
            Arc::clone(shared),
            Arc::clone(&link),
            address,
        ));
    }
    tokio::spawn(end_when_closed(Arc::clone(shared), Arc::clone(&link)));
}

/// Whether `new` takes the place of `current` on the node `ours`.
fn replaces(new: &Link, current: &Link, ours: NodeId) -> bool {
    if new.epoch != current.epoch {
        return new.epoch > current.epoch;
    }
    if current.closed.is_cancelled() || new.dialer == current.dialer {
        return true;
    }
    let acceptor = if new.dialer == ours { new.peer } else { ours };
    stays_when_crossed(new.dialer, acceptor)
}

async fn end_when_closed(shared: Arc<NodeShared>, link: Arc<Link>) {
    link.closed.cancelled().await;
    let _changing = shared.links().changing.lock();
    end(&shared, &link);
}

/// Takes a session off, if it is still the current one of its peer. The caller holds the lock of
/// changes.
fn end(shared: &Arc<NodeShared>, link: &Arc<Link>) {
    link.closed.cancel();
    if !shared.links().remove(link) || shared.is_stopped() {
        return;
    }
    tracing::info!(peer = %link.peer, name = %link.name, "disconnected");
    for cache in shared.caches().values() {
        cache.peer_down(link.peer);
    }
    shared.cluster_state().lost(shared, link.peer);
}
