//! How fresh this node is about all that count, ready to be read: to work it out costs O(members), which must not come with every message.
//!
//! Whatever may make it worse (a member or a peer that comes, goes or announces something) works it out anew. Updates and the answers of neighbours
//! can only make it better; beyond the mesh they do so at most so often. What is read meanwhile is older than it might be, and never younger than
//! it is (C11).
//!
//! Who is declared dead counts no longer, unless this node hears most of its cluster only with the dead: then it is more likely cut off than they are
//! dead, and it knows the cluster as of when it last heard most of it, however long ago that is.

use std::time::Duration;

use super::Replicated;
use crate::message::CacheMessage;
use crate::payload::Payload;
use crate::time::Time;

/// Beyond the mesh, how often it is worked out while nothing comes that may make it worse (guess: a fifth of a heartbeat, where freshness is
/// seconds old).
const WORKED_OUT_EVERY: Duration = Duration::from_millis(100);

/// What was worked out last.
#[derive(Debug)]
pub(super) struct Bound {
    /// Everything that anybody had then is here; [`Time::MAX`] if nobody else counts.
    pub(super) fresh_since: Time,
    at: Time,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            fresh_since: Time::MAX,
            at: Time::ZERO,
        }
    }
}

/// Whether this message can make nothing worse. Those are the ones that come often.
pub(super) const fn can_only_help<V: Payload>(message: &CacheMessage<V>) -> bool {
    matches!(
        message,
        CacheMessage::Updates(_)
            | CacheMessage::Relayed(_)
            | CacheMessage::Ack { .. }
            | CacheMessage::Heartbeat { .. }
            | CacheMessage::Echo { .. }
            | CacheMessage::Ask(_)
            | CacheMessage::State(_)
    )
}

impl<V: Payload> Replicated<V> {
    /// Works it out. Cost: O(members).
    pub(super) fn work_out_bound(&mut self, now: Time) {
        let fresh_since = self.fresh_since(now);
        self.bound = Bound {
            fresh_since,
            at: now,
        };
    }

    /// The same after something has come that can only help.
    pub(super) fn improve_bound(&mut self, now: Time) {
        let is_due = !self.relay.is_on() || now >= self.bound.at + WORKED_OUT_EVERY;
        if is_due || !self.refreshes.is_empty() {
            self.work_out_bound(now);
        }
    }

    /// The same after a member has been heard of, which can only make it worse.
    pub(super) fn worsen_bound(&mut self, now: Time) {
        if self.bound.fresh_since > Time::ZERO {
            self.work_out_bound(now);
        }
    }

    fn fresh_since(&self, now: Time) -> Time {
        let all = self.each_that_counts();
        let living = all.fold(Time::MAX, |since, (_, at)| {
            since.min(at.unwrap_or(Time::ZERO))
        });
        let at_best = self.view.known_at_best();
        // Beyond the mesh members are heard through others, and taken note of only with each heartbeat.
        let is_late_only = self.relay.is_on() && self.view.is_with_most(now);
        if at_best >= living || is_late_only || self.planted.is_fresh_without_the_dead() {
            return living;
        }
        // Without the dead this node is not with most of its cluster: they may be alive, and write.
        let dead = self.lost.values().filter(|lost| lost.dead_since.is_some());
        let dead = dead.map(|lost| lost.fresh_at.unwrap_or(Time::ZERO));
        dead.fold(at_best, Time::min)
    }
}
