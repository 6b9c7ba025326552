//! One step of foca, and carrying out what it asks for.

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification};
use nearcache_store::NodeId;
use rand::rngs::StdRng;

use super::codec::SwimCodec;
use super::timers::Timer;
use super::{DownReason, Membership, MembershipOutput};
use crate::identity::Identity;
use crate::time::Time;

pub(super) type Swim = Foca<Identity, SwimCodec, StdRng, NoCustomBroadcast>;

impl Membership {
    /// Like [`Self::try_swim`], where only our own doing is involved: foca recovers from each of its
    /// complaints by itself (a probe cycle cut short by a pause, for one).
    pub(super) fn swim(
        &mut self,
        now: Time,
        out: &mut Vec<MembershipOutput>,
        step: impl FnOnce(&mut Swim, &mut AccumulatingRuntime<Identity>) -> Result<(), foca::Error>,
    ) {
        let _ = self.try_swim(now, out, step);
    }

    /// Lets foca do one step and carries out all that it asks for, also when the step fails.
    pub(super) fn try_swim(
        &mut self,
        now: Time,
        out: &mut Vec<MembershipOutput>,
        step: impl FnOnce(&mut Swim, &mut AccumulatingRuntime<Identity>) -> Result<(), foca::Error>,
    ) -> Result<(), foca::Error> {
        let first = out.len();
        let mut runtime = AccumulatingRuntime::new();
        let result = step(&mut self.swim, &mut runtime);
        while let Some((to, packet)) = runtime.to_send() {
            self.send_packet(to, packet, out);
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers.set(now + after, Timer::Swim(timer));
        }
        let mut renewed = false;
        while let Some(notification) = runtime.to_notify() {
            renewed |= matches!(notification, OwnedNotification::Rejoin(_));
            self.note(now, notification, out);
        }
        deaths_last(out, first);
        if renewed {
            self.after_renewal(now, out);
        }
        result
    }

    fn note(
        &mut self,
        now: Time,
        notification: OwnedNotification<Identity>,
        out: &mut Vec<MembershipOutput>,
    ) {
        match notification {
            OwnedNotification::MemberUp(identity) => {
                self.contacts.up(now, &identity);
                self.links_are_stale = true;
                out.push(MembershipOutput::MemberUp(identity));
            }
            OwnedNotification::MemberDown(identity) => self.note_down(now, identity, out),
            OwnedNotification::Rename(old, new) => self.note_rename(now, old, new, out),
            OwnedNotification::Rejoin(identity) => out.push(MembershipOutput::Renewed(identity)),
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
        }
    }

    fn note_down(&mut self, now: Time, identity: Identity, out: &mut Vec<MembershipOutput>) {
        let contact = self.contacts.note(now, &identity);
        if contact.down_since.is_some() {
            return;
        }
        contact.down_since = Some(now);
        let left = contact.left;
        self.links_are_stale = true;
        let reason = if left {
            DownReason::Left
        } else {
            DownReason::Failed
        };
        out.push(MembershipOutput::MemberDown { identity, reason });
    }

    /// One identity of a node took the place of another. A mere renewal of a live member is nobody's
    /// business; another start is another member.
    fn note_rename(
        &mut self,
        now: Time,
        old: Identity,
        new: Identity,
        out: &mut Vec<MembershipOutput>,
    ) {
        if new.node == self.identity().node {
            return;
        }
        let was_up = self
            .contacts
            .get(old.node)
            .is_some_and(|known| known.down_since.is_none());
        let contact = self.contacts.note(now, &new);
        if !was_up || old.epoch == new.epoch {
            return;
        }
        contact.down_since = Some(now);
        out.push(MembershipOutput::MemberDown {
            identity: old,
            reason: DownReason::Replaced,
        });
        if self.swim.iter_members().any(|member| member.id() == &new) {
            self.contacts.up(now, &new);
            out.push(MembershipOutput::MemberUp(new));
        }
    }

    /// Everybody must learn of our new identity, those too whom we hold for dead.
    fn after_renewal(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        self.swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::empty(), false, runtime)
        });
        let connected = self.contacts.iter().filter(|contact| contact.connected);
        let peers: Vec<NodeId> = connected.map(|contact| contact.identity.node).collect();
        for peer in peers {
            self.send_list(peer, false, out);
        }
    }
}

/// Tells of those who came before those who are gone, from `first` on: who waits for all live members
/// must not be told that all have answered, because one is gone, before it knows of another that came.
fn deaths_last(out: &mut Vec<MembershipOutput>, first: usize) {
    let news = out.split_off(first);
    let rises = |at: usize, node: NodeId| {
        let later = news.iter().skip(at);
        later.into_iter().any(|output| {
            matches!(output, MembershipOutput::MemberUp(identity) if identity.node == node)
        })
    };
    let is_final = |at: usize, output: &MembershipOutput| matches!(output, MembershipOutput::MemberDown { identity, .. } if !rises(at, identity.node));
    let last: Vec<bool> = news
        .iter()
        .enumerate()
        .map(|(at, output)| is_final(at, output))
        .collect();
    let (deaths, others): (Vec<_>, Vec<_>) =
        news.into_iter().zip(last).partition(|(_, last)| *last);
    out.extend(others.into_iter().chain(deaths).map(|(output, _)| output));
}
