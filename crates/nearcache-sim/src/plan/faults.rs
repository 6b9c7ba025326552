//! What goes wrong, and when: drawn so that in most runs three kinds of faults or more strike at once.

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_protocol::time::Time;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::operations::QUICK_MS;
use super::{FIRST_FAULT_MS, HEAL_MS, ISOLATED_MS, KEYS, LONG_PAUSE};

/// The least time a node stays down.
const DOWN_MS_MIN: u64 = 1;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes from the one to the other.
    Cut {
        shape: Cut,
        links: Vec<(usize, usize)>,
        until: Time,
    },
    /// The node dies; `silent` if nobody is told. Comes back empty at `restart`, if ever, with another wall clock.
    Crash {
        node: usize,
        silent: bool,
        restart: Option<Time>,
        clock_offset_ms: i64,
    },
    /// The node does not run.
    Pause { node: usize, until: Time },
    /// The node runs and does not, in turn.
    Doze {
        node: usize,
        run: Duration,
        pause: Duration,
        until: Time,
    },
    /// All that the node sends and gets takes so much longer.
    Slow {
        node: usize,
        delay: Duration,
        until: Time,
    },
    /// Messages from the one to the other take so much longer.
    Lag {
        from: usize,
        to: usize,
        delay: Duration,
        until: Time,
    },
    /// So many bytes a second pass on each of the node's links, in either direction.
    Narrow {
        node: usize,
        bytes_per_second: u64,
        until: Time,
    },
    /// The node leaves on purpose, and comes back empty so long after it is gone.
    Leave { node: usize, down: Duration },
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
    /// Bytes that are no message arrive on a connection from the one to the other.
    Garble {
        from: usize,
        to: usize,
        how: Garbage,
    },
}

/// Which links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All between two groups.
    Groups,
    /// One direction of those.
    OneWay,
    /// Those between two nodes, whom all others see.
    Mesh,
    /// All between two groups, and one node sees both.
    Bridge,
    /// All of one node, one of several that are cut off one after the other and come back in another order.
    Swizzle,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// A frame that announces more than any may hold.
    TooLong,
    /// A version of the frame format that does not exist.
    Version,
    /// A kind of message that does not exist.
    Kind,
    /// A message cut short, in a frame that is whole.
    Short,
    /// Random bytes as a batch of updates.
    Random,
}

impl Garbage {
    pub(super) const ALL: &[Self] = &[
        Self::TooLong,
        Self::Version,
        Self::Kind,
        Self::Short,
        Self::Random,
    ];
}

/// Kinds of faults, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Groups,
    OneWay,
    Mesh,
    Bridge,
    Swizzle,
    Crash,
    Pause,
    Doze,
    Slow,
    Lag,
    Narrow,
    Leave,
    Clock,
    Diverge,
    Reset,
    Garble,
}

impl Fault {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Cut { shape, .. } => match shape {
                Cut::Groups => Kind::Groups,
                Cut::OneWay => Kind::OneWay,
                Cut::Mesh => Kind::Mesh,
                Cut::Bridge => Kind::Bridge,
                Cut::Swizzle => Kind::Swizzle,
            },
            Self::Crash { .. } => Kind::Crash,
            Self::Pause { .. } => Kind::Pause,
            Self::Doze { .. } => Kind::Doze,
            Self::Slow { .. } => Kind::Slow,
            Self::Lag { .. } => Kind::Lag,
            Self::Narrow { .. } => Kind::Narrow,
            Self::Leave { .. } => Kind::Leave,
            Self::ClockAhead { .. } => Kind::Clock,
            Self::Diverge { .. } => Kind::Diverge,
            Self::Reset { .. } => Kind::Reset,
            Self::Garble { .. } => Kind::Garble,
        }
    }

    /// Until when it lasts, having struck at `at`.
    pub(crate) fn until(&self, at: Time) -> Time {
        match self {
            Self::Cut { until, .. }
            | Self::Pause { until, .. }
            | Self::Doze { until, .. }
            | Self::Slow { until, .. }
            | Self::Lag { until, .. }
            | Self::Narrow { until, .. } => *until,
            Self::Leave { down, .. } => at + *down,
            Self::Crash { restart, .. } => restart.unwrap_or(Time::from_millis(HEAL_MS)),
            Self::ClockAhead { .. }
            | Self::Diverge { .. }
            | Self::Reset { .. }
            | Self::Garble { .. } => at,
        }
    }
}

/// How many kinds of faults are in force at once, at the worst moment; messages that are lost, doubled or overtaken are one.
pub(crate) fn kinds_at_once(faults: &[(Time, Fault)], chaos: bool) -> usize {
    let kinds_at = |now: Time| {
        let active = faults
            .iter()
            .filter(|(at, fault)| *at <= now && now <= fault.until(*at));
        let kinds: BTreeSet<Kind> = active.map(|(_, fault)| fault.kind()).collect();
        kinds.len()
    };
    let most = faults.iter().map(|(at, _)| kinds_at(*at)).max();
    most.unwrap_or(0) + usize::from(chaos)
}

/// The faults of a run.
pub(super) fn faults(rng: &mut StdRng, nodes: usize) -> Vec<(Time, Fault)> {
    let (any, short) = (span(rng), span(rng));
    let mut faults = vec![crash(rng, nodes, short)];
    faults.extend(cut(rng, nodes, any));
    if rng.random_bool(0.85) {
        // Several kinds around one moment.
        let moment_ms = rng.random_range(FIRST_FAULT_MS + 1_000..HEAL_MS - 1_500);
        let mut kinds = [0, 1, 2, 3, 4, 5, 6, 7, 8];
        kinds.shuffle(rng);
        let count = rng.random_range(3..=4);
        for kind in kinds.iter().take(count) {
            let from = moment_ms - rng.random_range(0..1_000);
            let until = moment_ms + rng.random_range(100..2_500);
            let lasts = (Time::from_millis(from), heal_at_latest(until));
            faults.extend(one(rng, nodes, *kind, lasts));
        }
    } else {
        for _ in 0..rng.random_range(0..=2) {
            let (kind, lasts) = (rng.random_range(0..9), span(rng));
            faults.extend(one(rng, nodes, kind, lasts));
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn one(rng: &mut StdRng, nodes: usize, kind: usize, lasts: (Time, Time)) -> Vec<(Time, Fault)> {
    let (at, until) = lasts;
    let node = rng.random_range(0..nodes);
    let millis = |rng: &mut StdRng, range| Duration::from_millis(rng.random_range(range));
    let fault = match kind {
        0 => return cut(rng, nodes, lasts),
        1 => return vec![crash(rng, nodes, lasts)],
        2 => return swizzle(rng, nodes, lasts),
        3 => Fault::Pause { node, until },
        4 => Fault::Doze {
            node,
            run: millis(rng, 5..100),
            pause: millis(rng, 20..400),
            until,
        },
        5 => Fault::Slow {
            node,
            delay: millis(rng, 20..600),
            until,
        },
        6 => Fault::ClockAhead { node },
        7 => {
            let (a, b) = pair(rng, nodes);
            Fault::Reset { a, b }
        }
        _ => return garble(rng, nodes, lasts),
    };
    vec![(at, fault)]
}

pub(super) fn diverge(rng: &mut StdRng, nodes: usize) -> (Time, Fault) {
    let (at, _) = span(rng);
    let fault = Fault::Diverge {
        node: rng.random_range(0..nodes),
        key: rng.random_range(0..KEYS),
        remove: rng.random_bool(0.5),
    };
    (at, fault)
}

/// One node is cut off for longer than removals are remembered.
pub(super) fn isolation(nodes: usize, isolated: usize) -> (Time, Fault) {
    let fault = Fault::Cut {
        shape: Cut::Groups,
        links: links_of(nodes, isolated),
        until: Time::from_millis(ISOLATED_MS.1),
    };
    (Time::from_millis(ISOLATED_MS.0), fault)
}

/// One node stops, and what it is sent meanwhile waits in its buffers.
pub(super) fn long_pause(rng: &mut StdRng, nodes: usize) -> (Time, Fault) {
    let at = Time::from_millis(rng.random_range(FIRST_FAULT_MS..HEAL_MS));
    let node = rng.random_range(0..nodes);
    let until = at + LONG_PAUSE;
    (at, Fault::Pause { node, until })
}

fn links_of(nodes: usize, node: usize) -> Vec<(usize, usize)> {
    let others = (0..nodes).filter(|other| *other != node);
    others
        .flat_map(|other| [(node, other), (other, node)])
        .collect()
}

fn span(rng: &mut StdRng) -> (Time, Time) {
    let from_ms = rng.random_range(FIRST_FAULT_MS..HEAL_MS - 1_500);
    let until_ms = from_ms + rng.random_range(100..6_000);
    (Time::from_millis(from_ms), heal_at_latest(until_ms))
}

fn heal_at_latest(ms: u64) -> Time {
    Time::from_millis(ms.min(HEAL_MS))
}

pub(super) fn pair(rng: &mut StdRng, nodes: usize) -> (usize, usize) {
    let a = rng.random_range(0..nodes);
    (a, (a + rng.random_range(1..nodes)) % nodes)
}

pub(super) fn cut(rng: &mut StdRng, nodes: usize, (at, until): (Time, Time)) -> Vec<(Time, Fault)> {
    let shape = *[
        Cut::Groups,
        Cut::Groups,
        Cut::OneWay,
        Cut::Mesh,
        Cut::Bridge,
    ]
    .choose(rng)
    .unwrap_or(&Cut::Groups);
    let mut order: Vec<usize> = (0..nodes).collect();
    order.shuffle(rng);
    let parted = match shape {
        // The last one sees both.
        Cut::Bridge => &order[..nodes - 1],
        Cut::Mesh => &order[..2],
        _ => &order[..],
    };
    let (left, right) = parted.split_at(rng.random_range(1..parted.len()));
    let across = left
        .iter()
        .flat_map(|a| right.iter().map(move |b| (*a, *b)));
    let links = match shape {
        Cut::OneWay => across.collect(),
        _ => across.flat_map(|(a, b)| [(a, b), (b, a)]).collect(),
    };
    let fault = Fault::Cut {
        shape,
        links,
        until,
    };
    vec![(at, fault)]
}

/// Nodes are cut off one after the other, and come back in another order. Several short faults where no single cut is long.
fn swizzle(rng: &mut StdRng, nodes: usize, (at, until): (Time, Time)) -> Vec<(Time, Fault)> {
    let mut order: Vec<usize> = (0..nodes).collect();
    order.shuffle(rng);
    order.truncate(rng.random_range(2..=nodes));
    let lasts_ms = (until - at).as_millis().max(4);
    let lasts_ms = u64::try_from(lasts_ms).unwrap_or(u64::MAX);
    let one = |node: &usize| {
        let begins = at + Duration::from_millis(rng.random_range(0..lasts_ms / 2));
        let ends = until.min(begins + Duration::from_millis(rng.random_range(1..lasts_ms)));
        let fault = Fault::Cut {
            shape: Cut::Swizzle,
            links: links_of(nodes, *node),
            until: ends,
        };
        (begins, fault)
    };
    order.iter().map(one).collect()
}

/// Several times within the span.
fn garble(rng: &mut StdRng, nodes: usize, (at, until): (Time, Time)) -> Vec<(Time, Fault)> {
    let lasts_ms = u64::try_from((until - at).as_millis()).unwrap_or(1).max(1);
    let times = rng.random_range(1..=4);
    let one = |_| {
        let at = at + Duration::from_millis(rng.random_range(0..lasts_ms));
        let (from, to) = pair(rng, nodes);
        let how = *Garbage::ALL.choose(rng).unwrap_or(&Garbage::Kind);
        (at, Fault::Garble { from, to, how })
    };
    (0..times).map(one).collect()
}

fn crash(rng: &mut StdRng, nodes: usize, (at, _): (Time, Time)) -> (Time, Fault) {
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
    let fault = Fault::Crash {
        node,
        silent,
        restart,
        clock_offset_ms: rng.random_range(-150..=150),
    };
    (at, fault)
}
