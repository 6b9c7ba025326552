//! What a mode whose nodes send each other update streams keeps about a peer: whether both run the cache alike, our stream on
//! its way to the peer, the peer's on its way to us, and how fresh we are by the echoes of our own clock.
//!
//! Every rule here is about one pair of nodes and one cache. What an update does, and what happens when a stream has a hole, is
//! the mode's.

use std::collections::VecDeque;
use std::time::Duration;

use nearcache_store::NodeId;

use crate::announce::Agreement;
use crate::clock::Hlc;
use crate::clock::offset::OffsetRange;
use crate::ids::Epoch;
use crate::log::Log;
use crate::message::CacheMessage;
use crate::payload::Payload;
use crate::time::Time;

use super::acks::Acks;

/// The patience with a silent origin grows up to so many times its first value (see `replay_retry_after`).
pub(in crate::mode) const PATIENCE_GROWS_MAX: u32 = 4;

/// Echoes that wait for updates still on their way (guess: a few heartbeats).
const ECHOES_MAX: usize = 8;

/// Two clocks that tell whole milliseconds, and what they drift apart between two echoes (1,000 ppm of a few seconds).
const CLOCK_RESOLUTION: Duration = Duration::from_millis(6);

/// How long a peer may take to announce the cache before it is taken not to run it. Longer than a connection may be silent
/// before it breaks (3 s): a peer whose announcement is stuck in a cut link is not one that has nothing to announce.
pub(in crate::mode) const ANNOUNCES_WITHIN: Duration = Duration::from_secs(4);

/// Whether a peer runs the cache as this node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mode) enum Agreed {
    Unknown,
    Yes,
    No(Agreement),
}

/// Our stream on its way to the peer.
#[derive(Debug, Default)]
pub(in crate::mode) struct Sending {
    /// The last number handed to the connection; nothing before the peer has subscribed.
    pub(in crate::mode) cursor: Option<u64>,
    /// The shell was told that there is something to pull, and has not pulled it empty.
    pub(in crate::mode) awake: bool,
    /// The peer must be told where the stream goes on, before the next batch.
    pub(in crate::mode) says_where: bool,
    /// The peer has applied everything up to here.
    pub(in crate::mode) acked: u64,
    /// The same for what lies beyond a hole of the peer's.
    pub(in crate::mode) acked_beyond_hole: u64,
}

/// The peer's stream on its way to us.
#[derive(Debug)]
pub(in crate::mode) struct Receiving {
    /// The peer's latest number, as far as known.
    pub(in crate::mode) latest: u64,
    /// The peer has confirmed our subscription.
    pub(in crate::mode) subscribed: bool,
    /// When to ask for what is missing; nothing if nothing is known to be.
    pub(in crate::mode) ask_at: Option<Time>,
    /// How long to wait before asking again; doubles.
    pub(in crate::mode) patience: Duration,
    /// The peer wants to be told when this much is applied; 0 if it has been.
    pub(in crate::mode) ack_wanted: u64,
}

/// Freshness by echo of our own clock (design §6.4).
#[derive(Debug, Default)]
pub(in crate::mode) struct Echoes {
    /// (when we asked, the number to apply before that counts), oldest first.
    waiting: VecDeque<(Time, u64)>,
    /// All that the peer had at this time is here.
    pub(in crate::mode) fresh_at: Option<Time>,
    pub(in crate::mode) round_trip: Option<Duration>,
    pub(in crate::mode) clock_offset_ms: Option<i64>,
    /// When we asked for what gave these two.
    measured_at: Option<Time>,
}

impl Agreed {
    /// Whether a peer that was met `since_met` ago may serve entries that we should keep up to date: it runs the cache alike, or
    /// it has not had the time to say so.
    pub(in crate::mode) fn may_hold_copies(self, since_met: Duration) -> bool {
        match self {
            Self::Yes => true,
            Self::Unknown => since_met <= ANNOUNCES_WITHIN,
            Self::No(_) => false,
        }
    }
}

impl Sending {
    /// The next message of our stream for the peer; `None` puts it to sleep until there is more.
    pub(in crate::mode) fn next<V: Payload>(
        &mut self,
        log: &mut Log<V>,
        epoch: Epoch,
        acks: &Acks,
        budget_bytes: usize,
        updates_max: u64,
    ) -> Option<CacheMessage<V>> {
        let after = self.cursor?;
        if !log.can_replay(after) {
            // The peer was too slow, and the ring has left it behind.
            self.cursor = Some(log.latest());
            self.says_where = true;
        }
        let after = self.cursor?;
        if std::mem::take(&mut self.says_where) {
            return Some(CacheMessage::Subscribed { epoch, after });
        }
        let Some(mut batch) = log.batch(after, budget_bytes, updates_max) else {
            self.awake = false;
            return None;
        };
        self.cursor = Some(batch.through);
        batch.wants_ack = acks.waits_in(batch.after, batch.through);
        Some(CacheMessage::Updates(batch))
    }

    /// The peer wants our stream, from the one after `after` or from now on. Returns whether the shell must be told that there
    /// is something to pull.
    pub(in crate::mode) fn subscribed<V: Payload>(
        &mut self,
        log: &Log<V>,
        after: Option<u64>,
    ) -> bool {
        let cursor = after.filter(|after| log.can_replay(*after));
        self.cursor = Some(cursor.unwrap_or_else(|| log.latest()));
        self.says_where = true;
        !std::mem::replace(&mut self.awake, true)
    }

    /// The peer has applied `(after, applied]`. Returns the part of it that is news.
    pub(in crate::mode) fn acknowledged(&mut self, after: u64, applied: u64) -> Option<(u64, u64)> {
        let before = if after <= self.acked {
            &mut self.acked
        } else {
            &mut self.acked_beyond_hole
        };
        let from = (*before).max(after);
        if applied <= from {
            return None;
        }
        *before = applied;
        Some((from, applied))
    }
}

impl Receiving {
    pub(in crate::mode) const fn new(patience: Duration) -> Self {
        Self {
            latest: 0,
            subscribed: false,
            ask_at: None,
            patience,
            ack_wanted: 0,
        }
    }

    /// Whether a gap must be reported and asked about now: one request brings all that is missing, and what arrives until it is
    /// answered shows the same gap again.
    pub(in crate::mode) fn sees_new_gap(&mut self) -> bool {
        if self.ask_at.is_some() && !self.subscribed {
            return false;
        }
        self.subscribed = false;
        true
    }

    /// Something came: what is still missing may take its time again.
    pub(in crate::mode) fn moved(&mut self, now: Time, patience: Duration, complete: bool) {
        self.patience = patience;
        self.ask_at = if complete { None } else { Some(now + patience) };
    }

    /// The peer is known to have numbers that are not here: ask for them unless they come by themselves.
    pub(in crate::mode) fn expect_more(&mut self, now: Time) {
        if self.ask_at.is_none() {
            self.ask_at = Some(now + self.patience);
        }
    }

    /// We ask now; the next time later.
    pub(in crate::mode) fn asked(&mut self, now: Time, patience_max: Duration) {
        self.ask_at = Some(now + self.patience);
        self.patience = (self.patience * 2).min(patience_max);
    }
}

impl Echoes {
    /// An echo of `peer` came at `now` of what was asked at `asked`, when the peer's clock read `physical_ms`. Shows it to the clock, which stops
    /// stamping if most peers are far from it, and has the session ended if this one is too far.
    pub(in crate::mode) fn measure(
        &mut self,
        clock: &Hlc,
        peer: NodeId,
        now: Time,
        asked: Time,
        physical_ms: u64,
    ) {
        let round_trip = now - asked;
        self.round_trip = Some(round_trip);
        self.measured_at = self.measured_at.max(Some(asked));
        // The peer read its clock somewhere between our asking and now; the middle is the best guess.
        let ours = clock.physical_ms(asked + round_trip / 2);
        let distance = i64::try_from(physical_ms.abs_diff(ours)).unwrap_or(i64::MAX);
        self.clock_offset_ms = Some(if physical_ms >= ours {
            distance
        } else {
            -distance
        });
        let (asked_ms, answered_ms) = (clock.physical_ms(asked), clock.physical_ms(now));
        let range = OffsetRange::measured(asked_ms, answered_ms, physical_ms);
        clock.peer_read(now, peer, range);
    }

    /// The largest possible distance between the peer's clock and ours; what it may be at all if it was not measured within the drift bound. Later than
    /// that the peer may have been started again with another clock, and write: it waits as long before it does (R6).
    pub(in crate::mode) fn clock_bound(&self, now: Time, clock: &Hlc, peer: NodeId) -> Duration {
        let farthest = clock.farthest(peer);
        let recent = self.measured_at.filter(|at| now - *at < clock.max_drift());
        let measured = recent.and(self.clock_offset_ms.zip(self.round_trip));
        let Some((offset_ms, round_trip)) = measured else {
            return farthest;
        };
        // A late answer may leave more open than clocks may be apart.
        let bound =
            Duration::from_millis(offset_ms.unsigned_abs()) + round_trip / 2 + CLOCK_RESOLUTION;
        bound.min(farthest)
    }

    /// Whether what gave the last measurement was asked less than `within` ago.
    pub(in crate::mode) fn is_measured(&self, now: Time, within: Duration) -> bool {
        self.measured_at
            .is_some_and(|at| now.saturating_since(at) < within)
    }

    /// The peer's latest number was `latest` when it answered what we asked at `asked`; `applied` of them are here.
    pub(in crate::mode) fn answered(&mut self, asked: Time, latest: u64, applied: u64) {
        if applied >= latest {
            self.fresh_at = self.fresh_at.max(Some(asked));
            return;
        }
        if self.waiting.len() >= ECHOES_MAX {
            self.waiting.pop_back();
        }
        self.waiting.push_back((asked, latest));
    }

    /// The connection is gone: what was answered over it and still waits for updates is not waited for.
    pub(in crate::mode) fn disconnected(&mut self) {
        self.waiting.clear();
    }

    /// More of the peer's updates are here.
    pub(in crate::mode) fn advanced(&mut self, applied: u64) {
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
