//! A session between two hosts, as the network sees it: three lanes each way, in order, until it breaks.

use std::collections::VecDeque;

use bytes::Bytes;
use nearcache_protocol::frame::{Frame, FrameDecoder, FrameLimit};
use nearcache_protocol::handshake::{Accepted, Handshake};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::time::Time;

/// One side of a session.
pub(crate) struct End {
    pub(crate) host: usize,
    /// Which start of the host it belongs to.
    pub(crate) life: u32,
    pub(crate) open: bool,
    /// Whether all three lanes have completed their handshakes here.
    pub(crate) stands: bool,
    /// The peer, once a handshake told.
    pub(crate) peer: Option<Identity>,
    /// When the other side was last heard.
    pub(crate) heard_at: Time,
    /// Handshakes completed.
    pub(crate) lanes_up: usize,
    /// Handshakes under way, on the dialling side.
    pub(crate) handshakes: [Option<Handshake>; 3],
    /// The same on the accepting side, which waits for the answer to its welcome.
    pub(crate) accepted: [Option<Accepted>; 3],
    /// When this side last asked on each lane: sent its hello, or its welcome.
    pub(crate) asked_at: [Time; 3],
    /// What arrived on a lane before the session stood.
    pub(crate) early: Vec<(Lane, Frame)>,
    pub(crate) decoders: [FrameDecoder; 3],
    /// What this side sends.
    pub(crate) lanes: [Outgoing; 3],
    /// What this side sent into a cut link, waiting for retransmission.
    pub(crate) stalled: VecDeque<(Lane, Bytes)>,
    /// Bytes that are no message are on their way to this side.
    pub(crate) garbled: bool,
    /// The last number from which this side asked for updates.
    pub(crate) asked: Option<u64>,
}

/// One lane, as the sender sees it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// When the last message arrives; later ones arrive later.
    pub(crate) last_arrival: Time,
    /// When the last one has passed a narrow link.
    pub(crate) passed: Time,
    /// Messages on their way.
    pub(crate) in_flight: usize,
    /// Whether the cache has something to be pulled.
    pub(crate) wanted: bool,
}

/// A session, from the attempt to open it to its end on both sides.
pub(crate) struct Session {
    /// The side that dialled, and the other.
    pub(crate) ends: [End; 2],
    pub(crate) opened: Time,
}

impl End {
    pub(crate) fn new(host: usize, life: u32, now: Time) -> Self {
        Self {
            host,
            life,
            open: false,
            stands: false,
            peer: None,
            heard_at: now,
            lanes_up: 0,
            handshakes: [None, None, None],
            accepted: [None, None, None],
            asked_at: [now; 3],
            early: Vec::new(),
            decoders: std::array::from_fn(|_| FrameDecoder::new(FrameLimit::DEFAULT)),
            lanes: Default::default(),
            stalled: VecDeque::new(),
            garbled: false,
            asked: None,
        }
    }

    pub(crate) fn lane(&mut self, lane: Lane) -> &mut Outgoing {
        &mut self.lanes[lane as usize]
    }
}

/// The other of two ends.
pub(crate) const fn other(end: usize) -> usize {
    1 - end
}
