//! Control messages: what peers say to each other outside the caches, as protobuf.
//!
//! Handshake and membership build these structs, the shell puts the bytes into frames of the kind named
//! at each. They are protobuf (written down in `docs/wire.md`) because they must be able to gain fields
//! while old and new nodes live together: a field that a node does not know is skipped.
//! A decoded message is only well formed; whether it is true is checked where it is used.

use std::net::SocketAddr;

use nearcache_store::NodeId;

use crate::identity::{Identity, Zone};
use crate::ids::Epoch;

/// An [`Identity`] as it travels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireIdentity {
    /// [`Identity::node`].
    #[prost(fixed64, tag = "1")]
    pub node: u64,
    /// [`Identity::epoch`].
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// [`Identity::renewal`].
    #[prost(uint32, tag = "3")]
    pub renewal: u32,
    /// [`Identity::address`] as `ip:port`.
    #[prost(string, tag = "4")]
    pub address: String,
    /// [`Identity::zone`], by its name.
    #[prost(string, tag = "5")]
    pub zone: String,
}

/// What either side of a new connection says of itself; kind [`HELLO`](crate::frame::Kind::HELLO).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The cluster's name.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// Who speaks.
    #[prost(message, optional, tag = "2")]
    pub identity: Option<WireIdentity>,
    /// The speaker's name, for people.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The oldest protocol version the speaker can talk.
    #[prost(uint32, tag = "4")]
    pub protocol_min: u32,
    /// The newest protocol version the speaker can talk.
    #[prost(uint32, tag = "5")]
    pub protocol_max: u32,
    /// Optional abilities, one bit each.
    #[prost(fixed64, tag = "6")]
    pub features: u64,
    /// The number of the connection's lane.
    #[prost(uint32, tag = "7")]
    pub lane: u32,
    /// What ties the lanes of one session together; made up by the side that connects.
    #[prost(fixed64, tag = "8")]
    pub session: u64,
    /// The speaker's physical clock as it speaks, in the layout of a timestamp.
    #[prost(fixed64, tag = "9")]
    pub time: u64,
    /// Up to how many members the speaker wants a full mesh; 0 if it does not say.
    #[prost(uint32, tag = "10")]
    pub mesh_max: u32,
    /// Whether this is a probe connection and no lane of a session.
    #[prost(bool, tag = "11")]
    pub probe: bool,
}

/// The accepting side's answer; kind [`WELCOME`](crate::frame::Kind::WELCOME).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// What the accepting side says of itself; lane and session repeat the hello's.
    #[prost(message, optional, tag = "1")]
    pub hello: Option<Hello>,
    /// The protocol version both will talk.
    #[prost(uint32, tag = "2")]
    pub protocol: u32,
}

/// The refusing side's last words; kind [`REFUSED`](crate::frame::Kind::REFUSED).
///
/// Says why only where the other side's operator needs it and an attacker learns nothing: when no common
/// protocol version exists, the range that would do. Both are zero otherwise.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// The oldest protocol version the refusing side can talk.
    #[prost(uint32, tag = "1")]
    pub protocol_min: u32,
    /// The newest protocol version the refusing side can talk.
    #[prost(uint32, tag = "2")]
    pub protocol_max: u32,
    /// The speaker's physical clock, if it refuses the other for its clock; else 0.
    #[prost(fixed64, tag = "3")]
    pub time: u64,
}

/// The connecting side's answer to a welcome that it accepts; kind [`READY`](crate::frame::Kind::READY).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ready {
    /// The speaker's physical clock as it speaks, in the layout of a timestamp.
    #[prost(fixed64, tag = "1")]
    pub time: u64,
}

/// What one node knows of another; see [`MemberList`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberRecord {
    /// Of whom.
    #[prost(message, optional, tag = "1")]
    pub identity: Option<WireIdentity>,
    /// The SWIM incarnation this was learned at.
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    /// 0 alive, 1 suspect, 2 down.
    #[prost(uint32, tag = "3")]
    pub state: u32,
}

/// All that a node knows of the membership; kind [`MEMBER_LIST`](crate::frame::Kind::MEMBER_LIST).
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberList {
    /// One record per node known, the sender included.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<MemberRecord>,
    /// Whether the receiver is to answer with its own list.
    #[prost(bool, tag = "2")]
    pub answer_wanted: bool,
}

/// The sender leaves on purpose; kind [`LEAVE`](crate::frame::Kind::LEAVE).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Leave {
    /// Who leaves.
    #[prost(message, optional, tag = "1")]
    pub identity: Option<WireIdentity>,
}

/// Why a control message cannot be used. The connection that carried it closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The bytes are no such message.
    #[error("malformed control message")]
    Malformed(#[from] prost::DecodeError),
    /// A field that must be there is not.
    #[error("control message without {field}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field holds what it cannot mean.
    #[error("control message with an impossible {field}")]
    Impossible {
        /// The field.
        field: &'static str,
    },
}

impl WireIdentity {
    /// The identity that is meant.
    ///
    /// # Errors
    ///
    /// [`ControlError::Impossible`] if the address is no address or the zone is too long.
    pub fn to_identity(&self) -> Result<Identity, ControlError> {
        let address: SocketAddr = self
            .address
            .parse()
            .map_err(|_| ControlError::Impossible { field: "address" })?;
        let zone = Zone::new(&self.zone).map_err(|_| ControlError::Impossible { field: "zone" })?;
        Ok(Identity {
            node: NodeId::from_u64(self.node),
            epoch: Epoch::from_u64(self.epoch),
            renewal: self.renewal,
            address,
            zone,
        })
    }
}

impl From<&Identity> for WireIdentity {
    fn from(identity: &Identity) -> Self {
        Self {
            node: identity.node.as_u64(),
            epoch: identity.epoch.as_u64(),
            renewal: identity.renewal,
            address: identity.address.to_string(),
            zone: identity.zone.name().to_owned(),
        }
    }
}

/// Reads a control message. Allocates no more than a small multiple of `body`.
///
/// # Errors
///
/// [`ControlError::Malformed`] if `body` is no such message.
pub fn decode<M: prost::Message + Default>(body: &[u8]) -> Result<M, ControlError> {
    Ok(M::decode(body)?)
}

/// The identity in `field`, which must be there.
pub(crate) fn required_identity(field: Option<&WireIdentity>) -> Result<Identity, ControlError> {
    field
        .ok_or(ControlError::Missing { field: "identity" })?
        .to_identity()
}

/// The bytes of a control message.
#[must_use]
pub fn encode(message: &impl prost::Message) -> bytes::Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire_identity() -> WireIdentity {
        WireIdentity {
            node: 0x0102_0304_0506_0708,
            epoch: 300,
            renewal: 1,
            address: "127.0.0.1:7000".to_owned(),
            zone: "a".to_owned(),
        }
    }

    const IDENTITY: &[u8] = &[
        0x09, 8, 7, 6, 5, 4, 3, 2, 1, // node: field 1, 8 bytes, little endian
        0x10, 0xac, 0x02, // epoch: field 2, varint 300
        0x18, 0x01, // renewal: field 3, varint 1
        0x22, 14, b'1', b'2', b'7', b'.', b'0', b'.', b'0', b'.', b'1', b':', b'7', b'0', b'0',
        b'0', // address: field 4, 14 bytes
        0x2a, 1, b'a', // zone: field 5, 1 byte
    ];

    #[test]
    fn golden_identity_is_written_and_read() {
        assert_eq!(&encode(&wire_identity())[..], IDENTITY);
        let read: WireIdentity = decode(IDENTITY).unwrap();
        assert_eq!(read, wire_identity());
        let identity = read.to_identity().unwrap();
        assert_eq!(WireIdentity::from(&identity), wire_identity());
    }

    #[test]
    fn golden_hello_is_written_and_read() {
        let hello = Hello {
            cluster: "c".to_owned(),
            identity: Some(wire_identity()),
            name: "n".to_owned(),
            protocol_min: 1,
            protocol_max: 2,
            features: 3,
            lane: 1,
            session: 4,
            time: 5,
            mesh_max: 64,
            probe: true,
        };
        let mut golden = vec![0x0a, 1, b'c', 0x12, u8::try_from(IDENTITY.len()).unwrap()];
        golden.extend_from_slice(IDENTITY);
        golden.extend_from_slice(&[0x1a, 1, b'n', 0x20, 1, 0x28, 2]);
        golden.extend_from_slice(&[0x31, 3, 0, 0, 0, 0, 0, 0, 0, 0x38, 1]);
        golden.extend_from_slice(&[0x41, 4, 0, 0, 0, 0, 0, 0, 0, 0x49, 5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0x50, 64, 0x58, 1]);
        assert_eq!(&encode(&hello)[..], golden);
        assert_eq!(decode::<Hello>(&golden), Ok(hello.clone()));

        let welcome = Welcome {
            hello: Some(hello),
            protocol: 2,
        };
        let mut answer = vec![0x0a, u8::try_from(golden.len()).unwrap()];
        answer.extend_from_slice(&golden);
        answer.extend_from_slice(&[0x10, 2]);
        assert_eq!(&encode(&welcome)[..], answer);
    }

    #[test]
    fn golden_member_list_leave_refusal_and_ready_are_written() {
        let record = MemberRecord {
            identity: Some(wire_identity()),
            incarnation: 7,
            state: 2,
        };
        let list = MemberList {
            members: vec![record],
            answer_wanted: true,
        };
        let identity_bytes = u8::try_from(IDENTITY.len()).unwrap();
        let mut golden = vec![0x0a, identity_bytes + 6, 0x0a, identity_bytes];
        golden.extend_from_slice(IDENTITY);
        golden.extend_from_slice(&[0x10, 7, 0x18, 2, 0x10, 1]);
        assert_eq!(&encode(&list)[..], golden);

        let leave = Leave {
            identity: Some(wire_identity()),
        };
        assert_eq!(&encode(&leave)[..2], &[0x0a, identity_bytes]);
        assert_eq!(
            &encode(&Refused {
                protocol_min: 1,
                protocol_max: 2,
                time: 0,
            })[..],
            &[8, 1, 16, 2]
        );
        let refused = Refused {
            protocol_min: 0,
            protocol_max: 0,
            time: 7,
        };
        assert_eq!(&encode(&refused)[..], &[0x19, 7, 0, 0, 0, 0, 0, 0, 0]);
        let ready = Ready { time: 7 };
        assert_eq!(&encode(&ready)[..], &[0x09, 7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn field_of_a_later_version_is_skipped() {
        let mut longer = IDENTITY.to_vec();
        longer.extend_from_slice(&[0x78, 1]); // field 15, varint
        assert_eq!(decode::<WireIdentity>(&longer), Ok(wire_identity()));
    }

    #[test]
    fn impossible_address_and_zone_are_refused() {
        let bad = WireIdentity {
            address: "nowhere".to_owned(),
            ..wire_identity()
        };
        assert_eq!(
            bad.to_identity(),
            Err(ControlError::Impossible { field: "address" })
        );
        let bad = WireIdentity {
            zone: "z".repeat(65),
            ..wire_identity()
        };
        assert_eq!(
            bad.to_identity(),
            Err(ControlError::Impossible { field: "zone" })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<Welcome>(&bytes);
            let _ = decode::<Refused>(&bytes);
            let _ = decode::<Ready>(&bytes);
            let _ = decode::<Leave>(&bytes);
            if let Ok(list) = decode::<MemberList>(&bytes) {
                for member in &list.members {
                    let _ = required_identity(member.identity.as_ref());
                }
            }
        }
    }
}
