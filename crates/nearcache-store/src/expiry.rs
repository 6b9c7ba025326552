//! When an entry stops being served: [`Expiry`], an absolute time of the cluster's clock.

use std::time::Duration;

/// Absolute deadline of an entry, in milliseconds of cluster time (design §6 rule 5).
///
/// An entry is expired from the deadline on: at `now == deadline` it is no longer served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Expiry(u64);

impl Expiry {
    /// No deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// Expires at `millis` of cluster time.
    #[must_use]
    pub const fn at_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Expires `ttl` after `now_ms`; a sum that does not fit is [`Expiry::NEVER`].
    #[must_use]
    pub fn after(now_ms: u64, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self(now_ms.saturating_add(ttl_ms))
    }

    /// The deadline in milliseconds of cluster time; `u64::MAX` means never. As it travels.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Has the deadline passed at `now_ms`?
    #[must_use]
    pub const fn is_expired(self, now_ms: u64) -> bool {
        self.0 <= now_ms && !self.is_never()
    }

    /// Is there no deadline?
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// Time left at `now_ms`: `None` if there is no deadline, zero if it has passed.
    #[must_use]
    pub fn remaining(self, now_ms: u64) -> Option<Duration> {
        (!self.is_never()).then(|| Duration::from_millis(self.0.saturating_sub(now_ms)))
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self::NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_entry_is_expired_from_its_deadline_on() {
        let expiry = Expiry::after(100, Duration::from_millis(50));
        assert!(!expiry.is_expired(149));
        assert!(expiry.is_expired(150));
        assert_eq!(expiry.remaining(140), Some(Duration::from_millis(10)));
        assert_eq!(expiry.remaining(200), Some(Duration::ZERO));
    }

    #[test]
    fn never_does_not_expire_even_at_the_end_of_time() {
        assert!(!Expiry::NEVER.is_expired(u64::MAX));
        assert_eq!(
            Expiry::after(u64::MAX, Duration::from_secs(1)),
            Expiry::NEVER
        );
    }
}
