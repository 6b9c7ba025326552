//! Sequences of keys to ask for: [`Requests`], made before anything is timed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Popularity {
    /// All alike.
    Uniform,
    /// The n-th most popular in proportion to `1 / n^0.99`, as in YCSB.
    Zipf,
}

/// Indexes of keys, in the order of asking.
#[derive(Debug)]
pub(crate) struct Requests(Vec<u32>);

impl Requests {
    /// `count` requests for `keys` keys; popular keys are spread over the indexes. The same seed gives the same ones.
    pub(crate) fn new(popularity: Popularity, keys: u32, count: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let indexes = match popularity {
            Popularity::Uniform => (0..count).map(|_| random.random_range(0..keys)).collect(),
            Popularity::Zipf => {
                let sums: Vec<f64> = (1..=keys)
                    .scan(0.0, |sum, n| {
                        *sum += f64::from(n).powf(-0.99);
                        Some(*sum)
                    })
                    .collect();
                let total = sums.last().copied().unwrap_or(0.0);
                let mut draw = || {
                    let at = random.random_range(0.0..total);
                    let rank = sums.partition_point(|sum| *sum < at);
                    spread(u32::try_from(rank).unwrap_or(0), keys)
                };
                (0..count).map(|_| draw()).collect()
            }
        };
        Self(indexes)
    }

    /// `count` requests from a point that moves on with `round`.
    pub(crate) fn window(&self, round: usize, count: usize) -> &[u32] {
        let start = (round * count) % (self.0.len() - count + 1).max(1);
        &self.0[start..start + count]
    }
}

/// A permutation of `0..keys`, so that neighbouring ranks do not lie side by side.
fn spread(rank: u32, keys: u32) -> u32 {
    // A prime larger than any number of keys used here and dividing none of them.
    u32::try_from(u64::from(rank) * 1_000_000_007 % u64::from(keys)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_asks_for_few_keys_most_of_the_time() {
        let requests = Requests::new(Popularity::Zipf, 10_000, 100_000, 1);
        let mut counts = vec![0_u32; 10_000];
        requests.0.iter().for_each(|key| counts[*key as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = counts[..1000].iter().sum();
        assert!((70_000..80_000).contains(&top), "{top}");
    }
}
