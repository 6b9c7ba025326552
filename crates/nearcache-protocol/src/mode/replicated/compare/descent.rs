//! Top-down: sums of ever smaller ranges, then lists of the leaves that differ. Both sides of the asking; what is listed is `lists`.

use std::collections::BTreeSet;

use nearcache_store::{LeafRange, LeafSet, NodeId, Store};

use super::{Comparison, Purpose, Stage, anti_entropy};
use crate::anti_entropy::AntiEntropy;
use crate::ids::RequestId;
use crate::message::ProgressVector;
use crate::mode::Output;
use crate::mode::replicated::Replicated;
use crate::mode::replicated::peer::Peer;
use crate::mode::stream::Receives as _;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Ranges asked about in one message: 66 KiB of sums.
const BATCH_RANGES: usize = 512;
/// From so many parts on, if they are the most of those looked at, it is cheaper to list them than to look closer (guess).
const LIST_FROM_PARTS: usize = 4_096;
/// Leaves that one exchange names: 256 KiB.
const LEAVES_MAX: usize = 1 << 16;
/// Ranges of each size that one check looks into, and leaves that it has listed, of the store that has more of them. The rest waits for
/// the next ones, so that a cache whose leaves always differ because it evicts costs a bounded share of the network: 128 KiB of sums of
/// each size and some sixteen thousand keys (guess).
const CHECKED_MAX: usize = 1 << 10;

/// An answer to sums, taken out of its message.
pub(in crate::mode::replicated) struct Differs<V> {
    pub(in crate::mode::replicated) batch: u32,
    pub(in crate::mode::replicated) own_bits: u32,
    pub(in crate::mode::replicated) ready: bool,
    pub(in crate::mode::replicated) progress: ProgressVector,
    pub(in crate::mode::replicated) floors_differ: bool,
    pub(in crate::mode::replicated) floors: Vec<Update<V>>,
    pub(in crate::mode::replicated) parts: Vec<u32>,
}

impl<V: Payload> Replicated<V> {
    /// Sends the sums of the next ranges.
    pub(super) fn send_sums(&mut self, out: &mut Vec<Output<V>>) {
        let floors_digest = self.store.floors_digest();
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        let end = comparison.ranges.len().min(comparison.next + BATCH_RANGES);
        let (depth, part_bits) = (comparison.depth, comparison.part_bits);
        let sums = |prefix: u32| {
            let range = LeafRange {
                bits: depth,
                prefix,
            };
            let parts = range.parts(part_bits);
            let sums = parts.map(|part| self.store.digest_sum(part)).collect();
            (prefix, sums)
        };
        let asked = comparison.ranges.get(comparison.next..end);
        let ranges = asked.unwrap_or_default().iter().map(|range| sums(*range));
        let message = AntiEntropy::Compare {
            batch: comparison.batch,
            own_bits: byte(self.store.digest_bits().unwrap_or(0)),
            depth: byte(depth),
            part_bits: byte(part_bits),
            floors_digest,
            ranges: ranges.collect(),
        };
        comparison.next = end;
        let (to, request) = (comparison.with, comparison.request);
        out.push(anti_entropy(to, request, message));
    }

    /// A peer asks which of its sums are others here.
    pub(in crate::mode::replicated) fn on_compare(
        &mut self,
        from: NodeId,
        request: RequestId,
        (batch, depth, part_bits): (u32, u8, u8),
        floors_digest: u64,
        ranges: &[(u32, Vec<u64>)],
        out: &mut Vec<Output<V>>,
    ) {
        if let Some(peer) = self.peers.get_mut(&from)
            && batch == 0
            // One that comes twice is answered again, but its first answer is what counts.
            && peer.told_generation.0 != request
        {
            peer.told_generation = (request, self.store.generation());
        }
        let agrees = self.peers.get(&from).is_some_and(Peer::agrees);
        let Some(own_bits) = self.store.digest_bits().filter(|_| agrees) else {
            return;
        };
        let (depth, part_bits) = (u32::from(depth), u32::from(part_bits));
        if depth + part_bits > own_bits {
            return;
        }
        let mut parts = Vec::new();
        for (prefix, sums) in ranges {
            let range = LeafRange {
                bits: depth,
                prefix: *prefix,
            };
            let others = range.parts(part_bits).zip(sums);
            let differing = others.filter(|(part, sum)| self.store.digest_sum(*part) != **sum);
            parts.extend(differing.map(|(part, _)| part.prefix));
        }
        let floors_differ = floors_digest != self.store.floors_digest();
        let first = batch == 0;
        let message = AntiEntropy::Differs {
            batch,
            own_bits: byte(own_bits),
            ready: self.may_fill_others(),
            progress: if first {
                self.progress.vector(self.own(), self.log.latest())
            } else {
                ProgressVector::default()
            },
            floors_differ,
            floors: if first && floors_differ {
                self.floors_to_tell()
            } else {
                Vec::new()
            },
            parts,
        };
        out.push(anti_entropy(from, request, message));
    }

    pub(in crate::mode::replicated) fn floors_to_tell(&self) -> Vec<Update<V>> {
        let floors = self.store.remembered_floors().into_iter();
        let floors = floors.map(|(scope, version)| Update::Floor { scope, version });
        floors.collect()
    }

    /// Takes in a peer's group invalidations; those that are about to be forgotten would be dug up again. If one that is no longer on
    /// its way was missing here, it may be missing elsewhere.
    pub(in crate::mode::replicated) fn apply_floors(
        &mut self,
        now: Time,
        from: NodeId,
        mut floors: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        if floors.is_empty() {
            return true;
        }
        let known: BTreeSet<_> = self.store.remembered_floors().into_iter().collect();
        floors.retain(|floor| {
            let told = match floor {
                Update::Floor { scope, version } => known.contains(&(scope.clone(), *version)),
                _ => false,
            };
            !told && self.store.is_remembered(floor.version())
        });
        let overdue = |floor: &Update<V>| self.is_overdue(now, floor.version());
        let (overdue, young): (Vec<_>, Vec<_>) = floors.into_iter().partition(overdue);
        let before = self.store.generation();
        let taken = self.apply_all(now, from, overdue, out);
        if self.store.generation() != before {
            self.hurry_checks(now);
        }
        self.apply_all(now, from, young, out) && taken
    }

    /// The parts that differ.
    pub(in crate::mode::replicated) fn on_differs(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        answer: Differs<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let expected = |comparison: &&mut Comparison| {
            let looking = matches!(
                comparison.stage,
                Stage::Descending | Stage::Confirming { .. }
            );
            comparison.is(from, request) && comparison.batch == answer.batch && looking
        };
        let Some(comparison) = self.compare.current.as_mut().filter(expected) else {
            return;
        };
        comparison.moved = now;
        comparison.batch += 1;
        if answer.batch == 0 {
            comparison.fine_bits = comparison.bits.max(answer.own_bits);
            comparison.bits = comparison.bits.min(answer.own_bits);
            comparison.ready = answer.ready;
            comparison.progress = Some(answer.progress);
        }
        // What differed before the peer's were taken in, or was on its way then, no longer does.
        comparison.floors_differ = answer.floors_differ;
        let most = comparison.ranges.len() << comparison.part_bits;
        comparison.differing.extend(answer.parts);
        comparison.differing.truncate(most);
        let refused = !self.apply_floors(now, from, answer.floors, out);
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        comparison.is_partial |= refused;
        if comparison.next < comparison.ranges.len() {
            self.send_sums(out);
        } else {
            self.end_level(now, out);
        }
    }

    /// All ranges of one size are compared: goes on with their parts, or with what to do about them.
    fn end_level(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        let depth = comparison.depth + comparison.part_bits;
        let looked_at = comparison.ranges.len() << comparison.part_bits;
        let mut found = std::mem::take(&mut comparison.differing);
        if let Stage::Confirming { leaves } = &comparison.stage {
            found.retain(|leaf| leaves.contains(leaf));
            self.exchange(now, depth, found, out);
            return;
        }
        let is_check = comparison.purpose == Purpose::Check;
        let deep_enough = depth >= comparison.bits
            || (!is_check && found.len() >= LIST_FROM_PARTS && found.len() * 2 > looked_at);
        let at_once = comparison.mends() || comparison.hands_over();
        let nothing = found.is_empty();
        if (nothing && !comparison.floors_differ) || ((nothing || deep_enough) && at_once) {
            self.exchange(now, depth, found, out);
        } else if nothing || deep_enough {
            let until = now + self.config.compare_confirm_after;
            comparison.stage = Stage::Waiting {
                until,
                leaves: found,
            };
        } else {
            if is_check {
                comparison.turn = take_turn(&mut found, CHECKED_MAX, comparison.turn);
            }
            comparison.descend(depth, found);
            self.send_sums(out);
        }
    }

    /// Looks once more at leaves that differed, and at the group invalidations.
    pub(super) fn confirm(&mut self, now: Time, leaves: Vec<u32>, out: &mut Vec<Output<V>>) {
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        let (depth, part_bits) = (comparison.depth, comparison.part_bits);
        let parents: BTreeSet<u32> = leaves.iter().map(|leaf| leaf >> part_bits).collect();
        comparison.descend(depth, parents.into_iter().collect());
        comparison.part_bits = part_bits;
        comparison.moved = now;
        comparison.stage = Stage::Confirming {
            leaves: leaves.into_iter().collect(),
        };
        self.send_sums(out);
    }

    /// Lists what is known in these leaves to the peer, and asks for its list.
    fn exchange(
        &mut self,
        now: Time,
        mut bits: u32,
        mut leaves: Vec<u32>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        let lossy =
            |store: &Store<V>, prefix: u32| store.digest_is_lossy(LeafRange { bits, prefix });
        match comparison.purpose {
            // Where something was forgotten for want of room, two nodes differ for ever, whether or not one has what the other lacks.
            Purpose::HandOver => {
                let found = leaves.len();
                leaves.retain(|prefix| !lossy(&self.store, *prefix));
                comparison.is_lossy = leaves.len() < found;
            }
            // Those first that have no reason to differ; another part of the others each time.
            Purpose::Check => {
                let most = (CHECKED_MAX >> comparison.fine_bits.saturating_sub(bits)).max(1);
                let is_lossy = |prefix: &u32| lossy(&self.store, *prefix);
                let (mut others, sure): (Vec<_>, Vec<_>) = leaves.into_iter().partition(is_lossy);
                leaves = sure;
                take_turn(&mut leaves, most, comparison.turn);
                let room = most - leaves.len();
                if room > 0 {
                    take_turn(&mut others, room, comparison.turn);
                    leaves.append(&mut others);
                    leaves.sort_unstable();
                }
            }
            Purpose::Mend(_) => {}
        }
        let floors_differ = comparison.floors_differ;
        if leaves.is_empty() && !floors_differ {
            self.finish_comparison(now, out);
            return;
        }
        while leaves.len() > LEAVES_MAX {
            bits -= 1;
            leaves.iter_mut().for_each(|leaf| *leaf >>= 1);
            leaves.sort_unstable();
            leaves.dedup();
        }
        let Some(set) = LeafSet::new(bits, leaves.iter().copied()) else {
            return;
        };
        let floors = if floors_differ {
            self.floors_to_tell()
        } else {
            Vec::new()
        };
        let Some(comparison) = &mut self.compare.current else {
            return;
        };
        comparison.stage = Stage::Exchanging;
        comparison.moved = now;
        comparison.leaves = set.len();
        let (to, request) = (comparison.with, comparison.request);
        let bits = byte(bits);
        let message = AntiEntropy::List {
            bits,
            leaves,
            floors,
        };
        out.push(anti_entropy(to, request, message));
        self.start_list(now, to, request, true, set, out);
    }
}

/// Leaves at most `most` of what was found: another part each turn, so that all have had theirs after as many turns as there are parts.
/// Returns how often that was already, the turn of what is chosen within this part.
fn take_turn(found: &mut Vec<u32>, most: usize, turn: usize) -> usize {
    let most = most.max(1);
    let parts = found.len().div_ceil(most).max(1);
    let first = turn % parts * most;
    found.truncate(first + most);
    found.drain(..first);
    turn / parts
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_found_has_its_turn_and_never_more_than_there_is_room_for() {
        for (len, outer, inner) in [
            (4_096_u32, 64_usize, 16_usize),
            (100, 7, 3),
            (5, 8, 2),
            (1, 1, 1),
        ] {
            let mut seen = BTreeSet::new();
            let turns = 4_096 / outer * outer.div_ceil(inner) + 200;
            for turn in 0..turns {
                let mut found: Vec<u32> = (0..len).collect();
                let rest = take_turn(&mut found, outer, turn);
                assert!(!found.is_empty() && found.len() <= outer);
                take_turn(&mut found, inner, rest);
                assert!(!found.is_empty() && found.len() <= inner);
                seen.extend(found);
            }
            assert!(seen.into_iter().eq(0..len), "{len} {outer} {inner}");
        }
    }
}
