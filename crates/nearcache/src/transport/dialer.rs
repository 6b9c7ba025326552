//! Opens sessions to peers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use nearcache_protocol::frame::Kind;
use nearcache_protocol::handshake::{Completed, Handshake, Peer, Refusal, SessionToken};
use nearcache_protocol::lane::Lane;
use nearcache_store::NodeId;

use super::lane_stream::{HandshakeError, LaneStream, in_time};
use super::secure::{self, Assurance};
use super::session::{self, Lanes};
use super::socket::{self, TcpStream};
use crate::node::{ConnectError, NodeShared};
use crate::random::random;
use crate::security::Distrust;
use crate::security::secret::Role;

/// Makes one attempt to open a session with whoever listens at `address`.
///
/// The control lane goes first: only when it stands are the other two opened. Returns who it is.
pub(crate) async fn dial(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    dial_unless(shared, address, |_| false).await
}

/// The same for an address that somebody gave, who may not know that a session with whoever listens there stands: that goes on undisturbed.
pub(super) async fn dial_given(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    dial_unless(shared, address, |peer| is_connected(shared, peer)).await
}

/// The same for an address that says nothing of who listens there: a member has more than the one it advertises. Beyond the mesh it is membership
/// that says with which members there are sessions.
pub(super) async fn dial_found(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    let is_member = |peer: &Peer| {
        let (node, epoch) = (peer.identity.node, peer.identity.epoch);
        let others = shared.cluster_state().others(shared);
        others.iter().any(|m| m.id == node && m.epoch == epoch)
    };
    let is_needless = |peer: &Peer| {
        is_connected(shared, peer) || (shared.cluster_state().is_by_tree() && is_member(peer))
    };
    dial_unless(shared, address, is_needless).await
}

/// Whether there is a session with this start of the peer.
fn is_connected(shared: &NodeShared, peer: &Peer) -> bool {
    let link = shared.links().get(peer.identity.node);
    link.is_some_and(|link| link.epoch == peer.identity.epoch && !link.closed.is_cancelled())
}

/// Ends after the first lane where `is_needless` says so of who listens.
async fn dial_unless(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
    is_needless: impl Fn(&Peer) -> bool,
) -> Result<NodeId, ConnectError> {
    check_network(shared, address)?;
    let token = SessionToken(random());
    let lane = |lane| open(shared, address, Purpose::Lane(token, lane));
    let (peer, control) = lane(Lane::Control).await?;
    if is_needless(&peer) {
        return Ok(peer.identity.node);
    }
    let (data, bulk) = tokio::try_join!(lane(Lane::Data), lane(Lane::Bulk))?;
    let mut lanes = Lanes::new(&peer);
    lanes.put(&peer, control);
    lanes.put(&data.0, data.1);
    lanes.put(&bulk.0, bulk.1);
    if !lanes.is_complete() {
        let reason = "the lanes lead to different nodes".to_owned();
        return Err(ConnectError::NotAPeer { address, reason });
    }
    let id = peer.identity.node;
    session::begin(shared, lanes, shared.id());
    Ok(id)
}

/// Makes one attempt to open a probe connection to whoever listens at `address`.
pub(super) async fn dial_probe(
    shared: &NodeShared,
    address: SocketAddr,
) -> Result<(Peer, LaneStream), ConnectError> {
    check_network(shared, address)?;
    open(shared, address, Purpose::Probe).await
}

/// What a connection is opened for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Lane(SessionToken, Lane),
    Probe,
}

async fn open(
    shared: &NodeShared,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<(Peer, LaneStream), ConnectError> {
    let stream = socket::connect(address)
        .await
        .map_err(|source| ConnectError::Unreachable { address, source })?;
    let near_end = stream.local_addr().ok();
    match in_time(greet(shared, stream, address, purpose)).await {
        Ok(greeted) => Ok(greeted),
        Err(HandshakeError::Io(source)) => Err(ConnectError::Unreachable { address, source }),
        Err(HandshakeError::Untrusted(Distrust::RefusedUs)) => {
            Err(ConnectError::Refused { address })
        }
        Err(HandshakeError::Untrusted(reason)) => Err(ConnectError::Untrusted { address, reason }),
        Err(HandshakeError::TimedOut) => Err(ConnectError::Silent { address }),
        Err(HandshakeError::Refused(Refusal::RefusedByPeer)) => {
            // It may have been our own listener; that knows from where it was reached.
            if near_end.is_some_and(|end| shared.cluster_state().led_to_myself(end)) {
                let id = shared.id();
                return Err(ConnectError::Myself { address, id });
            }
            Err(ConnectError::Refused { address })
        }
        Err(HandshakeError::Refused(Refusal::VersionMismatch { ours, theirs })) => {
            shared.cluster_state().hold_off(address, shared.now());
            Err(ConnectError::VersionMismatch {
                address,
                ours: ours.to_string(),
                theirs: theirs.to_string(),
            })
        }
        Err(HandshakeError::Refused(Refusal::ClockApart { peer, .. })) => {
            let apart_ms = peer.clock.nearest_ms();
            Err(ConnectError::ClockApart { address, apart_ms })
        }
        Err(HandshakeError::Refused(refusal)) => Err(ConnectError::NotAPeer {
            address,
            reason: refusal.to_string(),
        }),
    }
}

async fn greet(
    shared: &NodeShared,
    socket: TcpStream,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<(Peer, LaneStream), HandshakeError> {
    let (stream, assurance) = secure::dialled(shared.security(), socket, address).await?;
    let mut stream = LaneStream::new(stream);
    let local = shared.cluster_state().local();
    let now = shared.handshake_time();
    let (handshake, hello) = match purpose {
        Purpose::Lane(token, lane) => Handshake::dial(local, lane, token, now),
        Purpose::Probe => Handshake::dial_probe(local, SessionToken(random()), now),
    };
    let mut opening = assurance
        .as_ref()
        .map_or_else(BytesMut::new, Assurance::opening);
    opening.extend_from_slice(&hello);
    stream.write(&opening).await?;
    let mut answer = stream.read_frame().await?;
    if let Some(assurance) = &assurance
        && answer.kind != Kind::REFUSED
    {
        assurance.check_proof(Role::Acceptor, &answer)?;
        answer = stream.read_frame().await?;
    }
    let now = shared.handshake_time();
    let completed = shared
        .cluster_state()
        .with_membership(|_, membership| handshake.complete(membership, now, &answer));
    let is_certified = |peer: &Peer| match &assurance {
        Some(assurance) => assurance.check_node(shared.cluster(), peer),
        None => Ok(()),
    };
    match completed {
        Ok(Completed { peer, ready }) => {
            is_certified(&peer)?;
            shared.clock_read(&peer);
            stream.write(&ready).await?;
            Ok((peer, stream))
        }
        Err(refusal) => {
            if let Refusal::ClockApart { peer, .. } = &refusal {
                is_certified(peer)?;
                shared.clock_refused(peer);
                // It shall learn it too.
                let last_words = refusal.frame(shared.handshake_time());
                let _ = stream.write(&last_words).await;
                secure::linger(&mut stream.stream).await;
            }
            Err(refusal.into())
        }
    }
}

/// Unless peers are authenticated, nothing leaves this machine without permission.
fn check_network(shared: &NodeShared, address: SocketAddr) -> Result<(), ConnectError> {
    let is_safe = shared.security().is_some() || address.ip().to_canonical().is_loopback();
    if is_safe || shared.config().allow_insecure_network {
        Ok(())
    } else {
        Err(ConnectError::InsecureNetwork { address })
    }
}
