//! Opens sessions to peers.

use std::net::SocketAddr;
use std::sync::Arc;

use nearcache_protocol::handshake::{Handshake, Peer, Refusal, SessionToken};
use nearcache_protocol::lane::Lane;
use nearcache_store::NodeId;

use super::lane_stream::{HandshakeError, LaneStream, in_time};
use super::session::{self, Lanes};
use super::socket;
use crate::node::{ConnectError, NodeShared};

/// Makes one attempt to open a session with whoever listens at `address`.
///
/// The control lane goes first: only when it stands are the other two opened. Returns who it is.
pub(crate) async fn dial(
    shared: &Arc<NodeShared>,
    address: SocketAddr,
) -> Result<NodeId, ConnectError> {
    let token = SessionToken(rand::random());
    let (peer, control) = dial_lane(shared, address, token, Lane::Control).await?;
    let (data, bulk) = tokio::try_join!(
        dial_lane(shared, address, token, Lane::Data),
        dial_lane(shared, address, token, Lane::Bulk),
    )?;
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

async fn dial_lane(
    shared: &NodeShared,
    address: SocketAddr,
    token: SessionToken,
    lane: Lane,
) -> Result<(Peer, LaneStream), ConnectError> {
    let stream = socket::connect(address)
        .await
        .map_err(|source| ConnectError::Unreachable { address, source })?;
    let mut stream = LaneStream::new(stream);
    let greeted = in_time(greet(shared, &mut stream, token, lane)).await;
    let near_end = stream.stream.local_addr().ok();
    match greeted {
        Ok(peer) => Ok((peer, stream)),
        Err(HandshakeError::Io(source)) => Err(ConnectError::Unreachable { address, source }),
        Err(HandshakeError::TimedOut) => Err(ConnectError::Silent { address }),
        Err(HandshakeError::Refused(Refusal::RefusedByPeer)) => {
            // It may have been our own listener; that knows from where it was reached.
            if near_end.is_some_and(|end| shared.cluster_state().led_to_myself(end)) {
                let id = shared.id();
                return Err(ConnectError::Myself { address, id });
            }
            Err(ConnectError::Refused { address })
        }
        Err(HandshakeError::Refused(refusal)) => Err(ConnectError::NotAPeer {
            address,
            reason: refusal.to_string(),
        }),
    }
}

async fn greet(
    shared: &NodeShared,
    stream: &mut LaneStream,
    token: SessionToken,
    lane: Lane,
) -> Result<Peer, HandshakeError> {
    let local = shared.cluster_state().local();
    let (handshake, hello) = Handshake::dial(local, lane, token, shared.handshake_time());
    stream.write(&hello).await?;
    let answer = stream.read_frame().await?;
    let now = shared.handshake_time();
    Ok(shared
        .cluster_state()
        .with_membership(|_, membership| handshake.complete(membership, now, &answer))?)
}
