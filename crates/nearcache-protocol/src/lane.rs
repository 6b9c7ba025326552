//! The three connections between two peers, told apart so that none waits for another.
//!
//! The transport opens one connection per lane; the handshake says on each which lane it is. A state
//! machine names the lane of every message it sends and never learns what carries it.

/// One of the three connections between two peers.
///
/// Order is kept within a lane and promised nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Handshake, membership, heartbeats: small, rare, never behind anything large.
    Control = 0,
    /// Update streams and requests.
    Data = 1,
    /// Transfers and large values, in chunks.
    Bulk = 2,
}

impl Lane {
    /// Every lane, in the order in which a session opens them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Bulk];

    /// The lane's number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lane with this number on the wire, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Data),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_their_numbers_on_the_wire() {
        for (number, lane) in (0_u8..).zip(Lane::ALL) {
            assert_eq!(lane.number(), number);
            assert_eq!(Lane::from_number(number), Some(lane));
        }
        assert_eq!(Lane::from_number(3), None);
    }
}
