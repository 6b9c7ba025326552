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

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId, Timestamp, Version};

use super::Replicated;
use super::peer::Peer;
use crate::ids::{RequestId, WaiterId};
use crate::load::fence::just_before;
use crate::load::lease::{Answer, LEASE_MAX, Lease, LoadMessage, Turn};
use crate::message::CacheMessage;
use crate::mode::stream::Receives as _;
use crate::mode::{Outcome, Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

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
    /// A caller of this node is about to load a key.
    pub(super) fn start_load(
        &mut self,
        now: Time,
        key: Bytes,
        lease_for: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if self.leases.asked.len() >= self.config.waiters_max {
            return alone(waiter.id, out);
        }
        let request = self.next_request();
        let state = Asks::Again { at: now };
        let asking = Asking {
            key,
            lease_for: lease_for.min(LEASE_MAX),
            waiter,
            state,
            alone_from: now + self.config.find_wait,
        };
        self.leases.asked.insert(request, asking);
        self.drive_load(now, request, out);
    }

    /// A load that had a lease is over; with what was stored.
    pub(super) fn finish_load(
        &mut self,
        now: Time,
        lease: Lease,
        stored: Option<&Handle<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let Lease { home, request, key } = lease;
        if home == self.me() {
            let is_his =
                |holder| matches!(holder, Asker::Here { request: his, .. } if his == request);
            self.end_given(now, &key, is_his, out);
            return;
        }
        self.leases.held.remove(&request);
        if self.peers.contains_key(&home) {
            let update = stored
                .cloned()
                .map(|entry| self.fitting(home, Update::Entry(entry)));
            send(home, request, LoadMessage::End { key, update }, out);
        }
    }

    /// Asks the key's home, which may be this node by now.
    fn drive_load(&mut self, now: Time, request: RequestId, out: &mut Vec<Output<V>>) {
        let Some(asking) = self.leases.asked.get(&request) else {
            return;
        };
        let (key, waiter, lease_for) = (asking.key.clone(), asking.waiter, asking.lease_for);
        let (known, tags) = (self.known_to_asker(&key), self.store.highest_tag_floor());
        let home = self.home_of(&key);
        if !self.peers.get(&home).is_some_and(Peer::agrees) {
            self.leases.asked.remove(&request);
            let by = Asker::Here {
                request,
                waiter: waiter.id,
            };
            let deadline = waiter.deadline;
            let ask = Ask {
                by,
                lease_for,
                known,
                tags,
                deadline,
            };
            self.decide_load(now, key, ask, out);
            return;
        }
        let message = LoadMessage::Ask {
            wait_ms: millis(waiter.deadline.saturating_since(now)),
            lease_ms: millis(lease_for),
            known,
            tags,
            key,
        };
        send(home, request, message, out);
        let by = now + self.config.find_wait;
        if let Some(asking) = self.leases.asked.get_mut(&request) {
            asking.state = Asks::Sent { home, by };
        }
    }

    /// What an asker knows of a key. What it has merely evicted it wants back as it was.
    fn known_to_asker(&self, key: &[u8]) -> Version {
        match self.store.evicted(key) {
            Some(version) => {
                let before = version.time.as_u64().saturating_sub(1);
                Version::new(Timestamp::from_u64(before), version.origin)
            }
            None => self.store.known(key).version(),
        }
    }

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

    fn on_load_answer(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        answer: Answer<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(asking) = self.leases.asked.get_mut(&request) else {
            if let Answer::Yours { key } = answer
                && !self.leases.held.contains_key(&request)
            {
                // Its caller has given up, or went without: the next one may.
                let update = None;
                send(from, request, LoadMessage::End { key, update }, out);
            }
            return;
        };
        let (Asks::Sent { home, .. } | Asks::Waits { home }) = asking.state else {
            return;
        };
        if home != from {
            return;
        }
        let turn = match answer {
            Answer::Wait => {
                asking.state = Asks::Waits { home };
                return;
            }
            Answer::NotHome if now < asking.alone_from => {
                let at = now + self.config.modify_redrive_after;
                asking.state = Asks::Again {
                    at: at.min(asking.alone_from),
                };
                return;
            }
            Answer::NotHome => Turn::Yours(None),
            Answer::Yours { .. } => Turn::Yours(Some(Lease {
                home,
                request,
                key: asking.key.clone(),
            })),
            Answer::Overloaded => Turn::Yours(None),
            Answer::Loaded(update) => {
                let key = asking.key.clone();
                let is_value = matches!(
                    update,
                    Update::Put { .. } | Update::Stub { .. } | Update::Entry(_)
                );
                // C6, and a value that is too long for this node is not one.
                let useful = is_value && update.key() == Some(&key[..]);
                let merged = useful && self.apply_all(now, from, vec![update], out);
                if merged && self.store.peek(&key).is_some() {
                    Turn::Loaded
                } else {
                    Turn::Yours(None)
                }
            }
        };
        if let Some(asking) = self.leases.asked.remove(&request) {
            if matches!(turn, Turn::Yours(Some(_))) {
                let held_max = self.config.waiters_max;
                self.leases.hold(now, request, asking.lease_for, held_max);
            }
            done(asking.waiter.id, turn, out);
        }
    }

    /// The home node decides: what it holds, a lease, or to wait for another's.
    fn decide_load(&mut self, now: Time, key: Bytes, ask: Ask, out: &mut Vec<Output<V>>) {
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
    fn end_given(
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
    fn answer_late(&self, ask: &Ask, out: &mut Vec<Output<V>>) {
        if let Asker::Here { waiter, .. } = ask.by {
            alone(waiter, out);
        }
    }

    /// The update as that peer takes it: a long value it fetches.
    fn fitting(&self, peer: NodeId, update: Update<V>) -> Update<V> {
        match self.peers.get(&peer) {
            Some(peer) => update.for_reader(peer.reader(&self.config)),
            None => update,
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
