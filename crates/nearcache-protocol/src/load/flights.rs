//! One load of a key at a time on this node, and few of a cache at a time: [`Flights`].
//!
//! A flight is one load and all who wait for it. Whoever misses joins the flight of the key, unless something was
//! invalidated since that began ([`Fence::is_joinable`]): then the next flight of the key takes those who came later, and
//! the old one goes on for those who came before. At most [`FlightConfig::per_key_max`] loads of one key run at once, so
//! that a key that is invalidated all the time does not multiply loads: further ones wait, are joined by everybody
//! meanwhile, and begin, and are fenced, only when one has landed.
//!
//! What is bounded is calls of the loader. A call loads one flight or several, and has one of
//! [`FlightConfig::running_max`] places until the last of them has landed. Calls without a place wait for one, with all
//! their flights, in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use nearcache_store::Store;
use smallvec::SmallVec;

use super::fence::Fence;
use crate::payload::Payload;
use crate::planted::PlantedBug;

/// Bounds of the flights of one cache on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightConfig {
    /// Calls of the loader at once. Default 64.
    pub running_max: usize,
    /// Calls that wait for a place; beyond it a miss is refused. Default 1,024.
    pub queued_max: usize,
    /// Loads of one key that run at once: more than one only while what is invalidated is loaded anew. Default 2.
    pub per_key_max: usize,
    /// A rule to break on purpose.
    #[doc(hidden)]
    pub planted: PlantedBug,
}

impl Default for FlightConfig {
    fn default() -> Self {
        Self {
            running_max: 64,
            queued_max: 1_024,
            per_key_max: 2,
            planted: PlantedBug::None,
        }
    }
}

/// Names a flight among those of one cache on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(u64);

/// Names a call of the loader, for several flights that it will load ([`Flights::call`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

/// How somebody who misses takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It makes the load of this flight, at once.
    Leads(FlightId),
    /// It makes the load of this flight once [`Flights::land`] names it: there is no place.
    Queues(FlightId),
    /// The same, but because as many loads of the key run as may; never together with other flights.
    Behind(FlightId),
    /// It waits for this flight.
    Follows(FlightId),
}

/// Too many loads run and wait; nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{running} loads run and {queued} wait, which is the limit")]
pub struct Overloaded {
    /// Loads that run.
    pub running: usize,
    /// Loads that wait for a place.
    pub queued: usize,
}

/// Flights that may begin now, each to be told to its leader.
pub type Starting<T> = SmallVec<[(FlightId, T); 2]>;

/// The flights of one cache on one node. `T` is the place where a flight's result will be found, shared by all who wait.
#[derive(Debug)]
pub struct Flights<T> {
    config: FlightConfig,
    by_id: BTreeMap<FlightId, Flight<T>>,
    /// The flights of a key, the newest last.
    by_key: BTreeMap<Bytes, SmallVec<[FlightId; 2]>>,
    calls: BTreeMap<CallId, Call>,
    /// Calls that wait for a place, or for an earlier load of their key.
    queue: VecDeque<CallId>,
    running: usize,
    last: u64,
}

#[derive(Debug)]
struct Flight<T> {
    key: Bytes,
    place: T,
    state: State,
    call: CallId,
}

/// A call of the loader, from the first flight that it is to load until the last of them has landed.
#[derive(Debug)]
struct Call {
    flights: BTreeSet<FlightId>,
    has_place: bool,
}

#[derive(Debug)]
enum State {
    /// Waits for a place.
    Queued,
    /// Has a place; the system of record has not been asked yet.
    Starting,
    /// It is being asked, or this node's store is.
    Running(Fence),
}

impl<T: Clone> Flights<T> {
    /// None yet.
    #[must_use]
    pub const fn new(config: FlightConfig) -> Self {
        Self {
            config,
            by_id: BTreeMap::new(),
            by_key: BTreeMap::new(),
            calls: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            last: 0,
        }
    }

    /// A call of the loader that several flights may join. It takes a place with the first of them.
    pub const fn call(&mut self) -> CallId {
        self.last += 1;
        CallId(self.last)
    }

    /// Joins the flight of `key` or begins one, whose result will be found in what `place` makes. Cost: O(log flights), and
    /// a look at the store if the key has a flight. A flight that begins is loaded by `call`, with its place or in its
    /// turn, unless it has to wait for earlier loads of its key; without one by a call of its own.
    ///
    /// # Errors
    /// [`Overloaded`], if it would have to begin a call.
    pub fn join<V: Payload>(
        &mut self,
        store: &Store<V>,
        key: &Bytes,
        call: Option<CallId>,
        place: impl FnOnce() -> T,
    ) -> Result<(Role, T), Overloaded> {
        let newest = self.by_key.get(key).and_then(|flights| flights.last());
        if let Some((id, flight)) = newest.and_then(|id| Some((*id, self.by_id.get(id)?))) {
            let joinable = match &flight.state {
                State::Queued | State::Starting => true,
                State::Running(fence) => {
                    self.config.planted.joins_old_flights() || fence.is_joinable(store, key)
                }
            };
            if joinable {
                return Ok((Role::Follows(id), flight.place.clone()));
            }
        }
        let may_start = self.may_start(key);
        let call = match call.filter(|_| may_start) {
            Some(call) => call,
            None => self.call(),
        };
        let starts = match self.calls.get(&call) {
            Some(call) => call.has_place,
            None => self.open(call, may_start)?,
        };
        self.last += 1;
        let (id, place) = (FlightId(self.last), place());
        if let Some(call) = self.calls.get_mut(&call) {
            call.flights.insert(id);
        }
        let flight = Flight {
            key: key.clone(),
            place: place.clone(),
            state: if starts {
                State::Starting
            } else {
                State::Queued
            },
            call,
        };
        self.by_id.insert(id, flight);
        self.by_key.entry(key.clone()).or_default().push(id);
        let role = match (starts, may_start) {
            (true, _) => Role::Leads(id),
            (false, true) => Role::Queues(id),
            (false, false) => Role::Behind(id),
        };
        Ok((role, place))
    }

    /// A call gets a place, or a turn in the queue. Whether it has the place.
    fn open(&mut self, call: CallId, may_start: bool) -> Result<bool, Overloaded> {
        let has_place = may_start && self.has_room();
        if has_place {
            self.running += 1;
        } else if self.queue.len() < self.config.queued_max {
            self.queue.push_back(call);
        } else {
            return Err(Overloaded {
                running: self.running,
                queued: self.queue.len(),
            });
        }
        let flights = BTreeSet::new();
        self.calls.insert(call, Call { flights, has_place });
        Ok(has_place)
    }

    /// The system of record, or this node's store, is about to be asked, under this fence: who comes after an invalidation
    /// joins no more.
    pub fn began(&mut self, id: FlightId, fence: Fence) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            flight.state = State::Running(fence);
        }
    }

    /// This node's store was asked and has nothing: what the flight will come to is not read yet, and anybody may join.
    pub fn missed(&mut self, id: FlightId) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            flight.state = State::Starting;
        }
    }

    /// The flight has ended, however it did. Returns its place, for the result, and the flights that may begin now.
    #[must_use]
    pub fn land(&mut self, id: FlightId) -> (Option<T>, Starting<T>) {
        let Some(flight) = self.by_id.remove(&id) else {
            return (None, Starting::new());
        };
        if let Some(flights) = self.by_key.get_mut(&flight.key) {
            flights.retain(|other| *other != id);
            if flights.is_empty() {
                self.by_key.remove(&flight.key);
            }
        }
        if let Some(call) = self.calls.get_mut(&flight.call) {
            call.flights.remove(&id);
            if call.flights.is_empty() {
                if call.has_place {
                    self.running -= usize::from(!self.config.planted.loses_places());
                } else {
                    self.queue.retain(|queued| *queued != flight.call);
                }
                self.calls.remove(&flight.call);
            }
        }
        (Some(flight.place), self.start_queued())
    }

    /// Whether the key has a flight.
    #[must_use]
    pub fn has(&self, key: &Bytes) -> bool {
        self.by_key.contains_key(key)
    }

    /// Calls that run.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Calls that wait for a place.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    const fn has_room(&self) -> bool {
        self.running < self.config.running_max || self.config.planted.has_places_for_all()
    }

    /// Whether another load of the key may run.
    fn may_start(&self, key: &Bytes) -> bool {
        let flights = self.by_key.get(key).into_iter().flatten();
        let running = flights.filter(|id| {
            let flight = self.by_id.get(id);
            flight.is_some_and(|flight| !matches!(flight.state, State::Queued))
        });
        running.count() < self.config.per_key_max
    }

    fn start_queued(&mut self) -> Starting<T> {
        let mut starting = Starting::new();
        let mut at = 0;
        while self.has_room()
            && let Some(id) = self.queue.get(at).copied()
        {
            let flights = self.calls.get(&id).map(|call| &call.flights);
            let mut flights = flights.into_iter().flatten();
            if !flights.all(|id| {
                self.by_id
                    .get(id)
                    .is_some_and(|flight| self.may_start(&flight.key))
            }) {
                at += 1;
                continue;
            }
            self.queue.remove(at);
            self.running += 1;
            let Some(call) = self.calls.get_mut(&id) else {
                continue;
            };
            call.has_place = true;
            for id in &call.flights {
                if let Some(flight) = self.by_id.get_mut(id) {
                    flight.state = State::Starting;
                    starting.push((*id, flight.place.clone()));
                }
            }
        }
        starting
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nearcache_store::{Change, CoarseClock, NodeId, StoreConfig, Timestamp, Version};

    use super::*;
    use crate::clock::Hlc;
    use crate::testing::Text;
    use crate::time::Time;

    struct World {
        store: Store<Text>,
        clock: Hlc,
        flights: Flights<u32>,
        places: u32,
    }

    fn world(config: FlightConfig) -> World {
        let clock = Hlc::new(NodeId::from_u64(1), 1_000, Hlc::DEFAULT_MAX_DRIFT);
        World {
            store: Store::new(StoreConfig::new(1 << 20), CoarseClock::new(1_000)).unwrap(),
            clock,
            flights: Flights::new(config),
            places: 0,
        }
    }

    impl World {
        fn join(&mut self, key: &'static str) -> Result<(Role, u32), Overloaded> {
            self.places += 1;
            let place = self.places;
            let key = Bytes::from_static(key.as_bytes());
            self.flights.join(&self.store, &key, None, || place)
        }

        fn together<const N: usize>(&mut self, call: CallId, keys: [&'static str; N]) -> [Role; N] {
            keys.map(|key| {
                let key = Bytes::from_static(key.as_bytes());
                let joined = self.flights.join(&self.store, &key, Some(call), || 0);
                joined.unwrap().0
            })
        }

        fn leads(&mut self, key: &'static str) -> FlightId {
            let Ok((Role::Leads(id), _)) = self.join(key) else {
                panic!("{key} has a flight")
            };
            let fence = Fence::begin(
                &self.store,
                &self.clock,
                Time::ZERO,
                Duration::ZERO,
                key.as_bytes(),
            );
            self.flights.began(id, fence);
            id
        }

        fn invalidate(&self, key: &str, ms: u64) {
            let version = Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(2));
            let _ = self.store.merge(key.as_bytes(), version, Change::Remove);
        }
    }

    #[test]
    fn o6_all_who_miss_a_key_share_one_flight_until_it_lands() {
        let mut world = world(FlightConfig::default());
        let id = world.leads("a");
        for _ in 0..1_000 {
            assert_eq!(world.join("a"), Ok((Role::Follows(id), 1)));
        }
        let (place, starting) = world.flights.land(id);
        assert_eq!((place, starting.len()), (Some(1), 0));
        assert!(world.leads("a") > id);
    }

    #[test]
    fn c1_who_comes_after_an_invalidation_joins_the_next_flight_and_a_third_waits_for_the_first() {
        let mut world = world(FlightConfig::default());
        let first = world.leads("a");
        world.invalidate("a", 2_000);
        let second = world.leads("a");
        assert_eq!(world.join("a").unwrap().0, Role::Follows(second));
        world.invalidate("a", 3_000);
        let Role::Behind(third) = world.join("a").unwrap().0 else {
            panic!("two loads of the key run");
        };
        // However often it is invalidated: what has not begun is joined.
        world.invalidate("a", 4_000);
        assert_eq!(world.join("a").unwrap().0, Role::Follows(third));
        assert_eq!(world.flights.running(), 2);
        let (_, starting) = world.flights.land(first);
        assert_eq!(
            starting.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [third]
        );
        assert!(world.flights.land(first).0.is_none(), "it has landed");
    }

    #[test]
    fn c1_who_comes_after_an_invalidation_does_not_join_a_flight_that_has_looked_before_it() {
        let mut world = world(FlightConfig::default());
        // Its leader has found an entry here, with which the flight is about to land.
        let first = world.leads("a");
        world.invalidate("a", 2_000);
        let Role::Leads(second) = world.join("a").unwrap().0 else {
            panic!("it would get what was invalidated");
        };
        // That one has found nothing: what it will load is not read yet.
        world.flights.missed(second);
        world.invalidate("a", 3_000);
        assert_eq!(world.join("a").unwrap().0, Role::Follows(second));
        assert!(first < second);
    }

    #[test]
    fn o11_a_call_for_many_keys_has_one_place_until_the_last_of_them_has_landed() {
        let mut world = world(FlightConfig {
            running_max: 1,
            ..FlightConfig::default()
        });
        let call = world.flights.call();
        let [first, second] = world.together(call, ["a", "b"]).map(|role| {
            let Role::Leads(id) = role else {
                panic!("there is a place")
            };
            id
        });
        assert_eq!(world.flights.running(), 1);
        assert!(matches!(world.join("c"), Ok((Role::Queues(_), _))));
        assert_eq!(world.flights.land(first).1.len(), 0, "b is being loaded");
        assert_eq!(world.flights.land(second).1.len(), 1);
    }

    #[test]
    fn o11_a_call_for_many_keys_waits_as_one_and_begins_as_one() {
        let mut world = world(FlightConfig {
            running_max: 1,
            queued_max: 1,
            ..FlightConfig::default()
        });
        let running = world.leads("x");
        let call = world.flights.call();
        let [a, b, c] = world.together(call, ["a", "b", "c"]).map(|role| {
            let Role::Queues(id) = role else {
                panic!("there is no place")
            };
            id
        });
        assert_eq!(world.flights.queued(), 1);
        assert!(world.join("d").is_err(), "the queue is full");
        assert_eq!(world.flights.land(a).1.len(), 0, "one has come otherwise");
        let (_, starting) = world.flights.land(running);
        let starting: Vec<_> = starting.iter().map(|(id, _)| *id).collect();
        assert_eq!(starting, [b, c]);
        assert_eq!((world.flights.running(), world.flights.queued()), (1, 0));
        let _ = (world.flights.land(b), world.flights.land(c));
        assert_eq!(world.flights.running(), 0);
        assert!(world.flights.calls.is_empty());
    }

    #[test]
    fn c1_a_key_that_waits_for_its_earlier_loads_holds_up_no_other_key_of_its_call() {
        let mut world = world(FlightConfig::default());
        world.leads("a");
        world.invalidate("a", 2_000);
        world.leads("a");
        world.invalidate("a", 3_000);
        let call = world.flights.call();
        let [a, b] = world.together(call, ["a", "b"]);
        assert!(matches!((a, b), (Role::Behind(_), Role::Leads(_))));
    }

    #[test]
    fn o11_loads_beyond_the_bound_wait_in_order_and_beyond_the_queue_are_refused() {
        let mut world = world(FlightConfig {
            running_max: 2,
            queued_max: 2,
            ..FlightConfig::default()
        });
        let (a, _b) = (world.leads("a"), world.leads("b"));
        let Role::Queues(c) = world.join("c").unwrap().0 else {
            panic!("no room")
        };
        let Role::Queues(d) = world.join("d").unwrap().0 else {
            panic!("no room")
        };
        let refused = Overloaded {
            running: 2,
            queued: 2,
        };
        assert_eq!(world.join("e").unwrap_err(), refused);
        assert!(world.join("c").is_ok(), "who has a flight is joined");
        // One gives up while it waits.
        assert_eq!(world.flights.land(c).1.len(), 0);
        assert_eq!(world.flights.land(a).1[0].0, d);
        assert_eq!((world.flights.running(), world.flights.queued()), (2, 0));
    }
}
