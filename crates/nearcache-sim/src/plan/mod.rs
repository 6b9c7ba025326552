//! The plan of a run, all of it drawn from the seed before the run begins.
//!
//! Who writes what when, which faults strike when, and which of them never end: written in full when a run fails, because a seed
//! alone says nothing once the code has changed. [`text`] writes and reads it. What is drawn during the run (delays, losses) follows
//! from the same seed.

mod after;
mod disconnect;
mod faults;
mod full;
mod late;
mod operations;
mod text;

use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::config::OnDisconnect;
use nearcache_protocol::time::Time;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::long::Long;

pub(crate) use self::after::{After, Rest};
pub(crate) use self::faults::{Cut, Fault, Garbage, kinds_at_once};
pub(crate) use self::late::COUNTS_AFTER;
pub(crate) use self::operations::{Operation, Shape};

/// Keys of a run: four prefixes of five keys.
pub(crate) const KEYS: usize = 20;
/// When the first operation comes: the nodes have met.
const FIRST_OPERATION_MS: u64 = 1_000;
/// When the first fault strikes.
const FIRST_FAULT_MS: u64 = 3_000;
/// When the last operation comes, and all faults end.
const HEAL_MS: u64 = 12_000;
/// A pause after which everything that waited for the node is old (C11).
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(30);
/// Operations while it lasts.
const LONG_PAUSE_OPERATIONS: u64 = 60;
/// The longest cut of those that are not at full strength.
const SHORT_CUT: Duration = Duration::from_millis(7_500);
/// How long removals are remembered in runs in which they are forgotten.
const FORGETS_MS: u64 = 4_000;
/// How long they are remembered in all others.
const REMEMBERS_MS: u64 = 24 * 60 * 60 * 1_000;
/// From when to when a node is isolated in them.
const ISOLATED_MS: (u64, u64) = (3_200, 10_500);

/// Up to so many members every node is connected to every other, as shipped.
pub(crate) const MESH_MAX: usize = 64;
/// How long the sessions of a mesh stay once there are more: in every other run about as long as any, so that they end while it runs, in the rest as shipped.
const MESH_GRACES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];
/// The same in runs about the tree.
const TREE_MESH_MAX: usize = 4;

/// The number of the key with these bytes.
pub(crate) fn number_of(bytes: &[u8]) -> Option<usize> {
    (0..KEYS).find(|number| key(*number) == bytes)
}

/// One key, by its number. Those of the last prefix are such as programs trip over.
pub(crate) fn key(number: usize) -> Vec<u8> {
    let (prefix, n) = (PREFIXES[number / 5 % 4], number % 5);
    let odd: &[u8] = match n {
        0 => b"",
        1 => b"\0",
        2 => b"\r\n$3\r\n",
        3 => b"\xff\xfe\xc0",
        _ => &[b'k'; 300],
    };
    match prefix {
        b'd' => [&[prefix, b'/'], odd].concat(),
        _ => format!("{}/{n}", prefix as char).into_bytes(),
    }
}

const PREFIXES: [u8; 4] = *b"abcd";

/// How the network behaves until the faults end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weather {
    pub(crate) delay_min: Duration,
    pub(crate) delay_max: Duration,
    /// Some messages take far longer.
    pub(crate) tail: Option<Tail>,
    /// Single messages of caches go astray, instead of connections that break.
    pub(crate) chaos: Option<Chaos>,
    /// Those of the membership go astray too.
    pub(crate) membership_astray: bool,
    /// Messages that a lane holds before its writer waits.
    pub(crate) window: usize,
}

impl Weather {
    /// Whether it is worse than what the membership promises to be right in (M1).
    pub(crate) const fn is_rough(&self) -> bool {
        self.tail.is_some() || self.membership_astray
    }
}

/// Messages that take long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tail {
    /// How many of all do.
    pub(crate) share: f64,
    /// By how much longer, at most.
    pub(crate) most: Duration,
}

/// What happens to single messages, each with this probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chaos {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) reorder: f64,
}

/// Everything that is decided before the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The mode of the cache.
    pub(crate) mode: ModeKind,
    /// What a node does that is not with most of its cluster.
    pub(crate) split: SplitPolicy,
    /// What becomes of copies when the lease runs out.
    pub(crate) on_disconnect: OnDisconnect,
    /// Whether callers read through the cache, and a system of record is behind it.
    pub(crate) loads: bool,
    pub(crate) nodes: usize,
    /// Up to so many members every node is connected to every other.
    pub(crate) mesh_max: usize,
    /// How long the sessions of a mesh stay once there are more.
    pub(crate) mesh_grace: Duration,
    /// All that paces repair is as shipped, not as short runs need it.
    pub(crate) as_shipped: bool,
    /// A rule to break: sessions that neither end wants stay.
    pub(crate) surplus_stays: bool,
    /// How far each node's wall clock is off, in milliseconds.
    pub(crate) clock_offset_ms: Vec<i64>,
    /// By how much each node's clock runs too fast, in millionths.
    pub(crate) clock_ppm: Vec<i64>,
    pub(crate) replay_updates_max: usize,
    pub(crate) transfer_chunk_bytes: usize,
    /// Whether nodes compare what they know all the time; otherwise only when one was cut short.
    pub(crate) checks: bool,
    pub(crate) tombstone_ttl_ms: u64,
    pub(crate) store_bytes: u64,
    /// The least length of values.
    pub(crate) value_bytes: usize,
    /// The values that do not travel with their updates.
    pub(crate) long: Option<Long>,
    pub(crate) weather: Weather,
    pub(crate) operations: Vec<(Time, usize, Operation)>,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// Hosts whose nodes open the cache later than they start, and when.
    pub(crate) late: Vec<(usize, Time)>,
    /// From when on all nodes are restarted one after the other, in runs in which nothing else goes wrong.
    pub(crate) rolling_from: Option<Time>,
    /// When operations and faults have ended, but for those that last.
    pub(crate) heal: Time,
    /// What lasts.
    pub(crate) after: After,
}

impl Plan {
    /// Whether not all entries have room.
    pub(crate) const fn is_small(&self) -> bool {
        self.value_bytes > 0
    }

    /// Whether there are more nodes than may be connected each to each.
    pub(crate) const fn is_beyond_mesh(&self) -> bool {
        self.nodes > self.mesh_max
    }

    /// Whether all nodes on a side of a cut may have been started anew while it lasted, so that nobody knows anybody on the other side: then they
    /// find each other when they next look at the addresses they were configured with.
    pub(crate) fn may_know_nobody(&self) -> bool {
        let starts = |fault: &Fault| {
            matches!(fault, Fault::Leave { .. })
                || matches!(fault, Fault::Crash { restart, .. } if restart.is_some())
        };
        let is_long = |(at, fault): &(Time, Fault)| matches!(fault, Fault::Cut { until, .. } if *until - *at > SHORT_CUT);
        let started = self.faults.iter().filter(|(_, fault)| starts(fault));
        self.faults.iter().any(is_long) && started.count() >= self.nodes / 2
    }

    /// Whether removals are forgotten during the run.
    pub(crate) const fn forgets(&self) -> bool {
        self.tombstone_ttl_ms == FORGETS_MS
    }

    /// How many kinds of faults are in force at once, at the worst moment.
    pub(crate) fn kinds_at_once(&self) -> usize {
        kinds_at_once(&self.faults, self.weather.chaos.is_some())
    }

    /// Callers read through the cache in this run. What may be written and read is not the matter then, and values say which load
    /// brought them.
    pub(crate) fn read_through(&mut self) {
        self.loads = true;
        self.split = SplitPolicy::Serve;
        self.on_disconnect = OnDisconnect::Bypass;
        self.store_bytes = 1 << 20;
        self.value_bytes = 0;
        self.after = After::Whole;
        self.late.clear();
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::Diverge { .. }));
    }

    /// Draws the plan of a seed; `full` if the faults must be at their full strength.
    pub(crate) fn draw(seed: u64, mode: ModeKind, full: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = *[3, 3, 3, 4, 4, 5, 6, 7].choose(&mut rng).unwrap_or(&3);
        let mut plan = Self::of_nodes(seed, mode, (nodes, MESH_MAX), &mut rng);
        plan.at_full_strength(full);
        plan
    }

    /// The same with more nodes than may be connected each to each.
    pub(crate) fn draw_tree(seed: u64, mode: ModeKind, full: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = *[7, 8, 9, 10, 12].choose(&mut rng).unwrap_or(&8);
        let mut plan = Self::of_nodes(seed, mode, (nodes, TREE_MESH_MAX), &mut rng);
        plan.open_late();
        plan.at_full_strength(full);
        plan
    }

    /// So many nodes in good weather, that are told what to do while they run.
    pub(crate) fn of_scale(nodes: usize, mesh_max: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(nodes as u64);
        let drawn = Self::of_nodes(
            nodes as u64,
            ModeKind::Replicated,
            (nodes, mesh_max),
            &mut rng,
        );
        Self {
            split: SplitPolicy::Serve,
            // What is measured is how it is when they are gone.
            mesh_grace: MESH_GRACES[0],
            as_shipped: true,
            rolling_from: None,
            clock_offset_ms: vec![0; nodes],
            clock_ppm: vec![0; nodes],
            replay_updates_max: 65_536,
            transfer_chunk_bytes: 64 << 10,
            checks: true,
            tombstone_ttl_ms: REMEMBERS_MS,
            store_bytes: 16 << 20,
            value_bytes: 0,
            long: None,
            weather: Weather {
                // One link takes half a millisecond to one and a half, 0.75 in the mean.
                delay_min: Duration::from_micros(500),
                delay_max: Duration::from_micros(1_500),
                tail: None,
                chaos: None,
                membership_astray: false,
                window: 8,
            },
            operations: Vec::new(),
            faults: Vec::new(),
            late: Vec::new(),
            heal: Time::MAX,
            after: After::Whole,
            ..drawn
        }
    }

    fn of_nodes(
        seed: u64,
        mode: ModeKind,
        (nodes, mesh_max): (usize, usize),
        rng: &mut StdRng,
    ) -> Self {
        let offsets = (0..nodes).map(|_| rng.random_range(-150..=150));
        let clock_offset_ms: Vec<i64> = offsets.collect();
        let clock_ppm = (0..nodes).map(|_| rng.random_range(-300..=300)).collect();
        let mut faults = faults::faults(rng, nodes);
        let mut operations = operations::operations(rng, nodes);
        let mut weather = weather(rng);
        let replicated = mode == ModeKind::Replicated;
        let forgets = rng.random_bool(0.15);
        let small = !forgets && rng.random_bool(0.15);
        let split = match rng.random_range(0..10) {
            0..=1 if replicated => SplitPolicy::ReadOnly,
            2..=3 if replicated => SplitPolicy::Flush,
            _ => SplitPolicy::Serve,
        };
        let checks = small || rng.random_bool(0.5);
        if checks && !small && replicated {
            // Nothing else finds these.
            faults.extend((0..rng.random_range(0..=2)).map(|_| faults::diverge(rng, nodes)));
            faults.sort_by_key(|(at, _)| *at);
        }
        let mut replay_updates_max = *[4, 16, 64, 65_536].choose(rng).unwrap_or(&16);
        if forgets {
            let isolated = rng.random_range(0..nodes);
            faults = vec![faults::isolation(nodes, isolated)];
            operations::abandon(rng, &mut operations, nodes, isolated);
            operations::keep_off(&mut operations, nodes, isolated);
            weather.chaos = None;
            replay_updates_max = 4;
        }
        let mut heal = Time::from_millis(HEAL_MS);
        if !forgets && rng.random_bool(0.06) {
            let (at, fault) = faults::long_pause(rng, nodes);
            heal = at + LONG_PAUSE + Duration::from_secs(1);
            let later = (0..LONG_PAUSE_OPERATIONS).map(|n| {
                let at = at + LONG_PAUSE / 60 * u32::try_from(n).unwrap_or(0);
                let operation = operations::operation(rng, KEYS);
                (at, rng.random_range(0..nodes), operation)
            });
            operations.extend(later);
            faults.push((at, fault));
            faults.sort_by_key(|(at, _)| *at);
        }
        operations.extend(operations::around_restarts(rng, &faults, &clock_offset_ms));
        let long = Long::draw(seed);
        if let Some(long) = &long {
            operations.extend(long.reads(seed, nodes, &operations));
        }
        operations.sort_by_key(|(at, ..)| *at);
        let rolling_from = rolls(seed, forgets || small).filter(|_| replicated);
        if rolling_from.is_some() {
            faults.clear();
        }
        let whole = forgets || small || rolling_from.is_some();
        let after = if replicated && !whole {
            After::draw(rng, nodes)
        } else {
            After::Whole
        };
        let checks = checks || after.strands();
        Self {
            seed,
            mode,
            split,
            on_disconnect: disconnect::on_disconnect(seed, mode),
            loads: false,
            nodes,
            mesh_max,
            mesh_grace: MESH_GRACES[usize::from(seed.is_multiple_of(2))],
            as_shipped: false,
            surplus_stays: false,
            checks,
            clock_offset_ms,
            clock_ppm,
            replay_updates_max,
            tombstone_ttl_ms: if forgets { FORGETS_MS } else { REMEMBERS_MS },
            store_bytes: if small { 16 << 10 } else { 1 << 20 },
            value_bytes: if small { 1_200 } else { 0 },
            transfer_chunk_bytes: *[64, 256, 64 << 10].choose(rng).unwrap_or(&256),
            long,
            weather,
            operations,
            faults,
            late: Vec::new(),
            rolling_from,
            heal,
            after,
        }
    }
}

/// Whether all nodes are restarted one after the other, and from when on.
fn rolls(seed: u64, is_other: bool) -> Option<Time> {
    // Drawn apart, so that the plans of all other seeds stay as they are.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x726f_6c6c);
    let at_ms = rng.random_range(1_500..2_500);
    (!is_other && rng.random_bool(0.15)).then_some(Time::from_millis(at_ms))
}

fn weather(rng: &mut StdRng) -> Weather {
    let delay_min = Duration::from_micros(rng.random_range(50..500));
    let spread = *[500_u64, 2_000, 30_000, 120_000]
        .choose(rng)
        .unwrap_or(&500);
    let chaos = rng.random_bool(0.5).then(|| Chaos {
        loss: rng.random_range(0.0..0.2),
        duplicate: rng.random_range(0.0..0.2),
        reorder: rng.random_range(0.0..0.3),
    });
    let window = *[1, 2, 8].choose(rng).unwrap_or(&1);
    Weather {
        delay_min,
        delay_max: delay_min + Duration::from_micros(spread),
        tail: None,
        chaos,
        membership_astray: false,
        window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_the_volume_that_is_asked_for() {
        for seed in 0..300 {
            let plan = Plan::draw(seed, ModeKind::Replicated, false);
            assert!(plan.nodes >= 3);
            assert!(plan.operations.len() >= 200);
            let is = |kind: fn(&Fault) -> bool| plan.faults.iter().any(|(_, fault)| kind(fault));
            let rolls = plan.rolling_from.is_some();
            assert!(rolls || is(|fault| matches!(fault, Fault::Cut { .. })));
            assert!(rolls || plan.forgets() || is(|fault| matches!(fault, Fault::Crash { .. })));
        }
    }

    #[test]
    fn at_least_half_of_the_seeds_have_three_kinds_of_faults_at_once() {
        let plans = (0..1_000).map(|seed| Plan::draw(seed, ModeKind::Replicated, false));
        let mixed = plans.filter(|plan| plan.kinds_at_once() >= 3).count();
        assert!(mixed >= 500, "{mixed} of 1,000");
    }

    #[test]
    fn same_seed_draws_the_same_plan() {
        let draw = |seed| Plan::draw(seed, ModeKind::Replicated, false);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn keys_are_as_many_as_they_should_be() {
        let keys: std::collections::BTreeSet<_> = (0..KEYS).map(key).collect();
        assert_eq!(keys.len(), KEYS);
    }
}
