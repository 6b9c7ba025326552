//! What takes the system's place under turmoil: time, randomness, and what reads them.
//!
//! Only with the feature `turmoil`, and no part of the interface. Tests set the seed of a node's randomness and how far its wall clock
//! is off before it starts; a simulation runs on one thread, so both belong to the thread.

pub(crate) mod quick_clock;
pub(crate) mod ticker;

use std::cell::{Cell, RefCell};
use std::time::Duration;

pub use nearcache_protocol::planted::PlantedBug;
use rand::distr::{Distribution, StandardUniform};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

thread_local! {
    static GENERATOR: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
    static SKEW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PLANTED: Cell<PlantedBug> = const { Cell::new(PlantedBug::None) };
    static SILENCE: Cell<bool> = const { Cell::new(false) };
}

/// Seeds all randomness of the nodes of this thread.
pub fn seed(seed: u64) {
    GENERATOR.with_borrow_mut(|generator| *generator = StdRng::seed_from_u64(seed));
}

/// By how much the wall clock of nodes that start from now on is ahead.
pub fn skew(ahead: Duration) {
    SKEW.set(ahead);
}

/// Which rule the caches of nodes break that start from now on.
pub fn plant(bug: PlantedBug) {
    PLANTED.set(bug);
}

/// Whether peers that say nothing are kept: a bug of the shell.
pub fn tolerate_silence(tolerate: bool) {
    SILENCE.set(tolerate);
}

pub(crate) fn tolerates_silence() -> bool {
    SILENCE.get()
}

pub(crate) fn planted() -> PlantedBug {
    PLANTED.get()
}

pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    GENERATOR.with_borrow_mut(|generator| generator.random())
}

/// The wall clock, since the Unix epoch.
pub(crate) fn wall() -> Duration {
    turmoil::since_epoch().unwrap_or_default() + SKEW.get()
}

/// Nanoseconds since the simulation began: what boot time is elsewhere. 0 outside of a host, where nothing of a node runs.
pub(crate) fn boot_ns() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
