//! Loads of one node under the model checker: the real [`Fence`] and [`Flights`] over the real store, whose locks and atomics a scheduler
//! interleaves with those of callers and of whoever invalidates. Callers do what the library's shell does.
//!
//! Run with `cargo test -p nearcache-protocol --features shuttle,planted-bugs --lib shuttle_test`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{
    Change, CoarseClock, Expiry, NodeId, Scope, Store, StoreConfig, Tags, Timestamp, Version,
};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use super::fence::Fence;
use super::flights::{FlightConfig, FlightId, Flights, Role};
use crate::clock::Hlc;
use crate::planted::PlantedBug;
use crate::testing::Text;
use crate::time::Time;

const SCHEDULES: usize = 2_000;
/// Changes of who goes first, within a schedule.
const CHANGES: usize = 3;
const NOW: Time = Time::from_millis(10_000);
const KEY: &[u8] = b"key";
const BEFORE: u64 = 1;
const AFTER: u64 = 2;

/// How the cache is told that the system of record has changed.
#[derive(Debug, Clone, Copy)]
enum Tells {
    Removal,
    Tag,
    Prefix,
    Clear,
}

/// What a flight came to, for all who wait for it; nothing yet if zero.
type Place = Arc<AtomicU64>;

struct World {
    store: Store<Text>,
    clock: Hlc,
    flights: Mutex<Flights<Place>>,
    source: AtomicU64,
    planted: PlantedBug,
}

impl World {
    fn new(planted: PlantedBug) -> Arc<Self> {
        let clock = Hlc::new(NodeId::from_u64(1), 1_000_000, Hlc::DEFAULT_MAX_DRIFT);
        let config = StoreConfig {
            shards: std::num::NonZeroUsize::new(1),
            ..StoreConfig::new(1 << 20)
        };
        let coarse = CoarseClock::new(clock.physical_ms(NOW));
        let flights = FlightConfig {
            planted,
            ..FlightConfig::default()
        };
        Arc::new(Self {
            store: Store::new(config, coarse).unwrap(),
            clock,
            flights: Mutex::new(Flights::new(flights)),
            source: AtomicU64::new(BEFORE),
            planted,
        })
    }

    /// What the node holds.
    fn held(&self) -> Option<u64> {
        let entry = self.store.peek(KEY)?;
        let text = String::from_utf8(entry.value().1.clone()).unwrap();
        Some(text.parse().unwrap())
    }

    /// A caller misses and takes part in a load, which it makes if it is to. Returns where the result will be.
    fn load(&self) -> Place {
        let place = || Arc::new(AtomicU64::new(0));
        let key = Bytes::from_static(KEY);
        let joined = self
            .flights
            .lock()
            .unwrap()
            .join(&self.store, &key, None, place);
        let (role, place) = joined.unwrap();
        if let Role::Leads(id) = role {
            self.fly(id, &place);
        }
        place
    }

    fn fly(&self, id: FlightId, place: &Place) {
        let fence = Fence::begin(&self.store, &self.clock, NOW, Duration::ZERO, KEY);
        let fence = fence.planted(self.planted, &self.clock, NOW);
        self.flights.lock().unwrap().began(id, fence);
        let read = self.source.load(Ordering::SeqCst);
        let later = NOW + Duration::from_millis(2);
        let tags = Tags::new(["t"]).unwrap();
        let content = (Text::new(&read.to_string()), Expiry::NEVER, tags);
        let entry = fence.entry(&self.store, KEY, content, &self.clock, later);
        let _kept = fence.keep(&self.store, &entry).unwrap();
        place.store(read, Ordering::SeqCst);
        let (_, starting) = self.flights.lock().unwrap().land(id);
        for (next, place) in starting {
            self.fly(next, &place);
        }
    }

    /// The system of record changes, and then the cache is told so, by another node whose clock is `behind` the load's beginning or not.
    fn change(&self, tells: Tells, is_behind: bool) {
        self.source.store(AFTER, Ordering::SeqCst);
        let ms = self.clock.physical_ms(NOW) - u64::from(is_behind) * 2_000;
        let version = Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(2));
        let scope = match tells {
            Tells::Removal => {
                let _ = self.store.merge(KEY, version, Change::Remove).unwrap();
                return;
            }
            Tells::Tag => Scope::Tag((*b"t").into()),
            Tells::Prefix => Scope::Prefix((*b"ke").into()),
            Tells::Clear => Scope::All,
        };
        self.store.invalidate(scope, version);
    }
}

/// Two callers, and somebody who changes the source, tells the cache, and then reads himself.
fn invalidated_in_mid_load(planted: PlantedBug, tells: Tells) {
    // One thread before the others, with a few changes: a load is long, and a switch at every step seldom lets one come to its end.
    shuttle::check_pct(
        move || {
            let world = World::new(planted);
            let callers = [0, 1].map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.load())
            });
            world.change(tells, false);
            // Whatever is here now, or is waited for from now on, was read after the change.
            let held = world.held();
            assert_ne!(held, Some(BEFORE), "C1: held after {tells:?}");
            let place = world.load();
            let _ = callers.map(|caller| caller.join().unwrap());
            assert_eq!(place.load(Ordering::SeqCst), AFTER, "C1: joined");
            assert_ne!(world.held(), Some(BEFORE), "C1: kept over {tells:?}");
            let flights = world.flights.lock().unwrap();
            assert_eq!((flights.running(), flights.queued()), (0, 0), "C8");
        },
        SCHEDULES,
        CHANGES,
    );
}

#[test]
fn c1_c4_no_interleaving_keeps_or_serves_what_was_read_before_an_invalidation() {
    for tells in [Tells::Removal, Tells::Tag, Tells::Prefix, Tells::Clear] {
        invalidated_in_mid_load(PlantedBug::None, tells);
    }
}

#[test]
fn c1_in_mid_load_an_invalidation_by_a_clock_that_is_too_far_behind_wins_too() {
    for tells in [Tells::Removal, Tells::Tag, Tells::Prefix, Tells::Clear] {
        shuttle::check_random(
            move || {
                let world = World::new(PlantedBug::None);
                let fence = Fence::begin(&world.store, &world.clock, NOW, Duration::ZERO, KEY);
                let changing = Arc::clone(&world);
                let changer = thread::spawn(move || changing.change(tells, true));
                let read = world.source.load(Ordering::SeqCst);
                // The change is known here before the load's end.
                changer.join().unwrap();
                let tags = Tags::new(["t"]).unwrap();
                let content = (Text::new(&read.to_string()), Expiry::NEVER, tags);
                let entry = fence.entry(&world.store, KEY, content, &world.clock, NOW);
                assert!(!fence.keep(&world.store, &entry).unwrap(), "{tells:?}");
            },
            SCHEDULES / 10,
        );
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    for (bug, tells) in [
        (PlantedBug::FenceDropped, Tells::Removal),
        (PlantedBug::FenceDropped, Tells::Clear),
        (PlantedBug::FenceDroppedForTags, Tells::Tag),
        (PlantedBug::JoinsOldFlights, Tells::Removal),
        (PlantedBug::JoinsOldFlights, Tells::Tag),
        (PlantedBug::JoinsOverGroups, Tells::Tag),
    ] {
        let found = std::panic::catch_unwind(|| invalidated_in_mid_load(bug, tells));
        assert!(found.is_err(), "{bug:?} by {tells:?} is not found");
    }
}
