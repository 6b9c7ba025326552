//! Meeting a peer, and the exchange that leases live on.

use std::time::Duration;

use nearcache_store::NodeId;

use super::Invalidation;
use super::members::Member;
use crate::announce::Announcement;
use crate::ids::{Epoch, StreamId};
use crate::message::{Ask, ProgressVector, Runs, State};
use crate::mode::stream::link::Agreed;
use crate::mode::stream::tree::{Mends as _, Talks as _, Turns as _};
use crate::mode::stream::{Beats as _, Sends as _, Verdict};
use crate::mode::{FlushCause, Output};
use crate::payload::Payload;
use crate::time::Time;

/// The epoch of no start.
const NO_START: Epoch = Epoch::from_u64(0);

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
            self.relay.hear_runs(from, theirs.epoch, Runs::Yes);
            if first && theirs.latest > 0 && !self.relay.is_on() {
                // Loads that began before it was heard of are stamped as if it had no clock, and may pass for newer than what
                // it invalidated then (C1). Beyond the mesh all are stamped as if clocks were as far off as they may be.
                self.flush(now, FlushCause::Met(from), out);
            }
            // What we said when the session began was lost on a peer that opened the cache later.
            self.announce(now, from, out);
            self.begin(now, from, out);
            if !self.relay.is_on() {
                self.ask_peer(now, from, out);
            }
            if let Some(after) = early {
                self.on_subscribe(from, self.epoch, after, out);
            }
        }
    }

    /// Asks every peer how far it is.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.relay.beats(now, self.config.heartbeat_every);
        self.set_by_tree(now, out);
        self.refuse_all_beyond_mesh(out);
        let by_tree = self.relay.is_on();
        if by_tree {
            self.meet_over_silent(now, out);
        }
        for to in self.connected() {
            let subscribed = |link: &super::members::Link| {
                link.sending.cursor.is_some() || link.branch.cursor.is_some()
            };
            let link = self
                .members
                .get(&to)
                .and_then(|member| member.link.as_ref());
            if !link.is_some_and(subscribed) {
                // It has not subscribed: our announcement may be lost.
                self.announce(now, to, out);
            }
            if by_tree {
                self.ask_state(now, to, out);
            } else {
                self.ask_peer(now, to, out);
            }
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

    /// A neighbour in the tree asks.
    pub(super) fn on_neighbour_asks(
        &mut self,
        now: Time,
        from: NodeId,
        ask: Ask,
        out: &mut Vec<Output<V>>,
    ) {
        let is_of = |member: &Member| member.is_met() && member.epoch == Some(ask.epoch);
        let asker = self.members.get_mut(&from);
        if let Some(member) = asker.filter(|member| is_of(member)) {
            member.echoed_at = Some(now);
        }
        self.on_ask(now, from, ask, out);
    }

    /// A neighbour in the tree answers.
    pub(super) fn on_neighbour_says(
        &mut self,
        now: Time,
        from: NodeId,
        state: State,
        out: &mut Vec<Output<V>>,
    ) {
        let is_of = |member: &Member| member.is_met() && member.epoch == Some(state.epoch);
        if !self.members.get(&from).is_some_and(is_of) {
            return;
        }
        // Who was started again must have cost all copies before any lease counts that start.
        for word in state.members.iter().filter(|word| word.epoch > NO_START) {
            self.hear_word(now, word.node, (word.epoch, word.runs), out);
        }
        self.on_state(now, from, state, out);
        self.skip_holes(now, out);
    }

    /// The peer's stream ends with this number.
    pub(super) fn on_leave(&mut self, from: NodeId, epoch: Epoch, latest: u64) {
        if let Some(member) = self.members.get_mut(&from)
            && member.epoch == Some(epoch)
        {
            member.ends_at = Some(latest);
            self.relay.hear_runs(from, epoch, Runs::Ended(latest));
        }
    }
}
