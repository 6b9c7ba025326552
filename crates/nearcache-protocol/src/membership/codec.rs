//! SWIM packets, byte by byte (written down in `docs/wire.md`).
//!
//! foca calls this codec for every header and every update it packs into a packet; the packet is the
//! body of a frame of kind [`SWIM`](crate::frame::Kind::SWIM). All integers are big endian.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use nearcache_store::NodeId;

use crate::identity::{Identity, Zone};
use crate::ids::Epoch;

impl foca::Identity for Identity {
    type Addr = NodeId;

    /// A node that was declared dead by mistake comes back as its next renewal, at once.
    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.checked_add(1)?;
        Some(Self {
            renewal,
            ..self.clone()
        })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.replaces(adversary)
    }
}

/// Why a SWIM packet cannot be read or written. The membership is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwimCodecError {
    /// The packet ends too early.
    #[error("packet ends {missing_bytes} bytes too early")]
    Truncated {
        /// How many bytes are missing at least.
        missing_bytes: usize,
    },
    /// A byte that chooses between cases chooses none.
    #[error("{field} cannot be {value}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The byte.
        value: u8,
    },
    /// A zone is no UTF-8 or too long.
    #[error("zone of {len_bytes} bytes is too long or no text")]
    Zone {
        /// Its bytes.
        len_bytes: u8,
    },
    /// The packet is full; foca leaves the update for the next one.
    #[error("{needed_bytes} bytes needed, {left_bytes} left in the packet")]
    Full {
        /// Bytes to write.
        needed_bytes: usize,
        /// Bytes left.
        left_bytes: usize,
    },
}

impl From<bytes::TryGetError> for SwimCodecError {
    fn from(error: bytes::TryGetError) -> Self {
        Self::Truncated {
            missing_bytes: error.requested.saturating_sub(error.available),
        }
    }
}

/// Writes and reads what is in SWIM packets. Has no state; the scratch buffer saves allocations.
#[derive(Debug, Default)]
pub(super) struct SwimCodec {
    scratch: Vec<u8>,
}

impl SwimCodec {
    /// Hands on what was written to the scratch buffer, all of it or nothing.
    fn flush(&mut self, mut buf: impl BufMut) -> Result<(), SwimCodecError> {
        let (needed_bytes, left_bytes) = (self.scratch.len(), buf.remaining_mut());
        if needed_bytes > left_bytes {
            return Err(SwimCodecError::Full {
                needed_bytes,
                left_bytes,
            });
        }
        buf.put_slice(&self.scratch);
        Ok(())
    }
}

impl foca::Codec<Identity> for SwimCodec {
    type Error = SwimCodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        self.scratch.clear();
        put_identity(&header.src, &mut self.scratch);
        self.scratch.put_u16(header.src_incarnation);
        put_identity(&header.dst, &mut self.scratch);
        put_message(&header.message, &mut self.scratch);
        self.flush(buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, Self::Error> {
        Ok(Header {
            src: take_identity(&mut buf)?,
            src_incarnation: buf.try_get_u16()?,
            dst: take_identity(&mut buf)?,
            message: take_message(&mut buf)?,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), Self::Error> {
        self.scratch.clear();
        put_identity(member.id(), &mut self.scratch);
        self.scratch.put_u16(member.incarnation());
        self.scratch.put_u8(state_number(member.state()));
        self.flush(buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, Self::Error> {
        let identity = take_identity(&mut buf)?;
        let incarnation = buf.try_get_u16()?;
        let number = buf.try_get_u8()?;
        let state = state_of(number).ok_or(SwimCodecError::Unknown {
            field: "state",
            value: number,
        })?;
        Ok(Member::new(identity, incarnation, state))
    }
}

/// A member's state as it travels: 0 alive, 1 suspect, 2 down.
pub(super) const fn state_number(state: State) -> u8 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

pub(super) const fn state_of(number: u8) -> Option<State> {
    match number {
        0 => Some(State::Alive),
        1 => Some(State::Suspect),
        2 => Some(State::Down),
        _ => None,
    }
}

fn put_identity(identity: &Identity, out: &mut Vec<u8>) {
    out.put_u64(identity.node.as_u64());
    out.put_u64(identity.epoch.as_u64());
    out.put_u32(identity.renewal);
    match identity.address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(identity.address.port());
    let zone = identity.zone.name().as_bytes();
    // A zone has at most 64 bytes: `Zone::new` sees to it.
    out.put_u8(u8::try_from(zone.len()).unwrap_or_default());
    out.put_slice(zone);
}

fn take_identity(buf: &mut impl Buf) -> Result<Identity, SwimCodecError> {
    let node = NodeId::from_u64(buf.try_get_u64()?);
    let epoch = Epoch::from_u64(buf.try_get_u64()?);
    let renewal = buf.try_get_u32()?;
    let ip = match buf.try_get_u8()? {
        4 => IpAddr::from(take_array::<4>(buf)?),
        6 => IpAddr::from(take_array::<16>(buf)?),
        value => {
            return Err(SwimCodecError::Unknown {
                field: "address family",
                value,
            });
        }
    };
    let address = SocketAddr::new(ip, buf.try_get_u16()?);
    let len_bytes = buf.try_get_u8()?;
    let mut zone = [0; u8::MAX as usize];
    let zone = zone.get_mut(..usize::from(len_bytes)).unwrap_or_default();
    buf.try_copy_to_slice(zone)?;
    let zone = std::str::from_utf8(zone)
        .ok()
        .and_then(|name| Zone::new(name).ok())
        .ok_or(SwimCodecError::Zone { len_bytes })?;
    Ok(Identity {
        node,
        epoch,
        renewal,
        address,
        zone,
    })
}

fn take_array<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], SwimCodecError> {
    let mut array = [0; N];
    buf.try_copy_to_slice(&mut array)?;
    Ok(array)
}

fn put_message(message: &Message<Identity>, out: &mut Vec<u8>) {
    let (tag, probe) = match message {
        Message::Ping(number) => (1, Some((None, number))),
        Message::Ack(number) => (2, Some((None, number))),
        Message::PingReq {
            target,
            probe_number,
        } => (3, Some((Some(target), probe_number))),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (4, Some((Some(origin), probe_number))),
        Message::IndirectAck {
            target,
            probe_number,
        } => (5, Some((Some(target), probe_number))),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (6, Some((Some(origin), probe_number))),
        Message::Announce => (7, None),
        Message::Feed => (8, None),
        Message::Gossip => (9, None),
        Message::Broadcast => (10, None),
        Message::TurnUndead => (11, None),
    };
    out.put_u8(tag);
    let Some((other, number)) = probe else { return };
    if let Some(identity) = other {
        put_identity(identity, out);
    }
    out.put_u8(*number);
}

fn take_message(buf: &mut impl Buf) -> Result<Message<Identity>, SwimCodecError> {
    Ok(match buf.try_get_u8()? {
        1 => Message::Ping(buf.try_get_u8()?),
        2 => Message::Ack(buf.try_get_u8()?),
        3 => Message::PingReq {
            target: take_identity(buf)?,
            probe_number: buf.try_get_u8()?,
        },
        4 => Message::IndirectPing {
            origin: take_identity(buf)?,
            probe_number: buf.try_get_u8()?,
        },
        5 => Message::IndirectAck {
            target: take_identity(buf)?,
            probe_number: buf.try_get_u8()?,
        },
        6 => Message::ForwardedAck {
            origin: take_identity(buf)?,
            probe_number: buf.try_get_u8()?,
        },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        value => {
            return Err(SwimCodecError::Unknown {
                field: "message",
                value,
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;
    use proptest::prelude::*;

    use super::*;

    fn identity(zone: &str) -> Identity {
        let address = SocketAddr::from(([10, 0, 0, 1], 0x1b58));
        let zone = Zone::new(zone).unwrap();
        Identity {
            renewal: 3,
            ..Identity::new(NodeId::from_u64(1), Epoch::from_u64(2), address, zone)
        }
    }

    const IDENTITY: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 1, // node
        0, 0, 0, 0, 0, 0, 0, 2, // epoch
        0, 0, 0, 3, // renewal
        4, 10, 0, 0, 1, 0x1b, 0x58, // address: family, ip, port
        2, b'z', b'1', // zone
    ];

    #[test]
    fn golden_member_is_written_and_read() {
        let member = Member::new(identity("z1"), 0x0102, State::Suspect);
        let mut out = Vec::new();
        SwimCodec::default()
            .encode_member(&member, &mut out)
            .unwrap();
        assert_eq!(out, [IDENTITY, &[1, 2, 1]].concat());
        let read = SwimCodec::default().decode_member(&out[..]);
        assert_eq!(read, Ok(member));
    }

    #[test]
    fn golden_header_is_written_and_read() {
        let message = Message::PingReq {
            target: identity("z1"),
            probe_number: 9,
        };
        let header = Header {
            src: identity("z1"),
            src_incarnation: 5,
            dst: identity("z1"),
            message,
        };
        let mut out = Vec::new();
        SwimCodec::default()
            .encode_header(&header, &mut out)
            .unwrap();
        assert_eq!(
            out,
            [IDENTITY, &[0, 5], IDENTITY, &[3], IDENTITY, &[9]].concat()
        );
        assert_eq!(SwimCodec::default().decode_header(&out[..]), Ok(header));
    }

    #[test]
    fn every_message_survives_the_wire() {
        let other = || identity("");
        let messages = [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq {
                target: other(),
                probe_number: 3,
            },
            Message::IndirectPing {
                origin: other(),
                probe_number: 4,
            },
            Message::IndirectAck {
                target: other(),
                probe_number: 5,
            },
            Message::ForwardedAck {
                origin: other(),
                probe_number: 6,
            },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        for message in messages {
            let mut out = Vec::new();
            put_message(&message, &mut out);
            assert_eq!(take_message(&mut &out[..]), Ok(message));
        }
    }

    #[test]
    fn full_packet_is_left_as_it_was() {
        let mut out = Vec::new();
        let member = Member::alive(identity("z1"));
        let result = SwimCodec::default().encode_member(&member, (&mut out).limit(20));
        assert_eq!(
            result,
            Err(SwimCodecError::Full {
                needed_bytes: 33,
                left_bytes: 20
            })
        );
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = SwimCodec::default().decode_header(&bytes[..]);
            if let Ok(member) = SwimCodec::default().decode_member(&bytes[..]) {
                let mut out = Vec::new();
                SwimCodec::default().encode_member(&member, &mut out).unwrap();
                prop_assert_eq!(&out[..], &bytes[..out.len()]);
            }
        }
    }
}
