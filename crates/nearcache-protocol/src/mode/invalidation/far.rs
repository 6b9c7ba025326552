//! Members that there is no session with, beyond the mesh: what neighbours tell of them.
//!
//! A lease by them is as good as one by an echo: a neighbour that has all of a member's invalidations up to a time says so with its numbers, and
//! this node counts it once it has those numbers. What an echo would show and numbers do not is told with it: that the member was
//! started again, so that what its former start did not send is lost, and that it has left in good order.

use nearcache_store::NodeId;

use super::Invalidation;
use super::members::{Member, Standing};
use crate::ids::{Epoch, StreamId};
use crate::message::Runs;
use crate::mode::stream::link::{ANNOUNCES_WITHIN, Agreed};
use crate::mode::stream::tree::Talks as _;
use crate::mode::{FlushCause, Output};
use crate::payload::Payload;
use crate::time::Time;

impl<V: Payload> Invalidation<V> {
    /// Whether a member's silence keeps this node from serving. Beyond the mesh that of each without a session does, whether it runs the cache or
    /// not: neighbours say of one that does not that nothing of it is missed.
    pub(super) fn counts(&self, now: Time, member: &Member) -> bool {
        if self.relay.is_on() && member.link.is_none() {
            return member.standing != Standing::GivenUp;
        }
        member.counts(now, self.has_listened(now))
    }

    /// Whether this node has run without a pause for as long as a peer may take to say that it runs the cache.
    pub(super) fn has_listened(&self, now: Time) -> bool {
        let every = self.config.heartbeat_every;
        self.relay.has_run(now, every, ANNOUNCES_WITHIN)
    }

    /// When this node last had all of a member's invalidations.
    pub(super) fn fresh_at(&self, id: NodeId, member: &Member) -> Option<Time> {
        member.echoes.fresh_at.max(self.relay.fresh_at(id))
    }

    /// What others are told of it.
    pub(super) fn fresh_for_others(&self, now: Time, id: NodeId, member: &Member) -> Option<Time> {
        let is_known = member.agreement != Agreed::Unknown || self.has_listened(now);
        if member.link.is_some() && !member.may_hold_copies(now) && is_known {
            return Some(now);
        }
        self.fresh_at(id, member)
    }

    /// What is known of a member through others stays with it, before it is forgotten there.
    pub(super) fn keep_far(&mut self, id: NodeId) {
        let far = self.relay.fresh_at(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.echoes.fresh_at = member.echoes.fresh_at.max(far);
        }
    }

    /// A peer is connected no longer. If it did not run the cache, its announcement may have been on its way for as long as a connection may be
    /// silent. After a pause of this node nobody knows for how long it was.
    pub(super) fn lose_silent(&mut self, now: Time, id: NodeId) {
        let silent = |member: &Member| member.link.is_some() && !member.may_hold_copies(now);
        let nanos = u64::try_from(ANNOUNCES_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        if self.members.get(&id).is_some_and(silent)
            && self.has_listened(now)
            && let Some(at) = now.as_nanos().checked_sub(nanos)
        {
            self.relay.knew(id, Time::from_nanos(at));
        }
    }

    /// Others have said this of a start of a member.
    pub(super) fn hear_word(
        &mut self,
        now: Time,
        node: NodeId,
        (epoch, runs): (Epoch, Runs),
        out: &mut Vec<Output<V>>,
    ) {
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        if member.started > Some(epoch) {
            return;
        }
        if member.is_risen_since(epoch) {
            if let Runs::Ended(latest) = runs {
                self.hear_end(now, node, (epoch, latest), out);
            }
            return;
        }
        let restarted = member.started.is_some_and(|former| former < epoch);
        member.started = member.started.max(Some(epoch));
        if member.link.is_none() && member.epoch.is_none_or(|former| former < epoch) {
            let standing = member.standing;
            if restarted {
                member.start_again(now);
            }
            (member.epoch, member.started) = (Some(epoch), Some(epoch));
            member.standing = standing;
        }
        if restarted {
            self.flush(now, FlushCause::Restarted(node), out);
        }
        if let Runs::Ended(latest) = runs {
            self.hear_end(now, node, (epoch, latest), out);
        }
    }

    /// A member has left in good order: once all that it invalidated is here, it counts no longer. Until then it does, and what is still missing
    /// when membership takes it for gone costs all copies.
    fn hear_end(
        &mut self,
        now: Time,
        node: NodeId,
        (epoch, latest): (Epoch, u64),
        out: &mut Vec<Output<V>>,
    ) {
        let origin = node;
        let applied = self.progress.applied(StreamId { origin, epoch });
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        if member.epoch != Some(epoch) {
            return;
        }
        if member.link.is_some() {
            // What it said itself may be lost with the connection.
            member.ends_at = Some(latest);
            return;
        }
        if member.is_risen_since(epoch) {
            // A late word: it lives again. If something is missing, its new start will cost all copies.
            if applied >= latest {
                member.ends_at = Some(latest);
                self.succeed(now, node, out);
            }
            return;
        }
        member.ends_at = Some(latest);
        if applied >= latest || member.standing != Standing::Alive {
            self.part(now, node, out);
        }
    }

    /// Where peers do not run the cache, others that do may be out of the tree's reach: whoever comes next on the ring is met.
    pub(super) fn meet_over_silent(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let silent = |member: &Member| member.link.is_some() && !member.may_hold_copies(now);
        if self.members.values().any(silent) {
            self.meet_next(out);
        }
    }
}
