//! What one node's machine keeps about each peer it is connected to.

use std::time::Duration;

use super::serve::Serving;
use crate::ids::{Epoch, RequestId};
use crate::message::{ProgressVector, TransferCursor};
pub(super) use crate::mode::link::{Agreed, Echoes, Receiving, Sending};
use crate::time::Time;

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    since: Time,
    pub(super) epoch: Epoch,
    /// Whether both run the cache alike; unknown before its announcement.
    pub(super) agreement: Agreed,
    /// Whether it said that it is ready.
    pub(super) ready: bool,
    /// How far it was in every stream by its last heartbeat.
    pub(super) progress: ProgressVector,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) echoes: Echoes,
    /// The transfer it gets from us.
    pub(super) serving: Option<Serving>,
    /// What of its stream must be here before this node, joining, is ready.
    pub(super) join_target: u64,
    pub(super) early: Early,
}

/// What a peer asked for before it announced the cache: its announcement travels on another lane and may be overtaken. Kept
/// until then, the last of each kind, because the peer asks again only after `replay_retry_after`.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Our stream, from here on.
    pub(super) subscribe: Option<Option<u64>>,
    /// A transfer: its name, where to go on, and the credit in bytes.
    pub(super) transfer: Option<(RequestId, Option<TransferCursor>, u32)>,
}

impl Peer {
    pub(super) fn new(now: Time, epoch: Epoch, patience: Duration) -> Self {
        Self {
            since: now,
            epoch,
            agreement: Agreed::Unknown,
            ready: false,
            progress: ProgressVector::default(),
            sending: Sending::default(),
            receiving: Receiving::new(patience),
            echoes: Echoes::default(),
            serving: None,
            join_target: 0,
            early: Early::default(),
        }
    }

    /// Whether it may serve entries of this cache that we should keep up to date: it runs the cache alike, or it has not
    /// had the time to say so.
    pub(super) fn may_hold_copies(&self, now: Time) -> bool {
        self.agreement.may_hold_copies(now - self.since)
    }

    pub(super) fn agrees(&self) -> bool {
        self.agreement == Agreed::Yes
    }
}
