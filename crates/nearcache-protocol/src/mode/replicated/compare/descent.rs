//! Top-down: sums of ever smaller ranges, then lists of the leaves that differ. Both sides of the asking; what is listed is `lists`.

use std::collections::BTreeSet;

use nearcache_store::{LeafRange, LeafSet, NodeId};

use super::{Comparison, Stage, anti_entropy};
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
/// Leaves that one check has listed. The rest waits for the next one, so that a cache whose leaves always differ because it evicts
/// costs a bounded share of the network (guess: some thousands of keys).
const CHECKED_LEAVES_MAX: usize = 256;

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

    /// Takes in a peer's group invalidations; those that are about to be forgotten would be dug up again.
    pub(in crate::mode::replicated) fn apply_floors(
        &mut self,
        now: Time,
        from: NodeId,
        mut floors: Vec<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        floors.retain(|floor| self.store.is_remembered(floor.version()));
        self.apply_all(now, from, floors, out)
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
            comparison.bits = comparison.bits.min(answer.own_bits);
            comparison.ready = answer.ready;
            comparison.progress = Some(answer.progress);
        }
        comparison.floors_differ |= answer.floors_differ;
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
        let deep_enough = depth >= comparison.bits
            || (found.len() >= LIST_FROM_PARTS && found.len() * 2 > looked_at);
        let at_once = comparison.mends() || comparison.hands_over();
        if found.is_empty() || (deep_enough && at_once) {
            self.exchange(now, depth, found, out);
        } else if deep_enough {
            let until = now + self.config.compare_confirm_after;
            comparison.stage = Stage::Waiting {
                until,
                leaves: found,
            };
        } else {
            comparison.descend(depth, found);
            self.send_sums(out);
        }
    }

    /// Looks once more at leaves that differed.
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
        let floors_differ = self
            .compare
            .current
            .as_ref()
            .is_some_and(|c| c.floors_differ);
        if leaves.is_empty() && !floors_differ {
            self.finish_comparison(now, out);
            return;
        }
        let hands_over = self
            .compare
            .current
            .as_ref()
            .is_some_and(Comparison::hands_over);
        if hands_over {
            // Where something was forgotten for want of room, two nodes differ for ever.
            leaves.retain(|prefix| {
                !self.store.digest_is_lossy(LeafRange {
                    bits,
                    prefix: *prefix,
                })
            });
            if leaves.is_empty() && !floors_differ {
                self.finish_comparison(now, out);
                return;
            }
        } else if !self.compare.is_mending() && leaves.len() > CHECKED_LEAVES_MAX {
            // Those first that have no reason to differ; another part of the others each time.
            let turn = usize::try_from(self.compare.count).unwrap_or(0) * CHECKED_LEAVES_MAX;
            let len = leaves.len();
            leaves.rotate_left(turn % len);
            leaves.sort_by_key(|prefix| {
                self.store.digest_is_lossy(LeafRange {
                    bits,
                    prefix: *prefix,
                })
            });
            leaves.truncate(CHECKED_LEAVES_MAX);
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

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
