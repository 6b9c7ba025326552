//! Interleaved rounds: ours, peer, ours, peer, so that a change of the machine's load meets both.
//!
//! A measurement gives two closures to [`interleave`]; what comes back are [`Rounds`] of whatever
//! the closures return, from which each figure is taken as [`Pairs`]. The ratio reported is the
//! median of the per-round ratios: a disturbed round then costs one vote and not the mean.

use std::time::{Duration, Instant};

/// Rounds a comparison takes unless told otherwise: the goals ask for at least five.
pub(crate) const DEFAULT_ROUNDS: usize = 5;

/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What both sides returned, round by round.
#[derive(Debug)]
pub(crate) struct Rounds<S> {
    samples: Vec<(S, S)>,
}

impl<S> Rounds<S> {
    /// The figure `pick` of every round.
    pub(crate) fn pairs(&self, pick: impl Fn(&S) -> f64) -> Pairs {
        let mut pairs = Pairs::default();
        for (ours, peer) in &self.samples {
            pairs.push(pick(ours), pick(peer));
        }
        pairs
    }
}

/// Runs `ours` and `peer` in turn, `rounds` times, with progress on stderr: after each round, at most once a second.
///
/// Which side goes first alternates, so that neither always meets the warmer machine.
///
/// # Errors
/// The first error of either closure ends the comparison.
pub(crate) fn interleave<S>(
    what: &str,
    rounds: usize,
    mut ours: impl FnMut() -> anyhow::Result<S>,
    mut peer: impl FnMut() -> anyhow::Result<S>,
) -> anyhow::Result<Rounds<S>> {
    let started = Instant::now();
    let mut told: Option<Instant> = None;
    let mut samples = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let sample = if round % 2 == 0 {
            let ours = ours()?;
            (ours, peer()?)
        } else {
            let peer = peer()?;
            (ours()?, peer)
        };
        samples.push(sample);
        let is_last = round + 1 == rounds;
        if is_last || told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("  {what}: round {} of {rounds}, {seconds:.0} s", round + 1);
            told = Some(Instant::now());
        }
    }
    Ok(Rounds { samples })
}

/// One figure of both sides over the rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    ours: Vec<f64>,
    peer: Vec<f64>,
}

impl Pairs {
    /// A single round, for figures that every run gives alike.
    pub(crate) fn of(ours: f64, peer: f64) -> Self {
        Self {
            ours: vec![ours],
            peer: vec![peer],
        }
    }

    /// Adds one round.
    pub(crate) fn push(&mut self, ours: f64, peer: f64) {
        self.ours.push(ours);
        self.peer.push(peer);
    }

    /// The highest figure of each side alone, for what may not happen in any round.
    pub(crate) fn most(&self) -> Self {
        let most = |side: &[f64]| side.iter().copied().fold(f64::NAN, f64::max);
        Self::of(most(&self.ours), most(&self.peer))
    }

    /// Median of our rounds.
    pub(crate) fn ours_median(&self) -> f64 {
        median(&self.ours)
    }

    /// Median of the peer's rounds.
    pub(crate) fn peer_median(&self) -> f64 {
        median(&self.peer)
    }

    /// Median of the per-round ratios ours / peer.
    pub(crate) fn ratio_median(&self) -> f64 {
        median(&self.ratios())
    }

    /// Smallest and largest per-round ratio; not numbers when there was no round.
    pub(crate) fn ratio_spread(&self) -> (f64, f64) {
        let ratios = self.ratios();
        let fold = |pick: fn(f64, f64) -> f64| ratios.iter().copied().fold(f64::NAN, pick);
        (fold(f64::min), fold(f64::max))
    }

    fn ratios(&self) -> Vec<f64> {
        self.ours
            .iter()
            .zip(&self.peer)
            .map(|(ours, peer)| ours / peer)
            .collect()
    }
}

/// Middle value; the mean of the two middle ones for an even count; not a number for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_per_round_ratios() {
        let mut pairs = Pairs::default();
        for (ours, peer) in [(1.0, 2.0), (10.0, 10.0), (3.0, 4.0)] {
            pairs.push(ours, peer);
        }
        assert!((pairs.ratio_median() - 0.75).abs() < 1e-9);
        assert_eq!(pairs.ratio_spread(), (0.5, 1.0));
    }

    #[test]
    fn the_side_that_goes_first_alternates() -> anyhow::Result<()> {
        let order = std::cell::RefCell::new(Vec::new());
        let side = |name: &'static str| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(1.0)
            }
        };
        interleave("order", 2, side("ours"), side("peer"))?;
        assert_eq!(*order.borrow(), ["ours", "peer", "peer", "ours"]);
        Ok(())
    }
}
