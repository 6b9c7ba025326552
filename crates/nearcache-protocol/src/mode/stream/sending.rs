//! The own stream on its way to the peers, and what they have applied of it.

use nearcache_store::NodeId;

use super::link::Agreed;
use super::tree::Forwards;
use super::{Awaited, Streaming};
use crate::ids::Epoch;
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::mode::{Ack, Outcome, Output, Published, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Reader;

/// The sender's side of [`Streaming`].
pub(in crate::mode) trait Sends<V: Payload>: Streaming<V> {
    /// Appends a local write to the own stream. Returns its number.
    fn append(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        let beyond_mesh = waiter.and_then(|_| self.beyond_mesh());
        let awaited = if waiter.is_some() {
            self.awaited(now)
        } else {
            Awaited::new()
        };
        let shared = self.shared();
        let number = shared.log.append(published);
        shared.stats.published += 1;
        if let (Some(waiter), Some(reason), Ack::All) = (waiter, beyond_mesh, ack) {
            // The caller learns at once that there will be no answer.
            out.push(Output::Done {
                waiter: waiter.id,
                result: Outcome::Acked(Err(reason.into())),
            });
        } else if let Some(waiter) = waiter {
            let (members, waiters_max) = (awaited.into_iter(), shared.config.waiters_max);
            shared
                .acks
                .wait(number, ack, waiter, members, waiters_max, out);
            // Whose silence will do already is not waited for.
            shared.acks.tick(now, out);
        }
        if std::mem::take(shared.any_asleep) {
            self.each_pair(|peer, pair| {
                if pair.sending.cursor.is_some()
                    && !std::mem::replace(&mut pair.sending.awake, true)
                {
                    let lane = Lane::Data;
                    out.push(Output::Transmit { peer, lane });
                }
            });
        }
        self.relay_own(number, out);
        number
    }

    /// Whoever waits for all is told so, if there are more members than anybody hears from.
    fn refuse_all_beyond_mesh(&mut self, out: &mut Vec<Output<V>>) {
        if let Some(reason) = self.beyond_mesh() {
            self.shared().acks.refuse_all(reason, out);
        }
    }

    /// What `to` gets next of our stream.
    fn poll_data(&mut self, to: NodeId, budget_bytes: usize) -> Option<CacheMessage<V>> {
        let (shared, pair) = self.pair(to)?;
        if pair.sending.cursor.is_none() {
            return self.poll_branch(to, budget_bytes);
        }
        let mut message = pair.sending.next(
            shared.log,
            shared.epoch,
            shared.acks,
            budget_bytes,
            shared.config.batch_updates_max,
        );
        *shared.any_asleep |= message.is_none();
        if let Some(CacheMessage::Updates(batch)) = &mut message {
            // Of long values the log holds the stubs already.
            batch.fit(Reader {
                value_bytes_max: pair.value_bytes_max,
                inline_bytes_max: usize::MAX,
            });
        }
        message
    }

    /// The peer wants our stream, from the one after `after` or from now on.
    fn on_subscribe(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Option<u64>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if epoch != shared.epoch {
            return;
        }
        if !pair.met {
            if !matches!(pair.agreement, Agreed::No(_)) {
                *pair.early_subscribe = Some(after);
            }
            return;
        }
        if pair.sending.subscribed(shared.log, after) {
            out.push(Output::Transmit {
                peer: from,
                lane: Lane::Data,
            });
        }
        self.leaves_tree(from);
    }

    /// The peer has applied our updates `(after, applied]`.
    fn on_ack(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: u64,
        applied: u64,
        out: &mut Vec<Output<V>>,
    ) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if epoch != shared.epoch || applied > shared.log.latest() {
            return;
        }
        if let Some((news_from, news_through)) = pair.sending.acknowledged(after, applied) {
            shared.acks.acked(from, news_from, news_through, out);
        }
    }
}

impl<V: Payload, M: Streaming<V>> Sends<V> for M {}
