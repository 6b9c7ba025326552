//! Reads one lane of a session and hands each frame to whom it is for.

use std::sync::Arc;
use std::time::Duration;

use nearcache_protocol::control::ControlError;
use nearcache_protocol::frame::{Frame, FrameDecoder, FrameError, Kind};
use nearcache_protocol::lane::Lane;
use nearcache_protocol::membership::{MembershipError, MembershipMessage};
use nearcache_protocol::wire::{self, WireError};
use nearcache_store::NodeId;
use tokio::io::AsyncReadExt;

use super::links::Link;
use super::peer_stream::ReadSide;
use super::writer::ALIVE;
use crate::node::NodeShared;

/// The least room the read buffer has when the socket is asked (a guess: one system call for a
/// full batch).
const READ_BYTES: usize = 64 * 1024;

/// A peer that says nothing on its control lane for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(3);

#[cfg(not(feature = "turmoil"))]
const fn silence_max() -> Duration {
    SILENCE_MAX
}

/// A planted bug of the simulation's tests takes the rule away.
#[cfg(feature = "turmoil")]
fn silence_max() -> Duration {
    if crate::simulated::tolerates_silence() {
        return Duration::MAX;
    }
    SILENCE_MAX
}

/// Why a peer's frame cannot be right.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFrame {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// What a later version may send, it sends only to those who say that they know it.
    #[error("frame of kind {kind:#04x}, which protocol version 1 does not have")]
    UnknownKind { kind: u8 },
    /// No bad frame: the acceptor has found out by our answer to its welcome that the clocks are too far apart. The next attempt shows it here too.
    #[error("the peer refused the session after its welcome; its log says why")]
    Refused,
}

impl BadFrame {
    /// The reason in one word, for metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Frame(_) => "frame",
            Self::Wire(_) => "message",
            Self::Control(_) => "control",
            Self::Membership(_) => "membership",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::Refused => "refused",
        }
    }
}

/// Reads until the connection ends, then closes the session.
pub(super) async fn run(
    shared: Arc<NodeShared>,
    link: Arc<Link>,
    lane: Lane,
    mut stream: ReadSide,
    mut decoder: FrameDecoder,
) {
    let closed = link.closed.clone();
    let reading = async {
        loop {
            decoder.set_limit(shared.frame_limit());
            if let Err(error) = take_frames(&shared, &link, &mut decoder) {
                if matches!(error, BadFrame::Refused) {
                    tracing::info!(peer = %link.peer, %error);
                    return;
                }
                shared.metrics().frame_refused(error.label());
                tracing::warn!(peer = %link.peer, ?lane, %error, "bad frame: closing the session");
                shared.cluster_state().quarantine(link.peer, shared.now());
                return;
            }
            decoder.buffer_mut().reserve(READ_BYTES);
            let read = stream.read_buf(decoder.buffer_mut());
            let read = match lane {
                Lane::Control => match tokio::time::timeout(silence_max(), read).await {
                    Ok(read) => read,
                    Err(_) => {
                        tracing::info!(peer = %link.peer, "silent for {SILENCE_MAX:?}");
                        return;
                    }
                },
                Lane::Data | Lane::Bulk => read.await,
            };
            match read {
                Ok(0) => return link.lane_ended().await,
                Ok(count) => {
                    shared.metrics().bytes_received.inc_by(count as u64);
                    if lane == Lane::Bulk {
                        // As the writer does: the other lanes first.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %link.peer, ?lane, %error, "connection broke");
                    return;
                }
            }
        }
    };
    let _ = closed.run_until_cancelled(reading).await;
    link.closed.cancel();
}

/// Hands over every whole frame that has arrived.
fn take_frames(
    shared: &Arc<NodeShared>,
    link: &Link,
    decoder: &mut FrameDecoder,
) -> Result<(), BadFrame> {
    while let Some(frame) = decoder.next_frame()? {
        take(shared, link, &frame)?;
    }
    Ok(())
}

fn take(shared: &Arc<NodeShared>, link: &Link, frame: &Frame) -> Result<(), BadFrame> {
    if frame.kind.0 >= Kind::FIRST_OF_CACHE.0 {
        return take_of_cache(shared, link.peer, frame);
    }
    if frame.kind == Kind::REFUSED && link.dialer == shared.id() {
        return Err(BadFrame::Refused);
    }
    take_membership(shared, link.peer, frame)
}

/// Hands over a frame of a cache.
pub(super) fn take_of_cache(
    shared: &NodeShared,
    peer: NodeId,
    frame: &Frame,
) -> Result<(), BadFrame> {
    let id = wire::cache_id(frame)?;
    match shared.caches().get(&id) {
        Some(cache) => cache.on_frame(peer, frame)?,
        None => {
            // A cache that is not open here: other nodes may well have it.
            shared.metrics().frames_skipped.inc();
        }
    }
    Ok(())
}

/// Hands over a frame that is none of a cache.
pub(super) fn take_membership(
    shared: &Arc<NodeShared>,
    peer: NodeId,
    frame: &Frame,
) -> Result<(), BadFrame> {
    if let Some(message) = MembershipMessage::decode(frame.kind, &frame.body)? {
        shared.cluster_state().handle(shared, peer, &message)?;
    } else if frame.kind != ALIVE {
        return Err(BadFrame::UnknownKind { kind: frame.kind.0 });
    }
    Ok(())
}
