//! The home of a key: who loads it, who waits for that, and what they are told.

use std::collections::VecDeque;

use bytes::Bytes;
use nearcache_store::NodeId;

use super::{Ask, Asker, Given, alone, done, send};
use crate::load::fence::just_before;
use crate::load::lease::{Answer, Lease, LoadMessage, Turn};
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

impl<V: Payload> Replicated<V> {
    /// The home node decides: what it holds, a lease, or to wait for another's.
    pub(super) fn decide_load(
        &mut self,
        now: Time,
        key: Bytes,
        ask: Ask,
        out: &mut Vec<Output<V>>,
    ) {
        if let Some(entry) = self.useful(&key, &ask) {
            return self.answer_load(&key, &ask, Answer::Loaded(entry), out);
        }
        if self.config.planted.gives_lease_to_nobody() {
            return self.answer_load(&key, &ask, Answer::Overloaded, out);
        }
        let Some(given) = self.leases.given.get_mut(&key) else {
            if self.leases.given.len() >= self.config.waiters_max {
                return self.answer_load(&key, &ask, Answer::Overloaded, out);
            }
            return self.give(now, key, ask, VecDeque::new(), out);
        };
        if self.config.planted.gives_lease_to_all() || !ask.wants(given.since) {
            // He knows of something that is newer than the beginning of that load.
            let waiting = std::mem::take(&mut given.waiting);
            return self.give(now, key, ask, waiting, out);
        }
        if self.leases.waiting >= self.config.waiters_max {
            return self.answer_load(&key, &ask, Answer::Overloaded, out);
        }
        self.leases.waiting += 1;
        given.waiting.push_back(ask.clone());
        self.answer_load(&key, &ask, Answer::Wait, out);
    }

    /// What this node holds under a key, if it is of use to whoever asks.
    fn useful(&self, key: &[u8], ask: &Ask) -> Option<Update<V>> {
        let entry = self.store.peek(key)?;
        ask.wants(entry.version()).then_some(Update::Entry(entry))
    }

    fn give(
        &mut self,
        now: Time,
        key: Bytes,
        ask: Ask,
        waiting: VecDeque<Ask>,
        out: &mut Vec<Output<V>>,
    ) {
        let given = Given {
            holder: ask.by,
            until: now + ask.lease_for,
            since: just_before(&self.clock, now, self.clock_bound_now(now)),
            waiting,
        };
        self.leases.given.insert(key.clone(), given);
        let yours = Answer::Yours { key: key.clone() };
        self.answer_load(&key, &ask, yours, out);
    }

    /// The lease of a key is over, if `is_his` says so of who has it: all who can use what is here now get it, the first of the
    /// others gets the next lease.
    pub(super) fn end_given(
        &mut self,
        now: Time,
        key: &Bytes,
        is_his: impl Fn(Asker) -> bool,
        out: &mut Vec<Output<V>>,
    ) {
        if !self
            .leases
            .given
            .get(key)
            .is_some_and(|given| is_his(given.holder))
        {
            return;
        }
        let Some(given) = self.leases.given.remove(key) else {
            return;
        };
        self.leases.waiting -= given.waiting.len();
        let mut left = VecDeque::new();
        for ask in given.waiting {
            match self.useful(key, &ask) {
                Some(entry) => self.answer_load(key, &ask, Answer::Loaded(entry), out),
                None if ask.deadline > now => left.push_back(ask),
                // A peer looks at its own deadline; here nobody else does.
                None => self.answer_late(&ask, out),
            }
        }
        if let Some(next) = left.pop_front() {
            self.leases.waiting += left.len();
            self.give(now, key.clone(), next, left, out);
        }
    }

    fn answer_load(&self, key: &Bytes, ask: &Ask, answer: Answer<V>, out: &mut Vec<Output<V>>) {
        match ask.by {
            Asker::Peer { node, request } => {
                let answer = match answer {
                    Answer::Loaded(update) => Answer::Loaded(self.fitting(node, update)),
                    answer => answer,
                };
                send(node, request, LoadMessage::Answer(answer), out);
            }
            Asker::Here { request, waiter } => match answer {
                Answer::Wait => {}
                Answer::Loaded(_) => done(waiter, Turn::Loaded, out),
                Answer::Yours { .. } => {
                    let lease = Lease {
                        home: self.me(),
                        request,
                        key: key.clone(),
                    };
                    done(waiter, Turn::Yours(Some(lease)), out);
                }
                Answer::NotHome | Answer::Overloaded => alone(waiter, out),
            },
        }
    }

    /// Whoever has waited until his deadline loads without a lease.
    pub(super) fn answer_late(&self, ask: &Ask, out: &mut Vec<Output<V>>) {
        if let Asker::Here { waiter, .. } = ask.by {
            alone(waiter, out);
        }
    }

    /// The update as that peer takes it: a long value it fetches.
    pub(super) fn fitting(&self, peer: NodeId, update: Update<V>) -> Update<V> {
        match self.peers.get(&peer) {
            Some(peer) => update.for_reader(peer.reader(&self.config)),
            None => update,
        }
    }
}
