//! One key on every node, for whoever asks.
//!
//! Members with a session are asked at once. The others, beyond the mesh, are asked so many at a time, and again when no answer comes;
//! who has not answered when the time is over is told with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use super::routes::{Routes, Way};
use super::{Held, Probe, Probes, View};
use crate::ids::{RequestId, WaiterId};
use crate::mode::{Outcome, Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;

/// Callers that may wait for other nodes' answers. One more is given what this node knows.
const INSPECTIONS_MAX: usize = 256;
/// How many of them may ask members without a session. Others are told of their neighbours.
const FAR_INSPECTIONS_MAX: usize = 4;
/// Members without a session that one of them asks at a time.
const FAR_AT_ONCE: usize = 16;
/// How long the answer of a member is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// After so long a member without a session is asked again: the question or the answer may be lost.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is asked.
const TRIES: u32 = 3;

/// How a key stands on a node, or why that is not known.
pub type Inspected = BTreeMap<NodeId, Result<Held, NoAnswer>>;

/// Why it is not known how a key stands on a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// It was asked and has not answered: it hangs, is slow, or has not opened the cache.
    #[error("no answer in time")]
    TimedOut,
    /// There is no session with it where there should be one.
    #[error("not connected")]
    Unconnected,
    /// Beyond the mesh: no connection to it could be opened.
    #[error("cannot be reached")]
    Unreachable,
    /// The connection broke, or it is no member any more, before it answered.
    #[error("lost before it answered")]
    Lost,
    /// Beyond the mesh: the time was over before its turn came.
    #[error("not asked: the time was over")]
    NotAsked,
    /// Too many inspections are under way.
    #[error("not asked: too many inspections at once")]
    Overloaded,
}

/// Inspections under way.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    running: BTreeMap<RequestId, Running>,
}

#[derive(Debug)]
struct Running {
    key: Bytes,
    waiter: Waiter,
    seen: Inspected,
    /// Who has been asked and has not answered.
    asked: BTreeMap<NodeId, Asked>,
    /// Who is still to be asked.
    waiting: BTreeSet<NodeId>,
}

/// A member that has not answered yet.
#[derive(Debug)]
struct Asked {
    /// When it is asked again, or given up.
    look_at: Time,
    /// How often it may be asked still.
    tries_left: u32,
    way: Way,
    unreached: bool,
}

impl Probes {
    /// Asks every member. The waiter is told [`Outcome::Inspected`] when all have answered or are given up, or at its deadline.
    pub(crate) fn inspect<V: Payload>(
        &mut self,
        now: Time,
        key: &Bytes,
        waiter: Waiter,
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let routes = Routes::new(&self.members, view.by_tree);
        let is_full = self.inspections.running.len() >= INSPECTIONS_MAX;
        let asks_far = self.inspections.count_far() < FAR_INSPECTIONS_MAX;
        let mut running = Running {
            key: key.clone(),
            waiter,
            seen: Inspected::new(),
            asked: BTreeMap::new(),
            waiting: BTreeSet::new(),
        };
        for peer in self.members.keys().copied() {
            let way = routes.to(peer);
            let is_asked = !is_full && (way == Some(Way::Session) || asks_far);
            let reason = match way {
                None => NoAnswer::Unconnected,
                Some(_) if !is_asked => NoAnswer::Overloaded,
                Some(_) => {
                    running.waiting.insert(peer);
                    NoAnswer::NotAsked
                }
            };
            running.seen.insert(peer, Err(reason));
        }
        let here = Ok(view.held(now, key));
        running.seen.insert(view.clock.origin(), here);
        let request = self.next_request();
        self.inspections.running.insert(request, running);
        let routes = Routes::new(&self.members, view.by_tree);
        self.inspections.go_on(now, routes, out);
    }

    /// The caller no longer waits.
    pub(crate) fn forget(&mut self, waiter: WaiterId) {
        self.inspections
            .running
            .retain(|_, running| running.waiter.id != waiter);
    }
}

impl Inspections {
    fn count_far(&self) -> usize {
        let is_far = |running: &&Running| {
            let mut asked = running.asked.values();
            !running.waiting.is_empty() || asked.any(|asked| asked.way == Way::Short)
        };
        self.running.values().filter(is_far).count()
    }

    /// Asks who is to be asked and may be, and tells those whose answers are all here.
    pub(super) fn go_on<V>(&mut self, now: Time, routes: Routes<'_>, out: &mut Vec<Output<V>>) {
        for (request, running) in &mut self.running {
            running.go_on(now, *request, routes, out);
        }
        self.end(
            |running| running.asked.is_empty() && running.waiting.is_empty(),
            out,
        );
    }

    pub(super) fn answered(&mut self, from: NodeId, request: RequestId, held: Held) {
        let Some(running) = self.running.get_mut(&request) else {
            return;
        };
        if running.asked.remove(&from).is_some() {
            running.seen.insert(from, Ok(held));
        }
    }

    /// The session with a node is gone, and with it the answer. Beyond the mesh it is asked once more, otherwise.
    pub(super) fn lost<V>(
        &mut self,
        now: Time,
        peer: NodeId,
        by_tree: bool,
        out: &mut Vec<Output<V>>,
    ) {
        if !by_tree {
            self.gone(peer, out);
            return;
        }
        for running in self.running.values_mut() {
            if let Some(asked) = running.asked.get_mut(&peer) {
                asked.look_at = now;
                asked.tries_left = asked.tries_left.max(1);
            }
        }
    }

    /// A node is no member any more: its answer will not come.
    pub(super) fn gone<V>(&mut self, peer: NodeId, out: &mut Vec<Output<V>>) {
        for running in self.running.values_mut() {
            let was_asked = running.asked.remove(&peer).is_some();
            if running.waiting.remove(&peer) || was_asked {
                running.seen.insert(peer, Err(NoAnswer::Lost));
            }
        }
        self.end(
            |running| running.asked.is_empty() && running.waiting.is_empty(),
            out,
        );
    }

    /// No connection to it could be opened. It is tried again in its time.
    pub(super) fn unreached(&mut self, peer: NodeId) {
        for running in self.running.values_mut() {
            if let Some(asked) = running.asked.get_mut(&peer) {
                asked.unreached = true;
            }
        }
    }

    pub(super) fn tick<V>(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.end(|running| running.waiter.deadline <= now, out);
    }

    pub(super) fn next_deadline(&self) -> Time {
        let due = self.running.values().map(|running| {
            let asked = running.asked.values().map(|asked| asked.look_at).min();
            running.waiter.deadline.min(asked.unwrap_or(Time::MAX))
        });
        due.min().unwrap_or(Time::MAX)
    }

    fn end<V>(&mut self, is_over: impl Fn(&Running) -> bool, out: &mut Vec<Output<V>>) {
        self.running.retain(|_, running| {
            let over = is_over(running);
            if over {
                for (peer, asked) in &running.asked {
                    running.seen.insert(*peer, Err(asked.reason()));
                }
                out.push(done(running.waiter.id, std::mem::take(&mut running.seen)));
            }
            !over
        });
    }
}

impl Running {
    fn go_on<V>(
        &mut self,
        now: Time,
        request: RequestId,
        routes: Routes<'_>,
        out: &mut Vec<Output<V>>,
    ) {
        let seen = &mut self.seen;
        self.asked.retain(|peer, asked| {
            let is_due = asked.look_at <= now;
            if is_due && asked.tries_left == 0 {
                seen.insert(*peer, Err(asked.reason()));
                return false;
            }
            if is_due {
                match asked.again(now, routes.to(*peer)) {
                    Some(way) => out.push(way.carry(*peer, request, question(&self.key))),
                    None => {
                        seen.insert(*peer, Err(NoAnswer::Lost));
                        return false;
                    }
                }
            }
            true
        });
        let asked = self.asked.values();
        let mut far = asked.filter(|asked| asked.way == Way::Short).count();
        let (asked, key) = (&mut self.asked, &self.key);
        self.waiting.retain(|peer| {
            let Some(way) = routes.to(*peer) else {
                seen.insert(*peer, Err(NoAnswer::Unconnected));
                return false;
            };
            if way == Way::Short && far >= FAR_AT_ONCE {
                return true;
            }
            far += usize::from(way == Way::Short);
            out.push(way.carry(*peer, request, question(key)));
            asked.insert(*peer, Asked::new(now, way));
            false
        });
    }
}

impl Asked {
    fn new(now: Time, way: Way) -> Self {
        let (look_at, tries_left) = match way {
            Way::Session => (now + ANSWER_MAX, 0),
            Way::Short => (now + AGAIN_AFTER, TRIES - 1),
        };
        Self {
            look_at,
            tries_left,
            way,
            unreached: false,
        }
    }

    /// It is asked once more; nothing if there is no way to it any more.
    fn again(&mut self, now: Time, way: Option<Way>) -> Option<Way> {
        let way = way?;
        *self = Self {
            tries_left: self.tries_left - 1,
            unreached: false,
            ..Self::new(now, way)
        };
        Some(way)
    }

    const fn reason(&self) -> NoAnswer {
        if self.unreached {
            NoAnswer::Unreachable
        } else {
            NoAnswer::TimedOut
        }
    }
}

fn question(key: &Bytes) -> Probe {
    Probe::Ask {
        key: key.clone(),
        at_least: Version::ZERO,
        wait_ms: 0,
        keeps: false,
    }
}

fn done<V>(waiter: WaiterId, seen: Inspected) -> Output<V> {
    let result = Outcome::Inspected(seen);
    Output::Done { waiter, result }
}
