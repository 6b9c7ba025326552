//! Until when copies may be served, and how fresh this node is.
//!
//! A peer's echo says: when you asked, at t0 of your own clock, my latest number was n. Once n is applied, everything that the peer had
//! invalidated at t0 is gone from here, and copies may be served until t0 plus the lease. Nothing else extends it (I9): not a
//! heartbeat, not a connection that stands, not a number that was announced and has not come.

use std::time::Duration;

use nearcache_store::{Scope, Timestamp, Version};

use super::Invalidation;
use super::members::{Member, Standing};
use crate::config::OnDisconnect;
use crate::ids::StreamId;
use crate::mode::stream::link::Agreed;
use crate::mode::{Event, FlushCause, Freshness, Output, PeerFreshness, ReadBound, Status};
use crate::payload::Payload;
use crate::time::Time;

/// Beyond the mesh, how often a lease is worked out while only data comes (guess: far less than a heartbeat).
const SETTLES_EVERY: Duration = Duration::from_millis(20);

/// By how much a peer's clock may be slower than ours while it counts its lease, as a share (I8: 1,000 ppm).
const CLOCK_RATE_ERROR: u32 = 1_000;

impl Member {
    /// Since when nothing that it invalidated may be missing here, if all that it had at `fresh_at` is.
    fn leased_from(&self, fresh_at: Option<Time>) -> Time {
        fresh_at.map_or(self.known_since, |at| at.max(self.known_since))
    }

    /// When it serves nothing any more that a write of this moment supersedes, should it not apply that write.
    /// If neighbours in the tree were told how far this node is, as late as `told_at`, it may have that from them, for `lease_max` at most.
    pub(super) fn excused_at(&self, told_at: Option<Time>, lease_max: Duration) -> Time {
        let ends = |at: Time, lease: Duration| at + lease + lease / CLOCK_RATE_ERROR;
        let by_others = told_at.map_or(Time::ZERO, |at| ends(at, lease_max.max(self.lease)));
        self.echoed_at
            .map_or(Time::MAX, |at| ends(at, self.lease).max(by_others))
    }
}

/// Over how many neighbours freshness comes at most, among as many members as there may be (1,024).
const HOPS_MAX: u32 = 11;

impl<V: Payload> Invalidation<V> {
    /// How long after it last had all of a member's invalidations this node serves what that member may have invalidated. Beyond the mesh
    /// that is heard of hop by hop, a heartbeat later at each.
    pub(super) fn lease_now(&self) -> Duration {
        self.lease_over(if self.relay.is_on() {
            self.relay.hops_max()
        } else {
            0
        })
    }

    /// The longest lease that a node with these settings may have.
    pub(super) fn lease_max(&self) -> Duration {
        self.lease_over(HOPS_MAX)
    }

    fn lease_over(&self, hops: u32) -> Duration {
        match self.config.on_disconnect {
            OnDisconnect::Bypass | OnDisconnect::Flush => {
                self.config.link_timeout + self.config.heartbeat_every * hops
            }
            OnDisconnect::ServeStale { max } => max,
        }
    }

    /// The same as [`settle`](Self::settle) after data has come, which can only make a lease longer: beyond the mesh not each time, because
    /// to work it out costs O(members).
    pub(super) fn settle_data(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let is_due = !self.relay.is_on() || now >= self.settled_at + SETTLES_EVERY;
        if is_due || !self.refreshes.is_empty() {
            self.settle(now, out);
        }
    }

    /// Works out what follows for readers after anything has happened, and tells those who wait for it.
    pub(super) fn settle(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.settled_at = now;
        self.update_bound(now);
        let lapsed = now > self.bound.serve_until;
        if lapsed
            && !self.lapsed
            && self.config.on_disconnect.flushes()
            && !self.config.planted.forgets_to_flush()
        {
            self.flush(now, FlushCause::Disconnected, out);
        }
        self.lapsed = lapsed;
        self.check_ready(now, out);
        if self.refreshes.is_empty() {
            return;
        }
        self.refreshes.advanced(self.bound.fresh_since, out);
        if self.refreshes.must_ask(now) {
            self.refreshes.asked(now);
            self.heartbeat(now, out);
        }
    }

    pub(super) fn update_bound(&mut self, now: Time) {
        let lease = self.lease_now();
        let mut bound = ReadBound::ALONE;
        let mut heard = true;
        for (id, member) in &self.members {
            if !self.counts(now, member) {
                continue;
            }
            let gives_none = self.config.planted.renews_no_lease() && member.is_met_again();
            let fresh_at = self.fresh_at(*id, member).filter(|_| !gives_none);
            let fresh_since = fresh_at.unwrap_or(Time::ZERO);
            heard &= fresh_since > Time::ZERO;
            bound.fresh_since = bound.fresh_since.min(fresh_since);
            bound.serve_until = bound.serve_until.min(member.leased_from(fresh_at) + lease);
        }
        let listened = self.has_listened(now);
        // Whoever was just met need not be waited for, but nobody may say yet that all it wrote is here (C11).
        if self
            .members
            .values()
            .any(|member| member.may_yet_count(now, listened))
        {
            bound.fresh_since = Time::ZERO;
        }
        self.heard = heard;
        self.bound = bound;
    }

    /// When to look whether the lease has run out, where something follows from that.
    pub(super) fn next_lapse(&self) -> Time {
        if self.lapsed || !self.config.on_disconnect.flushes() {
            return Time::MAX;
        }
        self.bound.serve_until + Duration::from_nanos(1)
    }

    /// Drops everything: whatever is held here, or being loaded, may have been invalidated without our knowing.
    pub(super) fn flush(&mut self, now: Time, cause: FlushCause, out: &mut Vec<Output<V>>) {
        // A clock that may not stamp now still says what nothing here is newer than: own writes have stamps that it gave, and what was
        // loaded is stamped below the present.
        let version = self.clock.stamp(now).unwrap_or_else(|_| {
            let physical = Timestamp::from_parts(self.clock.physical_ms(now), 0);
            Version::new(self.clock.last().max(physical), self.me())
        });
        self.store.invalidate(Scope::All, version);
        self.stats.flushes += 1;
        out.push(Output::Event(Event::Flushed { cause, version }));
    }

    pub(super) fn clock_bound_now(&self, now: Time) -> Duration {
        let skew = self.clock.skew(now);
        if self.relay.is_on() {
            // Most clocks are not measured here.
            return self.clock.max_drift().max(skew);
        }
        // Also those that have not said yet that they run the cache: they may say so and write while the load runs.
        let may_write = self.members.iter().filter(|(_, member)| {
            member.standing != Standing::GivenUp && !matches!(member.agreement, Agreed::No(_))
        });
        may_write
            .map(|(id, member)| member.echoes.clock_bound(now, &self.clock, *id))
            .max()
            .unwrap_or_default()
            .max(skew)
    }

    pub(super) fn freshness_now(&self, now: Time) -> Freshness {
        let counting = self.members.iter();
        let counting = counting.filter(|(_, member)| self.counts(now, member));
        // Beyond the mesh all count; shown are those that may run the cache.
        let counting = counting
            .filter(|(id, member)| member.link.is_some() || self.relay.runs(**id) != Some(false));
        let per_peer: Vec<_> = counting
            .map(|(id, member)| {
                let link = member.link.as_ref();
                let stream = |epoch| StreamId { origin: *id, epoch };
                let applied = member
                    .epoch
                    .map_or(0, |epoch| self.progress.applied(stream(epoch)));
                PeerFreshness {
                    peer: *id,
                    age: self.fresh_at(*id, member).map(|fresh_at| now - fresh_at),
                    round_trip: link.and(member.echoes.round_trip),
                    clock_offset_ms: link.and(member.echoes.clock_offset_ms),
                    missing: link.map_or(0, |link| link.receiving.latest.saturating_sub(applied)),
                    unacknowledged: link.map_or(0, |link| {
                        self.log.latest().saturating_sub(link.sending.acked)
                    }),
                }
            })
            .collect();
        let worst = self.bound.worst_age(now);
        Freshness { worst, per_peer }
    }

    pub(super) fn status_now(&self, now: Time) -> Status {
        let alive = |member: &&Member| member.standing == Standing::Alive;
        if !self.members.is_empty() && !self.members.values().filter(alive).any(Member::is_met) {
            return Status::Isolated;
        }
        if self.ready && now <= self.bound.serve_until {
            Status::Synced
        } else {
            Status::CatchingUp
        }
    }
}
