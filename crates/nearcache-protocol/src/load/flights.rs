//! One load of a key at a time on this node, and few of a cache at a time: [`Flights`].
//!
//! A flight is one load and all who wait for it. Whoever misses joins the flight of the key, unless something was
//! invalidated since that began ([`Fence::is_joinable`]): then the next flight of the key takes those who came later, and
//! the old one goes on for those who came before. At most [`FlightConfig::per_key_max`] loads of one key run at once, so
//! that a key that is invalidated all the time does not multiply loads: further ones wait, are joined by everybody
//! meanwhile, and begin, and are fenced, only when one has landed. Flights wait in the same way for one of
//! [`FlightConfig::running_max`] places, in the order in which they came.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nearcache_store::Store;
use smallvec::SmallVec;

use super::fence::Fence;
use crate::payload::Payload;
use crate::planted::PlantedBug;

/// Bounds of the flights of one cache on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightConfig {
    /// Loads that run at once. Default 64.
    pub running_max: usize,
    /// Loads that wait for a place; beyond it a miss is refused. Default 1,024.
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

/// How somebody who misses takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It makes the load of this flight, at once.
    Leads(FlightId),
    /// It makes the load of this flight once [`Flights::land`] names it.
    Queues(FlightId),
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
    queue: VecDeque<FlightId>,
    running: usize,
    last: u64,
}

#[derive(Debug)]
struct Flight<T> {
    key: Bytes,
    place: T,
    state: State,
    /// It is loaded together with another flight, which has the place.
    rides: bool,
}

#[derive(Debug)]
enum State {
    /// Waits for a place.
    Queued,
    /// Has a place; the system of record has not been asked yet.
    Starting,
    /// It is being asked.
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
            queue: VecDeque::new(),
            running: 0,
            last: 0,
        }
    }

    /// Joins the flight of `key` or begins one, whose result will be found in what `place` makes. Cost: O(log flights), and
    /// a look at the store if the key has a flight. With `rides`, a flight that begins is loaded by the same call of the
    /// loader as one that leads already, and takes no place of its own.
    ///
    /// # Errors
    /// [`Overloaded`], if it would have to begin one.
    pub fn join<V: Payload>(
        &mut self,
        store: &Store<V>,
        key: &Bytes,
        rides: bool,
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
        let starts = (rides || self.has_room()) && self.may_start(key);
        if !starts && self.queue.len() >= self.config.queued_max {
            return Err(Overloaded {
                running: self.running,
                queued: self.queue.len(),
            });
        }
        self.last += 1;
        let (id, place) = (FlightId(self.last), place());
        let rides = rides && starts;
        let state = if starts {
            self.running += usize::from(!rides);
            State::Starting
        } else {
            self.queue.push_back(id);
            State::Queued
        };
        let flight = Flight {
            key: key.clone(),
            place: place.clone(),
            state,
            rides,
        };
        self.by_id.insert(id, flight);
        self.by_key.entry(key.clone()).or_default().push(id);
        let role = if starts {
            Role::Leads(id)
        } else {
            Role::Queues(id)
        };
        Ok((role, place))
    }

    /// The system of record is about to be asked, under this fence: who comes after an invalidation joins no more.
    pub fn began(&mut self, id: FlightId, fence: Fence) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            flight.state = State::Running(fence);
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
        match flight.state {
            State::Queued => self.queue.retain(|queued| *queued != id),
            State::Starting | State::Running(_) => self.running -= usize::from(!flight.rides),
        }
        (Some(flight.place), self.start_queued())
    }

    /// Whether the key has a flight.
    #[must_use]
    pub fn has(&self, key: &Bytes) -> bool {
        self.by_key.contains_key(key)
    }

    /// Loads that run.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Loads that wait for a place.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    const fn has_room(&self) -> bool {
        self.running < self.config.running_max
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
            let key = self.by_id.get(&id).map(|flight| flight.key.clone());
            if key.is_some_and(|key| !self.may_start(&key)) {
                at += 1;
                continue;
            }
            self.queue.remove(at);
            if let Some(flight) = self.by_id.get_mut(&id) {
                flight.state = State::Starting;
                self.running += 1;
                starting.push((id, flight.place.clone()));
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
            self.flights.join(&self.store, &key, false, || place)
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
        let Role::Queues(third) = world.join("a").unwrap().0 else {
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
    fn keys_that_are_loaded_together_take_one_place() {
        let mut world = world(FlightConfig {
            running_max: 1,
            ..FlightConfig::default()
        });
        let first = world.leads("a");
        let key = Bytes::from_static(b"b");
        let (role, _) = world.flights.join(&world.store, &key, true, || 0).unwrap();
        let Role::Leads(second) = role else {
            panic!("it rides along")
        };
        assert_eq!(world.flights.running(), 1);
        assert!(matches!(world.join("c"), Ok((Role::Queues(_), _))));
        assert_eq!(world.flights.land(second).1.len(), 0);
        assert_eq!(world.flights.land(first).1.len(), 1);
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
