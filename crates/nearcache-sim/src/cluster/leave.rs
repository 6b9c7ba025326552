//! Leaving on purpose, as the library's shell does it, and restarting all nodes one after the other.
//!
//! A node that leaves writes until then, takes no operations any more, hands over, says goodbye and is gone once that has arrived. In
//! a rolling restart the next one follows as soon as all are ready again.

use std::time::Duration;

use nearcache_protocol::mode::{Ack, HandedOver};
use nearcache_protocol::time::Time;
use rand::RngExt as _;

use super::operate::perform;
use super::{Cluster, Event};
use crate::plan::{KEYS, Operation, Shape};
use crate::session::other;
use crate::sometimes::Place;
use crate::violation::Violation;

/// How long all peers are waited for, then one, as in the library.
const ALL_PEERS_MAX: Duration = Duration::from_secs(2);
const ONE_PEER_MAX: Duration = Duration::from_secs(5);
/// How often a rolling restart looks whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// No node leaves so shortly before the faults end.
const LAST_LEAVE: Duration = Duration::from_millis(1_500);
/// Values written by those who leave have numbers of their own.
const LAST_WORDS: usize = 100_000;

/// A node that is about to leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    /// Since when, by its own time.
    since: Time,
    /// After how long it comes back, empty.
    down_for: Duration,
}

/// What is kept of those who leave.
#[derive(Debug, Default)]
pub(crate) struct Rolling {
    /// How many nodes have begun to leave.
    next: usize,
    /// Somebody left before anybody was known to have everything: what only it had is lost.
    pub(crate) left_in_haste: bool,
}

impl Cluster {
    /// Goes on with a rolling restart.
    pub(super) fn roll(&mut self) -> Result<(), Violation> {
        let hosts = self.hosts.len();
        let is_well = |host: &super::Host| {
            let node = host.node.as_ref();
            node.is_some_and(|node| node.leaving.is_none() && node.core.is_ready())
        };
        let all_well = self.hosts.iter().all(is_well);
        let next = self.rolling.next;
        if next == hosts && all_well {
            self.sometimes.reach(Place::RolledAll);
            return Ok(());
        }
        if all_well && self.now + LAST_LEAVE < self.plan.heal {
            self.rolling.next += 1;
            let first = usize::try_from(self.plan.seed).unwrap_or(0);
            self.begin_leave((first + next) % hosts)?;
        }
        self.queue.schedule(self.now + LOOK_EVERY, Event::Roll);
        Ok(())
    }

    fn begin_leave(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let down_for = Duration::from_millis(self.rng.random_range(1..400));
        let keys: [usize; 2] = std::array::from_fn(|_| self.rng.random_range(0..KEYS));
        let life = usize::try_from(self.hosts[host].life).unwrap_or(0);
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        for (n, key) in keys.into_iter().enumerate() {
            let put = Operation::Put {
                key,
                ttl_ms: None,
                tags: Vec::new(),
                ack: Ack::Local,
                shape: Shape::Plain,
            };
            let number = LAST_WORDS + (life * 8 + host) * 2 + n;
            perform(node, own, number, put, &mut out);
        }
        self.carry_cache(host, out)?;
        self.settle(host)?;
        self.leave_for(host, down_for)
    }

    /// Lets a node leave on purpose; its host starts another, which is empty, so long after it is gone.
    pub(crate) fn leave_for(&mut self, host: usize, down_for: Duration) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        node.leaving = Some(Leaving {
            since: own,
            down_for,
        });
        node.core.hand_over(own, &mut out);
        self.trace.step(now, &[18, host as u64], || {
            format!("n{host} is about to leave")
        });
        self.carry_cache(host, out)?;
        self.settle(host)
    }

    /// Lets a node go that has handed over, or waited long enough.
    pub(super) fn depart_if_done(&mut self, host: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let Some(leaving) = node.leaving else {
            return Ok(());
        };
        let (own, handed_over) = (node.time(now), node.core.handed_over());
        let waited = own - leaving.since;
        let goes = match handed_over {
            HandedOver::ToAll => true,
            HandedOver::ToSome => waited >= ALL_PEERS_MAX,
            HandedOver::ToNobody => waited >= ONE_PEER_MAX,
        };
        if !goes {
            return Ok(());
        }
        node.leaving = None;
        self.rolling.left_in_haste |= handed_over == HandedOver::ToNobody;
        self.sometimes.reach(match handed_over {
            HandedOver::ToAll => Place::LeftToAll,
            HandedOver::ToSome | HandedOver::ToNobody => Place::LeftInHaste,
        });
        let (mut cache, mut membership) = (Vec::new(), Vec::new());
        let departed = (node.id, node.epoch);
        node.core.leave(own, &mut cache);
        node.membership.leave(own, &mut membership);
        self.checkers.departed.insert(departed, now);
        self.carry_cache(host, cache)?;
        self.carry_membership(host, membership)?;
        self.trace.step(now, &[19, host as u64], || {
            format!("n{host} leaves after {waited:?}: {handed_over:?}")
        });
        self.hosts[host].node = None;
        self.checkers.members.died(host, now);
        self.note_links(host);
        self.checkers.forget(host);
        self.end_sessions(host);
        self.queue
            .schedule(now + leaving.down_for, Event::Start { host });
        Ok(())
    }

    /// The connections of a host end once all that was sent over them has arrived.
    fn end_sessions(&mut self, host: usize) {
        for session in 0..self.sessions.len() {
            for end in [0, 1] {
                let side = &mut self.sessions[session].ends[end];
                if side.host != host || !std::mem::replace(&mut side.open, false) {
                    continue;
                }
                side.stands = false;
                side.stalled.clear();
                let lanes = side.lanes.iter();
                let last = lanes.map(|lane| lane.last_arrival).max();
                let last = last.unwrap_or(self.now).max(self.now);
                let (at, end) = (last + Duration::from_micros(10), other(end));
                self.queue.schedule(at, Event::Reset { session, end });
            }
        }
    }
}
