//! Who a node is, as the others know it.
//!
//! The owner makes the node's own [`Identity`]; the handshake and the membership carry it to the others.
//! Where two identities of one `NodeId` meet, the newer one stands: a restart replaces what was before.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use nearcache_store::NodeId;

use crate::ids::Epoch;

/// The most bytes a zone's name may have, so that an identity always fits a membership packet.
pub const ZONE_BYTES_MAX: usize = 64;

/// Where a node runs: a rack, an availability zone. Empty where nobody cares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zone(Option<Arc<str>>);

/// The zone's name is too long. Nothing was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("zone name of {len_bytes} bytes exceeds the limit of {limit_bytes}")]
pub struct ZoneTooLong {
    /// Bytes of the name.
    pub len_bytes: usize,
    /// The most it may have.
    pub limit_bytes: usize,
}

impl Zone {
    /// A zone by its name.
    ///
    /// # Errors
    ///
    /// [`ZoneTooLong`] above [`ZONE_BYTES_MAX`] bytes.
    pub fn new(name: &str) -> Result<Self, ZoneTooLong> {
        if name.len() > ZONE_BYTES_MAX {
            return Err(ZoneTooLong {
                len_bytes: name.len(),
                limit_bytes: ZONE_BYTES_MAX,
            });
        }
        Ok(Self((!name.is_empty()).then(|| Arc::from(name))))
    }

    /// The zone's name; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name())
    }
}

/// A node in one of its starts, with what the others need in order to reach it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Which node.
    pub node: NodeId,
    /// Which of its starts: milliseconds of its wall clock when it started, or more.
    pub epoch: Epoch,
    /// How often it came back within this start after the others had declared it dead.
    pub renewal: u32,
    /// Where peers connect to it.
    pub address: SocketAddr,
    /// Where it runs.
    pub zone: Zone,
}

impl Identity {
    /// The identity of a node that has just started.
    #[must_use]
    pub const fn new(node: NodeId, epoch: Epoch, address: SocketAddr, zone: Zone) -> Self {
        Self {
            node,
            epoch,
            renewal: 0,
            address,
            zone,
        }
    }

    /// Whether this identity stands when both are said of the same node.
    ///
    /// The later start wins, then the later renewal. Address and zone only make the order total, so that
    /// every node decides alike even between identities that should not both exist.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.node == other.node && self > other
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{}.{} {}",
            self.node, self.epoch, self.renewal, self.address
        )?;
        match self.zone.name() {
            "" => Ok(()),
            zone => write!(f, " {zone:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(epoch: u64, renewal: u32) -> Identity {
        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        let node = NodeId::from_u64(1);
        Identity {
            renewal,
            ..Identity::new(node, Epoch::from_u64(epoch), address, Zone::default())
        }
    }

    #[test]
    fn later_start_replaces_any_renewal_of_an_earlier_one() {
        assert!(identity(2, 0).replaces(&identity(1, 9)));
        assert!(identity(1, 1).replaces(&identity(1, 0)));
        assert!(!identity(1, 9).replaces(&identity(2, 0)));
        assert!(!identity(1, 0).replaces(&identity(1, 0)));
    }

    #[test]
    fn another_node_is_never_replaced() {
        let other = Identity {
            node: NodeId::from_u64(2),
            ..identity(1, 0)
        };
        assert!(!identity(9, 0).replaces(&other));
    }

    #[test]
    fn long_zone_is_refused() {
        assert!(Zone::new(&"z".repeat(ZONE_BYTES_MAX)).is_ok());
        let error = Zone::new(&"z".repeat(ZONE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(
            error,
            ZoneTooLong {
                len_bytes: 65,
                limit_bytes: 64
            }
        );
    }
}
