//! What does not end when the faults end: progress must not need everything to be whole.
//!
//! A run has two phases. Under faults nothing may go wrong (safety). Then a core of the cluster is healed, while what lies outside the core stays
//! as broken as can be, for good; the core must agree, take writes and answer within bounds (liveness).

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

/// What lasts once the faults have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing: all is whole.
    Whole,
    /// Of the nodes that run then, the first of these are outside the core, each in its way; most stay in it.
    Core(Vec<(usize, Rest)>),
    /// The two never see each other, all others see both: everything must reach all nevertheless.
    Mesh(usize, usize),
}

/// What is the matter with a node outside the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It dies, and nobody is told.
    Dead,
    /// It hangs.
    Hung,
    /// Nothing passes between it and anybody.
    CutOff,
    /// Nothing of it arrives anywhere.
    Mute,
    /// Nothing arrives at it.
    Deaf,
    /// One node of the core sees it, the others do not.
    Bridged,
    /// It runs and hangs in turn.
    Dozing,
}

impl Rest {
    pub(super) const ALL: &[Self] = &[
        Self::Dead,
        Self::Hung,
        Self::CutOff,
        Self::Mute,
        Self::Deaf,
        Self::Bridged,
        Self::Dozing,
    ];
}

impl After {
    /// Whether what lasts can leave behind what no progress claims, so that only comparing finds it: somebody is heard by some, or
    /// now and then. Who is simply gone must be made up for without.
    pub(crate) fn strands(&self) -> bool {
        let half_gone =
            |how: &Rest| matches!(how, Rest::Mute | Rest::Deaf | Rest::Bridged | Rest::Dozing);
        match self {
            Self::Whole => false,
            Self::Mesh(..) => true,
            Self::Core(outside) => outside.iter().any(|(_, how)| half_gone(how)),
        }
    }

    pub(super) fn draw(rng: &mut StdRng, nodes: usize) -> Self {
        let mut order: Vec<usize> = (0..nodes).collect();
        order.shuffle(rng);
        let how = *Rest::ALL.choose(rng).unwrap_or(&Rest::Dead);
        let outside = rng.random_range(1..=(nodes - 1) / 2);
        match rng.random_range(0..10) {
            0..=5 => Self::Whole,
            6..=8 => Self::Core(order.into_iter().take(outside).map(|n| (n, how)).collect()),
            _ => Self::Mesh(order[0], order[1]),
        }
    }
}
