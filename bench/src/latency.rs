//! Latencies of many calls, reduced to the two figures the goals ask for.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Collects latencies with three significant digits.
#[derive(Debug)]
pub(crate) struct Latencies {
    nanos: Histogram<u64>,
}

impl Latencies {
    /// No latencies yet.
    ///
    /// # Errors
    /// Never with the digits we ask for; the histogram's constructor says it can.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            nanos: Histogram::new(3)?,
        })
    }

    /// Adds one.
    ///
    /// # Errors
    /// When it is longer than the histogram can hold, which is centuries.
    pub(crate) fn record(&mut self, latency: Duration) -> anyhow::Result<()> {
        Ok(self.nanos.record(u64::try_from(latency.as_nanos())?)?)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.nanos.len()
    }

    /// Adds those of `other`.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.nanos.add(&other.nanos)?)
    }

    /// Latency that `quantile` of the calls stay below, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 nanoseconds")]
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.nanos.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Median and 99th percentile, in microseconds.
    pub(crate) fn p50_p99_us(&self) -> (f64, f64) {
        (self.quantile_us(0.5), self.quantile_us(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_microseconds() -> anyhow::Result<()> {
        let mut latencies = Latencies::new()?;
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros))?;
        }
        let (p50, p99) = latencies.p50_p99_us();
        assert!((495.0..=505.0).contains(&p50), "{p50}");
        assert!((985.0..=995.0).contains(&p99), "{p99}");
        Ok(())
    }
}
