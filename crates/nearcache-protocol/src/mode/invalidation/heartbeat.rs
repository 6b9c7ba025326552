//! Meeting a peer, and the exchange that leases live on.

use std::time::Duration;

use nearcache_store::NodeId;

use super::Invalidation;
use crate::announce::Announcement;
use crate::ids::{Epoch, StreamId};
use crate::message::ProgressVector;
use crate::mode::stream::link::Agreed;
use crate::mode::stream::{Beats as _, Receives as _, Sends as _, Verdict};
use crate::mode::{FlushCause, Output};
use crate::payload::Payload;
use crate::time::Time;

impl<V: Payload> Invalidation<V> {
    pub(super) fn announce(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let lease_ms = self.config.lease().as_millis();
        let lease_ms = u64::try_from(lease_ms).unwrap_or(u64::MAX);
        self.send_announcement(now, to, self.ready, lease_ms, out);
    }

    pub(super) fn on_announce(
        &mut self,
        now: Time,
        from: NodeId,
        theirs: Announcement,
        out: &mut Vec<Output<V>>,
    ) {
        let verdict = self.judge(from, &theirs, out);
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        match verdict {
            Verdict::Stale => return,
            Verdict::Differs { .. } => {
                member.agreement = Agreed::No(theirs.agreement);
                return;
            }
            Verdict::Alike => {}
        }
        let Some(link) = &mut member.link else { return };
        let first = std::mem::replace(&mut member.agreement, Agreed::Yes) == Agreed::Unknown;
        member.lease = Duration::from_millis(theirs.lease_ms);
        if !std::mem::replace(&mut link.met, true) {
            let early = link.early_subscribe.take();
            if first && theirs.latest > 0 {
                // Loads that began before it was heard of are stamped as if it had no clock, and may pass for newer than what
                // it invalidated then (C1).
                self.flush(now, FlushCause::Met(from), out);
            }
            // What we said when the session began was lost on a peer that opened the cache later.
            self.announce(now, from, out);
            self.subscribe(now, from, out);
            self.ask_peer(now, from, out);
            if let Some(after) = early {
                self.on_subscribe(from, self.epoch, after, out);
            }
        }
    }

    /// Asks every peer how far it is.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.refuse_all_beyond_mesh(out);
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
            self.ask_peer(now, to, out);
        }
    }

    fn ask_peer(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let Some(member) = self.members.get(&to).filter(|member| member.is_met()) else {
            return;
        };
        // Only how far we are in the peer's own stream concerns it.
        let progress = member.epoch.map(|epoch| {
            let stream = StreamId { origin: to, epoch };
            (stream, self.progress.applied(stream))
        });
        let progress = ProgressVector(progress.into_iter().collect());
        self.ask(now, to, self.ready, progress, out);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        told: (Time, Epoch, u64),
        progress: &ProgressVector,
        out: &mut Vec<Output<V>>,
    ) {
        if self.answer(now, from, told, progress, out)
            && let Some(member) = self.members.get_mut(&from)
        {
            member.echoed_at = Some(now);
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
