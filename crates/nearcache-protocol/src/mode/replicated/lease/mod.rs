//! Loads of a key, one at a time in the cluster, through its home node: both sides.
//!
//! ```text
//! asker ── ask ──▶ home: nobody loads it ── yours ──▶ asker loads ── end ──▶ home ── loaded ──▶ all who wait
//!                        somebody does ──── wait ───▶ asker waits             └ nothing stored ── yours ──▶ the next
//! ```
//!
//! The asker drives: it has a deadline, and loads without a lease when the home node says nothing in time, is gone, or is another for its peers
//! than for itself (it may have no link to the node that is the home for all others). A
//! lease ends with its load, with its time, or with the connection to whoever has it; then the next one who waits
//! gets it. Nobody waits for a load that began before an invalidation that he knows of: he gets a lease of his own, and those
//! who waited for the former wait for his.

mod asker;
mod home;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use super::Replicated;
use super::peer::Peer;
use crate::ids::{RequestId, WaiterId};
use crate::load::lease::{Answer, LEASE_MAX, LoadMessage, Turn};
use crate::message::CacheMessage;
use crate::mode::stream::Receives as _;
use crate::mode::{Outcome, Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;

/// Loads that this node asks for, and those that it is the home of.
#[derive(Debug, Default)]
pub(super) struct Leases {
    asked: BTreeMap<RequestId, Asking>,
    /// Leases that other nodes gave to this one, until when: what gives one again is not given back.
    held: BTreeMap<RequestId, Time>,
    given: BTreeMap<Bytes, Given>,
    /// How many wait, of all keys.
    waiting: usize,
}

/// A request of this node's own.
#[derive(Debug)]
struct Asking {
    key: Bytes,
    lease_for: Duration,
    waiter: Waiter,
    state: Asks,
    /// From when on it loads alone if whom it takes for the home is none: the views differ for longer than a message takes.
    alone_from: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    /// Try again then: the views of who is the home differ.
    Again { at: Time },
    /// This node was asked, and must say something by then.
    Sent { home: NodeId, by: Time },
    /// It said that somebody loads the key.
    Waits { home: NodeId },
}

/// A lease that was given.
#[derive(Debug)]
struct Given {
    holder: Asker,
    until: Time,
    /// Whatever is newer was made after the load began.
    since: Version,
    waiting: VecDeque<Ask>,
}

/// Somebody who wants to load.
#[derive(Clone, Debug)]
struct Ask {
    by: Asker,
    lease_for: Duration,
    known: Version,
    tags: Version,
    deadline: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Here {
        request: RequestId,
        waiter: WaiterId,
    },
    Peer {
        node: NodeId,
        request: RequestId,
    },
}

impl Ask {
    /// Whether something of this version is of use to whoever asks.
    fn wants(&self, version: Version) -> bool {
        version > self.known && version > self.tags
    }
}

impl Leases {
    pub(super) fn next_deadline(&self) -> Time {
        let asked = self.asked.values().map(|asking| {
            let due = match asking.state {
                Asks::Again { at } => at,
                Asks::Sent { by, .. } => by,
                Asks::Waits { .. } => Time::MAX,
            };
            due.min(asking.waiter.deadline)
        });
        let given = self.given.values().map(|given| {
            let waiting = given.waiting.iter().map(|ask| ask.deadline);
            waiting.fold(given.until, Time::min)
        });
        asked.chain(given).min().unwrap_or(Time::MAX)
    }

    pub(super) fn forget(&mut self, waiter: WaiterId) {
        self.asked.retain(|_, asking| asking.waiter.id != waiter);
        self.drop_waiting(|ask| matches!(ask.by, Asker::Here { waiter: id, .. } if id == waiter));
    }

    /// This node has a lease. One whose caller is gone before he took it is never ended: it is forgotten when it is over.
    /// Beyond `held_max` it is not noted.
    fn hold(&mut self, now: Time, request: RequestId, lease_for: Duration, held_max: usize) {
        if self.held.len() >= held_max {
            self.held.retain(|_, until| *until > now);
        }
        if self.held.len() < held_max {
            self.held.insert(request, now + lease_for);
        }
    }

    fn drop_waiting(&mut self, is_gone: impl Fn(&Ask) -> bool) {
        for given in self.given.values_mut() {
            let before = given.waiting.len();
            given.waiting.retain(|ask| !is_gone(ask));
            self.waiting -= before - given.waiting.len();
        }
    }
}

impl<V: Payload> Replicated<V> {
    pub(super) fn on_load(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        message: LoadMessage<V>,
        out: &mut Vec<Output<V>>,
    ) {
        match message {
            LoadMessage::Ask {
                wait_ms,
                lease_ms,
                known,
                tags,
                key,
            } => {
                if self.config.planted.says_nothing() {
                    return;
                }
                let is_met = self.peers.get(&from).is_some_and(Peer::agrees);
                if !is_met || self.home_of(&key) != self.me() {
                    return send(from, request, LoadMessage::Answer(Answer::NotHome), out);
                }
                let bounded = |ms: u32| Duration::from_millis(u64::from(ms)).min(LEASE_MAX);
                let by = Asker::Peer {
                    node: from,
                    request,
                };
                let ask = Ask {
                    by,
                    lease_for: bounded(lease_ms),
                    known,
                    tags,
                    deadline: now + bounded(wait_ms),
                };
                self.decide_load(now, key, ask, out);
            }
            LoadMessage::Answer(answer) => self.on_load_answer(now, from, request, answer, out),
            LoadMessage::End { key, update } => {
                // C6: what was loaded must be about the key that the lease is for.
                let update = update.filter(|update| update.key() == Some(&key[..]));
                let his = Asker::Peer {
                    node: from,
                    request,
                };
                let holds = self.leases.given.get(&key);
                if holds.is_some_and(|given| given.holder == his) {
                    self.apply_all(now, from, update.into_iter().collect(), out);
                    self.end_given(now, &key, |holder| holder == his, out);
                }
            }
        }
    }

    pub(super) fn load_peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        let is_his = |holder| matches!(holder, Asker::Peer { node, .. } if node == peer);
        self.leases.drop_waiting(|ask| is_his(ask.by));
        let keys = self.leases.given.iter();
        let keys = keys.filter(|(_, given)| is_his(given.holder));
        let keys: Vec<Bytes> = keys.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.end_given(now, &key, is_his, out);
        }
        let asked = self.leases.asked.iter();
        let asked = asked.filter(|(_, asking)| match asking.state {
            Asks::Sent { home, .. } | Asks::Waits { home } => home == peer,
            Asks::Again { .. } => false,
        });
        let asked: Vec<RequestId> = asked.map(|(request, _)| *request).collect();
        for request in asked {
            // Asking twice does no harm, so the next home is asked at once.
            self.drive_load(now, request, out);
        }
    }

    pub(super) fn tick_loads(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.leases.next_deadline() > now {
            return;
        }
        let given = self.leases.given.iter();
        let over = given.filter(|(_, given)| given.until <= now);
        let over: Vec<Bytes> = over.map(|(key, _)| key.clone()).collect();
        for key in over {
            self.end_given(now, &key, |_| true, out);
        }
        let asked = self.leases.asked.iter();
        let asked = asked.map(|(request, asking)| (*request, asking.state, asking.waiter));
        let asked: Vec<_> = asked.collect();
        for (request, state, waiter) in asked {
            let gives_up =
                waiter.deadline <= now || matches!(state, Asks::Sent { by, .. } if by <= now);
            if gives_up {
                self.leases.asked.remove(&request);
                alone(waiter.id, out);
            } else if matches!(state, Asks::Again { at } if at <= now) {
                self.drive_load(now, request, out);
            }
        }
        let mut late = Vec::new();
        for given in self.leases.given.values_mut() {
            let before = given.waiting.len();
            given.waiting.retain(|ask| {
                let is_late = ask.deadline <= now;
                if is_late {
                    late.push(ask.clone());
                }
                !is_late
            });
            self.leases.waiting -= before - given.waiting.len();
        }
        late.iter().for_each(|ask| self.answer_late(ask, out));
    }
}

fn send<V>(to: NodeId, request: RequestId, message: LoadMessage<V>, out: &mut Vec<Output<V>>) {
    let message = CacheMessage::Load { request, message };
    out.push(Output::Send { to, message });
}

fn done<V>(waiter: WaiterId, turn: Turn, out: &mut Vec<Output<V>>) {
    let result = Outcome::Turn(turn);
    out.push(Output::Done { waiter, result });
}

fn alone<V>(waiter: WaiterId, out: &mut Vec<Output<V>>) {
    done(waiter, Turn::Yours(None), out);
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
