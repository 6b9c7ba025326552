//! Durations and sizes as people write them: `500ms`, `1h`, `64MiB`.
//!
//! Text comes in from the configuration file, the environment and flags; typed values go out, or a
//! [`UnitError`] that says what to write instead. A bare number is always refused: `5` of what?

use std::time::Duration;

/// The longest duration accepted anywhere: ten years.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Why a text is not a duration or size, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// There is a number but no unit.
    #[error("unit missing")]
    Missing {
        /// The number as written.
        number: String,
    },
    /// The unit is not one of ours.
    #[error("unknown unit `{unit}`")]
    Unknown {
        /// The unit as written.
        unit: String,
    },
    /// There is no number, or it has a sign, or it is not finite.
    #[error("not a number with a unit")]
    NotANumber,
    /// The number does not fit.
    #[error("too large")]
    TooLarge,
}

/// Units of time, in nanoseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of size, in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads `500ms`, `1.5s`, `2h`; units are ns, us, ms, s, m, h, d.
///
/// # Errors
/// A [`UnitError`] when there is no unit, no such unit, no number, or more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let nanos = parse(text, TIME_UNITS)?;
    let duration = Duration::from_nanos(nanos);
    if duration > LONGEST {
        Err(UnitError::TooLarge)
    } else {
        Ok(duration)
    }
}

/// Reads `64MiB`, `1.5GB`, `512B`; returns bytes.
///
/// # Errors
/// A [`UnitError`] when there is no unit, no such unit, no number, or more than 2^63 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZE_UNITS)
}

/// Writes a duration the way [`parse_duration`] reads it, in the largest unit that is exact.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show(duration.as_nanos(), TIME_UNITS, "0s")
}

/// Writes a size the way [`parse_size`] reads it, in the largest binary unit that is exact.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let binary: Vec<_> = SIZE_UNITS
        .iter()
        .copied()
        .filter(|(name, _)| *name == "B" || name.contains('i'))
        .collect();
    show(u128::from(bytes), &binary, "0B")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    if number.is_empty() || number.starts_with('.') || number.ends_with('.') {
        return Err(UnitError::NotANumber);
    }
    if unit.is_empty() {
        return Err(UnitError::Missing {
            number: number.to_owned(),
        });
    }
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unknown {
            unit: unit.chars().take(16).collect(),
        });
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') {
        return Err(UnitError::NotANumber);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let whole = whole.checked_mul(*scale).ok_or(UnitError::TooLarge)?;
    let total = whole
        .checked_add(fraction_of(fraction, *scale))
        .ok_or(UnitError::TooLarge)?;
    if total > i64::MAX as u64 {
        Err(UnitError::TooLarge)
    } else {
        Ok(total)
    }
}

/// `0.digits × scale`, rounded down; digits beyond the twelfth are below any unit's resolution.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let mut numerator: u128 = 0;
    let mut denominator: u128 = 1;
    for digit in digits.bytes().take(12) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    u64::try_from(u128::from(scale) * numerator / denominator).unwrap_or(u64::MAX)
}

fn show(value: u128, units: &[(&str, u64)], zero: &str) -> String {
    units
        .iter()
        .rev()
        .find(|(_, scale)| value >= u128::from(*scale) && value.is_multiple_of(u128::from(*scale)))
        .map_or_else(
            || zero.to_owned(),
            |(name, scale)| format!("{}{name}", value / u128::from(*scale)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, nanos) in [
            ("1ns", 1),
            ("7us", 7_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            ("2 m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("30d", 30 * 86_400_000_000_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("1kB", 1_000),
            ("4KiB", 4_096),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_with_its_reason() {
        assert_eq!(
            parse_duration("5"),
            Err(UnitError::Missing { number: "5".into() })
        );
        assert_eq!(
            parse_duration("5 parsecs"),
            Err(UnitError::Unknown {
                unit: "parsecs".into()
            })
        );
        for text in [
            "", "s", "-5s", "+5s", ".5s", "5.s", "1.2.3s", "NaNs", "infs",
        ] {
            assert_eq!(parse_duration(text), Err(UnitError::NotANumber), "{text:?}");
        }
        for text in ["11y", "4000d", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_size("9999999999TiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for nanos in [0, 1, 1_500_000_000, 90_000_000_000, 86_400_000_000_000] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_000, 4_096, 64 << 20, 3 << 29] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
    }
}
