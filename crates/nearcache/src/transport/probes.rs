//! Probe connections: what the membership, and the audit and the inspection of caches, have to say to members without a session.
//!
//! Beyond a full mesh a node has sessions with a few members and probes all. For the others it opens a connection when it has something
//! to say, with the handshake and the proofs of every connection, keeps it while the two talk, and closes it. Such a connection
//! is no session: no cache hears of it, nothing counts as fresh by it, and a session with the same peer stands beside it undisturbed. Of the
//! messages of caches only questions about one key and their answers may come over it.
//!
//! ```text
//! membership ─ Reach ─▶ accepted or dialled connection ─▶ peer        none: dial one, if there is room or one is idle
//! cache ─ ask ─▶ questions ─▶ the same, for half of the room          no room: waits, for a second at most
//! listener ─ probe ──▶ accepted ─ frames ─▶ membership, cache         no room: closed
//! ```
//!
//! Of each direction there are at most `probe_connections`; what does not fit is lost, as a datagram is.

mod pool;
mod questions;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use nearcache_protocol::handshake::Peer;
use nearcache_protocol::identity::Identity;
use nearcache_protocol::membership::MembershipMessage;
use nearcache_protocol::wire;
use nearcache_store::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use self::pool::Line;
pub(crate) use self::pool::{Direction, ProbePool};
pub(crate) use self::questions::{Questions, ask, open_for_questions};
use super::lane_stream::LaneStream;
use super::reader::{self, BadFrame};
use crate::node::NodeShared;

/// How long a connection stays that nobody says anything on (a guess: several round trips and an indirect probe).
const IDLE_MAX: Duration = Duration::from_secs(2);

/// How long one stays in any case: whoever comes again proves again who it is.
const LASTS_MAX: Duration = Duration::from_secs(30);

/// How long a write may take: a peer that reads nothing is none to wait for.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// The longest frame on such a connection, in bytes: a packet of the membership has at most 8 KiB, a question about a key as much as the
/// longest key, 64 KiB.
pub(crate) const FRAME_BYTES_MAX: u32 = 80 << 10;

/// Sends to a member that there is no session with; lost if that cannot be.
///
/// Called with the membership locked.
pub(crate) fn reach(shared: &Arc<NodeShared>, to: &Identity, message: &MembershipMessage) {
    let mut frame = BytesMut::new();
    let limit = FrameLimit::new(FRAME_BYTES_MAX);
    if let Err(error) = frame::encode(message.kind(), 0, &message.body(), limit, &mut frame) {
        tracing::error!(peer = %to.node, %error, "a message of the membership cannot be sent");
        return;
    }
    let pool = shared.probes();
    let Some(line) = pool.send(to.node, frame.freeze(), shared.now()) else {
        return;
    };
    let (shared, to) = (Arc::clone(shared), to.clone());
    tokio::spawn(async move {
        let stopped = shared.stopped().clone();
        let _: Option<()> = stopped.run_until_cancelled(call(&shared, &to, line)).await;
    });
}

/// Makes room for a connection that was accepted as one. Waits until the one that gives way is closed.
pub(super) async fn admit(shared: &NodeShared, peer: &Peer) -> Option<Admitted> {
    let node = peer.identity.node;
    let line = shared
        .probes()
        .line(Direction::Accepted, node, shared.now());
    let admitted = match line {
        Some(line) => Admitted::new(line).await,
        None => None,
    };
    if admitted.is_none() {
        tracing::debug!(peer = %node, "no room for a probe connection");
    } else {
        shared.cluster_state().is_called(node, &peer.name);
    }
    admitted
}

/// Serves a connection that was admitted, until it ends.
pub(super) async fn serve(
    shared: &Arc<NodeShared>,
    peer: &Peer,
    stream: LaneStream,
    admitted: Admitted,
) {
    let stopped = shared.stopped().clone();
    let talking = talk(shared, peer.identity.node, stream, admitted);
    let _: Option<()> = stopped.run_until_cancelled(talking).await;
}

/// A line, and the right to have a socket for it.
pub(super) struct Admitted {
    line: Line,
    _place: OwnedSemaphorePermit,
}

impl Admitted {
    async fn new(line: Line) -> Option<Self> {
        let place = tokio::time::timeout(WRITE_MAX * 2, line.place()).await;
        let Ok(Ok(_place)) = place else { return None };
        Some(Self { line, _place })
    }
}

/// Dials and talks.
async fn call(shared: &Arc<NodeShared>, to: &Identity, line: Line) {
    let Some(admitted) = Admitted::new(line).await else {
        return;
    };
    let closed = admitted.line.closed.clone();
    let dialled = closed.run_until_cancelled(super::dialer::dial_probe(shared, to.address));
    let (peer, stream) = match dialled.await {
        Some(Ok(dialled)) => dialled,
        Some(Err(error)) => {
            tracing::debug!(peer = %to.node, %error, "cannot open a probe connection");
            shared.metrics().probes_failed.inc();
            for cache in shared.caches().values() {
                cache.unreached(to.node);
            }
            return;
        }
        None => return,
    };
    if peer.identity.node != to.node {
        tracing::debug!(wanted = %to.node, found = %peer.identity.node, "another node answers there");
        return;
    }
    shared.metrics().probes_opened.inc();
    shared.cluster_state().is_called(to.node, &peer.name);
    talk(shared, to.node, stream, admitted).await;
}

/// Carries messages both ways until nobody has had any for a while.
async fn talk(shared: &Arc<NodeShared>, peer: NodeId, stream: LaneStream, admitted: Admitted) {
    let Admitted { mut line, _place } = admitted;
    let closed = line.closed.clone();
    let talking = async {
        if let Err(error) = converse(shared, peer, stream, &mut line).await {
            shared.metrics().frame_refused(error.label());
            tracing::warn!(%peer, %error, "bad frame: closing the probe connection");
            shared.cluster_state().quarantine(peer, shared.now());
        }
    };
    let _: Option<()> = closed.run_until_cancelled(talking).await;
}

async fn converse(
    shared: &Arc<NodeShared>,
    peer: NodeId,
    stream: LaneStream,
    line: &mut Line,
) -> Result<(), BadFrame> {
    let LaneStream {
        mut stream,
        mut decoder,
    } = stream;
    decoder.set_limit(FrameLimit::new(FRAME_BYTES_MAX));
    let ends = Instant::now() + LASTS_MAX;
    let mut is_first = true;
    loop {
        while let Some(frame) = decoder.next_frame()? {
            line.used(shared.now());
            if frame.kind == Kind::REFUSED && is_first {
                // Who accepted it has found out by our answer to its welcome that the clocks are too far apart.
                return Ok(());
            }
            if wire::is_probe(frame.kind) {
                if is_first {
                    line.is_for_membership(false);
                }
                is_first = false;
                reader::take_of_cache(shared, peer, &frame)?;
                line.answered();
                continue;
            }
            is_first = false;
            line.is_for_membership(true);
            if frame.kind == Kind::PART {
                // There is no session here that it could end.
                return Err(BadFrame::UnknownKind { kind: frame.kind.0 });
            }
            reader::take_membership(shared, peer, &frame)?;
        }
        // Whoever always has something to read would never let the timer below have its turn.
        if Instant::now() >= ends {
            return Ok(());
        }
        let idle = (Instant::now() + IDLE_MAX).min(ends);
        tokio::select! {
            biased;
            message = line.outgoing.recv() => {
                let Some(message) = message else { return Ok(()) };
                let writing = write(&mut stream, message, &mut line.outgoing);
                let written = tokio::time::timeout(WRITE_MAX, writing).await;
                let Ok(Ok(bytes)) = written else { return Ok(()) };
                shared.metrics().bytes_sent.inc_by(bytes);
            }
            read = stream.read_buf(decoder.buffer_mut()) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => {
                    shared.metrics().bytes_received.inc_by(count as u64);
                }
            },
            () = tokio::time::sleep_until(idle) => {
                // Told by closing: what was sent is out.
                let _ = tokio::time::timeout(WRITE_MAX, stream.shutdown()).await;
                return Ok(());
            }
        }
    }
}

/// Writes a message and what else waits. Returns the bytes.
async fn write(
    stream: &mut (impl AsyncWriteExt + Unpin),
    first: Bytes,
    outgoing: &mut mpsc::Receiver<Bytes>,
) -> std::io::Result<u64> {
    let mut bytes = first.len() as u64;
    stream.write_all(&first).await?;
    while let Ok(next) = outgoing.try_recv() {
        bytes += next.len() as u64;
        stream.write_all(&next).await?;
    }
    stream.flush().await?;
    Ok(bytes)
}
