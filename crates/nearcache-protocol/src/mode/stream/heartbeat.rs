//! The exchange that keeps both ends of a connection honest: announcements, heartbeats, echoes.
//!
//! A heartbeat carries our clock, our latest number and progress. The answer brings our clock back with the peer's latest number:
//! once that number is applied, we know the peer as of the time when we asked (design §6.4), however long anything waited in
//! between.

use nearcache_store::NodeId;

use super::link::Agreed;
use super::{Receives, Sends, Streaming};
use crate::announce::{Announcement, Disagreement};
use crate::ids::{Epoch, StreamId};
use crate::message::{CacheMessage, ProgressVector};
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::time::Time;

/// What an announcement means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mode) enum Verdict {
    /// It is of a former start of the peer.
    Stale,
    /// The peer runs the cache otherwise than we do.
    Differs {
        /// Since this announcement, and everybody has been told.
        news: bool,
    },
    /// Both run it alike.
    Alike,
}

/// The exchange between [`Streaming`] nodes.
pub(in crate::mode) trait Beats<V: Payload>: Streaming<V> {
    /// Tells a peer what we believe about the cache.
    fn send_announcement(
        &mut self,
        now: Time,
        to: NodeId,
        ready: bool,
        lease_ms: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let shared = self.shared();
        let announcement = Announcement {
            agreement: shared.config.agreement,
            epoch: shared.epoch,
            latest: shared.log.latest(),
            ready,
            physical_ms: shared.clock.physical_ms(now),
            value_bytes_max: shared.config.value_bytes_max,
            lease_ms,
        };
        let message = CacheMessage::Announce(announcement);
        out.push(Output::Send { to, message });
    }

    /// What a peer's announcement means. Says so where they disagree, and takes note of how far its stream is where not.
    fn judge(&mut self, from: NodeId, theirs: &Announcement, out: &mut Vec<Output<V>>) -> Verdict {
        let Some((shared, pair)) = self.pair(from) else {
            return Verdict::Stale;
        };
        let ours = shared.config.agreement;
        if theirs.epoch != pair.epoch {
            return Verdict::Stale;
        }
        if theirs.agreement == ours {
            pair.receiving.latest = pair.receiving.latest.max(theirs.latest);
            return Verdict::Alike;
        }
        let news = pair.agreement != Agreed::No(theirs.agreement);
        if news {
            *pair.early_subscribe = None;
            let disagreement = Disagreement {
                peer: from,
                ours,
                theirs: theirs.agreement,
            };
            out.push(Output::Event(Event::Disagreement(disagreement)));
            shared.acks.gone(from, out);
        }
        Verdict::Differs { news }
    }

    /// Asks a peer how far it is, and tells it how far we are.
    fn ask(
        &mut self,
        now: Time,
        to: NodeId,
        ready: bool,
        progress: ProgressVector,
        out: &mut Vec<Output<V>>,
    ) {
        let shared = self.shared();
        let message = CacheMessage::Heartbeat {
            asked: now,
            epoch: shared.epoch,
            latest: shared.log.latest(),
            ready,
            progress,
        };
        out.push(Output::Send { to, message });
    }

    /// Answers a heartbeat. `false` if it is none of a peer that runs the cache alike.
    fn answer(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        progress: &ProgressVector,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let Some((shared, pair)) = self.pair(from) else {
            return false;
        };
        if epoch != pair.epoch || !pair.met {
            return false;
        }
        let (own_epoch, own) = (shared.epoch, shared.own_stream());
        let message = CacheMessage::Echo {
            asked,
            epoch: own_epoch,
            latest: shared.log.latest(),
            physical_ms: shared.clock.physical_ms(now),
        };
        out.push(Output::Send { to: from, message });
        self.learn_latest(now, from, latest);
        let acked = progress.0.iter().find(|(stream, _)| *stream == own);
        if let Some((_, acked)) = acked {
            self.on_ack(from, own_epoch, 0, *acked, out);
        }
        true
    }

    /// The answer to a heartbeat.
    fn on_echo(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        physical_ms: u64,
    ) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if epoch != pair.epoch || asked > now || !pair.met {
            return;
        }
        let origin = from;
        let counted = if shared.config.planted.extends_lease_on_echo() {
            latest
        } else {
            shared.progress.applied(StreamId { origin, epoch })
        };
        let since = shared.config.planted.fresh_since(asked, now);
        pair.echoes.answered(since, latest, counted);
        let clock = shared.clock;
        pair.echoes.measure(clock, from, now, asked, physical_ms);
        self.learn_latest(now, from, latest);
    }
}

impl<V: Payload, M: Streaming<V>> Beats<V> for M {}
