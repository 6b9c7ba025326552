//! Invalidations on their way: ours to peers, theirs to us.
//!
//! As in mode `replicated` the receiver drives: a gap, or silence about numbers that are known to exist, makes it subscribe again
//! from where it stands. A hole, which is what the origin's ring has lost, is not repaired: everything held here is dropped, and the
//! stream counts as complete from then on (I3).

use bytes::Bytes;
use nearcache_store::{Change, NodeId};

use super::Invalidation;
use super::members::Link;
use crate::ids::{Epoch, StreamId};
use crate::lane::Lane;
use crate::message::{Batch, CacheMessage, ProgressVector};
use crate::mode::link::{Agreed, PATIENCE_GROWS_MAX};
use crate::mode::{Ack, Event, FlushCause, Outcome, Output, Published, Waiter};
use crate::payload::Payload;
use crate::progress::Step;
use crate::time::Time;
use crate::update::{Applied, Update};

impl<V: Payload> Invalidation<V> {
    /// Tells the peers of a local write: of its key and version, whatever it was.
    pub(super) fn append(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        let published = match published {
            Published::Entry(entry) => Published::Removal {
                key: Bytes::copy_from_slice(entry.key()),
                version: entry.version(),
            },
            Published::Fill(_) => {
                if let Some(waiter) = waiter {
                    out.push(Output::Done {
                        waiter: waiter.id,
                        result: Outcome::Acked(Ok(())),
                    });
                }
                return self.log.latest();
            }
            published @ (Published::Removal { .. } | Published::Floor { .. }) => published,
        };
        let number = self.log.append(published);
        self.stats.published += 1;
        if let Some(waiter) = waiter {
            let holding = self
                .members
                .iter()
                .filter(|(_, member)| member.may_hold_copies(now));
            let awaited = holding.map(|(id, member)| (*id, member.excused_at()));
            let waiters_max = self.config.waiters_max;
            self.acks
                .wait(number, ack, waiter, awaited, waiters_max, out);
            // Whoever has no lease already is not waited for.
            self.acks.tick(now, out);
        }
        if std::mem::take(&mut self.any_asleep) {
            for (id, member) in &mut self.members {
                if let Some(Link { sending, .. }) = &mut member.link
                    && sending.cursor.is_some()
                    && !std::mem::replace(&mut sending.awake, true)
                {
                    out.push(Output::Transmit {
                        peer: *id,
                        lane: Lane::Data,
                    });
                }
            }
        }
        number
    }

    /// What `to` gets next of our stream.
    pub(super) fn poll_data(&mut self, to: NodeId, budget_bytes: usize) -> Option<CacheMessage<V>> {
        let sending = &mut self.members.get_mut(&to)?.link.as_mut()?.sending;
        sending.cursor?;
        let message = sending.next(
            &mut self.log,
            self.epoch,
            &self.acks,
            budget_bytes,
            self.config.batch_updates_max,
        );
        self.any_asleep |= message.is_none();
        message
    }

    /// Asks `to` for its stream, from where we stand.
    pub(super) fn subscribe(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let patience_max = self.config.replay_retry_after * PATIENCE_GROWS_MAX;
        let Some(member) = self.members.get_mut(&to) else {
            return;
        };
        let (Some(epoch), Some(link)) = (member.epoch, &mut member.link) else {
            return;
        };
        let stream = StreamId { origin: to, epoch };
        // Who holds nothing needs no past.
        let from_now_on = !self.progress.knows(stream) && self.store.is_empty();
        let after = (!from_now_on).then(|| self.progress.wanted_after(stream));
        link.receiving.asked(now, patience_max);
        out.push(Output::Send {
            to,
            message: CacheMessage::Subscribe { epoch, after },
        });
    }

    pub(super) fn on_subscribe(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Option<u64>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let Some(link) = member.link.as_mut().filter(|_| epoch == self.epoch) else {
            return;
        };
        if !link.met {
            if !matches!(member.agreement, Agreed::No(_)) {
                link.early_subscribe = Some(after);
            }
            return;
        }
        if link.sending.subscribed(&self.log, after) {
            out.push(Output::Transmit {
                peer: from,
                lane: Lane::Data,
            });
        }
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let patience = self.config.replay_retry_after;
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let Some(link) = member.link.as_mut().filter(|_| member.epoch == Some(epoch)) else {
            return;
        };
        let stream = StreamId {
            origin: from,
            epoch,
        };
        link.receiving.subscribed = true;
        link.receiving.latest = link.receiving.latest.max(after);
        if self.progress.resume(stream, after) {
            // Dropped first, counted as complete afterwards.
            if !self.config.planted.skips_holes() {
                self.flush(now, FlushCause::Hole(from), out);
            }
            let own = self.own();
            self.progress
                .raise(&ProgressVector(vec![(stream, after)]), own);
        }
        self.moved(now, from, patience);
        self.advanced(from, out);
    }

    pub(super) fn on_updates(
        &mut self,
        now: Time,
        from: NodeId,
        batch: Batch<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let epoch = batch.epoch;
        let Some(link) = member
            .link
            .as_mut()
            .filter(|link| member.epoch == Some(epoch) && link.met)
        else {
            return;
        };
        let Batch {
            after,
            through,
            wants_ack,
            updates,
            ..
        } = batch;
        let stream = StreamId {
            origin: from,
            epoch,
        };
        link.receiving.latest = link.receiving.latest.max(through);
        if wants_ack {
            link.receiving.ack_wanted = link.receiving.ack_wanted.max(through);
        }
        match self.progress.step(stream, after, through) {
            Step::Duplicate => {}
            Step::Gap { missing } => {
                if link.receiving.sees_new_gap() {
                    self.stats.gaps += 1;
                    out.push(Output::Event(Event::Gap {
                        origin: from,
                        missing,
                    }));
                    self.subscribe(now, from, out);
                }
                return;
            }
            Step::Next => {
                if !self.apply_all(now, from, updates, out) {
                    // Refused by the drift bound, and asked for again when the patience is over. The lease ends meanwhile.
                    if let Some(link) = self.members.get_mut(&from).and_then(|m| m.link.as_mut()) {
                        link.receiving.expect_more(now);
                    }
                    return;
                }
                self.progress.advance(stream, after, through);
            }
        }
        self.moved(now, from, self.config.replay_retry_after);
        self.advanced(from, out);
    }

    /// Drops what these invalidations supersede. `false` if any was refused by the drift bound; nothing is dropped then.
    fn apply_all(
        &mut self,
        now: Time,
        from: NodeId,
        updates: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let newest = updates.iter().map(|update| update.version().time).max();
        if let Some(newest) = newest
            && let Err(refused) = self.clock.observe(now, newest)
        {
            self.stats.drift_refused += 1;
            out.push(Output::Event(Event::DriftRefused {
                peer: from,
                ahead_ms: refused.ahead_ms,
            }));
            return false;
        }
        for update in updates {
            if let Update::Floor { scope, version } = &update {
                out.push(Output::Event(Event::Invalidated {
                    scope: scope.clone(),
                    version: *version,
                }));
            }
            match self.drop_older(now, update) {
                Applied::Newer => self.stats.applied += 1,
                Applied::Superseded | Applied::Dropped => self.stats.superseded += 1,
            }
        }
        true
    }

    /// One invalidation: what is older goes, what is newer stays, also if it is our own (I4, I5).
    fn drop_older(&self, now: Time, update: Update<V>) -> Applied {
        let removal = match update {
            // A value has no business here, but its version says what it supersedes.
            Update::Put { key, version, .. } | Update::Withheld { key, version, .. } => {
                Update::Remove { key, version }
            }
            Update::Entry(entry) => Update::Remove {
                key: Bytes::copy_from_slice(entry.key()),
                version: entry.version(),
            },
            removal @ (Update::Remove { .. } | Update::Floor { .. }) => removal,
        };
        if self.config.planted.evicts_newer()
            && let Some(key) = removal.key()
            && let Ok(version) = self.clock.stamp(now)
        {
            let _ = self.store.merge(key, version, Change::Remove);
        }
        removal.apply(&self.store)
    }

    fn moved(&mut self, now: Time, from: NodeId, patience: std::time::Duration) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        if let (Some(epoch), Some(link)) = (member.epoch, &mut member.link) {
            let stream = StreamId {
                origin: from,
                epoch,
            };
            let complete = self.progress.wanted_after(stream) >= link.receiving.latest;
            link.receiving.moved(now, patience, complete);
        }
    }

    /// Progress in a peer's stream may have changed: the lease may go on, and the peer may want to know.
    fn advanced(&mut self, origin: NodeId, out: &mut Vec<Output<V>>) {
        let Some(member) = self.members.get_mut(&origin) else {
            return;
        };
        let (Some(epoch), Some(link)) = (member.epoch, &mut member.link) else {
            return;
        };
        let (after, applied) = self.progress.newest(StreamId { origin, epoch });
        member.echoes.advanced(applied);
        if link.receiving.ack_wanted != 0 && applied >= link.receiving.ack_wanted {
            link.receiving.ack_wanted = 0;
            out.push(Output::Send {
                to: origin,
                message: CacheMessage::Ack {
                    epoch,
                    after,
                    applied,
                },
            });
        }
    }

    /// The peer has applied our updates `(after, applied]`.
    pub(super) fn on_ack(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        applied: u64,
        out: &mut Vec<Output<V>>,
    ) {
        if epoch != self.epoch || applied > self.log.latest() {
            return;
        }
        let link = self.members.get_mut(&from).and_then(|m| m.link.as_mut());
        let news = link.and_then(|link| link.sending.acknowledged(after, applied));
        if let Some((news_from, news_through)) = news {
            self.acks.acked(from, news_from, news_through, out);
        }
    }

    /// Asks again where an origin has been silent for too long about what it is known to have.
    pub(super) fn tick_streams(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let due = |link: &Link| link.met && link.receiving.ask_at.is_some_and(|at| at <= now);
        let silent: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.link.as_ref().is_some_and(due))
            .map(|(id, _)| *id)
            .collect();
        for origin in silent {
            self.subscribe(now, origin, out);
        }
    }

    pub(super) fn next_ask(&self) -> Time {
        let links = self.members.values().filter_map(|m| m.link.as_ref());
        let asks = links
            .filter(|link| link.met)
            .filter_map(|link| link.receiving.ask_at);
        asks.min().unwrap_or(Time::MAX)
    }
}
