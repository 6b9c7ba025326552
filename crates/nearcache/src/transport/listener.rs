//! Accepts connections of peers.
//!
//! A stranger costs one task and at most a handshake of 4 KiB, with TLS 64 KiB before it, for at most
//! 5 s, and there are at most 128 of them: the newest takes the place of the oldest. Whoever passes the handshake is one lane of a session; the session begins
//! when all three lanes have come. A probe connection goes to the pool of those instead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nearcache_protocol::frame::Frame;
use nearcache_protocol::handshake::{self, Peer, Refusal, SessionToken};
use nearcache_store::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::lane_stream::{HANDSHAKE_TIMEOUT, HandshakeError, LaneStream, in_time};
use super::probes;
use super::secure::{self, Assurance};
use super::session::{self, Lanes};
use super::socket::{self, TcpListener, TcpStream};
use super::strangers::Strangers;
use crate::node::NodeShared;
use crate::security::Distrust;
use crate::security::secret::Role;

/// Connections that may be in their handshake at one time.
const STRANGERS_MAX: usize = 128;

/// Sessions of one node that may lack lanes at one time: what two that dial each other, and dial again, need (a guess).
const PENDING_MAX: usize = 4;

/// How long to wait after the system refused to accept, so as not to spin (a guess).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sessions of which some lanes have come and others not.
type Pending = Mutex<HashMap<(NodeId, SessionToken), (Instant, Lanes)>>;

/// Accepts until the node stops.
pub(super) async fn run(shared: Arc<NodeShared>, listener: TcpListener) {
    let strangers = Arc::new(Strangers::new(STRANGERS_MAX));
    let pending = Arc::new(Pending::default());
    let stopped = shared.stopped().clone();
    while let Some(accepted) = stopped.run_until_cancelled(listener.accept()).await {
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stranger = strangers.admit(&stopped);
        let (shared, pending) = (Arc::clone(&shared), Arc::clone(&pending));
        tokio::spawn(async move {
            let greeted = (stranger.turned_away)
                .run_until_cancelled(in_time(greet(&shared, stream)))
                .await;
            match greeted {
                Some(Ok((peer, stream))) if peer.probe => {
                    let admitted = probes::admit(&shared, &peer).await;
                    drop(stranger);
                    if let Some(admitted) = admitted {
                        probes::serve(&shared, &peer, stream, admitted).await;
                    }
                }
                Some(Ok((peer, lane))) => gather(&shared, &pending, peer, lane),
                Some(Err(error)) => {
                    shared.metrics().handshake_refused(error.label());
                    tracing::info!(%from, %error, "refused a peer");
                }
                None if shared.is_stopped() => {}
                None => {
                    shared.metrics().handshake_refused("too_many");
                    tracing::debug!(%from, "too many handshakes at once: the oldest is ended");
                }
            }
        });
    }
}

/// The handshake of one connection.
async fn greet(
    shared: &NodeShared,
    stream: TcpStream,
) -> Result<(Peer, LaneStream), HandshakeError> {
    socket::prepare(&stream)?;
    let (stream, assurance) = secure::accepted(shared.security(), stream).await?;
    let mut lane = LaneStream::new(stream);
    let error = match decide(shared, &mut lane, assurance.as_ref()).await {
        Ok(peer) => return Ok((peer, lane)),
        Err(error) => error,
    };
    let now = shared.handshake_time();
    let last_words = match &error {
        HandshakeError::Refused(refusal) => refusal.frame(now),
        HandshakeError::Untrusted(Distrust::RefusedUs) => return Err(error),
        HandshakeError::Untrusted(_) => Refusal::RefusedByPeer.frame(now),
        HandshakeError::Io(_) | HandshakeError::TimedOut => return Err(error),
    };
    if matches!(error, HandshakeError::Refused(Refusal::SelfConnection)) {
        let from = lane.stream.peer_addr()?;
        shared.cluster_state().reached_by_myself(from);
    }
    // Told as a courtesy; who closes first does not matter.
    let _ = lane.write(&last_words).await;
    if assurance.is_some() {
        secure::linger(&mut lane.stream).await;
    }
    Err(error)
}

/// Decides about a connection by what it begins with, and by how it answers the welcome.
async fn decide(
    shared: &NodeShared,
    lane: &mut LaneStream,
    assurance: Option<&Assurance>,
) -> Result<Peer, HandshakeError> {
    let mut answer = BytesMut::new();
    if let Some(assurance) = assurance {
        let proof = lane.read_frame().await?;
        let id = assurance.check_proof(Role::Dialer, &proof)?;
        answer = assurance.answer(id);
    }
    let hello = lane.read_frame().await?;
    let accepted = accept(shared, &hello)?;
    if let Some(assurance) = assurance {
        assurance.check_node(shared.cluster(), &accepted.peer)?;
    }
    answer.extend_from_slice(&accepted.welcome);
    lane.write(&answer).await?;
    let ready = lane.read_frame().await?;
    let result = accepted.complete(shared.handshake_time(), &ready);
    if let Ok(peer) = &result {
        shared.clock_read(peer);
    }
    if let Err(Refusal::ClockApart { peer, .. }) = &result {
        shared.clock_refused(peer);
    }
    Ok(result?)
}

fn accept(shared: &NodeShared, frame: &Frame) -> Result<handshake::Accepted, Refusal> {
    let now = shared.handshake_time();
    let accepted = shared
        .cluster_state()
        .with_membership(|local, membership| handshake::accept(local, membership, now, frame))?;
    if shared
        .cluster_state()
        .is_unwanted(accepted.peer.identity.node, shared.now())
    {
        return Err(Refusal::RefusedByPeer);
    }
    Ok(accepted)
}

/// Puts a lane to the others of its session, and begins the session when it is the last.
fn gather(shared: &Arc<NodeShared>, pending: &Arc<Pending>, peer: Peer, lane: LaneStream) {
    let (node, now) = (peer.identity.node, Instant::now());
    let key = (node, peer.session);
    let mut all = pending.lock();
    let is_new = !all.contains_key(&key);
    if is_new {
        make_place(&mut all, node);
    }
    let (_, lanes) = all.entry(key).or_insert_with(|| (now, Lanes::new(&peer)));
    lanes.put(&peer, lane);
    let is_complete = lanes.is_complete();
    let complete = is_complete.then(|| all.remove(&key)).flatten();
    drop(all);
    if let Some((_, lanes)) = complete {
        session::begin(shared, lanes, node);
    } else if is_new {
        let pending = Arc::clone(pending);
        tokio::spawn(async move {
            tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
            pending.lock().remove(&key);
        });
    }
}

/// A node whose sessions lack lanes, time and again, holds few sockets by that: its oldest such session ends.
fn make_place(all: &mut HashMap<(NodeId, SessionToken), (Instant, Lanes)>, node: NodeId) {
    let of_node = || all.iter().filter(|((of, _), _)| *of == node);
    if of_node().count() < PENDING_MAX {
        return;
    }
    let oldest = of_node().min_by_key(|(_, (since, _))| *since);
    if let Some(key) = oldest.map(|(key, _)| *key) {
        all.remove(&key);
    }
}
