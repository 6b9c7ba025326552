//! The total order of updates: [`Timestamp`] and [`Version`].
//!
//! A version is stamped once, by the origin of an update, and never changes on its way. Comparing
//! two versions decides every conflict; comparing their big-endian bytes gives the same answer.

use std::fmt;

use crate::NodeId;

/// Hybrid logical clock reading: 48 bits of milliseconds since the Unix epoch, 16 bits of counter.
///
/// Source: Kulkarni et al., "Logical Physical Clocks", OPODIS 2014; the layout in 64 bits is that of
/// section 6 of the paper with milliseconds instead of NTP fractions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before every other timestamp.
    pub const ZERO: Self = Self(0);
    /// After every other timestamp.
    pub const MAX: Self = Self(u64::MAX);

    /// Bits of the counter.
    const COUNTER_BITS: u32 = 16;
    /// Largest number of milliseconds that fits: the year 10889.
    const MILLIS_MAX: u64 = u64::MAX >> Self::COUNTER_BITS;

    /// The timestamp of `millis` (milliseconds since the Unix epoch) and `counter`.
    ///
    /// Milliseconds that do not fit in 48 bits (after the year 10889) are taken as the largest that do.
    #[must_use]
    pub const fn from_parts(millis: u64, counter: u16) -> Self {
        let millis = if millis > Self::MILLIS_MAX {
            Self::MILLIS_MAX
        } else {
            millis
        };
        Self((millis << Self::COUNTER_BITS) | counter as u64)
    }

    /// The timestamp with this 64-bit representation, as it travels.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64-bit representation.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The counter that orders updates within a millisecond.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the counter is the low 16 bits"
    )]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// When and where an update was made; 16 bytes, totally ordered, higher wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// When: compared first.
    pub time: Timestamp,
    /// Where: decides between updates of the same timestamp.
    pub origin: NodeId,
}

impl Version {
    /// Lower than every stamped version: the version of "nothing known".
    pub const ZERO: Self = Self {
        time: Timestamp::ZERO,
        origin: NodeId::from_u64(0),
    };

    /// The version stamped at `time` by `origin`.
    #[must_use]
    pub const fn new(time: Timestamp, origin: NodeId) -> Self {
        Self { time, origin }
    }

    /// The highest version below this one; zero is its own.
    #[must_use]
    pub fn before(self) -> Self {
        let bits = u128::from_be_bytes(self.to_bytes());
        Self::from_bytes(bits.saturating_sub(1).to_be_bytes())
    }

    /// Big-endian bytes; their order is the order of versions.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let bits = (u128::from(self.time.as_u64()) << 64) | u128::from(self.origin.as_u64());
        bits.to_be_bytes()
    }

    /// The version with these big-endian bytes.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "splits 128 bits into their two halves"
    )]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self::new(
            Timestamp::from_u64((bits >> 64) as u64),
            NodeId::from_u64(bits as u64),
        )
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.time, self.origin)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_of_bytes_is_order_of_versions(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
            let version = |(t, o)| Version::new(Timestamp::from_u64(t), NodeId::from_u64(o));
            let (a, b) = (version(a), version(b));
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Version::from_bytes(a.to_bytes()), a);
        }
    }

    #[test]
    fn nothing_lies_between_a_version_and_the_one_before_it() {
        let version = |t, o| Version::new(Timestamp::from_u64(t), NodeId::from_u64(o));
        assert_eq!(version(5, 3).before(), version(5, 2));
        assert_eq!(version(5, 0).before(), version(4, u64::MAX));
        assert_eq!(Version::ZERO.before(), Version::ZERO);
    }

    #[test]
    fn timestamp_keeps_millis_above_counter() {
        let t = Timestamp::from_parts(1_700_000_000_000, 7);
        assert_eq!((t.millis(), t.counter()), (1_700_000_000_000, 7));
        assert!(Timestamp::from_parts(2, 0) > Timestamp::from_parts(1, u16::MAX));
    }
}
