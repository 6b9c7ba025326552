//! Whom a node is connected to when there are too many members for a full mesh, and who is responsible for whom in a broadcast.
//!
//! ```text
//!        me ──┬─▶ successor ─▶ ...            every member has a place on a ring of 2^64, a hash of its id
//!             ├─▶ one of (me + 2^k, me + 2^k+1)      a link for each k that has a member
//!             └─▶ ...
//! ```
//!
//! **Links** are a pure function of the membership: the next members on the ring, and of each stretch between two powers of two one
//! that a hash of both ids chooses. So a member that comes or goes changes the links of about log n others and of nobody else, and
//! every member is chosen by about as many (the first of each stretch, as in Chord, would be chosen by as many as its gap is wide).
//!
//! **Broadcast** splits the ring: whoever is responsible for a range sends to each link in it, and makes it responsible for what lies
//! between it and the next link. Each member gets an update once, after at most about log n hops, and every origin has a tree of its own. No
//! tree is kept: a range is a place on the ring, and travels with the update.
//!
//! Sources: Stoica et al., "Chord", SIGCOMM 2001; El-Ansary et al., "Efficient Broadcast in Structured P2P Networks", IPTPS 2003. Why
//! this and not Plumtree: decision record 0011.

use nearcache_store::NodeId;

/// Members next on the ring that are always linked: two, so that one may fail without tearing the ring.
const SUCCESSORS: usize = 2;

/// A place on the ring.
pub type Place = u64;

/// Where a member stands on the ring.
#[must_use]
pub const fn place_of(node: NodeId) -> Place {
    mix(node.as_u64())
}

/// How far ahead of `from` a place is, going round.
#[must_use]
pub const fn distance(from: Place, to: Place) -> u64 {
    to.wrapping_sub(from)
}

/// The members that `me` opens connections to, in the order of their ids; about log2 of their number and one.
///
/// Cost: O(members), no allocation beyond the answer.
#[must_use]
pub fn links(me: NodeId, members: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let here = place_of(me);
    let mut chosen: [Option<(u64, NodeId)>; 64] = [None; 64];
    let mut next: [Option<(u64, NodeId)>; SUCCESSORS] = [None; SUCCESSORS];
    for node in members {
        let ahead = distance(here, place_of(node));
        let Some(stretch) = ahead.checked_ilog2() else {
            // This node itself: no two members share a place.
            continue;
        };
        let score = mix(me.as_u64().rotate_left(32) ^ node.as_u64());
        if let Some(slot) = chosen.get_mut(stretch as usize)
            && slot.is_none_or(|best| (score, node) > best)
        {
            *slot = Some((score, node));
        }
        let mut candidate = (ahead, node);
        for slot in &mut next {
            match slot {
                Some(nearer) if *nearer <= candidate => {}
                Some(further) => std::mem::swap(further, &mut candidate),
                None => {
                    *slot = Some(candidate);
                    break;
                }
            }
        }
    }
    let mut links: Vec<NodeId> = chosen
        .into_iter()
        .chain(next)
        .flatten()
        .map(|(_, node)| node)
        .collect();
    links.sort_unstable();
    links.dedup();
    links
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection, so that two ids never share a place.
const fn mix(id: u64) -> u64 {
    let mut x = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn members(n: u64) -> Vec<NodeId> {
        (1..=n).map(|id| NodeId::from_u64(id * 7_919)).collect()
    }

    /// Both ways: who is linked is connected.
    fn connections(members: &[NodeId]) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let mut connections: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for me in members {
            for link in links(*me, members.iter().copied()) {
                connections.entry(*me).or_default().insert(link);
                connections.entry(link).or_default().insert(*me);
            }
        }
        connections
    }

    /// Sends to all by splitting; returns how often each was reached and after how many hops.
    fn broadcast(
        connections: &BTreeMap<NodeId, BTreeSet<NodeId>>,
        origin: NodeId,
    ) -> BTreeMap<NodeId, Vec<u32>> {
        let mut reached: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
        let mut pending = vec![(origin, u64::MAX, 0)];
        while let Some((me, range, hops)) = pending.pop() {
            let here = place_of(me);
            let mut ahead: Vec<_> = connections[&me]
                .iter()
                .map(|link| (distance(here, place_of(*link)), *link))
                .filter(|(ahead, _)| *ahead < range)
                .collect();
            ahead.sort_unstable();
            for (n, (at, link)) in ahead.iter().enumerate() {
                let end = ahead.get(n + 1).map_or(range, |(next, _)| *next);
                reached.entry(*link).or_default().push(hops + 1);
                pending.push((*link, end - at, hops + 1));
            }
        }
        reached
    }

    #[test]
    fn every_member_is_reached_exactly_once_from_every_origin_within_twice_log_n_hops() {
        for n in [2, 3, 10, 60, 200, 1_000] {
            let members = members(n);
            let connections = connections(&members);
            for origin in members.iter().step_by(1 + members.len() / 20) {
                let reached = broadcast(&connections, *origin);
                assert_eq!(reached.len() as u64, n - 1);
                assert!(reached.values().all(|hops| hops.len() == 1));
                let deepest = reached.values().flatten().max().unwrap();
                assert!(
                    *deepest <= 2 * (u64::BITS - n.leading_zeros()),
                    "{n} members, {deepest} hops"
                );
            }
        }
    }

    #[test]
    fn links_grow_with_the_logarithm_of_the_members_and_are_shared_out_evenly() {
        for (n, most) in [(60, 24), (200, 28), (1_000, 36)] {
            let connections = connections(&members(n));
            let total: usize = connections.values().map(BTreeSet::len).sum();
            let widest = connections.values().map(BTreeSet::len).max().unwrap();
            let mean = total as u64 / n;
            assert!(mean <= 2 * u64::from(n.ilog2()) + 3, "{n}: {mean}");
            assert!(widest <= most, "{n}: {widest}");
        }
    }

    #[test]
    fn a_member_that_goes_changes_the_links_of_a_few_others() {
        let members = members(1_000);
        let gone = members[500];
        let left: Vec<_> = members.iter().copied().filter(|id| *id != gone).collect();
        let changed = left
            .iter()
            .filter(|me| links(**me, members.clone()) != links(**me, left.clone()))
            .count();
        assert!(changed <= 30, "{changed}");
    }
}
