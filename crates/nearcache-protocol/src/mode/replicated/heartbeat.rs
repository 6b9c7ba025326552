//! Meeting a peer, and the exchange that keeps both honest: announcements, heartbeats, echoes.
//!
//! A heartbeat carries our clock, our latest number and our progress in every stream. The answer brings our clock back with the
//! peer's latest number: once that number is applied, we know the peer as of the time when we asked (design §6.4), however
//! long anything waited in between.

use std::time::Duration;

use nearcache_store::NodeId;

use super::Replicated;
use super::peer::{Agreed, Early};
use crate::announce::{Announcement, Disagreement};
use crate::ids::{Epoch, StreamId};
use crate::message::{CacheMessage, ProgressVector};
use crate::mode::{Event, Freshness, Output, PeerFreshness, ReadBound, Status};
use crate::payload::Payload;
use crate::time::Time;

/// A peer that was not heard of for so many heartbeats leaves the cache `CatchingUp` (guess).
const STALE_HEARTBEATS: u32 = 4;

impl<V: Payload> Replicated<V> {
    pub(super) fn announce(&self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let announcement = Announcement {
            agreement: self.config.agreement,
            epoch: self.epoch,
            latest: self.log.latest(),
            ready: self.join.is_ready(),
            physical_ms: self.clock.physical_ms(now),
            value_bytes_max: self.config.value_bytes_max,
            lease_ms: 0,
        };
        out.push(Output::Send {
            to,
            message: CacheMessage::Announce(announcement),
        });
    }

    pub(super) fn on_announce(
        &mut self,
        now: Time,
        from: NodeId,
        theirs: Announcement,
        out: &mut Vec<Output<V>>,
    ) {
        let ours = self.config.agreement;
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if theirs.epoch != peer.epoch {
            return;
        }
        if theirs.agreement != ours {
            if peer.agreement != Agreed::No(theirs.agreement) {
                peer.agreement = Agreed::No(theirs.agreement);
                let early = std::mem::take(&mut peer.early);
                let disagreement = Disagreement {
                    peer: from,
                    ours,
                    theirs: theirs.agreement,
                };
                out.push(Output::Event(Event::Disagreement(disagreement)));
                self.acks.gone(from, out);
                self.serve_early(from, early, out);
            }
            return;
        }
        let met = !peer.agrees();
        peer.agreement = Agreed::Yes;
        peer.ready = theirs.ready;
        peer.takes_values_of(theirs.value_bytes_max);
        peer.receiving.latest = peer.receiving.latest.max(theirs.latest);
        if met {
            let since = peer.since;
            self.start_clean_if_away(now, since, out);
            let Some(peer) = self.peers.get_mut(&from) else {
                return;
            };
            let early = std::mem::take(&mut peer.early);
            // What we said when the session began was lost on a peer that opened the cache later.
            self.announce(now, from, out);
            self.subscribe(now, from, out);
            self.serve_early(from, early, out);
            self.repair(now, out);
        }
    }

    /// Answers what overtook the announcement that has come now.
    fn serve_early(&mut self, from: NodeId, early: Early, out: &mut Vec<Output<V>>) {
        if let Some(after) = early.subscribe {
            self.on_subscribe(from, self.epoch, after, out);
        }
        if let Some((request, cursor, credit_bytes)) = early.transfer {
            self.on_transfer_request(from, request, cursor, credit_bytes, out);
        }
    }

    /// Tells every peer how far we are, and asks.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let progress = self.progress.vector(self.own(), self.log.latest());
        for (to, peer) in &self.peers {
            if peer.sending.cursor.is_none() {
                // It has not subscribed: our announcement may be lost.
                self.announce(now, *to, out);
            }
            if peer.agrees() {
                let message = CacheMessage::Heartbeat {
                    asked: now,
                    epoch: self.epoch,
                    latest: self.log.latest(),
                    ready: self.join.is_ready(),
                    progress: progress.clone(),
                };
                out.push(Output::Send { to: *to, message });
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        ready: bool,
        progress: ProgressVector,
        out: &mut Vec<Output<V>>,
    ) {
        let own = self.own();
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if epoch != peer.epoch || !peer.agrees() {
            return;
        }
        peer.ready = ready;
        let acked = progress
            .0
            .iter()
            .find(|(stream, _)| *stream == own)
            .map(|(_, number)| *number);
        peer.progress = progress;
        let message = CacheMessage::Echo {
            asked,
            epoch: self.epoch,
            latest: self.log.latest(),
            physical_ms: self.clock.physical_ms(now),
        };
        out.push(Output::Send { to: from, message });
        self.learn_latest(now, from, latest);
        if let Some(acked) = acked {
            self.on_ack(from, self.epoch, 0, acked, out);
        }
        self.repair(now, out);
    }

    pub(super) fn on_echo(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        physical_ms: u64,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if epoch != peer.epoch || asked > now {
            return;
        }
        let applied = self.progress.applied(StreamId {
            origin: from,
            epoch,
        });
        peer.echoes.answered(asked, latest, applied);
        peer.echoes.measure(&self.clock, now, asked, physical_ms);
        if let Some(offset_ms) = peer.echoes.clock_offset_ms {
            // Both clocks were read in whole milliseconds.
            let error_ms = u64::try_from(((now - asked) / 2).as_millis()).unwrap_or(u64::MAX);
            self.clock
                .peer_read(from, offset_ms, error_ms.saturating_add(2));
        }
        self.learn_latest(now, from, latest);
    }

    /// The peer says that its stream has come so far.
    fn learn_latest(&mut self, now: Time, from: NodeId, latest: u64) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.receiving.latest = peer.receiving.latest.max(latest);
        let wanted = self.progress.wanted_after(StreamId {
            origin: from,
            epoch: peer.epoch,
        });
        if !peer.receiving.subscribed || wanted < peer.receiving.latest {
            peer.receiving.expect_more(now);
        }
    }

    pub(super) fn freshness_now(&self, now: Time) -> Freshness {
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let per_peer: Vec<_> = agreeing
            .map(|(id, peer)| {
                let applied = self.progress.applied(StreamId {
                    origin: *id,
                    epoch: peer.epoch,
                });
                PeerFreshness {
                    peer: *id,
                    age: peer.echoes.fresh_at.map(|fresh_at| now - fresh_at),
                    round_trip: peer.echoes.round_trip,
                    clock_offset_ms: peer.echoes.clock_offset_ms,
                    missing: peer.receiving.latest.saturating_sub(applied),
                    unacknowledged: self.log.latest().saturating_sub(peer.sending.acked),
                }
            })
            .chain(
                self.lost
                    .iter()
                    .filter(|(_, lost)| !lost.dead)
                    .map(|(id, lost)| PeerFreshness {
                        peer: *id,
                        age: lost.fresh_at.map(|fresh_at| now - fresh_at),
                        round_trip: None,
                        clock_offset_ms: None,
                        missing: 0,
                        unacknowledged: 0,
                    }),
            )
            .collect();
        let worst = per_peer.iter().try_fold(Duration::ZERO, |worst, peer| {
            peer.age.map(|age| worst.max(age))
        });
        Freshness { worst, per_peer }
    }

    /// No lease is needed: what is here is as old as the slowest peer's freshness.
    pub(super) fn read_bound_now(&self) -> ReadBound {
        let connected = self.peers.values().filter(|peer| peer.agrees());
        let connected = connected.map(|peer| peer.echoes.fresh_at);
        let lost = self.lost.values().filter(|lost| !lost.dead);
        let all = connected.chain(lost.map(|lost| lost.fresh_at));
        ReadBound {
            serve_until: Time::MAX,
            fresh_since: all.fold(Time::MAX, |since, at| since.min(at.unwrap_or(Time::ZERO))),
        }
    }

    pub(super) fn clock_bound_now(&self) -> Duration {
        let max_drift = self.clock.max_drift();
        let connected = self.peers.values().filter(|peer| peer.agrees());
        let connected = connected.map(|peer| peer.echoes.clock_bound(max_drift));
        let lost = self.lost.values().filter(|lost| !lost.dead);
        connected
            .chain(lost.map(|_| max_drift))
            .max()
            .unwrap_or_default()
    }

    /// Tells those who wait for freshness, and asks for them.
    pub(super) fn serve_refreshes(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.refreshes.is_empty() {
            return;
        }
        self.refreshes
            .advanced(self.read_bound_now().fresh_since, out);
        if self.refreshes.must_ask(now) {
            self.refreshes.asked(now);
            self.heartbeat(now, out);
        }
    }

    pub(super) fn status_now(&self, now: Time) -> Status {
        if !self.peers.values().any(super::peer::Peer::agrees) && !self.lost.is_empty() {
            return Status::Isolated;
        }
        let stale_after = self.config.heartbeat_every * STALE_HEARTBEATS;
        let fresh = self
            .freshness_now(now)
            .worst
            .is_some_and(|worst| worst <= stale_after);
        if self.join.is_ready() && fresh && self.is_complete() {
            Status::Synced
        } else {
            Status::CatchingUp
        }
    }
}
