//! How long something took, in buckets whose width is an eighth of their size.
//!
//! A quantile is the upper end of its bucket, so that it is never told too low, and too high by an eighth at the most.

use std::time::Duration;

/// Buckets per doubling, as a power of two.
const SPLIT_BITS: u32 = 3;
/// 2^37 µs are more than a day.
const BUCKETS: usize = 36 << SPLIT_BITS;

/// Counts of durations, in microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
        }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(us).min(BUCKETS - 1)) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// The time within which this share of all was done; nothing if there is nothing.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a count of probes"
        )]
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += u64::from(*count);
            if below >= rank {
                return Some(Duration::from_micros(upper_us(bucket)));
            }
        }
        None
    }
}

/// Values below 2^SPLIT_BITS have a bucket of their own.
fn bucket(us: u64) -> usize {
    let bits = u64::BITS - us.leading_zeros();
    let Some(shift) = bits.checked_sub(SPLIT_BITS + 1) else {
        return usize::try_from(us).unwrap_or(0);
    };
    let part = (us >> shift) & ((1 << SPLIT_BITS) - 1);
    let part = usize::try_from(part).unwrap_or(0);
    ((shift as usize + 1) << SPLIT_BITS) + part
}

/// The largest value of a bucket.
fn upper_us(bucket: usize) -> u64 {
    let (row, part) = (bucket >> SPLIT_BITS, bucket & ((1 << SPLIT_BITS) - 1));
    match row.checked_sub(1) {
        None => part as u64,
        Some(shift) => (((1 << SPLIT_BITS) + part as u64 + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_ends_at_most_an_eighth_above_it() {
        for us in (0..5_000).chain((0..30).map(|bit| (1 << bit) + 12_345)) {
            let upper = upper_us(bucket(us));
            assert!(upper >= us && upper <= us + us / 8, "{us} {upper}");
        }
    }

    #[test]
    fn a_quantile_is_never_too_low() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for ms in 1..=1_000 {
            histogram.add(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 500), (0.99, 990), (0.999, 999)] {
            let told = histogram.quantile(share).unwrap();
            let exact = Duration::from_millis(ms);
            assert!(
                told >= exact && told <= exact * 9 / 8 + Duration::from_micros(1),
                "{told:?}"
            );
        }
        histogram.add(Duration::MAX);
        assert!(histogram.quantile(1.0).unwrap() > Duration::from_secs(60));
    }
}
