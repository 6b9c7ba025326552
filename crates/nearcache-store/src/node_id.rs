//! Who a node is: [`NodeId`], the second half of every version.

use std::fmt;

/// Identity of a node, as long-lived as the node's identity itself.
///
/// Prints as sixteen hexadecimal digits, in the order of its big-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(u64);

impl NodeId {
    /// The node with this number.
    #[must_use]
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number of this node.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::NodeId;

    #[test]
    fn prints_as_sixteen_hexadecimal_digits() {
        assert_eq!(NodeId::from_u64(0x2a).to_string(), "000000000000002a");
    }
}
