//! What callers ask for: writes, removals, group invalidations, reads and read-modify-writes.

use std::time::Duration;

use nearcache_protocol::mode::Ack;
use nearcache_protocol::time::Time;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::faults::Fault;
use super::{FIRST_OPERATION_MS, HEAL_MS, ISOLATED_MS, KEYS, PREFIXES};

/// Tags of a run.
const TAGS: u8 = 4;
/// Operations of a run, at least.
const OPERATIONS: std::ops::RangeInclusive<usize> = 200..=280;
/// Keys that are given up in runs in which removals are forgotten.
const ABANDONED: usize = 3;
/// What comes back within this time is a quick restart.
pub(super) const QUICK_MS: u64 = 60;

/// What a node is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put {
        key: usize,
        ttl_ms: Option<u64>,
        tags: Vec<u8>,
        ack: Ack,
        shape: Shape,
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

impl Operation {
    /// The key that it concerns, if it is one.
    const fn key_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Put { key, .. }
            | Self::Remove { key, .. }
            | Self::Touch { key, .. }
            | Self::SetAbsent { key }
            | Self::Find { key }
            | Self::Add { key, .. }
            | Self::Take { key } => Some(key),
            Self::InvalidateTag(_) | Self::InvalidatePrefix(_) | Self::Clear => None,
        }
    }
}

/// What a value looks like: values that programs trip over are as frequent as plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// No byte at all.
    Empty,
    /// Bytes that are no text: zeros, line ends, broken UTF-8.
    Binary,
    /// Longer than a pull, a chunk of a transfer and a window together.
    Long,
}

impl Shape {
    /// Plain ones twice.
    const ALL: &[Self] = &[
        Self::Plain,
        Self::Plain,
        Self::Empty,
        Self::Binary,
        Self::Long,
    ];

    /// The value of operation `n`.
    pub(crate) fn value(self, n: usize) -> Vec<u8> {
        match self {
            Self::Plain => format!("value {n}").into_bytes(),
            Self::Empty => Vec::new(),
            Self::Binary => [&n.to_be_bytes()[..], b"\0\r\n\xff\xfe\xc0$-1\r\n"].concat(),
            Self::Long => format!("{n}/").repeat(900).into_bytes(),
        }
    }
}

pub(super) fn operations(rng: &mut StdRng, nodes: usize) -> Vec<(Time, usize, Operation)> {
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
pub(super) fn around_restarts(
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
                shape: Shape::Plain,
            };
            writes.push((Time::from_millis(when_ms), host, put));
        }
    }
    writes
}

pub(super) fn operation(rng: &mut StdRng, keys: usize) -> Operation {
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
                shape: *Shape::ALL.choose(rng).unwrap_or(&Shape::Plain),
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

/// Some keys are written before a node is isolated, removed meanwhile, and never touched again: only what that node does when it comes
/// back decides whether they come back with it.
pub(super) fn abandon(
    rng: &mut StdRng,
    operations: &mut Vec<(Time, usize, Operation)>,
    nodes: usize,
    isolated: usize,
) {
    let mut keys = [(); ABANDONED].map(|()| rng.random_range(0..KEYS));
    keys.sort_unstable();
    let begins = Time::from_millis(ISOLATED_MS.0 - 500);
    let other = (0..KEYS).find(|key| !keys.contains(key)).unwrap_or(0);
    for (_, _, operation) in operations.iter_mut().filter(|(at, ..)| *at >= begins) {
        match operation.key_mut() {
            Some(key) if keys.contains(key) => *key = other,
            Some(_) => {}
            // What concerns a group would concern them too.
            None => *operation = Operation::Find { key: other },
        }
    }
    for key in keys {
        let put = Operation::Put {
            key,
            ttl_ms: None,
            tags: Vec::new(),
            ack: Ack::Local,
            shape: Shape::Plain,
        };
        let remove = Operation::Remove {
            key,
            ack: Ack::Local,
        };
        let removed_ms = ISOLATED_MS.0 + rng.random_range(100..1_500);
        operations.push((begins, isolated, put));
        let neighbour = (isolated + 1) % nodes;
        operations.push((Time::from_millis(removed_ms), neighbour, remove));
    }
}

/// What the isolated node would write, and would have to forget when it starts clean, is written by its neighbour.
pub(super) fn keep_off(operations: &mut [(Time, usize, Operation)], nodes: usize, isolated: usize) {
    for (at, host, _) in operations {
        let at_ms = at.as_millis();
        if *host == isolated && (ISOLATED_MS.0 - 500..ISOLATED_MS.1).contains(&at_ms) {
            *host = (isolated + 1) % nodes;
        }
    }
}
