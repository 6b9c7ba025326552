//! How a member is asked: over the session with it, or beyond the mesh over a short-lived connection.

use nearcache_store::NodeId;

use super::{Members, Probe};
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::Output;

/// The ways to all members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routes<'a> {
    members: &'a Members,
    by_tree: bool,
}

/// A way to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The session. It keeps the order and loses nothing while it stands.
    Session,
    /// A connection for this. What goes over it may be lost.
    Short,
}

impl<'a> Routes<'a> {
    pub(super) const fn new(members: &'a Members, by_tree: bool) -> Self {
        Self { members, by_tree }
    }

    /// How to ask this member; nothing if there is no session where there should be one.
    pub(super) fn to(self, member: NodeId) -> Option<Way> {
        match self.members.get(&member) {
            Some(true) => Some(Way::Session),
            _ if self.by_tree => Some(Way::Short),
            _ => None,
        }
    }

    /// How to answer whoever has asked: the question came somehow.
    pub(super) fn back_to(self, asker: NodeId) -> Way {
        self.to(asker).unwrap_or(Way::Short)
    }
}

impl Way {
    pub(super) const fn carry<V>(
        self,
        to: NodeId,
        request: RequestId,
        message: Probe,
    ) -> Output<V> {
        let message = CacheMessage::Probe { request, message };
        match self {
            Self::Session => Output::Send { to, message },
            Self::Short => Output::Reach { to, message },
        }
    }
}
