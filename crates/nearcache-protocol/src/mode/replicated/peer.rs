//! What one node's machine keeps about each peer it is connected to.

use std::collections::VecDeque;
use std::time::Duration;

use super::serve::Serving;
use crate::announce::Agreement;
use crate::ids::{Epoch, RequestId};
use crate::message::{ProgressVector, TransferCursor};
use crate::time::Time;

/// Echoes that wait for updates still on their way (guess: a few heartbeats).
const ECHOES_MAX: usize = 8;

/// How long a peer may take to announce the cache before it is taken not to run it. Longer than a connection may be silent
/// before it breaks (3 s): a peer whose announcement is stuck in a cut link is not one that has nothing to announce.
const ANNOUNCES_WITHIN: Duration = Duration::from_secs(4);

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

/// Whether a peer runs the cache as this node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Agreed {
    Unknown,
    Yes,
    No(Agreement),
}

/// Our stream on its way to the peer.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// The last number handed to the connection; nothing before the peer has subscribed.
    pub(super) cursor: Option<u64>,
    /// The shell was told that there is something to pull, and has not pulled it empty.
    pub(super) awake: bool,
    /// The peer must be told where the stream goes on, before the next batch.
    pub(super) says_where: bool,
    /// The peer has applied everything up to here.
    pub(super) acked: u64,
    /// The same for what lies beyond a hole of the peer's.
    pub(super) acked_beyond_hole: u64,
}

/// The peer's stream on its way to us.
#[derive(Debug)]
pub(super) struct Receiving {
    /// The peer's latest number, as far as known.
    pub(super) latest: u64,
    /// The peer has confirmed our subscription.
    pub(super) subscribed: bool,
    /// When to ask for what is missing; nothing if nothing is known to be.
    pub(super) ask_at: Option<Time>,
    /// How long to wait before asking again; doubles.
    pub(super) patience: Duration,
    /// The peer wants to be told when this much is applied; 0 if it has been.
    pub(super) ack_wanted: u64,
}

/// Freshness by echo of our own clock (design §6.4).
#[derive(Debug, Default)]
pub(super) struct Echoes {
    /// (when we asked, the number to apply before that counts), oldest first.
    waiting: VecDeque<(Time, u64)>,
    /// All that the peer had at this time is here.
    pub(super) fresh_at: Option<Time>,
    pub(super) round_trip: Option<Duration>,
    pub(super) clock_offset_ms: Option<i64>,
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
            receiving: Receiving {
                latest: 0,
                subscribed: false,
                ask_at: None,
                patience,
                ack_wanted: 0,
            },
            echoes: Echoes::default(),
            serving: None,
            join_target: 0,
            early: Early::default(),
        }
    }

    /// Whether it may serve entries of this cache that we should keep up to date: it runs the cache alike, or it has not
    /// had the time to say so.
    pub(super) fn may_hold_copies(&self, now: Time) -> bool {
        match self.agreement {
            Agreed::Yes => true,
            Agreed::Unknown => now - self.since <= ANNOUNCES_WITHIN,
            Agreed::No(_) => false,
        }
    }

    pub(super) fn agrees(&self) -> bool {
        self.agreement == Agreed::Yes
    }
}

impl Receiving {
    /// Something came: what is still missing may take its time again.
    pub(super) fn moved(&mut self, now: Time, patience: Duration, complete: bool) {
        self.patience = patience;
        self.ask_at = if complete { None } else { Some(now + patience) };
    }

    /// The peer is known to have numbers that are not here: ask for them unless they come by themselves.
    pub(super) fn expect_more(&mut self, now: Time) {
        if self.ask_at.is_none() {
            self.ask_at = Some(now + self.patience);
        }
    }

    /// We ask now; the next time later.
    pub(super) fn asked(&mut self, now: Time, patience_max: Duration) {
        self.ask_at = Some(now + self.patience);
        self.patience = (self.patience * 2).min(patience_max);
    }
}

impl Echoes {
    /// The peer's latest number was `latest` when it answered what we asked at `asked`; `applied` of them are here.
    pub(super) fn answered(&mut self, asked: Time, latest: u64, applied: u64) {
        if applied >= latest {
            self.fresh_at = self.fresh_at.max(Some(asked));
            return;
        }
        if self.waiting.len() >= ECHOES_MAX {
            self.waiting.pop_back();
        }
        self.waiting.push_back((asked, latest));
    }

    /// More of the peer's updates are here.
    pub(super) fn advanced(&mut self, applied: u64) {
        while let Some(&(asked, latest)) = self.waiting.front() {
            if applied < latest {
                break;
            }
            self.fresh_at = self.fresh_at.max(Some(asked));
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_the_time_of_asking_once_the_number_is_applied() {
        let mut echoes = Echoes::default();
        echoes.answered(Time::from_millis(100), 7, 5);
        assert_eq!(echoes.fresh_at, None);
        echoes.advanced(6);
        assert_eq!(echoes.fresh_at, None);
        echoes.advanced(7);
        assert_eq!(echoes.fresh_at, Some(Time::from_millis(100)));
    }

    #[test]
    fn a_late_echo_never_makes_freshness_older() {
        let mut echoes = Echoes::default();
        echoes.answered(Time::from_millis(200), 3, 3);
        echoes.answered(Time::from_millis(100), 3, 3);
        assert_eq!(echoes.fresh_at, Some(Time::from_millis(200)));
    }

    #[test]
    fn echoes_that_wait_are_bounded_and_the_oldest_survive() {
        let mut echoes = Echoes::default();
        for n in 1..100 {
            echoes.answered(Time::from_millis(n), n, 0);
        }
        assert_eq!(echoes.waiting.len(), ECHOES_MAX);
        echoes.advanced(1);
        assert_eq!(echoes.fresh_at, Some(Time::from_millis(1)));
    }
}
