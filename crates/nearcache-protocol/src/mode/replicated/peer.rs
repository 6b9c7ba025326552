//! What one node's machine keeps about each peer it is connected to.

use std::time::Duration;

use super::serve::{Serving, TransferAsked};
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, RequestId};
use crate::message::ProgressVector;
pub(super) use crate::mode::stream::link::{Agreed, Echoes, Receiving, Sending};
use crate::mode::stream::tree::Branch;
use crate::time::Time;
use crate::update::Reader;

/// What a peer is taken to accept before it has said so, in bytes: the default of all nodes, which fits into the least frame.
const VALUE_BYTES_UNKNOWN: usize = 1 << 20;

/// No longer value is sent in one message, whatever the peer accepts: the largest frame, without what it holds besides.
pub(super) const VALUE_BYTES_ON_WIRE_MAX: usize = (64 << 20) - (256 << 10);

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) since: Time,
    pub(super) epoch: Epoch,
    /// The newest start of it that membership has told of since it is connected.
    pub(super) risen: Option<Epoch>,
    /// Whether both run the cache alike; unknown before its announcement.
    pub(super) agreement: Agreed,
    /// It has had the time to say that it runs the cache, and has not: it is taken not to.
    pub(super) silent: bool,
    /// Whether it said that it is ready.
    pub(super) ready: bool,
    /// How far it was in every stream by its last heartbeat.
    pub(super) progress: ProgressVector,
    /// The longest value to send it, in bytes.
    pub(super) value_bytes_max: usize,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) echoes: Echoes,
    /// The comparison of the peer's that was last told how far we are, and how many group invalidations there had been then.
    pub(super) told_generation: (RequestId, u32),
    pub(super) branch: Branch,
    /// The transfer it gets from us.
    pub(super) serving: Option<Serving>,
    /// What of its stream must be here before this node, joining, is ready.
    pub(super) join_target: u64,
    pub(super) early: Early,
    /// Until when home nodes' questions do not wait for it: it let one wait to the end.
    pub(super) finds_rest_until: Time,
}

/// What a peer asked for before it announced the cache: its announcement travels on another lane and may be overtaken. Kept
/// until then, the last of each kind, because the peer asks again only after `replay_retry_after`.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Our stream, from here on.
    pub(super) subscribe: Option<Option<u64>>,
    /// A transfer.
    pub(super) transfer: Option<TransferAsked>,
}

impl Peer {
    pub(super) fn new(now: Time, epoch: Epoch, patience: Duration) -> Self {
        Self {
            since: now,
            epoch,
            risen: None,
            agreement: Agreed::Unknown,
            silent: false,
            ready: false,
            progress: ProgressVector::default(),
            value_bytes_max: VALUE_BYTES_UNKNOWN,
            sending: Sending::default(),
            receiving: Receiving::new(patience),
            echoes: Echoes::default(),
            told_generation: (RequestId(0), 0),
            branch: Branch::default(),
            serving: None,
            join_target: 0,
            early: Early::default(),
            finds_rest_until: now,
        }
    }

    /// The newer start of it that membership knows, if this connection is to one that is over.
    pub(super) fn risen_since(&self) -> Option<Epoch> {
        self.risen.filter(|risen| *risen > self.epoch)
    }

    /// Whether it may serve entries of this cache that we should keep up to date: it runs the cache alike, or it has not
    /// had the time to say so.
    pub(super) fn may_hold_copies(&self, now: Time) -> bool {
        self.agreement.may_hold_copies(now - self.since)
    }

    /// Whether what it wrote may be missing here, so that this node is no fresher than its knowledge of it (C11).
    pub(super) fn counts_for_freshness(&self) -> bool {
        self.agrees() || self.agreement == Agreed::Unknown && !self.silent
    }

    /// It said how long a value may be that it is sent.
    pub(super) fn takes_values_of(&mut self, bytes_max: u32) {
        self.value_bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    }

    /// What values it is sent inside updates.
    pub(super) fn reader(&self, config: &ReplicationConfig) -> Reader {
        Reader {
            value_bytes_max: self.value_bytes_max,
            inline_bytes_max: config.inline_limit,
        }
    }

    /// Whether it has asked for updates, its own way or by the tree.
    pub(super) fn gets_updates(&self) -> bool {
        self.sending.cursor.is_some() || self.branch.cursor.is_some()
    }

    pub(super) fn agrees(&self) -> bool {
        self.agreement == Agreed::Yes
    }
}
