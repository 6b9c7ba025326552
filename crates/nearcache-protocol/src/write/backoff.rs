//! How long to wait before a write that failed is tried again: [`Backoff`].

use std::time::Duration;

/// Exponential backoff with jitter.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("equal jitter": half of the wait is fixed, so that a
/// sink that is down is never asked again at once).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter. Default 100 ms (a guess: a restarted connection pool).
    pub first: Duration,
    /// The longest wait, before jitter. Default 30 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The wait after so many failures in a row, at least one; `draw` is a random number from 0 to 1.
    #[must_use]
    pub fn after(&self, failures: u32, draw: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        let half = full / 2;
        half + half.mul_f64(draw.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_half_of_each_is_chance() {
        let backoff = Backoff::default();
        let ms = Duration::from_millis;
        assert_eq!(backoff.after(1, 0.0), ms(50));
        assert_eq!(backoff.after(1, 1.0), ms(100));
        assert_eq!(backoff.after(4, 1.0), ms(800));
        assert_eq!(backoff.after(u32::MAX, 1.0), backoff.max);
        assert_eq!(backoff.after(u32::MAX, 0.0), backoff.max / 2);
    }
}
