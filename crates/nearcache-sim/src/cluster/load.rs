//! Callers who read through the cache, and loaders that fail in every way (F24): done as the library's shell does it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::ids::Epoch;
use nearcache_protocol::load::breaker::Admitted;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::load::flights::{FlightConfig, FlightId, Flights, Role};
use nearcache_protocol::load::lease::{Lease, Turn};
use nearcache_protocol::load::source::SourceFloors;
use nearcache_protocol::mode::Output;
use nearcache_protocol::time::Time;
use nearcache_store::{Handle, NodeId, Version};
use rand::RngExt as _;

use super::guard::{self, Guard};
use super::{Cluster, Event};
use crate::bug::Bug;
use crate::check::guard as judge;
use crate::check::leases::Begin;
use crate::node::{Awaited, Node};
use crate::plan::{KEYS, Operation, Plan, key};
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// How long a load takes, at most, unless it is slow.
const TAKES_MS_MAX: u64 = 200;
/// How long a slow one takes, at most.
const SLOW_MS_MAX: u64 = 900;
/// When a loader is given up.
const LOAD_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a node waits for another's load.
const TURN_WAIT: Duration = Duration::from_millis(500);
/// How long a message may take where a home node is never too late.
const CALM_DELAY_MAX: Duration = Duration::from_millis(50);
/// How long a load takes from its turn to its end, at most.
const FLIGHT: Duration = TURN_WAIT.saturating_add(LOAD_TIMEOUT);
/// How long it waits for its place, at most: for those before it in the queue, which is twice as long as there are places, and for one of its key.
const QUEUE_WAIT: Duration = FLIGHT.saturating_mul(3);
/// How long the stores keep what has expired.
pub(crate) const STALE_FOR: Duration = Duration::from_millis(2_000);

/// The loads of one start of a node.
pub(crate) struct NodeLoads {
    pub(super) flights: Flights<u64>,
    pub(super) sources: SourceFloors,
    places: u64,
    pub(super) waiting: BTreeMap<u64, Vec<u64>>,
    pub(super) flying: BTreeMap<u64, Flying>,
    pub(super) guard: Option<Guard>,
}

pub(super) struct Flying {
    pub(super) id: FlightId,
    pub(super) key: usize,
    seen: Version,
    /// When it had its place and asked whose turn it is.
    pub(super) asked: Option<Time>,
    pub(super) departed: Option<Departed>,
}

pub(super) struct Departed {
    pub(super) at: Time,
    pub(super) fence: Fence,
    pub(super) lease: Option<Lease>,
    /// That it may ask, where somebody has to say so.
    pub(super) admitted: Option<Admitted>,
    pub(super) value: u64,
    pub(super) source: u64,
    pub(super) outcome: Answer,
}

/// What becomes of a call of the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Value,
    /// An older version than this node has seen: a replica that lags.
    Older,
    Error,
    Panic,
    Never,
}

impl NodeLoads {
    pub(crate) fn new(plan: &Plan, bug: Option<Bug>) -> Self {
        let planted = bug.map_or(Default::default(), Bug::of_protocol);
        let is_guarded = guard::is_guarded(plan);
        let config = if is_guarded {
            guard::flights(planted)
        } else {
            FlightConfig {
                running_max: 8,
                queued_max: 16,
                planted,
                ..FlightConfig::default()
            }
        };
        Self {
            flights: Flights::new(config),
            sources: SourceFloors::default(),
            places: 0,
            waiting: BTreeMap::new(),
            flying: BTreeMap::new(),
            guard: is_guarded.then(|| Guard::new(planted)),
        }
    }

    /// Flights that have a place, and flights that wait for one.
    pub(super) fn count(&self) -> (usize, usize) {
        let running = self.flying.values().filter(|flying| flying.asked.is_some());
        let running = running.count();
        (running, self.flying.len() - running)
    }
}

/// The tag that all entries of a key carry.
pub(super) fn tag_of(number: usize) -> u8 {
    u8::try_from(number % 4).unwrap_or(0)
}

/// What an operation is here: a write of the system of record and how the cache is told, or the key of a read.
pub(super) fn as_invalidation(
    operation: Operation,
    n: usize,
) -> Result<(Operation, Vec<usize>), usize> {
    let covered =
        |covers: &dyn Fn(usize) -> bool| (0..KEYS).filter(|number| covers(*number)).collect();
    match operation {
        Operation::Remove { key: number, ack } => {
            Ok((Operation::Remove { key: number, ack }, vec![number]))
        }
        Operation::Put {
            key: number, ack, ..
        } if n.is_multiple_of(4) => Ok((Operation::Remove { key: number, ack }, vec![number])),
        Operation::InvalidateTag(tag) => Ok((
            Operation::InvalidateTag(tag),
            covered(&|number| tag_of(number) == tag),
        )),
        Operation::InvalidatePrefix(prefix) => {
            let keys = covered(&|number| key(number).first() == Some(&prefix));
            Ok((Operation::InvalidatePrefix(prefix), keys))
        }
        Operation::Clear => Ok((Operation::Clear, (0..KEYS).collect())),
        Operation::Put { key: number, .. }
        | Operation::Touch { key: number, .. }
        | Operation::SetAbsent { key: number }
        | Operation::Add { key: number, .. }
        | Operation::Find { key: number }
        | Operation::Take { key: number } => Err(number),
    }
}

impl Cluster {
    /// A caller reads a key through the cache.
    pub(super) fn get_or_load(&mut self, host: usize, number: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let own = node.time(now);
        let wait = QUEUE_WAIT + FLIGHT;
        let get = self.checkers.loads.begin(now, wait, host, node, number);
        if let Some(entry) = newer_than(node, own, number, Version::ZERO) {
            let judged = self.checkers.own_writes.serves(host, &entry);
            self.judge(judged)?;
            let refreshes = self.draws_refresh(host, own, entry.expiry());
            self.answer(get, Some(&entry))?;
            if refreshes {
                return self.refresh(host, number, entry.version());
            }
            return Ok(());
        }
        if let Some(pending) = node.writes.pending(number) {
            self.sometimes.reach(Place::PendingServed);
            let pending = pending.cloned();
            return self.answer(get, pending.as_ref());
        }
        if (node.loads.guard.as_ref()).is_some_and(|guard| guard.is_open(own)) {
            self.sometimes.reach(Place::CircuitOpen);
            self.refused(host)?;
            return self.fail(host, get, number);
        }
        self.fly(host, number, Version::ZERO, Some(get))
    }

    /// Loads anew what is about to expire, unless somebody does already. Nobody waits for it.
    fn refresh(&mut self, host: usize, number: usize, seen: Version) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let own = node.time(self.now);
        let is_open = (node.loads.guard.as_ref()).is_some_and(|guard| guard.is_open(own));
        if is_open || node.loads.flights.has(&Bytes::from(key(number))) {
            return Ok(());
        }
        self.sometimes.reach(Place::RefreshedAhead);
        self.fly(host, number, seen, None)
    }

    /// Joins the flight of a key or begins one, for something newer than `seen`.
    fn fly(
        &mut self,
        host: usize,
        number: usize,
        seen: Version,
        get: Option<u64>,
    ) -> Result<(), Violation> {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let loads = &mut node.loads;
        let place = loads.places + 1;
        let name = Bytes::from(key(number));
        let joined = loads.flights.join(&node.store, &name, None, || place);
        let Ok((role, place)) = joined else {
            self.sometimes.reach(Place::LoaderOverloaded);
            let (running, queued) = loads.count();
            if loads.guard.is_some() {
                let judged = judge::overloaded(running, queued);
                judged.map_err(|(rule, what)| self.violation(rule, format!("n{host} {what}")))?;
            }
            return match get {
                Some(get) => self.fail(host, get, number),
                None => Ok(()),
            };
        };
        loads.waiting.entry(place).or_default().extend(get);
        let patience = match role {
            Role::Follows(_) => {
                self.sometimes.reach(Place::FlightShared);
                let asked = loads.flying.get(&place).and_then(|flying| flying.asked);
                if let (Some(asked), Some(get)) = (asked, get) {
                    self.checkers.loads.flies(asked, &[get], FLIGHT);
                }
                return Ok(());
            }
            Role::Leads(_) => None,
            Role::Queues(_) => Some(guard::QUEUE_WAIT),
            // By then the earlier loads have ended.
            Role::Behind(_) => Some(FLIGHT),
        };
        let (Role::Follows(id) | Role::Leads(id) | Role::Queues(id) | Role::Behind(id)) = role;
        loads.places = place;
        let flying = Flying {
            id,
            key: number,
            seen,
            asked: None,
            departed: None,
        };
        loads.flying.insert(place, flying);
        let is_guarded = loads.guard.is_some();
        let Some(patience) = patience else {
            return self.start_flight(host, place);
        };
        if is_guarded {
            let gets: Vec<u64> = get.into_iter().collect();
            self.checkers.loads.flies(now, &gets, patience + FLIGHT);
            self.queue
                .schedule(now + patience, Event::Waited { host, life, place });
        }
        Ok(())
    }

    /// A flight has its place: whose turn is it?
    pub(super) fn start_flight(&mut self, host: usize, place: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let gets = node.loads.waiting.get(&place);
        let gets = gets.map_or(&[][..], Vec::as_slice);
        self.checkers.loads.flies(now, gets, FLIGHT);
        let Some(flying) = node.loads.flying.get_mut(&place) else {
            return Ok(());
        };
        flying.asked = Some(now);
        let (number, seen) = (flying.key, flying.seen);
        let own = node.time(now);
        if node.loads.guard.is_some() {
            let judged = judge::placed(node.loads.count().0);
            judged.map_err(|(rule, what)| self.violation(rule, format!("n{host} {what}")))?;
        }
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        if let Some(entry) = newer_than(node, own, number, seen) {
            return self.land(host, place, Some(entry));
        }
        let waiter = node.waiter(own, TURN_WAIT, Awaited::Turn { place });
        let mut out: Vec<Output<Value>> = Vec::new();
        let name = Bytes::from(key(number));
        node.core
            .begin_load(own, name, LOAD_TIMEOUT, waiter, &mut out);
        self.carry_cache(host, out)
    }

    /// The machine has said whose turn it is.
    pub(super) fn turn(&mut self, host: usize, place: u64, turn: Turn) -> Result<(), Violation> {
        let now = self.now;
        let lease = match turn {
            Turn::Loaded => {
                self.sometimes.reach(Place::LoadedElsewhere);
                let Some(node) = self.hosts[host].node.as_ref() else {
                    return Ok(());
                };
                let Some(flying) = node.loads.flying.get(&place) else {
                    return Ok(());
                };
                if let Some(entry) = newer_than(node, node.time(now), flying.key, flying.seen) {
                    return self.land(host, place, Some(entry));
                }
                let number = flying.key;
                self.checkers.leases.told(now, host, number);
                None
            }
            Turn::Yours(lease) => lease,
        };
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let own = node.time(now);
        let mut admitted = None;
        if let Some(guard) = &mut node.loads.guard {
            admitted = guard.admit(own);
            if admitted.is_none() {
                let mut out = Vec::new();
                if let Some(lease) = lease {
                    node.core.end_load(own, lease, None, &mut out);
                }
                self.sometimes.reach(Place::CircuitOpen);
                self.refused(host)?;
                self.carry_cache(host, out)?;
                return self.land(host, place, None);
            }
            let judged = self.checkers.guards.began(now, host, place);
            judged.map_err(|(rule, what)| self.violation(rule, what))?;
        }
        self.check_lease(host, place, lease.as_ref())?;
        self.depart(host, place, lease, admitted);
        Ok(())
    }

    /// Somebody gets no load because of the circuit breaker.
    fn refused(&self, host: usize) -> Result<(), Violation> {
        let judged = self.checkers.guards.refused(host);
        judged.map_err(|(rule, what)| self.violation(rule, what))
    }

    /// K7: whether this load may run beside others.
    fn check_lease(
        &mut self,
        host: usize,
        place: u64,
        lease: Option<&Lease>,
    ) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let Some(flying) = node.loads.flying.get(&place) else {
            return Ok(());
        };
        let knows = node.store.known(&key(flying.key)).version();
        let knows = knows.max(node.store.highest_tag_floor());
        let mut nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let home = nodes.find(|node| lease.is_some_and(|lease| lease.home == node.id));
        let paused = self.hosts.iter().map(|host| host.paused_until);
        let has_leases = self.plan.mode == ModeKind::Replicated;
        let asked = flying.asked.filter(|_| has_leases);
        let weather = &self.plan.weather;
        let calm = weather.chaos.is_none()
            && weather.tail.is_none()
            && weather.delay_max <= CALM_DELAY_MAX;
        let load = Begin {
            host,
            place,
            key: flying.key,
            lease,
            asked: asked.map(|asked| (asked, TURN_WAIT)),
            calm: calm && !self.healed && !self.plan.is_beyond_mesh() && self.is_linked(),
            home_ms: home.map_or(0, |home| home.clock.physical_ms(home.time(now))),
            knows_ms: knows.time.millis(),
            rested: paused.max().unwrap_or(Time::ZERO),
        };
        let begun = self.checkers.leases.begin(now, &load, LOAD_TIMEOUT);
        begun.map_err(|(rule, what)| self.violation(rule, what))
    }

    /// Whether all that run have a session with each other, and nobody has one with somebody who is gone, unnoticed: all agree on who is home.
    fn is_linked(&self) -> bool {
        let runs = |peer: &NodeId, epoch: Option<&Epoch>| {
            self.running()
                .any(|(_, other)| other.id == *peer && Some(&other.epoch) == epoch)
        };
        let others = self.running().count() - 1;
        self.running().all(|(_, node)| {
            let mut peers = node.sessions.keys();
            peers.len() == others && peers.all(|peer| runs(peer, node.epochs.get(peer)))
        })
    }

    /// The loader is called.
    fn depart(
        &mut self,
        host: usize,
        place: u64,
        lease: Option<Lease>,
        admitted: Option<Admitted>,
    ) {
        let now = self.now;
        let outcome = match self.rng.random_range(0..100) {
            0..=69 => Answer::Value,
            70..=77 => Answer::Older,
            78..=87 => Answer::Error,
            88..=94 => Answer::Panic,
            _ => Answer::Never,
        };
        let outcome = match (self.is_record_down(), outcome) {
            (None, outcome) | (Some(false), outcome @ (Answer::Value | Answer::Older)) => outcome,
            (Some(false), _) => Answer::Value,
            (Some(true), Answer::Never) => Answer::Never,
            (Some(true), _) => Answer::Error,
        };
        let slow = self.rng.random_bool(0.1);
        let takes_ms = self
            .rng
            .random_range(0..if slow { SLOW_MS_MAX } else { TAKES_MS_MAX });
        let life = self.hosts[host].life;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let own = node.time(now);
        let Some(flying) = node.loads.flying.get(&place) else {
            return;
        };
        let (id, number) = (flying.id, flying.key);
        let bound = node.core.clock_bound_of_load(own);
        let planted = self.bug.map_or(Default::default(), Bug::of_protocol);
        let fence = Fence::begin(&node.store, &node.clock, own, bound, &key(number));
        let fence = fence.planted(planted, &node.clock, own);
        node.loads.flights.began(id, fence);
        let newest = self.checkers.loads.generation(number);
        // What lags is older than what this node has seen: only then must it notice (I7).
        let lags = outcome == Answer::Older
            && newest > 0
            && !node.loads.sources.raise(number as u64, newest - 1);
        let (outcome, source) = match outcome {
            Answer::Older if lags => (Answer::Older, newest - 1),
            Answer::Older => (Answer::Value, newest),
            other => (other, newest),
        };
        let lags = outcome == Answer::Older;
        let value = self.checkers.loads.read(node, own, number, (source, lags));
        let departed = Departed {
            at: own,
            fence,
            lease,
            admitted,
            value,
            source,
            outcome,
        };
        if let Some(flying) = node.loads.flying.get_mut(&place) {
            flying.departed = Some(departed);
        }
        let takes = if outcome == Answer::Never {
            LOAD_TIMEOUT
        } else {
            Duration::from_millis(takes_ms)
        };
        self.queue
            .schedule(now + takes, Event::Landing { host, life, place });
    }
}

/// The entry of a key, if the node may serve it and it is newer than `seen`.
fn newer_than(node: &Node, own: Time, number: usize, seen: Version) -> Option<Handle<Value>> {
    let leased = own <= node.core.read_bound().serve_until;
    let entry = node.store.peek(&key(number)).filter(|_| leased)?;
    (entry.version() > seen).then_some(entry)
}
