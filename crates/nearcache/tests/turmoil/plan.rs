//! What a run does, all of it drawn from the seed before the run begins.

use std::time::Duration;

use nearcache::limits::MESH_MAX_DEFAULT;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

/// Keys of each cache.
pub(crate) const KEYS: usize = 12;
/// Operations begin: the nodes have met.
const BEGIN_MS: u64 = 1_500;
/// Faults begin.
const FAULTS_BEGIN_MS: u64 = 2_500;
/// Operations and faults have ended.
const HEAL_MS: u64 = 14_000;
/// The shortest cut. A simulated connection sends nothing again: what is lost on it stays lost, and only a silence of the control
/// lane ends it. So a cut lasts long enough that a heartbeat is lost too, as no cut of a real TCP connection needs to.
const CUT_MS_MIN: u64 = 1_200;

/// The name of a key.
pub(crate) fn key(number: usize) -> String {
    format!(
        "{}{number}",
        if number.is_multiple_of(2) { "a/" } else { "b/" }
    )
}

/// How an operation is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Local,
    OnePeer,
    All,
}

/// What a node is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put {
        key: usize,
        ttl_ms: Option<u64>,
        wait: Wait,
    },
    Remove {
        key: usize,
        wait: Wait,
    },
    Get {
        key: usize,
    },
    GetFresh {
        key: usize,
        age_ms: u64,
    },
    SetAbsent {
        key: usize,
    },
    Take {
        key: usize,
    },
    InvalidatePrefix(&'static str),
    /// In the cache of mode `invalidation`: change the system of record, then say so.
    Change {
        key: usize,
        wait: Wait,
    },
    /// There too: read the system of record, which takes a while, and keep what it said.
    Load {
        key: usize,
        takes_ms: u64,
    },
}

/// What goes wrong, or what is done to nodes on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Cut {
        a: usize,
        b: usize,
        until_ms: u64,
    },
    CutOneWay {
        from: usize,
        to: usize,
        until_ms: u64,
    },
    /// What is sent between the two waits, and arrives all at once.
    Hold {
        a: usize,
        b: usize,
        until_ms: u64,
    },
    /// Nobody reaches the node.
    Isolate {
        node: usize,
        until_ms: u64,
    },
    /// The node is gone at once; `silent` if its connections do not end with it, as when the power fails.
    Crash {
        node: usize,
        silent: bool,
        until_ms: u64,
    },
    /// The node leaves in order, and starts again.
    Restart {
        node: usize,
    },
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Up to so many all are connected to all; beyond, updates travel along a tree.
    pub(crate) mesh_max: usize,
    /// How far each node's wall clock is ahead of the slowest.
    pub(crate) skew: Vec<Duration>,
    pub(crate) latency_ms_max: u64,
    pub(crate) tick_ms: u64,
    /// When, where, what, and for how long it may wait.
    pub(crate) operations: Vec<(u64, usize, Operation, Duration)>,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) heal_ms: u64,
}

impl Plan {
    /// Whether the run is the same whatever ran before it in this process. A crash that is heard of is not: tokio ends the tasks of
    /// a runtime in an order that follows from how many it had started before, and so the last messages take other delays.
    pub(crate) fn is_repeatable(&self) -> bool {
        let crashes_loudly = |fault: &Fault| matches!(fault, Fault::Crash { silent: false, .. });
        !self.faults.iter().any(|(_, fault)| crashes_loudly(fault))
    }

    /// Whether there are more nodes than a full mesh has.
    pub(crate) const fn is_tree(&self) -> bool {
        self.nodes > self.mesh_max
    }

    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = *[3, 3, 3, 5].choose(&mut rng).unwrap_or(&3);
        Self::with(seed, &mut rng, nodes, MESH_MAX_DEFAULT)
    }

    /// A run of more nodes than a full mesh has.
    pub(crate) fn draw_tree(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = rng.random_range(8..=10);
        Self::with(seed, &mut rng, nodes, 3)
    }

    fn with(seed: u64, rng: &mut StdRng, nodes: usize, mesh_max: usize) -> Self {
        let skew = (0..nodes)
            .map(|_| Duration::from_millis(rng.random_range(0..=150)))
            .collect();
        let mut operations: Vec<_> = (0..rng.random_range(120..=200))
            .map(|_| {
                let at = rng.random_range(BEGIN_MS..HEAL_MS);
                let wait = Duration::from_millis(rng.random_range(50..=4_000));
                (at, rng.random_range(0..nodes), operation(rng), wait)
            })
            .collect();
        operations.sort_by_key(|(at, ..)| *at);
        Self {
            seed,
            nodes,
            mesh_max,
            skew,
            latency_ms_max: *[1, 5, 30].choose(rng).unwrap_or(&5),
            tick_ms: *[5, 10].choose(rng).unwrap_or(&5),
            operations,
            faults: faults(rng, nodes),
            heal_ms: HEAL_MS,
        }
    }
}

fn operation(rng: &mut StdRng) -> Operation {
    let key = rng.random_range(0..KEYS);
    let wait = *[Wait::Local, Wait::Local, Wait::OnePeer, Wait::All]
        .choose(rng)
        .unwrap_or(&Wait::Local);
    match rng.random_range(0..100) {
        0..25 => {
            let ttl_ms = rng.random_bool(0.2).then(|| rng.random_range(200..3_000));
            Operation::Put { key, ttl_ms, wait }
        }
        25..37 => Operation::Remove { key, wait },
        37..43 => Operation::Get { key },
        43..49 => Operation::GetFresh {
            key,
            age_ms: rng.random_range(0..2_000),
        },
        49..54 => Operation::SetAbsent { key },
        54..58 => Operation::Take { key },
        58..60 => Operation::InvalidatePrefix(if rng.random_bool(0.5) { "a/" } else { "b/" }),
        60..75 => Operation::Change { key, wait },
        _ => Operation::Load {
            key,
            takes_ms: rng.random_range(0..60),
        },
    }
}

/// Up to four faults that do not concern the same node at the same time: turmoil's faults of one link do not add up.
fn faults(rng: &mut StdRng, nodes: usize) -> Vec<(u64, Fault)> {
    let mut free_from = vec![FAULTS_BEGIN_MS; nodes];
    let mut faults = Vec::new();
    for _ in 0..rng.random_range(1..=4) {
        let mut two: Vec<usize> = (0..nodes).collect();
        two.shuffle(rng);
        let &[a, b, ..] = two.as_slice() else {
            continue;
        };
        let kind = rng.random_range(0..7);
        let concerned: &[usize] = match kind {
            // It cuts links of all the others.
            3 => &two,
            4..7 => &[a],
            _ => &[a, b],
        };
        let from = concerned.iter().map(|node| free_from[*node]).max();
        let at = from.unwrap_or(FAULTS_BEGIN_MS) + rng.random_range(0..3_000);
        let until_ms = at + CUT_MS_MIN + rng.random_range(0..5_000);
        if until_ms > HEAL_MS {
            continue;
        }
        let fault = match kind {
            0 => Fault::Cut { a, b, until_ms },
            1 => Fault::CutOneWay {
                from: a,
                to: b,
                until_ms,
            },
            2 => Fault::Hold { a, b, until_ms },
            3 => Fault::Isolate { node: a, until_ms },
            4 | 5 => Fault::Crash {
                node: a,
                silent: kind == 4,
                until_ms,
            },
            _ => Fault::Restart { node: a },
        };
        for node in concerned {
            free_from[*node] = until_ms + 100;
        }
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
