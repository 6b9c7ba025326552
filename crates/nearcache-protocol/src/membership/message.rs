//! What the memberships of two nodes say to each other.

use bytes::Bytes;

use crate::control::{self, ControlError, Leave, MemberList};
use crate::frame::Kind;

/// A message of the membership; travels on the control lane.
#[derive(Debug, Clone, PartialEq)]
pub enum MembershipMessage {
    /// A SWIM packet, laid out as in `docs/wire.md`.
    Swim(Bytes),
    /// All that the sender knows.
    List(MemberList),
    /// The sender leaves on purpose.
    Leave(Leave),
    /// The sender ends this session, which the tree no longer wants, and lives on.
    Part,
}

impl MembershipMessage {
    /// The kind of the frame it travels in.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Swim(_) => Kind::SWIM,
            Self::List(_) => Kind::MEMBER_LIST,
            Self::Leave(_) => Kind::LEAVE,
            Self::Part => Kind::PART,
        }
    }

    /// The body of the frame it travels in.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self {
            Self::Swim(packet) => packet.clone(),
            Self::List(list) => control::encode(list),
            Self::Leave(leave) => control::encode(leave),
            Self::Part => Bytes::new(),
        }
    }

    /// Reads the body of a frame; `None` if frames of this kind belong to somebody else.
    ///
    /// # Errors
    ///
    /// [`ControlError`] if the body is malformed.
    pub fn decode(kind: Kind, body: &Bytes) -> Result<Option<Self>, ControlError> {
        Ok(match kind {
            Kind::SWIM => Some(Self::Swim(body.clone())),
            Kind::MEMBER_LIST => Some(Self::List(control::decode(body)?)),
            Kind::LEAVE => Some(Self::Leave(control::decode(body)?)),
            Kind::PART => Some(Self::Part),
            _ => None,
        })
    }
}
