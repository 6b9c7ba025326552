//! The frames of a handshake, on both sides.

use bytes::{Bytes, BytesMut};
use nearcache_store::Timestamp;

use super::rules::{Checked, check, check_epoch, check_times};
use super::{Local, Peer, ProtocolRange, Refusal, Registry, SessionToken};
use crate::clock::offset::OffsetRange;
use crate::control::{self, ControlError, Hello, Ready, Refused, Welcome, WireIdentity};
use crate::frame::{self, Frame, FrameLimit, Kind};
use crate::lane::Lane;

/// A connection whose hello was accepted. What is not known yet is how far the peer's clock is: that shows when it answers the welcome.
#[derive(Debug)]
pub struct Accepted {
    /// Who connected.
    pub peer: Peer,
    /// The frame to answer with.
    pub welcome: Bytes,
    local: Local,
    /// Our clock when the welcome was made.
    asked: Timestamp,
    /// The clock in the hello, which may have waited.
    hello: Timestamp,
    /// What is wrong with the peer unless its clock is.
    replaced: Option<Refusal>,
}

/// A connection whose welcome was accepted.
#[derive(Debug)]
pub struct Completed {
    /// Who answered.
    pub peer: Peer,
    /// The frame to send next, at once: the acceptor measures our clock by it, and whatever follows on this connection comes after it.
    pub ready: Bytes,
}

/// Decides about a connection by its first frame, on the side that was connected to.
///
/// `now` is our physical clock. On refusal send [`Refusal::frame`] and close. Clocks are not looked at yet: whose clock is wrong
/// shall learn it from the welcome.
///
/// # Errors
///
/// [`Refusal`] with the precise reason. No state is changed either way.
pub fn accept(
    local: &Local,
    registry: &impl Registry,
    now: Timestamp,
    frame: &Frame,
) -> Result<Accepted, Refusal> {
    let hello: Hello = body_of(frame, Kind::HELLO)?;
    let theirs = Timestamp::from_u64(hello.time);
    let clock = OffsetRange::unasked(now.millis(), theirs.millis());
    let Checked { peer, replaced } = check(local, registry, clock, &hello)?;
    check_epoch(local, now.max(theirs), &peer)?;
    // Whose clock is that of a former start shall learn whether it is wrong.
    let may_be_behind = theirs.millis() + local.max_drift_ms < now.millis();
    let replaced = match replaced {
        Some(refusal) if !may_be_behind => return Err(refusal),
        replaced => replaced,
    };
    let answer = Welcome {
        hello: Some(Hello {
            probe: peer.probe,
            ..introduction(local, peer.lane, peer.session, now)
        }),
        protocol: peer.protocol,
    };
    Ok(Accepted {
        peer,
        welcome: handshake_frame(Kind::WELCOME, &answer),
        local: local.clone(),
        asked: now,
        hello: theirs,
        replaced,
    })
}

impl Accepted {
    /// Decides about the connection by the peer's answer to the welcome, when our physical clock reads `now`. On refusal send
    /// [`Refusal::frame`] and close.
    ///
    /// # Errors
    ///
    /// [`Refusal::ClockApart`] where the clocks are certainly too far apart, whichever side found out; [`Refusal::ImplausibleEpoch`];
    /// [`Refusal::Replaced`] where the clocks are no excuse; [`Refusal::RefusedByPeer`].
    pub fn complete(self, now: Timestamp, frame: &Frame) -> Result<Peer, Refusal> {
        let measured = |time: u64| {
            let theirs = Timestamp::from_u64(time).millis();
            OffsetRange::measured(self.asked.millis(), now.millis(), theirs)
        };
        if frame.kind == Kind::REFUSED {
            let told: Refused = body_of(frame, Kind::REFUSED)?;
            if told.time != 0 {
                // The clocks are its reason. If they are not ours, it was wrong, or we were slow to answer.
                let clock = measured(told.time);
                check_times(&self.local, now, Peer { clock, ..self.peer })?;
            }
            return Err(Refusal::RefusedByPeer);
        }
        let ready: Ready = body_of(frame, Kind::READY)?;
        let clock = if self.local.planted.believes_late_clocks() {
            let heard = self.asked.millis();
            OffsetRange::measured(heard, heard, self.hello.millis())
        } else {
            measured(ready.time)
        };
        let peer = check_times(&self.local, now, Peer { clock, ..self.peer })?;
        self.replaced.map_or(Ok(peer), Err)
    }
}

/// The dialer's half: made with the hello, completed by the answer.
#[derive(Debug)]
pub struct Handshake {
    local: Local,
    lane: Lane,
    session: SessionToken,
    probe: bool,
    /// Our clock when the hello was made.
    asked: Timestamp,
}

impl Handshake {
    /// Starts a handshake on a connection that we opened; send the returned frame first.
    ///
    /// `now` is our physical clock; `session` is the same for the three lanes of a session.
    #[must_use]
    pub fn dial(local: Local, lane: Lane, session: SessionToken, now: Timestamp) -> (Self, Bytes) {
        Self::open(local, lane, session, false, now)
    }

    /// The same for a probe connection: it carries what the membership says to a member without a session, and is no part of one.
    #[must_use]
    pub fn dial_probe(local: Local, session: SessionToken, now: Timestamp) -> (Self, Bytes) {
        Self::open(local, Lane::Control, session, true, now)
    }

    fn open(
        local: Local,
        lane: Lane,
        session: SessionToken,
        probe: bool,
        now: Timestamp,
    ) -> (Self, Bytes) {
        let hello = Hello {
            probe,
            ..introduction(&local, lane, session, now)
        };
        let hello = handshake_frame(Kind::HELLO, &hello);
        let handshake = Self {
            local,
            lane,
            session,
            probe,
            asked: now,
        };
        (handshake, hello)
    }

    /// Decides about the connection by the peer's answer, when our physical clock reads `now`.
    ///
    /// # Errors
    ///
    /// [`Refusal`], by the same rules as [`accept`] and [`Accepted::complete`], or [`Refusal::RefusedByPeer`]. Close the connection;
    /// after [`Refusal::ClockApart`] send [`Refusal::frame`] first.
    pub fn complete(
        self,
        registry: &impl Registry,
        now: Timestamp,
        frame: &Frame,
    ) -> Result<Completed, Refusal> {
        if frame.kind == Kind::REFUSED {
            return Err(self.refused(frame));
        }
        let welcome: Welcome = body_of(frame, Kind::WELCOME)?;
        let hello = welcome
            .hello
            .as_ref()
            .ok_or(ControlError::Missing { field: "hello" })?;
        let theirs = Timestamp::from_u64(hello.time).millis();
        let clock = OffsetRange::measured(self.asked.millis(), now.millis(), theirs);
        let Checked { peer, replaced } = check(&self.local, registry, clock, hello)?;
        let same = [
            ("lane", peer.lane == self.lane),
            ("session", peer.session == self.session),
            ("kind of connection", peer.probe == self.probe),
            ("protocol version", peer.protocol == welcome.protocol),
        ];
        if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(Refusal::OtherAnswer { field });
        }
        let peer = check_times(&self.local, now, peer)?;
        let peer = replaced.map_or(Ok(peer), Err)?;
        let ready = handshake_frame(Kind::READY, &Ready { time: now.as_u64() });
        Ok(Completed { peer, ready })
    }

    fn refused(&self, frame: &Frame) -> Refusal {
        let theirs = match body_of::<Refused>(frame, Kind::REFUSED) {
            Ok(told) => ProtocolRange {
                min: told.protocol_min,
                max: told.protocol_max,
            },
            Err(refusal) => return refusal,
        };
        // A version hint is believed only where it explains the refusal.
        if theirs.max > 0 && self.local.protocols.newest_common(theirs).is_none() {
            return Refusal::VersionMismatch {
                ours: self.local.protocols,
                theirs,
            };
        }
        Refusal::RefusedByPeer
    }
}

fn introduction(local: &Local, lane: Lane, session: SessionToken, now: Timestamp) -> Hello {
    Hello {
        cluster: local.cluster.as_ref().to_owned(),
        identity: Some(WireIdentity::from(&local.identity)),
        name: local.name.as_ref().to_owned(),
        protocol_min: local.protocols.min,
        protocol_max: local.protocols.max,
        features: local.features.0,
        lane: u32::from(lane.number()),
        session: session.0,
        time: now.as_u64(),
        mesh_max: local.mesh_max,
        probe: false,
    }
}

pub(super) fn handshake_frame(kind: Kind, message: &impl prost::Message) -> Bytes {
    let mut out = BytesMut::new();
    // Names and zones are bounded far below the limit; should one not be, the peer sees the
    // connection close without a handshake.
    let _ = frame::encode(
        kind,
        0,
        &message.encode_to_vec(),
        FrameLimit::HANDSHAKE,
        &mut out,
    );
    out.freeze()
}

fn body_of<M: prost::Message + Default>(frame: &Frame, expected: Kind) -> Result<M, Refusal> {
    if frame.kind != expected {
        return Err(Refusal::Unexpected {
            kind: frame.kind.0,
            expected: expected.0,
        });
    }
    Ok(control::decode(&frame.body)?)
}
