//! When an entry is loaded anew before it expires, by chance: the closer the expiry and the longer a load takes, the more
//! likely. Many readers so refresh it once or twice ahead of time instead of all at once afterwards.
//!
//! Source: Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015, algorithm
//! XFetch: refresh if `now - delta * beta * ln(random) >= expiry`.

use std::time::Duration;

/// The chance of a refresh before this many times `beta * delta` is below 10⁻⁹: nobody need draw a number.
const FACTOR_MAX: u32 = 21;

/// How long before an expiry a number has to be drawn at all.
#[must_use]
pub fn window(load_takes: Duration, beta: f64) -> Duration {
    scaled(load_takes, beta).saturating_mul(FACTOR_MAX)
}

/// Whether this reader loads the entry anew, which lives for another `remaining`. `random` is drawn evenly from 0 to 1.
#[must_use]
pub fn is_due(remaining: Duration, load_takes: Duration, beta: f64, random: f64) -> bool {
    let lead = scaled(load_takes, beta).as_secs_f64() * -random.clamp(f64::MIN_POSITIVE, 1.0).ln();
    lead >= remaining.as_secs_f64()
}

fn scaled(load_takes: Duration, beta: f64) -> Duration {
    let factor = if beta.is_finite() {
        beta.clamp(0.0, 1_000.0)
    } else {
        0.0
    };
    load_takes.mul_f64(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: Duration = Duration::from_millis(100);

    #[test]
    fn o6_the_chance_is_that_of_the_paper() {
        // P(refresh with r left) = exp(-r / (beta * delta)).
        for (remaining_ms, beta) in [(50, 1.0), (100, 1.0), (300, 2.0)] {
            let remaining = Duration::from_millis(remaining_ms);
            let due =
                (1..=10_000).filter(|n| is_due(remaining, TAKES, beta, f64::from(*n) / 10_000.0));
            let expected = (-(remaining_ms as f64) / (beta * 100.0)).exp() * 10_000.0;
            assert!((due.count() as f64 - expected).abs() <= 1.0);
        }
    }

    #[test]
    fn nobody_refreshes_outside_the_window_or_with_beta_zero() {
        assert!(!is_due(window(TAKES, 1.0), TAKES, 1.0, 1e-9));
        assert!(!is_due(Duration::from_nanos(1), TAKES, 0.0, 1e-300));
        assert!(is_due(Duration::ZERO, TAKES, 1.0, 0.5), "it has expired");
        assert_eq!(window(TAKES, f64::NAN), Duration::ZERO);
    }
}
