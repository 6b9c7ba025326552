//! Defaults that depend on the machine: how much memory the caches and the requests may take.
//!
//! A quarter of the memory is for entries. What caches with a bound of their own leave of it is shared
//! evenly by those without; requests and replies in flight may take an eighth of what the caches may.

use std::collections::BTreeSet;

use super::model::Config;
use super::{Place, Places, units};
use crate::machine::memory::Memory;

/// The part of the memory that entries of all caches take by default.
const ENTRIES_PART: u64 = 4;
/// The least for entries of all caches, on a machine with hardly any memory.
const ENTRIES_MIN: u64 = 64 << 20;
/// The least for one cache, however many there are.
const CACHE_MIN: u64 = 16 << 20;
/// The part of the caches' bounds that requests and replies in flight take by default.
const IN_FLIGHT_PART: u64 = 8;
/// The least for requests in flight, in requests of the largest size.
const IN_FLIGHT_REQUESTS_MIN: usize = 2;
/// Shares are whole MiB.
const GRAIN: u64 = 1 << 20;

/// What was chosen by the machine's memory and not by a setting.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    memory: Memory,
    caches: BTreeSet<String>,
    in_flight: bool,
}

/// Bytes of memory for the entries of all caches of one process, by default: a quarter.
#[must_use]
pub(crate) fn for_entries(memory: &Memory) -> u64 {
    whole(memory.bytes / ENTRIES_PART).max(ENTRIES_MIN)
}

impl Shares {
    /// Fills in what no source has set.
    pub(super) fn choose(config: &mut Config, places: &Places<'_>, memory: &Memory) -> Self {
        let unset = |path: &str| places.of(path) == Place::Default;
        let (shared, bounded): (BTreeSet<String>, BTreeSet<String>) = config
            .caches
            .keys()
            .cloned()
            .partition(|name| unset(&format!("caches.{name}.max_bytes")));
        let taken: u64 = bounded
            .iter()
            .filter_map(|name| config.caches.get(name))
            .fold(0, |sum, cache| sum.saturating_add(cache.max_bytes));
        let left = for_entries(memory).saturating_sub(taken);
        let share = whole(left / (shared.len().max(1) as u64)).max(CACHE_MIN);
        for (name, cache) in &mut config.caches {
            if shared.contains(name) {
                cache.max_bytes = share;
            }
        }
        let in_flight = unset("limits.in_flight_bytes");
        if in_flight {
            config.limits.in_flight_bytes = in_flight_of(config);
        }
        Self {
            memory: memory.clone(),
            caches: shared,
            in_flight,
        }
    }

    /// The memory that this process may use.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Why the cache `name` has the bound it has; `None` if it was set.
    #[must_use]
    pub fn why_cache(&self, name: &str) -> Option<String> {
        if !self.caches.contains(name) {
            return None;
        }
        let size = units::show_size(whole(self.memory.bytes));
        let part = match self.caches.len() {
            1 => "a quarter".to_owned(),
            caches => format!("one of {caches} shares of a quarter"),
        };
        Some(format!("{part} of {size}, {}", self.memory.source))
    }

    /// Why requests in flight have the bound they have; `None` if it was set.
    #[must_use]
    pub fn why_in_flight(&self) -> Option<&'static str> {
        self.in_flight
            .then_some("an eighth of the caches' bounds, at least two requests")
    }
}

fn in_flight_of(config: &Config) -> usize {
    let bounds = config.caches.values();
    let all = bounds.fold(0_u64, |sum, cache| sum.saturating_add(cache.max_bytes));
    let share = usize::try_from(whole(all / IN_FLIGHT_PART)).unwrap_or(usize::MAX);
    let least = config.limits.request_bytes;
    share.max(least.saturating_mul(IN_FLIGHT_REQUESTS_MIN))
}

fn whole(bytes: u64) -> u64 {
    bytes / GRAIN * GRAIN
}
