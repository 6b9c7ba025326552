//! Whom to ask next, of more members than can be asked about one probe.
//!
//! Members are drawn in an order that looks random and that follows from the writer, the round and the member alone; each once in a
//! round. So everybody has its turn within as many probes as it takes, other writers draw others, and a run can be replayed.

use std::hash::Hasher as _;

use nearcache_store::NodeId;
use siphasher::sip::SipHasher24;

/// Where the drawing stands.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    round: u64,
    /// The place in the round's order of the member that was drawn last.
    drawn: Option<u64>,
}

impl Rotation {
    /// The next `count` of `members`, or all if there are fewer. Cost: O(members log members), allocates.
    pub(super) fn draw(&mut self, writer: NodeId, members: &[NodeId], count: usize) -> Vec<NodeId> {
        let mut drawn = Vec::new();
        // What is left of this round, then of the next.
        for _ in 0..2 {
            let round = self.round;
            let ordered = members
                .iter()
                .map(|member| (place(writer, round, *member), *member));
            let left = |(place, _): &(u64, NodeId)| self.drawn.is_none_or(|drawn| *place > drawn);
            let mut left: Vec<_> = ordered.filter(left).collect();
            left.retain(|(_, member)| !drawn.contains(member));
            left.sort_unstable();
            let is_enough = left.len() >= count - drawn.len();
            left.truncate(count - drawn.len());
            self.drawn = left.last().map(|(place, _)| *place).or(self.drawn);
            drawn.extend(left.into_iter().map(|(_, member)| member));
            if is_enough {
                break;
            }
            self.round += 1;
            self.drawn = None;
        }
        drawn
    }
}

fn place(writer: NodeId, round: u64, member: NodeId) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(writer.as_u64(), round);
    hasher.write_u64(member.as_u64());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn members(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::from_u64).collect()
    }

    #[test]
    fn everybody_has_its_turn_in_every_round_and_rounds_differ() {
        let (members, writer) = (members(100), NodeId::from_u64(7));
        let mut rotation = Rotation::default();
        let mut rounds = Vec::new();
        for _ in 0..4 {
            let mut seen = Vec::new();
            for _ in 0..10 {
                seen.extend(rotation.draw(writer, &members, 10));
            }
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 100);
            rounds.push(seen);
        }
        assert!(rounds.windows(2).all(|pair| pair[0] != pair[1]));
        let other = Rotation::default().draw(NodeId::from_u64(8), &members, 10);
        assert_ne!(other, rounds[0][..10]);
    }

    #[test]
    fn nobody_is_drawn_twice_at_once_however_few_there_are() {
        for count in 0..40 {
            let members = members(count);
            let mut rotation = Rotation::default();
            for _ in 0..50 {
                let drawn = rotation.draw(NodeId::from_u64(1), &members, 16);
                let once: BTreeSet<_> = drawn.iter().collect();
                assert_eq!(
                    (once.len(), drawn.len()),
                    (drawn.len(), members.len().min(16))
                );
            }
        }
    }

    #[test]
    fn members_that_come_have_their_turn_and_those_that_go_are_not_drawn() {
        let mut rotation = Rotation::default();
        let writer = NodeId::from_u64(1);
        rotation.draw(writer, &members(100), 16);
        let fewer = members(50);
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            seen.extend(rotation.draw(writer, &fewer, 16));
        }
        assert_eq!(seen, fewer.into_iter().collect());
    }
}
