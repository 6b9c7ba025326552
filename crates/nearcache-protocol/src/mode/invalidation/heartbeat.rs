//! Meeting a peer, and the exchange that leases live on: announcements, heartbeats, echoes.

use nearcache_store::NodeId;

use super::Invalidation;
use crate::announce::{Announcement, Disagreement};
use crate::ids::{Epoch, StreamId};
use crate::message::{CacheMessage, ProgressVector};
use crate::mode::link::Agreed;
use crate::mode::{Event, Output};
use crate::payload::Payload;
use crate::time::Time;

impl<V: Payload> Invalidation<V> {
    pub(super) fn announce(&self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let lease_ms = self.config.lease().as_millis();
        let announcement = Announcement {
            agreement: self.config.agreement,
            epoch: self.epoch,
            latest: self.log.latest(),
            ready: self.ready,
            physical_ms: self.clock.physical_ms(now),
            value_bytes_max: self.config.value_bytes_max,
            lease_ms: u64::try_from(lease_ms).unwrap_or(u64::MAX),
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
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if member.epoch != Some(theirs.epoch) {
            return;
        }
        let Some(link) = &mut member.link else { return };
        if theirs.agreement != ours {
            if member.agreement != Agreed::No(theirs.agreement) {
                member.agreement = Agreed::No(theirs.agreement);
                link.early_subscribe = None;
                let disagreement = Disagreement {
                    peer: from,
                    ours,
                    theirs: theirs.agreement,
                };
                out.push(Output::Event(Event::Disagreement(disagreement)));
                self.acks.gone(from, out);
            }
            return;
        }
        member.agreement = Agreed::Yes;
        member.lease = std::time::Duration::from_millis(theirs.lease_ms);
        link.receiving.latest = link.receiving.latest.max(theirs.latest);
        if !std::mem::replace(&mut link.met, true) {
            let early = link.early_subscribe.take();
            // What we said when the session began was lost on a peer that opened the cache later.
            self.announce(now, from, out);
            self.subscribe(now, from, out);
            self.ask(now, from, out);
            if let Some(after) = early {
                self.on_subscribe(from, self.epoch, after, out);
            }
        }
    }

    /// Asks every peer how far it is.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        for to in self.connected() {
            let subscribed = |link: &super::members::Link| link.sending.cursor.is_some();
            let link = self
                .members
                .get(&to)
                .and_then(|member| member.link.as_ref());
            if !link.is_some_and(subscribed) {
                // It has not subscribed: our announcement may be lost.
                self.announce(now, to, out);
            }
            self.ask(now, to, out);
        }
    }

    fn ask(&self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let Some(member) = self.members.get(&to).filter(|member| member.is_met()) else {
            return;
        };
        // Only how far we are in the peer's own stream concerns it.
        let progress = member.epoch.map(|epoch| {
            let stream = StreamId { origin: to, epoch };
            (stream, self.progress.applied(stream))
        });
        let message = CacheMessage::Heartbeat {
            asked: now,
            epoch: self.epoch,
            latest: self.log.latest(),
            ready: self.ready,
            progress: ProgressVector(progress.into_iter().collect()),
        };
        out.push(Output::Send { to, message });
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        progress: &ProgressVector,
        out: &mut Vec<Output<V>>,
    ) {
        let own = self.own();
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if member.epoch != Some(epoch) || !member.is_met() {
            return;
        }
        member.echoed_at = Some(now);
        let message = CacheMessage::Echo {
            asked,
            epoch: self.epoch,
            latest: self.log.latest(),
            physical_ms: self.clock.physical_ms(now),
        };
        out.push(Output::Send { to: from, message });
        self.learn_latest(now, from, latest);
        let acked = progress.0.iter().find(|(stream, _)| *stream == own);
        if let Some((_, acked)) = acked {
            self.on_ack(from, self.epoch, 0, *acked, out);
        }
    }

    pub(super) fn on_echo(
        &mut self,
        now: Time,
        from: NodeId,
        (asked, epoch, latest): (Time, Epoch, u64),
        physical_ms: u64,
    ) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if member.epoch != Some(epoch) || asked > now || !member.is_met() {
            return;
        }
        let applied = self.progress.applied(StreamId {
            origin: from,
            epoch,
        });
        let counted = if self.config.planted.extends_lease_on_echo() {
            latest
        } else {
            applied
        };
        member.echoes.answered(asked, latest, counted);
        member.echoes.measure(&self.clock, now, asked, physical_ms);
        if let Some(offset_ms) = member.echoes.clock_offset_ms {
            // Both clocks were read in whole milliseconds.
            let error_ms = u64::try_from(((now - asked) / 2).as_millis()).unwrap_or(u64::MAX);
            self.clock
                .peer_read(from, offset_ms, error_ms.saturating_add(2));
        }
        self.learn_latest(now, from, latest);
    }

    /// The peer says that its stream has come so far.
    fn learn_latest(&mut self, now: Time, from: NodeId, latest: u64) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let (Some(epoch), Some(link)) = (member.epoch, &mut member.link) else {
            return;
        };
        link.receiving.latest = link.receiving.latest.max(latest);
        let stream = StreamId {
            origin: from,
            epoch,
        };
        let wanted = self.progress.wanted_after(stream);
        if !link.receiving.subscribed || wanted < link.receiving.latest {
            link.receiving.expect_more(now);
        }
    }

    /// The peer's stream ends with this number.
    pub(super) fn on_leave(&mut self, from: NodeId, epoch: Epoch, latest: u64) {
        if let Some(member) = self.members.get_mut(&from)
            && member.epoch == Some(epoch)
        {
            member.ends_at = Some(latest);
        }
    }
}
