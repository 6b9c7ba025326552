//! Addresses that presented too many wrong tokens, and for how long they are not listened to.
//!
//! A lockout holds for right tokens as well: whoever is told which of many guesses was right has
//! guessed it. What is kept per address is bounded in number and forgotten after a minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Limits;

/// In which time failures of one address are added up.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond it the one whose first failure is oldest is forgotten.
const ADDRESSES_MAX: usize = 1_024;

/// Failed authentications by source address.
///
/// Cost while nobody has failed: one load.
#[derive(Debug)]
pub struct Lockout {
    failures_max: u32,
    lasts: Duration,
    any: AtomicBool,
    by_address: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    first: Instant,
    count: u32,
    locked_until: Option<Instant>,
}

impl Failures {
    fn is_over(self, now: Instant) -> bool {
        match self.locked_until {
            Some(until) => until <= now,
            None => self.first + WINDOW <= now,
        }
    }
}

impl Lockout {
    /// Nobody has failed yet; the bounds are those of `limits`.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            failures_max: limits.authentication_failures_per_address,
            lasts: limits.authentication_lockout,
            any: AtomicBool::new(false),
            by_address: Mutex::default(),
        }
    }

    /// Whether `address` is listened to.
    ///
    /// # Errors
    /// How long it still is not.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let held = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match held
            .get(&network(address))
            .and_then(|failures| failures.locked_until)
        {
            Some(until) if until > now => Err(until - now),
            _ => Ok(()),
        }
    }

    /// `address` presented a wrong token. Tells whether that locked it out just now.
    pub fn failed(&self, address: IpAddr, now: Instant) -> bool {
        let address = network(address);
        let mut held = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.any.store(true, Ordering::Relaxed);
        if held.len() >= ADDRESSES_MAX && !held.contains_key(&address) {
            make_room(&mut held, now);
        }
        let fresh = Failures {
            first: now,
            count: 0,
            locked_until: None,
        };
        let failures = held.entry(address).or_insert(fresh);
        if failures.is_over(now) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count < self.failures_max || failures.locked_until.is_some() {
            return false;
        }
        failures.locked_until = Some(now + self.lasts);
        true
    }
}

fn make_room(held: &mut HashMap<IpAddr, Failures>, now: Instant) {
    held.retain(|_, failures| !failures.is_over(now));
    if held.len() >= ADDRESSES_MAX
        && let Some(oldest) = held
            .iter()
            .min_by_key(|(_, failures)| failures.first)
            .map(|(address, _)| *address)
    {
        held.remove(&oldest);
    }
}

/// What one client can choose its address from: the address itself, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn twenty_failures_a_minute_lock_an_address_out_for_a_minute() {
        let (lockout, start) = (Lockout::new(&Limits::default()), Instant::now());
        for _ in 0..19 {
            assert!(!lockout.failed(address(1), start));
        }
        assert_eq!(lockout.check(address(1), start), Ok(()));
        assert!(lockout.failed(address(1), start + SECOND));
        let left = lockout.check(address(1), start + 2 * SECOND);
        assert_eq!(left, Err(59 * SECOND));
        assert_eq!(lockout.check(address(2), start), Ok(()));
        assert_eq!(lockout.check(address(1), start + 61 * SECOND), Ok(()));
        // It starts from nothing afterwards.
        assert!(!lockout.failed(address(1), start + 61 * SECOND));
    }

    #[test]
    fn failures_that_are_a_minute_apart_do_not_add_up() {
        let (lockout, start) = (Lockout::new(&Limits::default()), Instant::now());
        for round in 0..100_u32 {
            assert!(
                !lockout.failed(address(1), start + round * 10 * SECOND),
                "{round}"
            );
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_fail_together() {
        let (lockout, now) = (Lockout::new(&Limits::default()), Instant::now());
        for host in 0..20_u16 {
            let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 2, 3, host);
            lockout.failed(host.into(), now);
        }
        let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 9, 9, 9, 9);
        assert!(lockout.check(other.into(), now).is_err());
        let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, 9);
        assert!(lockout.check(elsewhere.into(), now).is_ok());
    }

    #[test]
    fn c9_only_so_many_addresses_are_remembered() {
        let (lockout, start) = (Lockout::new(&Limits::default()), Instant::now());
        for number in 0..10_000 {
            lockout.failed(
                address(number),
                start + Duration::from_millis(u64::from(number)),
            );
        }
        let held = lockout.by_address.lock().unwrap();
        assert_eq!(held.len(), ADDRESSES_MAX);
        assert!(held.contains_key(&address(9_999)) && !held.contains_key(&address(0)));
    }
}
