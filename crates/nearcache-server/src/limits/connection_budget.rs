//! How many client connections the process holds, over all its listeners.
//!
//! A listener asks for a permit after it accepted and before it reads; the connection keeps the
//! permit and gives it back by dropping it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::Limits;

/// The connections of all listeners of one node, counted together and by source address.
///
/// Cost: one short lock when a connection opens and one when it closes.
#[derive(Debug)]
pub struct ConnectionBudget {
    total_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Only addresses that hold a connection are listed, so the map is bounded by `total_max`.
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not served. The count is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionRefused {
    /// All listeners together hold as many connections as [`Limits::client_connections`].
    #[error("max number of clients reached")]
    Total,
    /// This address holds as many connections as [`Limits::connections_per_address`].
    #[error("max number of clients of this address reached")]
    Address,
}

impl ConnectionBudget {
    /// A budget with the bounds of `limits` and nothing taken from it.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            total_max: limits.client_connections,
            per_address_max: limits.connections_per_address,
            open: Mutex::default(),
        })
    }

    /// Takes one connection from `address` out of the budget; dropping the permit gives it back.
    ///
    /// # Errors
    /// Which bound refuses it. The budget is unchanged.
    pub fn try_acquire(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<ConnectionPermit, ConnectionRefused> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.total_max {
            return Err(ConnectionRefused::Total);
        }
        // Sidecar clients all come from loopback: their number is bounded by the total alone.
        let counted = (!address.to_canonical().is_loopback()).then_some(address);
        if let Some(address) = counted {
            let held = open.by_address.entry(address).or_insert(0);
            if *held >= self.per_address_max {
                return Err(ConnectionRefused::Address);
            }
            *held += 1;
        }
        open.total += 1;
        drop(open);
        Ok(ConnectionPermit {
            budget: Arc::clone(self),
            counted,
        })
    }

    /// Connections open at this moment.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }
}

/// The right to hold one connection; dropping it gives the right back.
#[derive(Debug)]
pub struct ConnectionPermit {
    budget: Arc<ConnectionBudget>,
    counted: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self
            .budget
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(address) = self.counted
            && let Some(held) = open.by_address.get_mut(&address)
        {
            *held -= 1;
            if *held == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn budget(total: usize, per_address: usize) -> Arc<ConnectionBudget> {
        ConnectionBudget::new(&Limits {
            client_connections: total,
            connections_per_address: per_address,
            ..Limits::default()
        })
    }

    #[test]
    fn the_total_bounds_all_addresses_and_a_dropped_permit_frees_a_place() {
        let budget = budget(2, 2);
        let first = budget.try_acquire(LOOPBACK).unwrap();
        let _second = budget.try_acquire(OUTSIDE).unwrap();
        assert_eq!(
            budget.try_acquire(LOOPBACK).unwrap_err(),
            ConnectionRefused::Total
        );
        drop(first);
        assert!(budget.try_acquire(LOOPBACK).is_ok());
    }

    #[test]
    fn one_address_cannot_take_every_place_but_loopback_may() {
        let budget = budget(4, 1);
        let _held = budget.try_acquire(OUTSIDE).unwrap();
        assert_eq!(
            budget.try_acquire(OUTSIDE).unwrap_err(),
            ConnectionRefused::Address
        );
        let _one = budget.try_acquire(LOOPBACK).unwrap();
        let _two = budget.try_acquire(LOOPBACK).unwrap();
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let budget = budget(4, 1);
        drop(budget.try_acquire(OUTSIDE).unwrap());
        assert!(budget.open.lock().unwrap().by_address.is_empty());
    }
}
