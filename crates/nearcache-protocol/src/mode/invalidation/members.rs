//! Whom this node must hear to be allowed to serve.
//!
//! A member counts from the moment this node first hears of it until it has left in good order. One that only died counts on: it may
//! be cut off and writing. After `dead_counts_for` it is given up, and because nobody knows what it did last, all copies go with it.
//! One that was started again has lost what it did not send: the copies go as well.

use std::time::Duration;

use nearcache_store::NodeId;

use super::Invalidation;
use crate::ids::{Epoch, StreamId};
use crate::message::Runs;
use crate::mode::stream::link::{ANNOUNCES_WITHIN, Agreed, Echoes, Receiving, Sending};
use crate::mode::stream::tree::{Branch, Forwards as _};
use crate::mode::{FlushCause, Output};
use crate::payload::Payload;
use crate::time::Time;

/// Members given up that are remembered, so that one that was only cut off is not taken for a new one (guess).
const GIVEN_UP_MAX: usize = 256;

/// How long it takes to connect to a member that this node hears of, at most and if nothing is in the way (guess). Shorter than any
/// lease.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);

/// A node whose invalidations concern us.
#[derive(Debug)]
pub(super) struct Member {
    /// The start of it that we have met; unknown before it was connected.
    pub(super) epoch: Option<Epoch>,
    /// The newest start of it that anybody has told of.
    pub(super) started: Option<Epoch>,
    /// The newest start of it that lives, or did, as far as membership says, and since when that is known.
    pub(super) risen: Option<(Epoch, Time)>,
    /// When this node first heard of it. Before that it counts for nothing.
    pub(super) known_since: Time,
    pub(super) standing: Standing,
    /// Whether it runs the cache as we do. Kept over a lost connection: within an epoch it does not change.
    pub(super) agreement: Agreed,
    /// How old our knowledge of it is. Kept over a lost connection, within an epoch.
    pub(super) echoes: Echoes,
    /// How long its own copies may outlive our last echo.
    pub(super) lease: Duration,
    /// When we last answered it: its lease ends that much later at the latest, unless it applies what we write from now on.
    pub(super) echoed_at: Option<Time>,
    /// The last number of a stream that has ended in good order.
    pub(super) ends_at: Option<u64>,
    pub(super) link: Option<Link>,
}

/// What membership says of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Alive,
    /// It died, or is cut off, and counts until then.
    Dead {
        counts_until: Time,
    },
    /// It counts no more, unless it comes back.
    GivenUp,
}

/// A connection to a member.
#[derive(Debug)]
pub(super) struct Link {
    since: Time,
    /// Its announcement came over this connection.
    pub(super) met: bool,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) branch: Branch,
    /// What it asked for before it announced the cache.
    pub(super) early_subscribe: Option<Option<u64>>,
}

impl Member {
    pub(super) fn new(now: Time) -> Self {
        Self {
            epoch: None,
            started: None,
            risen: None,
            known_since: now,
            standing: Standing::Alive,
            agreement: Agreed::Unknown,
            echoes: Echoes::default(),
            lease: Duration::ZERO,
            echoed_at: None,
            ends_at: None,
            link: None,
        }
    }

    /// Whether its silence keeps this node from serving. A connected peer that has not said that it runs the cache does not count:
    /// many a service opens its caches late or never. What it wrote meanwhile is replayed when it says so. But one that this node
    /// could not talk to before has the time to say so: it may have been writing all the while.
    /// After a pause of this node, when it has not `listened`, what it has said may not be read yet.
    pub(super) fn counts(&self, now: Time, listened: bool) -> bool {
        let may_run = match self.agreement {
            Agreed::Yes => true,
            Agreed::Unknown => self.link.as_ref().is_none_or(|link| {
                link.since - self.known_since > CONNECTED_WITHIN
                    && (now - link.since <= ANNOUNCES_WITHIN || !listened)
            }),
            Agreed::No(_) => false,
        };
        may_run && self.standing != Standing::GivenUp
    }

    /// Whether it may hold copies that a write of now supersedes, so that a wait for all is a wait for it.
    pub(super) fn may_hold_copies(&self, now: Time) -> bool {
        let since_met = self
            .link
            .as_ref()
            .map_or(Duration::ZERO, |link| now - link.since);
        self.agreement.may_hold_copies(since_met) && self.standing != Standing::GivenUp
    }

    /// Whether it does not count, but only because it has not had the time to say that it runs the cache.
    pub(super) fn may_yet_count(&self, now: Time, listened: bool) -> bool {
        let may_say = self.may_hold_copies(now)
            || !listened && self.agreement == Agreed::Unknown && self.standing != Standing::GivenUp;
        !self.counts(now, listened) && self.link.is_some() && may_say
    }

    /// Whether its connection is not the first one to it.
    pub(super) fn is_met_again(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.since - self.known_since > CONNECTED_WITHIN)
    }

    pub(super) fn is_met(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.met)
    }

    /// Whether membership knows of a newer start of it than this.
    pub(super) fn is_risen_since(&self, epoch: Epoch) -> bool {
        self.risen.is_some_and(|(risen, _)| risen > epoch)
    }

    /// Forgets all that is known of it but which starts of it there were.
    pub(super) fn start_again(&mut self, known_since: Time) {
        *self = Self {
            started: self.started,
            risen: self.risen,
            ..Self::new(known_since)
        };
    }
}

impl<V: Payload> Invalidation<V> {
    /// Membership knows a live node.
    pub(super) fn hear_of(&mut self, now: Time, peer: NodeId, epoch: Epoch) {
        if peer == self.me() {
            return;
        }
        self.relay.member(peer, true);
        self.progress.member(peer, true);
        let member = self.members.entry(peer).or_insert_with(|| Member::new(now));
        member.standing = Standing::Alive;
        if member.risen.is_none_or(|(former, _)| former < epoch) {
            // What a start wrote that nobody has told of is missed all the same.
            let former = member.risen.map(|(former, _)| former);
            member.started = member.started.max(former);
            member.risen = Some((epoch, now));
            if member.link.is_none() {
                // That its former start has left says nothing of this one.
                member.ends_at = None;
            }
        }
        // This may be a new start of it, whose lease owes nothing to what the former was told.
        member.echoed_at = None;
        self.acks.joined(peer);
    }

    /// A connection to a peer stands.
    pub(super) fn meet(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>) {
        if peer == self.me() {
            return;
        }
        self.hear_of(now, peer, epoch);
        self.relay.hear_runs(peer, epoch, Runs::No);
        let patience = self.config.replay_retry_after;
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let restarted = member.epoch.is_some_and(|former| former != epoch)
            || member.started.is_some_and(|former| former < epoch);
        if restarted {
            // With it goes all that is held, below: what it did before this moment is in whatever is loaded from now on.
            member.start_again(now);
        }
        member.epoch = Some(epoch);
        member.started = member.started.max(Some(epoch));
        member.ends_at = None;
        member.link = Some(Link {
            since: now,
            met: false,
            sending: Sending::default(),
            receiving: Receiving::new(patience),
            branch: Branch::default(),
            early_subscribe: None,
        });
        if restarted {
            self.flush(now, FlushCause::Restarted(peer), out);
        }
        self.announce(now, peer, out);
    }

    /// The connection is gone.
    pub(super) fn lose(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.lose_silent(now, peer);
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link.take().is_some() {
            self.rebuild_ring();
        }
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        // Echoes that wait for numbers of this connection would be as good after the next one, but need not be.
        member.echoes.disconnected();
        if member.ends_at.is_some() {
            if member
                .epoch
                .is_some_and(|epoch| member.is_risen_since(epoch))
            {
                self.succeed(now, peer, out);
            } else {
                self.part(now, peer, out);
            }
        }
    }

    /// The start of a member that was known has left on purpose, but membership knows a newer one: that one counts as if the former had been
    /// gone before it came.
    pub(super) fn succeed(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let ended = member.epoch.zip(member.ends_at);
        let since = member.risen.map_or(now, |(_, since)| since);
        let former = (member.standing, member.echoed_at, member.lease);
        member.start_again(since);
        if former.0 != Standing::Alive {
            (member.standing, member.echoed_at, member.lease) = former;
        }
        let all_flushed = ended.is_some_and(|(epoch, _)| member.started > Some(epoch));
        if !all_flushed {
            member.started = None;
        }
        let origin = peer;
        let complete = ended.is_some_and(|(epoch, latest)| {
            self.progress.applied(StreamId { origin, epoch }) >= latest
        });
        if !complete && !all_flushed {
            self.flush(now, FlushCause::Restarted(peer), out);
        }
    }

    /// The member has left on purpose. If all it ever invalidated is here, nothing is missed.
    pub(super) fn part(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        let counted = self
            .members
            .get(&peer)
            .is_some_and(|member| self.counts(now, member));
        let by_tree = self.relay.is_on();
        let never_ran = self.relay.word(peer) == Some(Runs::No);
        self.relay.member(peer, false);
        self.progress.member(peer, false);
        let Some(member) = self.members.remove(&peer) else {
            return;
        };
        if member.link.is_some() {
            self.rebuild_ring();
        }
        let stream = |epoch| StreamId {
            origin: peer,
            epoch,
        };
        let complete = match (member.epoch, member.ends_at) {
            (Some(epoch), Some(ends_at)) if !member.is_risen_since(epoch) => {
                self.progress.applied(stream(epoch)) >= ends_at
            }
            // It never ran the cache, as far as anybody knows. Along the tree it may have written without our ever meeting it, and its last word
            // is told to its neighbours only; in the mesh it may have been cut off.
            (None, _) if !by_tree && now - member.known_since <= CONNECTED_WITHIN => true,
            _ => !counted || never_ran,
        };
        if !complete {
            self.flush(now, FlushCause::Gone(peer), out);
        }
        self.acks.gone(peer, out);
    }

    /// Membership has declared the member dead.
    pub(super) fn mourn(&mut self, now: Time, peer: NodeId) {
        self.keep_far(peer);
        self.relay.member(peer, false);
        self.progress.member(peer, false);
        let counts_until = now + self.config.dead_counts_for;
        let (told_at, lease_max) = (self.relay.told_at, self.lease_max());
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.standing = Standing::Dead { counts_until };
        if member.echoed_at.is_none() {
            // It has no lease of ours, because it did not wait for us: it serves by those of others, which end by themselves, or until
            // it notices that we are silent.
            member.echoed_at = Some(now);
            let lease = self.config.lease().max(ANNOUNCES_WITHIN);
            member.lease = member.lease.max(lease);
        }
        // Its own lease ends by itself, and whoever waits for it learns of that then.
        let excused_at = member.excused_at(told_at, lease_max);
        if !self.config.planted.waits_for_the_dead() {
            self.acks.excuse(peer, excused_at);
        }
    }

    /// Gives up those that have been dead for too long.
    pub(super) fn give_up_dead(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let over = |member: &Member| matches!(member.standing, Standing::Dead { counts_until } if counts_until <= now);
        let given_up: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| over(member))
            .map(|(id, _)| *id)
            .collect();
        for peer in given_up {
            let counted = self
                .members
                .get(&peer)
                .is_some_and(|member| self.counts(now, member));
            let Some(member) = self.members.get_mut(&peer) else {
                continue;
            };
            member.standing = Standing::GivenUp;
            if counted {
                self.flush(now, FlushCause::Gone(peer), out);
            }
            self.acks.gone(peer, out);
        }
        let given_up = |member: &Member| member.standing == Standing::GivenUp;
        while self.members.values().filter(|m| given_up(m)).count() > GIVEN_UP_MAX {
            let oldest = self.members.iter().filter(|(_, member)| given_up(member));
            let oldest = oldest.min_by_key(|(_, member)| member.known_since);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            self.members.remove(&oldest);
        }
    }

    pub(super) fn next_given_up(&self) -> Time {
        let until = |member: &Member| match member.standing {
            Standing::Dead { counts_until } => Some(counts_until),
            Standing::Alive | Standing::GivenUp => None,
        };
        let next = self.members.values().filter_map(until).min();
        next.unwrap_or(Time::MAX)
    }

    pub(super) fn is_connected(&self, peer: NodeId) -> bool {
        self.members
            .get(&peer)
            .is_some_and(|member| member.link.is_some())
    }

    pub(super) fn connected(&self) -> Vec<NodeId> {
        let connected = self
            .members
            .iter()
            .filter(|(_, member)| member.link.is_some());
        connected.map(|(id, _)| *id).collect()
    }
}
