//! Callers who read through the cache, and loaders that fail in every way (F24): done as the library's shell does it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::load::fence::Fence;
use nearcache_protocol::load::flights::{FlightConfig, FlightId, Flights, Role};
use nearcache_protocol::load::lease::{Lease, Turn};
use nearcache_protocol::load::source::SourceFloors;
use nearcache_protocol::mode::{Ack, Output, Published};
use nearcache_protocol::time::Time;
use nearcache_store::{Expiry, Handle, Tags, Version};
use rand::RngExt as _;

use super::{Cluster, Event};
use crate::bug::Bug;
use crate::check::leases::Begin;
use crate::node::{Awaited, Node};
use crate::plan::{KEYS, Operation, key};
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
/// How long a load takes from its turn to its end, at most.
const FLIGHT: Duration = TURN_WAIT.saturating_add(LOAD_TIMEOUT);
/// How long it waits for its place, at most: for those before it in the queue, which is twice as long as there are places, and for one of its key.
const QUEUE_WAIT: Duration = FLIGHT.saturating_mul(3);
/// For how long after its expiry a copy may be served instead of an error.
const STALE_MAX: Duration = Duration::from_millis(400);
/// How long the stores keep it.
pub(crate) const STALE_FOR: Duration = Duration::from_millis(2_000);

/// The loads of one start of a node.
pub(crate) struct NodeLoads {
    flights: Flights<u64>,
    sources: SourceFloors,
    places: u64,
    waiting: BTreeMap<u64, Vec<u64>>,
    flying: BTreeMap<u64, Flying>,
}

struct Flying {
    id: FlightId,
    key: usize,
    seen: Version,
    /// When it had its place and asked whose turn it is.
    asked: Option<Time>,
    departed: Option<Departed>,
}

struct Departed {
    fence: Fence,
    lease: Option<Lease>,
    value: u64,
    source: u64,
    outcome: Answer,
}

/// What becomes of a call of the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Value,
    /// An older version than this node has seen: a replica that lags.
    Older,
    Error,
    Panic,
    Never,
}

impl NodeLoads {
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        let planted = bug.map_or(Default::default(), Bug::of_protocol);
        let config = FlightConfig {
            running_max: 8,
            queued_max: 16,
            planted,
            ..FlightConfig::default()
        };
        Self {
            flights: Flights::new(config),
            sources: SourceFloors::default(),
            places: 0,
            waiting: BTreeMap::new(),
            flying: BTreeMap::new(),
        }
    }
}

/// The tag that all entries of a key carry.
fn tag_of(number: usize) -> u8 {
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
            return self.answer(get, Some(&entry));
        }
        if let Some(pending) = node.writes.pending(number) {
            self.sometimes.reach(Place::PendingServed);
            let pending = pending.cloned();
            return self.answer(get, pending.as_ref());
        }
        let loads = &mut node.loads;
        let place = loads.places + 1;
        let name = Bytes::from(key(number));
        let joined = loads.flights.join(&node.store, &name, None, || place);
        let Ok((role, place)) = joined else {
            self.sometimes.reach(Place::LoaderOverloaded);
            return self.fail(host, get, number);
        };
        loads.waiting.entry(place).or_default().push(get);
        match role {
            Role::Follows(_) => {
                self.sometimes.reach(Place::FlightShared);
                let asked = loads.flying.get(&place).and_then(|flying| flying.asked);
                if let Some(asked) = asked {
                    self.checkers.loads.flies(asked, &[get], FLIGHT);
                }
                Ok(())
            }
            Role::Leads(id) | Role::Queues(id) | Role::Behind(id) => {
                loads.places = place;
                let flying = Flying {
                    id,
                    key: number,
                    seen: Version::ZERO,
                    asked: None,
                    departed: None,
                };
                loads.flying.insert(place, flying);
                if matches!(role, Role::Leads(_)) {
                    self.start_flight(host, place)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A flight has its place: whose turn is it?
    fn start_flight(&mut self, host: usize, place: u64) -> Result<(), Violation> {
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
                None
            }
            Turn::Yours(lease) => lease,
        };
        self.check_lease(host, place, lease.as_ref())?;
        self.depart(host, place, lease);
        Ok(())
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
        let load = Begin {
            host,
            place,
            key: flying.key,
            lease,
            home_ms: home.map_or(0, |home| home.clock.physical_ms(home.time(now))),
            knows_ms: knows.time.millis(),
            rested: paused.max().unwrap_or(Time::ZERO),
        };
        let begun = self.checkers.leases.begin(now, &load, LOAD_TIMEOUT);
        begun.map_err(|(rule, what)| self.violation(rule, what))
    }

    /// The loader is called.
    fn depart(&mut self, host: usize, place: u64, lease: Option<Lease>) {
        let now = self.now;
        let outcome = match self.rng.random_range(0..100) {
            0..=69 => Answer::Value,
            70..=77 => Answer::Older,
            78..=87 => Answer::Error,
            88..=94 => Answer::Panic,
            _ => Answer::Never,
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
            fence,
            lease,
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

    /// The loader has answered, or not.
    pub(super) fn landing(&mut self, host: usize, life: u32, place: u64) -> Result<(), Violation> {
        let now = self.now;
        let lives_ms = self.rng.random_range(100..2_000);
        let bug = self.bug;
        if self.hosts[host].life == life {
            self.checkers.leases.end(host, place);
        }
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let own = node.time(now);
        let flying = node.loads.flying.get_mut(&place);
        let Some((number, departed)) =
            flying.and_then(|flying| Some((flying.key, flying.departed.take()?)))
        else {
            return Ok(());
        };
        let mut out = Vec::new();
        let mut loaded = None;
        match departed.outcome {
            Answer::Panic if bug == Some(Bug::WaiterLostOnPanic) => return Ok(()),
            Answer::Value | Answer::Older => {
                let expiry =
                    Expiry::after(node.clock.physical_ms(own), Duration::from_millis(lives_ms));
                let value = Value::new(departed.value.to_string().as_bytes());
                let tags = Tags::new([[tag_of(number)]]).unwrap_or(Tags::NONE);
                let content = (value, expiry, tags);
                let entry =
                    departed
                        .fence
                        .entry(&node.store, &key(number), content, &node.clock, own);
                let is_newest = node.loads.sources.raise(number as u64, departed.source);
                let pending = node.writes.pending(number).is_some();
                let kept =
                    is_newest && !pending && departed.fence.keep(&node.store, &entry) == Ok(true);
                let stored = kept.then_some(&entry);
                if kept {
                    let published = Published::Fill(entry.clone());
                    node.core
                        .publish(own, published, Ack::Local, None, &mut out);
                }
                if let Some(lease) = departed.lease {
                    node.core.end_load(own, lease, stored, &mut out);
                }
                if kept && departed.outcome == Answer::Older {
                    let what = format!(
                        "n{host} keeps generation {} of key {number}",
                        departed.source
                    );
                    return Err(self.violation("I7", what));
                }
                self.sometimes.reach(if kept {
                    Place::LoadKept
                } else {
                    Place::LoadNotKept
                });
                self.checkers.freshness.untold(entry.version());
                // What has expired before it arrives is a removal.
                self.checkers.removals.stamped(entry.version());
                loaded = Some(entry);
            }
            Answer::Error | Answer::Panic | Answer::Never => {
                if let Some(lease) = departed.lease {
                    node.core.end_load(own, lease, None, &mut out);
                }
                self.sometimes.reach(Place::LoadFailed);
            }
        }
        self.carry_cache(host, out)?;
        self.land(host, place, loaded)?;
        self.settle(host)
    }

    /// A flight ends: all who wait get what it came to, and others begin.
    fn land(
        &mut self,
        host: usize,
        place: u64,
        got: Option<Handle<Value>>,
    ) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let Some(flying) = node.loads.flying.remove(&place) else {
            return Ok(());
        };
        let (_, starting) = node.loads.flights.land(flying.id);
        let waiting = node.loads.waiting.remove(&place).unwrap_or_default();
        for get in waiting {
            match &got {
                Some(entry) => self.answer(get, Some(entry))?,
                None => self.fail(host, get, flying.key)?,
            }
        }
        for (_, next) in starting {
            self.start_flight(host, next)?;
        }
        Ok(())
    }

    fn answer(&mut self, get: u64, got: Option<&Handle<Value>>) -> Result<(), Violation> {
        let ended = self.checkers.loads.end(get, got);
        ended.map_err(|(rule, what)| self.violation(rule, what))
    }

    /// There is no answer: a stale copy if there is one, within its limit.
    fn fail(&mut self, host: usize, get: u64, number: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let own = node.time(now);
        let leased = own <= node.core.read_bound().serve_until;
        let limit = if self.bug == Some(Bug::StaleBeyondLimit) {
            STALE_FOR
        } else {
            STALE_MAX
        };
        let stale = node
            .store
            .peek_stale(&key(number), limit)
            .filter(|_| leased);
        let now_ms = node.clock.physical_ms(own);
        if let Some(entry) = &stale {
            let until_ms = entry.expiry().as_millis().saturating_add(400);
            if !entry.expiry().is_never() && now_ms >= until_ms {
                let what = format!(
                    "n{host} serves a copy of key {number} that expired at {:?}, at {now_ms}",
                    entry.expiry()
                );
                return Err(self.violation("stale limit", what));
            }
            self.sometimes.reach(Place::StaleServed);
        }
        self.answer(get, stale.as_ref())
    }
}

/// The entry of a key, if the node may serve it and it is newer than `seen`.
fn newer_than(node: &Node, own: Time, number: usize, seen: Version) -> Option<Handle<Value>> {
    let leased = own <= node.core.read_bound().serve_until;
    let entry = node.store.peek(&key(number)).filter(|_| leased)?;
    (entry.version() > seen).then_some(entry)
}
