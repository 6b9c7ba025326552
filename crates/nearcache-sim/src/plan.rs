//! The plan of a run, all of it drawn from the seed before the run begins.
//!
//! Who writes what when, and which faults strike when: printed in full when a run fails, because a seed
//! alone says nothing once the code has changed. What is drawn during the run (delays, losses) follows
//! from the same seed.

use std::fmt;
use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::mode::Ack;
use nearcache_protocol::time::Time;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use crate::long::Long;

/// Keys of a run: four prefixes of five keys.
pub(crate) const KEYS: usize = 20;
/// Tags of a run.
const TAGS: u8 = 4;
/// Operations of a run, at least.
const OPERATIONS: std::ops::RangeInclusive<usize> = 200..=280;
/// When the first operation comes: the nodes have met.
const FIRST_OPERATION_MS: u64 = 1_000;
/// When the first fault strikes.
const FIRST_FAULT_MS: u64 = 3_000;
/// When the last operation comes, and all faults end.
const HEAL_MS: u64 = 12_000;
/// How long removals are remembered in runs in which they are forgotten.
const FORGETS_MS: u64 = 4_000;
/// From when to when a node is isolated in them.
const ISOLATED_MS: (u64, u64) = (3_200, 10_500);
/// A pause after which everything that waited for the node is old (C11).
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(30);
/// Operations while it lasts.
const LONG_PAUSE_OPERATIONS: u64 = 60;
/// The least time a node stays down.
const DOWN_MS_MIN: u64 = 1;
/// What comes back within this time is a quick restart.
const QUICK_MS: u64 = 60;

/// One key, by its number.
pub(crate) fn key(number: usize) -> Vec<u8> {
    format!("{}/{}", PREFIXES[number / 5 % 4] as char, number % 5).into_bytes()
}

const PREFIXES: [u8; 4] = *b"abcd";

/// What a node is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put {
        key: usize,
        ttl_ms: Option<u64>,
        tags: Vec<u8>,
        ack: Ack,
    },
    Remove {
        key: usize,
        ack: Ack,
    },
    Touch {
        key: usize,
        ttl_ms: u64,
    },
    InvalidateTag(u8),
    InvalidatePrefix(u8),
    Clear,
    /// Set if absent.
    SetAbsent {
        key: usize,
    },
    /// Read; a node that joins asks a peer.
    Find {
        key: usize,
    },
    /// Add to a number.
    Add {
        key: usize,
        delta: i64,
    },
    /// Remove, at the key's home node.
    Take {
        key: usize,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes from the one to the other.
    Cut {
        links: Vec<(usize, usize)>,
        one_way: bool,
        until: Time,
    },
    /// The node dies; `silent` if nobody is told. Comes back empty at `restart`, if ever.
    Crash {
        node: usize,
        silent: bool,
        restart: Option<Time>,
    },
    /// The node does not run.
    Pause { node: usize, until: Time },
    /// The node's versions run ahead of its clock as far as they may.
    ClockAhead { node: usize },
    /// The node changes a key and tells nobody: what a bug that loses an update amounts to. Anti-entropy must find it (R11).
    Diverge {
        node: usize,
        key: usize,
        remove: bool,
    },
    /// The connections between the two are reset.
    Reset { a: usize, b: usize },
}

/// How the network behaves until the faults end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weather {
    pub(crate) delay_min: Duration,
    pub(crate) delay_max: Duration,
    /// Single messages of caches go astray, instead of connections that break.
    pub(crate) chaos: Option<Chaos>,
    /// Messages that a lane holds before its writer waits.
    pub(crate) window: usize,
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
    /// Whether callers read through the cache, and a system of record is behind it.
    pub(crate) loads: bool,
    pub(crate) nodes: usize,
    /// How far each node's wall clock is off, in milliseconds.
    pub(crate) clock_offset_ms: Vec<i64>,
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
    /// From when on all nodes are restarted one after the other, in runs in which nothing else goes wrong.
    pub(crate) rolling_from: Option<Time>,
    /// When operations and faults have ended.
    pub(crate) heal: Time,
}

impl Plan {
    /// Whether not all entries have room.
    pub(crate) const fn is_small(&self) -> bool {
        self.value_bytes > 0
    }

    /// Whether removals are forgotten during the run.
    pub(crate) const fn forgets(&self) -> bool {
        self.tombstone_ttl_ms == FORGETS_MS
    }

    /// Draws the plan of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let nodes = *[3, 3, 3, 4, 4, 5, 6, 7].choose(rng).unwrap_or(&3);
        let heal = Time::from_millis(HEAL_MS);
        let clock_offset_ms: Vec<i64> = (0..nodes).map(|_| rng.random_range(-150..=150)).collect();
        let mut faults = faults(rng, nodes, heal);
        let mut operations = operations(rng, nodes);
        let mut weather = weather(rng);
        let forgets = rng.random_bool(0.15);
        let small = !forgets && rng.random_bool(0.15);
        let split = match rng.random_range(0..10) {
            0..=1 => SplitPolicy::ReadOnly,
            2..=3 => SplitPolicy::Flush,
            _ => SplitPolicy::Serve,
        };
        let checks = small || rng.random_bool(0.5);
        if checks && !small {
            // Nothing else finds these.
            faults.extend((0..rng.random_range(0..=2)).map(|_| diverge(rng, nodes, heal)));
            faults.sort_by_key(|(at, _)| *at);
        }
        let mut replay_updates_max = *[4, 16, 64, 65_536].choose(rng).unwrap_or(&16);
        if forgets {
            let isolated = rng.random_range(0..nodes);
            faults = vec![isolation(nodes, isolated)];
            keep_off(&mut operations, nodes, isolated);
            weather.chaos = None;
            replay_updates_max = 4;
        }
        let mut heal = heal;
        if !forgets && rng.random_bool(0.06) {
            let (at, fault) = long_pause(rng, nodes);
            heal = at + LONG_PAUSE + Duration::from_secs(1);
            let later = (0..LONG_PAUSE_OPERATIONS).map(|n| {
                let at = at + LONG_PAUSE / 60 * u32::try_from(n).unwrap_or(0);
                (at, rng.random_range(0..nodes), operation(rng, KEYS))
            });
            operations.extend(later);
            faults.push((at, fault));
            faults.sort_by_key(|(at, _)| *at);
        }
        let rolling_from = rolls(seed, forgets || small);
        if rolling_from.is_some() {
            faults.clear();
        }
        operations.extend(around_restarts(rng, &faults, &clock_offset_ms));
        let long = Long::draw(seed);
        if let Some(long) = &long {
            operations.extend(long.reads(seed, nodes, &operations));
        }
        operations.sort_by_key(|(at, ..)| *at);
        Self {
            seed,
            mode: ModeKind::Replicated,
            loads: false,
            split,
            nodes,
            checks,
            clock_offset_ms,
            replay_updates_max,
            tombstone_ttl_ms: if forgets {
                FORGETS_MS
            } else {
                24 * 60 * 60 * 1_000
            },
            store_bytes: if small { 16 << 10 } else { 1 << 20 },
            value_bytes: if small { 1_200 } else { 0 },
            long,
            transfer_chunk_bytes: *[64, 256, 64 << 10].choose(rng).unwrap_or(&256),
            weather,
            operations,
            faults,
            rolling_from,
            heal,
        }
    }
}

/// One node stops, and what it is sent meanwhile waits in its buffers.
fn long_pause(rng: &mut StdRng, nodes: usize) -> (Time, Fault) {
    let at = Time::from_millis(rng.random_range(FIRST_FAULT_MS..HEAL_MS));
    let node = rng.random_range(0..nodes);
    let until = at + LONG_PAUSE;
    (at, Fault::Pause { node, until })
}

/// Whether all nodes are restarted one after the other, and from when on.
fn rolls(seed: u64, is_other: bool) -> Option<Time> {
    // Drawn apart, so that the plans of all other seeds stay as they are.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x726f_6c6c);
    let at_ms = rng.random_range(1_500..2_500);
    (!is_other && rng.random_bool(0.15)).then_some(Time::from_millis(at_ms))
}

/// One node is cut off for longer than removals are remembered.
fn isolation(nodes: usize, isolated: usize) -> (Time, Fault) {
    let others = (0..nodes).filter(|other| *other != isolated);
    let fault = Fault::Cut {
        links: others
            .flat_map(|other| [(isolated, other), (other, isolated)])
            .collect(),
        one_way: false,
        until: Time::from_millis(ISOLATED_MS.1),
    };
    (Time::from_millis(ISOLATED_MS.0), fault)
}

/// What the isolated node would write, and would have to forget when it starts clean, is written by its neighbour.
fn keep_off(operations: &mut [(Time, usize, Operation)], nodes: usize, isolated: usize) {
    for (at, host, _) in operations {
        let at_ms = at.as_millis();
        if *host == isolated && (ISOLATED_MS.0 - 500..ISOLATED_MS.1).contains(&at_ms) {
            *host = (isolated + 1) % nodes;
        }
    }
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
        chaos,
        window,
    }
}

fn operations(rng: &mut StdRng, nodes: usize) -> Vec<(Time, usize, Operation)> {
    let count = rng.random_range(OPERATIONS);
    let keys = rng.random_range(4..=KEYS);
    // Bursts fill outboxes, so that there is something to coalesce.
    let burst = rng.random_bool(0.3);
    let mut at_ms: Vec<u64> = (0..count)
        .map(|_| {
            let at = rng.random_range(FIRST_OPERATION_MS..HEAL_MS);
            if burst { at - at % 400 } else { at }
        })
        .collect();
    at_ms.sort_unstable();
    let one = |at| {
        (
            Time::from_millis(at),
            rng.random_range(0..nodes),
            operation(rng, keys),
        )
    };
    at_ms.into_iter().map(one).collect()
}

/// Writes just before and just after each quick restart, on the node and, before it, on the node whose clock is ahead of all.
fn around_restarts(
    rng: &mut StdRng,
    faults: &[(Time, Fault)],
    clock_offset_ms: &[i64],
) -> Vec<(Time, usize, Operation)> {
    let ahead = (0..clock_offset_ms.len()).max_by_key(|host| clock_offset_ms[*host]);
    let mut writes = Vec::new();
    for (at, fault) in faults {
        let Fault::Crash {
            node,
            restart: Some(restart),
            ..
        } = fault
        else {
            continue;
        };
        if *restart > *at + Duration::from_millis(QUICK_MS) {
            continue;
        }
        let (at_ms, restart_ms) = (at.as_millis(), restart.as_millis());
        let (ahead, key) = (ahead.unwrap_or(*node), rng.random_range(0..KEYS));
        for (when_ms, host) in [
            (at_ms - 15, ahead),
            (at_ms - 2, *node),
            (restart_ms + 2, *node),
            (restart_ms + 30, *node),
        ] {
            let put = Operation::Put {
                key,
                ttl_ms: None,
                tags: Vec::new(),
                ack: Ack::Local,
            };
            writes.push((Time::from_millis(when_ms), host, put));
        }
    }
    writes
}

fn operation(rng: &mut StdRng, keys: usize) -> Operation {
    let key = rng.random_range(0..keys);
    let ack = match rng.random_range(0..10) {
        0 => Ack::All,
        1 => Ack::Peers(1),
        _ => Ack::Local,
    };
    match rng.random_range(0..100) {
        0..=49 => {
            let ttl_ms = rng.random_bool(0.25).then(|| rng.random_range(50..8_000));
            let tags = (0..TAGS).filter(|_| rng.random_bool(0.15)).collect();
            Operation::Put {
                key,
                ttl_ms,
                tags,
                ack,
            }
        }
        50..=69 => Operation::Remove { key, ack },
        70..=74 => Operation::Touch {
            key,
            ttl_ms: rng.random_range(50..8_000),
        },
        75..=77 => Operation::InvalidateTag(rng.random_range(0..TAGS)),
        78..=79 => Operation::InvalidatePrefix(PREFIXES[rng.random_range(0..4)]),
        80 => Operation::Clear,
        81..=83 => Operation::Find { key },
        84..=88 => Operation::SetAbsent { key },
        89..=95 => Operation::Add {
            key,
            delta: rng.random_range(-5..=5),
        },
        _ => Operation::Take { key },
    }
}

fn faults(rng: &mut StdRng, nodes: usize, heal: Time) -> Vec<(Time, Fault)> {
    let mut faults = vec![cut(rng, nodes, heal), crash(rng, nodes, heal)];
    for _ in 0..rng.random_range(0..=3) {
        faults.push(match rng.random_range(0..5) {
            4 => {
                let (at, _) = span(rng, heal);
                let node = rng.random_range(0..nodes);
                (at, Fault::ClockAhead { node })
            }
            0 => cut(rng, nodes, heal),
            1 => {
                let (at, until) = span(rng, heal);
                (
                    at,
                    Fault::Pause {
                        node: rng.random_range(0..nodes),
                        until,
                    },
                )
            }
            2 => {
                let (at, _) = span(rng, heal);
                let (a, b) = pair(rng, nodes);
                (at, Fault::Reset { a, b })
            }
            _ => crash(rng, nodes, heal),
        });
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn diverge(rng: &mut StdRng, nodes: usize, heal: Time) -> (Time, Fault) {
    let (at, _) = span(rng, heal);
    let fault = Fault::Diverge {
        node: rng.random_range(0..nodes),
        key: rng.random_range(0..KEYS),
        remove: rng.random_bool(0.5),
    };
    (at, fault)
}

fn span(rng: &mut StdRng, heal: Time) -> (Time, Time) {
    let from_ms = rng.random_range(FIRST_FAULT_MS..HEAL_MS - 1_500);
    let until_ms = from_ms + rng.random_range(100..6_000);
    (
        Time::from_millis(from_ms),
        Time::from_millis(until_ms).min(heal),
    )
}

fn pair(rng: &mut StdRng, nodes: usize) -> (usize, usize) {
    let a = rng.random_range(0..nodes);
    (a, (a + rng.random_range(1..nodes)) % nodes)
}

fn cut(rng: &mut StdRng, nodes: usize, heal: Time) -> (Time, Fault) {
    let (at, until) = span(rng, heal);
    let one_way = rng.random_bool(0.3);
    let links = if rng.random_bool(0.25) {
        // A partial mesh: two nodes do not see each other, all others see both.
        let (a, b) = pair(rng, nodes);
        vec![(a, b), (b, a)]
    } else {
        let mut order: Vec<usize> = (0..nodes).collect();
        order.shuffle(rng);
        let (left, right) = order.split_at(rng.random_range(1..nodes));
        let across = left
            .iter()
            .flat_map(|a| right.iter().map(move |b| (*a, *b)));
        across.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
    };
    let links = links.into_iter().enumerate();
    let links = links
        .filter(|(n, _)| !one_way || n % 2 == 0)
        .map(|(_, link)| link)
        .collect();
    (
        at,
        Fault::Cut {
            links,
            one_way,
            until,
        },
    )
}

fn crash(rng: &mut StdRng, nodes: usize, heal: Time) -> (Time, Fault) {
    let (at, _) = span(rng, heal);
    let (node, silent) = (rng.random_range(0..nodes), rng.random_bool(0.4));
    let latest_ms = HEAL_MS - at.as_millis();
    // Half of them come back before their clock is past what they stamped.
    let down_ms = if rng.random_bool(0.5) {
        rng.random_range(DOWN_MS_MIN..=QUICK_MS)
    } else {
        rng.random_range(DOWN_MS_MIN..=latest_ms)
    };
    let restart = rng
        .random_bool(0.75)
        .then(|| at + Duration::from_millis(down_ms));
    (
        at,
        Fault::Crash {
            node,
            silent,
            restart,
        },
    )
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} nodes", self.seed, self.nodes)?;
        writeln!(f, "split: {:?}", self.split)?;
        writeln!(f, "clocks off by {:?} ms", self.clock_offset_ms)?;
        writeln!(f, "replay buffers of {} updates", self.replay_updates_max)?;
        writeln!(
            f,
            "transfers in chunks of {} bytes",
            self.transfer_chunk_bytes
        )?;
        writeln!(f, "checks all the time: {}", self.checks)?;
        writeln!(
            f,
            "stores of {} bytes, values of at least {}, removals remembered for {} ms",
            self.store_bytes, self.value_bytes, self.tombstone_ttl_ms
        )?;
        writeln!(f, "long values: {:?}", self.long)?;
        writeln!(f, "{:?}", self.weather)?;
        for (at, fault) in &self.faults {
            writeln!(f, "{at:?} {fault:?}")?;
        }
        for (at, node, operation) in &self.operations {
            writeln!(f, "{at:?} n{node} {operation:?}")?;
        }
        writeln!(f, "{:?} everything heals", self.heal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_the_volume_that_is_asked_for() {
        for seed in 0..300 {
            let plan = Plan::draw(seed);
            assert!(plan.nodes >= 3);
            assert!(plan.operations.len() >= 200);
            let is = |kind: fn(&Fault) -> bool| plan.faults.iter().any(|(_, fault)| kind(fault));
            let rolls = plan.rolling_from.is_some();
            assert!(rolls || is(|fault| matches!(fault, Fault::Cut { .. })));
            assert!(
                rolls
                    || plan.forgets()
                    || plan.is_small()
                    || is(|fault| matches!(fault, Fault::Crash { .. }))
            );
        }
    }

    #[test]
    fn same_seed_draws_the_same_plan() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7), Plan::draw(8));
    }

    #[test]
    fn keys_are_as_many_as_they_should_be() {
        let keys: std::collections::BTreeSet<_> = (0..KEYS).map(key).collect();
        assert_eq!(keys.len(), KEYS);
    }
}
