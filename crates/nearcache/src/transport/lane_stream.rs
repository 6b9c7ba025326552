//! One connection while its handshake is under way.

use std::io;
use std::time::Duration;

use nearcache_protocol::frame::{Frame, FrameDecoder, FrameError, FrameLimit};
use nearcache_protocol::handshake::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peer_stream::PeerStream;
use super::secure;
use crate::security::Distrust;

/// How long a handshake may take from the first byte to the last.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection and what has been read from it but not been used.
#[derive(Debug)]
pub(super) struct LaneStream {
    pub(super) stream: PeerStream,
    pub(super) decoder: FrameDecoder,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    TimedOut,
    /// One side did not want the other.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The other end is not believed to be a peer.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
}

impl HandshakeError {
    /// The reason in one word, for metrics.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "connection",
            Self::TimedOut => "timeout",
            Self::Untrusted(distrust) => distrust.label(),
            Self::Refused(refusal) => match refusal {
                Refusal::WrongCluster { .. } => "wrong_cluster",
                Refusal::VersionMismatch { .. } => "version",
                Refusal::SelfConnection => "self",
                Refusal::DuplicateNodeId { .. } => "duplicate_node_id",
                Refusal::Replaced { .. } => "replaced",
                Refusal::ImplausibleEpoch { .. }
                | Refusal::ImplausibleRenewal { .. }
                | Refusal::ClockApart { .. } => "implausible_time",
                Refusal::MemberLimit { .. } => "member_limit",
                Refusal::MeshMax { .. } => "mesh_max",
                Refusal::RefusedByPeer => "unwanted",
                _ => "malformed",
            },
        }
    }
}

impl From<FrameError> for HandshakeError {
    fn from(error: FrameError) -> Self {
        Self::Refused(error.into())
    }
}

impl LaneStream {
    /// Frames of a stranger are at most as large as a handshake.
    pub(super) fn new(stream: PeerStream) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(FrameLimit::HANDSHAKE),
        }
    }

    /// Reads the one frame that is due.
    pub(super) async fn read_frame(&mut self) -> Result<Frame, HandshakeError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            let read = self.stream.read_buf(self.decoder.buffer_mut()).await;
            // With TLS 1.3 a dialer hears only here that its certificate was refused.
            if read.map_err(|error| secure::distrust_of(&error))? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Writes encoded frames.
    pub(super) async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).await?;
        self.stream.flush().await
    }
}

/// Bounds a handshake in time.
pub(super) async fn in_time<T>(
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}
