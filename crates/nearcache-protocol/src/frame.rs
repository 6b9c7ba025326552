//! Frames: what every byte between two peers is part of.
//!
//! The transport reads bytes from a connection into a [`FrameDecoder`] and takes whole frames out of
//! it; the frame's kind says which decoder reads its body. In the other direction [`encode`], or
//! [`begin`] and [`FrameMark::finish`] where the body is written in place, append to the buffer that
//! the transport writes from. Nothing here looks into a body.
//!
//! ```text
//! 0       4         5      6          14
//! | length | version | kind | number   | body ...
//!   u32      u8        u8     u64        length - 10 bytes        all integers big endian
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of the frame layout this build writes and reads.
pub const FRAME_VERSION: u8 = 1;

/// Bytes of a frame before its body, the length itself included.
pub const HEADER_BYTES: usize = 14;

/// Bytes of the header that the length counts: version, kind and number.
const COUNTED_HEADER_BYTES: u32 = 10;

/// Bytes of the length field.
const LENGTH_BYTES: usize = 4;

const _: () = assert!(HEADER_BYTES == LENGTH_BYTES + COUNTED_HEADER_BYTES as usize);

/// What the body of a frame is.
///
/// A newtype and not an enum: a peer may know kinds that we do not, and a frame of an unknown kind is
/// skipped and counted, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// First frame of the side that connected; see [`crate::handshake`].
    pub const HELLO: Self = Self(0x01);
    /// The other side's answer to a hello that it accepts.
    pub const WELCOME: Self = Self(0x02);
    /// The other side's answer to a hello that it does not accept; the connection closes after it.
    pub const REFUSED: Self = Self(0x03);
    /// That its sender knows the cluster's secret; goes before hello and welcome where connections are
    /// secured. The transport makes and checks it.
    pub const PROOF: Self = Self(0x04);
    /// The connecting side's answer to a welcome that it accepts; see [`crate::handshake`].
    pub const READY: Self = Self(0x05);
    /// A SWIM packet of [`crate::membership`].
    pub const SWIM: Self = Self(0x10);
    /// A member list, whole; see [`crate::membership`].
    pub const MEMBER_LIST: Self = Self(0x11);
    /// The sender leaves the cluster on purpose.
    pub const LEAVE: Self = Self(0x12);
    /// The sender ends the session and lives on; see [`crate::membership`].
    pub const PART: Self = Self(0x13);
    /// The first kind that belongs to the caches; all from here on are theirs.
    pub const FIRST_OF_CACHE: Self = Self(0x40);
}

/// The largest frame that a decoder accepts, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimit(u32);

impl FrameLimit {
    /// 2 MiB: what peers send unless told otherwise (bulk data travels in 64 KiB chunks).
    pub const DEFAULT: Self = Self(2 << 20);
    /// 64 MiB: what no configuration exceeds.
    pub const MAX: Self = Self(64 << 20);
    /// 4 KiB: what a connection may send before its handshake is complete.
    pub const HANDSHAKE: Self = Self(4 << 10);

    /// A limit of `limit_bytes`, at least the size of a handshake and at most [`FrameLimit::MAX`].
    #[must_use]
    pub fn new(limit_bytes: u32) -> Self {
        Self(limit_bytes.clamp(Self::HANDSHAKE.0, Self::MAX.0))
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for FrameLimit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One frame, taken off a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// The number of an update, or the id that ties a reply to its request; zero where neither applies.
    pub number: u64,
    /// The body, sharing the memory it was read into.
    pub body: Bytes,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("number", &self.number)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Why the bytes of a connection are no frames. The connection closes; nothing else is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is larger than the limit. Nothing was allocated or written for it.
    #[error("frame of {len_bytes} bytes exceeds the limit of {limit_bytes}")]
    TooLarge {
        /// Size of the frame, header included, in bytes.
        len_bytes: u64,
        /// Limit in force, in bytes.
        limit_bytes: u32,
    },
    /// The length does not even cover the header.
    #[error("frame announces {len_bytes} bytes, its header alone has {min_bytes}")]
    TooShort {
        /// Bytes announced after the length field.
        len_bytes: u32,
        /// The least it can be.
        min_bytes: u32,
    },
    /// The layout is of a version that we do not read.
    #[error("frame layout version {theirs}, we read version {ours}")]
    Version {
        /// The version in the frame.
        theirs: u8,
        /// The version we read.
        ours: u8,
    },
}

/// Cuts the bytes of one connection into frames.
///
/// Memory follows the bytes that really arrived, never the length a header announces. After an error
/// every further call returns the same error: a byte stream that lost its place never finds it again.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: FrameLimit,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder for a connection from its first byte on.
    #[must_use]
    pub fn new(limit: FrameLimit) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
            failed: None,
        }
    }

    /// Changes the limit, for frames not yet taken: after the handshake it grows.
    pub fn set_limit(&mut self, limit: FrameLimit) {
        self.limit = limit;
    }

    /// The buffer that the transport reads into. Only append.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends bytes that arrived. Copies them; a transport reads into [`Self::buffer_mut`] instead.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that arrived and are not part of a frame taken yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next whole frame, or `None` until more bytes arrive.
    ///
    /// The body shares the memory that was read into; no copy, no allocation.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as the header shows it, before the body has arrived. The decoder is
    /// spent: the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.take();
        if let Err(error) = result {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
        }
        result
    }

    fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let mut head: &[u8] = &self.buffer;
        let Ok(counted_bytes) = head.try_get_u32() else {
            return Ok(None);
        };
        if counted_bytes < COUNTED_HEADER_BYTES {
            return Err(FrameError::TooShort {
                len_bytes: counted_bytes,
                min_bytes: COUNTED_HEADER_BYTES,
            });
        }
        let len_bytes = u64::from(counted_bytes) + LENGTH_BYTES as u64;
        check_limit(len_bytes, self.limit)?;
        let Ok(version) = head.try_get_u8() else {
            return Ok(None);
        };
        if version != FRAME_VERSION {
            return Err(FrameError::Version {
                theirs: version,
                ours: FRAME_VERSION,
            });
        }
        let (Ok(kind), Ok(number)) = (head.try_get_u8(), head.try_get_u64()) else {
            return Ok(None);
        };
        let body_bytes = (counted_bytes - COUNTED_HEADER_BYTES) as usize;
        if head.len() < body_bytes {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(body_bytes).freeze();
        Ok(Some(Frame {
            kind: Kind(kind),
            number,
            body,
        }))
    }
}

fn check_limit(len_bytes: u64, limit: FrameLimit) -> Result<(), FrameError> {
    if len_bytes > u64::from(limit.bytes()) {
        return Err(FrameError::TooLarge {
            len_bytes,
            limit_bytes: limit.bytes(),
        });
    }
    Ok(())
}

/// Appends one frame to `out`. Cost: one copy of `body`.
///
/// # Errors
///
/// [`FrameError::TooLarge`] if the frame would exceed `limit`; `out` is unchanged.
pub fn encode(
    kind: Kind,
    number: u64,
    body: &[u8],
    limit: FrameLimit,
    out: &mut BytesMut,
) -> Result<(), FrameError> {
    check_limit((HEADER_BYTES + body.len()) as u64, limit)?;
    out.reserve(HEADER_BYTES + body.len());
    let mark = begin(kind, number, out);
    out.put_slice(body);
    mark.finish(limit, out)
}

/// Starts a frame whose body the caller appends to `out` before it calls [`FrameMark::finish`].
#[must_use = "a frame that is begun must be finished, or what follows cannot be read"]
pub fn begin(kind: Kind, number: u64, out: &mut BytesMut) -> FrameMark {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(FRAME_VERSION);
    out.put_u8(kind.0);
    out.put_u64(number);
    FrameMark { start }
}

/// Where in the buffer a frame began that is not finished yet.
#[derive(Debug)]
pub struct FrameMark {
    start: usize,
}

impl FrameMark {
    /// Completes the frame: all that was appended since [`begin`] is its body.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] if the frame exceeds `limit`; it is cut off `out` again.
    pub fn finish(self, limit: FrameLimit, out: &mut BytesMut) -> Result<(), FrameError> {
        let len_bytes = out.len().saturating_sub(self.start) as u64;
        if let Err(error) = check_limit(len_bytes, limit) {
            out.truncate(self.start);
            return Err(error);
        }
        let counted = u32::try_from(len_bytes.saturating_sub(LENGTH_BYTES as u64));
        let length = out.get_mut(self.start..self.start + LENGTH_BYTES);
        if let (Some(length), Ok(counted)) = (length, counted) {
            length.copy_from_slice(&counted.to_be_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: [u8; 17] = [
        0, 0, 0, 13,   // length: 10 of the header, 3 of the body
        1,    // version
        0x40, // kind
        0, 0, 0, 0, 0, 0, 1, 2, // number
        b'a', b'b', b'c',
    ];

    fn golden() -> Frame {
        Frame {
            kind: Kind(0x40),
            number: 258,
            body: Bytes::from_static(b"abc"),
        }
    }

    fn encoded(frames: &[Frame]) -> BytesMut {
        let mut out = BytesMut::new();
        for frame in frames {
            encode(
                frame.kind,
                frame.number,
                &frame.body,
                FrameLimit::MAX,
                &mut out,
            )
            .unwrap();
        }
        out
    }

    #[test]
    fn golden_frame_is_written_and_read_byte_by_byte() {
        assert_eq!(&encoded(&[golden()])[..], &GOLDEN);
        let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
        for (at, byte) in GOLDEN.iter().enumerate() {
            assert_eq!(
                decoder.next_frame(),
                Ok(None),
                "complete already at byte {at}"
            );
            decoder.extend(&[*byte]);
        }
        assert_eq!(decoder.next_frame(), Ok(Some(golden())));
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn length_above_the_limit_is_refused_from_four_bytes_without_allocating() {
        let mut decoder = FrameDecoder::new(FrameLimit::new(4096));
        decoder.extend(&u32::MAX.to_be_bytes());
        let refused = Err(FrameError::TooLarge {
            len_bytes: u64::from(u32::MAX) + 4,
            limit_bytes: 4096,
        });
        assert_eq!(decoder.next_frame(), refused);
        assert_eq!(decoder.buffer_mut().capacity(), 0);
        decoder.extend(&GOLDEN);
        assert_eq!(
            decoder.next_frame(),
            refused,
            "a decoder that failed stays failed"
        );
    }

    #[test]
    fn waiting_for_a_large_body_holds_only_what_arrived() {
        let mut decoder = FrameDecoder::new(FrameLimit::MAX);
        decoder.extend(&(60_u32 << 20).to_be_bytes());
        decoder.extend(&[FRAME_VERSION, 0x40]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer_mut().capacity() < 1024);
    }

    #[test]
    fn header_shorter_than_itself_and_unknown_version_are_refused() {
        let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
        decoder.extend(&[0, 0, 0, 9]);
        let short = FrameError::TooShort {
            len_bytes: 9,
            min_bytes: 10,
        };
        assert_eq!(decoder.next_frame(), Err(short));

        let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
        decoder.extend(&[0, 0, 0, 10, 2]);
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::Version { theirs: 2, ours: 1 })
        );
    }

    #[test]
    fn frame_above_the_limit_is_not_written() {
        let mut out = BytesMut::from(&b"before"[..]);
        let limit = FrameLimit::new(4096);
        let body = vec![0; 4096];
        assert!(encode(Kind(0x40), 0, &body, limit, &mut out).is_err());
        let mark = begin(Kind(0x40), 0, &mut out);
        out.put_slice(&body);
        assert!(mark.finish(limit, &mut out).is_err());
        assert_eq!(&out[..], b"before");
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(
                (any::<u8>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in prop::collection::vec(1_usize..30, 1..40),
        ) {
            let frames: Vec<Frame> = frames
                .into_iter()
                .map(|(kind, number, body)| Frame { kind: Kind(kind), number, body: body.into() })
                .collect();
            let bytes = encoded(&frames);
            let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
            let (mut rest, mut taken) = (&bytes[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.extend(now);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    taken.push(frame);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(taken, frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = FrameDecoder::new(FrameLimit::new(4096));
            decoder.extend(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                prop_assert!(frame.body.len() <= bytes.len());
            }
        }
    }
}
