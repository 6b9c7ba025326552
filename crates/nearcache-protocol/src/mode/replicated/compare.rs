//! The asking side of anti-entropy: finding out, top-down, where this node and a peer differ.
//!
//! ```text
//! due, or something is missing ─▶ Descending ─▶ leaves that differ ─▶ Waiting ─▶ Confirming ─▶ Exchanging ─▶ done
//!                                                     └── something is known to be missing ──────────▲
//! ```
//!
//! One at a time. A *check* is made now and then with one peer after another, in case anything was lost that nobody knows of; what
//! differs must still do so a moment later, because updates are always on their way. A *mending* one takes the place of a transfer where
//! this node holds entries already: at its end all that the peer had applied at its beginning is here, and is claimed as progress.

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_store::{LeafRange, LeafSet, NodeId};

use super::Replicated;
use super::filling::Brought;
use crate::anti_entropy::AntiEntropy;
use crate::config::ReplicationConfig;
use crate::ids::RequestId;
use crate::message::{CacheMessage, ProgressVector};
use crate::mode::stream::Receives as _;
use crate::mode::{Event, Output};
use crate::parts::Parts;
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// Each level looks at sixteen parts of what differs in the one above.
const PART_BITS: u32 = 4;
/// Ranges asked about in one message: 66 KiB of sums.
const BATCH_RANGES: usize = 512;
/// From so many parts on, if they are the most of those looked at, it is cheaper to list them than to look closer (guess).
const LIST_FROM_PARTS: usize = 4_096;
/// Leaves that one exchange names: 256 KiB.
const LEAVES_MAX: usize = 1 << 16;
/// Leaves that one check has listed. The rest waits for the next one, so that a cache whose leaves always differ because it evicts
/// costs a bounded share of the network (guess: some thousands of keys).
const CHECKED_LEAVES_MAX: usize = 256;

/// What is kept between comparisons.
#[derive(Debug, Default)]
pub(super) struct Compare {
    /// When the next check is due.
    next: Time,
    /// With whom the last one was.
    last: Option<NodeId>,
    count: u64,
    /// How many checks are still to follow each other more closely: one with each peer.
    hurried: usize,
    pub(super) current: Option<Comparison>,
}

/// Why a comparison is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// In case anything was lost.
    Check,
    /// Something is known to be missing here: in all parts, or in these, which a transfer has begun to bring.
    Mend(Parts),
    /// This node leaves: the peer shall have all that is here.
    HandOver,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Looking for leaves that differ.
    Descending,
    /// These leaves differed; they will be looked at once more.
    Waiting { until: Time, leaves: Vec<u32> },
    /// Looking at them once more.
    Confirming { leaves: BTreeSet<u32> },
    /// Lists are under way.
    Exchanging,
}

/// One comparison, as its asker sees it.
#[derive(Debug)]
pub(super) struct Comparison {
    with: NodeId,
    request: RequestId,
    purpose: Purpose,
    started: Time,
    /// When something last came.
    moved: Time,
    stage: Stage,
    /// The leaves that both have, as a power of two.
    bits: u32,
    /// How many bits the ranges have that are being looked at, and their parts more.
    depth: u32,
    part_bits: u32,
    ranges: Vec<u32>,
    /// The first range that was not yet asked about, and the message that was sent last.
    next: usize,
    batch: u32,
    /// Parts found to differ.
    differing: Vec<u32>,
    floors_differ: bool,
    ready: bool,
    progress: Option<ProgressVector>,
    /// How many leaves were listed.
    leaves: usize,
    pub(super) updates: u64,
    /// Not all that differs was listed, or something did not arrive: the end must not be claimed.
    pub(super) is_partial: bool,
    /// How many the peer wanted.
    pub(super) sent: u64,
}

impl Comparison {
    pub(super) fn is(&self, with: NodeId, request: RequestId) -> bool {
        self.with == with && self.request == request
    }

    pub(super) fn mends(&self) -> bool {
        matches!(self.purpose, Purpose::Mend(_))
    }

    pub(super) fn hands_over(&self) -> bool {
        self.purpose == Purpose::HandOver
    }

    /// Something came.
    pub(super) fn moves(&mut self, now: Time) {
        self.moved = now;
    }

    fn deadline(&self, config: &ReplicationConfig) -> Time {
        match &self.stage {
            Stage::Waiting { until, .. } => *until,
            // Small messages with nothing before them.
            Stage::Descending | Stage::Confirming { .. } => {
                self.moved + config.replay_retry_after * 2
            }
            Stage::Exchanging => self.moved + config.transfer_stall_after,
        }
    }

    /// Begins to look at parts of `ranges`, which have `depth` bits.
    fn descend(&mut self, depth: u32, ranges: Vec<u32>) {
        self.depth = depth;
        self.part_bits = PART_BITS.min(self.bits.saturating_sub(depth));
        self.ranges = ranges;
        self.next = 0;
        self.differing.clear();
    }
}

impl Compare {
    pub(super) fn is_mending(&self) -> bool {
        self.current.as_ref().is_some_and(Comparison::mends)
    }

    /// Something may differ: checks with so many peers follow each other after `wait` each.
    pub(super) fn hurry(&mut self, now: Time, wait: Duration, peers: usize) {
        self.hurried = peers;
        self.next = self.next.min(now + wait);
    }

    /// Puts the next check off by the usual time, which is never quite the same: nodes that start together must not go on together.
    fn put_off(&mut self, now: Time, me: NodeId, config: &ReplicationConfig) {
        self.count += 1;
        if self.hurried > 0 {
            self.hurried -= 1;
            self.next = now + config.repair_every;
            return;
        }
        if config.compare_every.is_zero() {
            self.next = Time::MAX;
            return;
        }
        let every = config.compare_every;
        let mixed = (me.as_u64() ^ self.count.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let share = u32::try_from(mixed >> 40).unwrap_or(0) / (1 << 14);
        self.next = now + every * 3 / 4 + every * share / 2048;
    }

    pub(super) fn next_deadline(&self, config: &ReplicationConfig) -> Time {
        match &self.current {
            Some(comparison) => comparison.deadline(config),
            None => self.next,
        }
    }
}

impl<V: Payload> Replicated<V> {
    /// Gets what is missing here from `from`: by a comparison if this node has something to compare, else by a transfer.
    pub(super) fn fill(&mut self, now: Time, from: NodeId, out: &mut Vec<Output<V>>) {
        if self.has_data && self.store.digest_bits().is_some() {
            self.compare_with(now, from, Purpose::Mend(Parts::ALL), out);
        } else {
            self.start_filling(now, &[from], false, out);
        }
    }

    /// A comparison in the place of a transfer has ended: all that `from` had applied is here, if it says how much that was.
    fn mended(
        &mut self,
        now: Time,
        from: NodeId,
        progress: Option<ProgressVector>,
        (updates, started, ready): (u64, Time, bool),
        out: &mut Vec<Output<V>>,
    ) {
        let took = now - started;
        self.repair.rest(now, took, &self.config);
        let Some(progress) = progress else {
            out.push(Output::Event(Event::TransferCut { from }));
            return;
        };
        self.progress.raise(&progress, self.own());
        self.has_data = true;
        self.stats.transfers += 1;
        out.push(Output::Event(Event::Filled {
            sources: 1,
            updates,
            bytes: 0,
            took,
        }));
        self.advanced_everywhere(now, out);
        self.joined_from(now, &[from], ready, Vec::new(), out);
    }

    /// Begins a comparison; one that is under way is given up.
    pub(super) fn compare_with(
        &mut self,
        now: Time,
        with: NodeId,
        purpose: Purpose,
        out: &mut Vec<Output<V>>,
    ) {
        let (Some(peer), Some(bits)) = (self.peers.get(&with), self.store.digest_bits()) else {
            return;
        };
        let (told, ready) = (peer.progress.clone(), peer.ready);
        let request = self.next_request();
        let mut comparison = Comparison {
            with,
            request,
            purpose,
            started: now,
            moved: now,
            stage: Stage::Descending,
            bits,
            depth: 0,
            part_bits: 0,
            ranges: Vec::new(),
            next: 0,
            batch: 0,
            differing: Vec::new(),
            floors_differ: false,
            ready,
            progress: None,
            leaves: 0,
            updates: 0,
            is_partial: false,
            sent: 0,
        };
        match purpose {
            Purpose::Mend(parts) if parts != Parts::ALL => {
                comparison.descend(Parts::PREFIX_BITS, parts.numbers().collect());
            }
            _ => comparison.descend(0, vec![0]),
        }
        if comparison.mends() {
            out.push(Output::Event(Event::TransferStarted { from: with }));
        }
        if self.planted.mends_without_comparing() && comparison.mends() {
            comparison.progress = Some(told);
            self.compare.current = Some(comparison);
            self.finish_comparison(now, out);
            return;
        }
        self.compare.current = Some(comparison);
        self.send_sums(out);
    }

    /// Sends the sums of the next ranges.
    fn send_sums(&mut self, out: &mut Vec<Output<V>>) {
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
    pub(super) fn on_compare(
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
        let agrees = self.peers.get(&from).is_some_and(super::Peer::agrees);
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
            ready: self.join.is_ready(),
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

    pub(super) fn floors_to_tell(&self) -> Vec<Update<V>> {
        let floors = self.store.remembered_floors().into_iter();
        let floors = floors.map(|(scope, version)| Update::Floor { scope, version });
        floors.collect()
    }

    /// Takes in a peer's group invalidations; those that are about to be forgotten would be dug up again.
    pub(super) fn apply_floors(
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
    pub(super) fn on_differs(
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
    fn confirm(&mut self, now: Time, leaves: Vec<u32>, out: &mut Vec<Output<V>>) {
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

    /// All is exchanged.
    pub(super) fn finish_comparison(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(comparison) = self.compare.current.take() else {
            return;
        };
        let (with, took) = (comparison.with, now - comparison.started);
        self.compare.put_off(now, self.clock.origin(), &self.config);
        if comparison.updates + comparison.sent > 0 || comparison.floors_differ {
            // Who had it not before may be not the only one.
            self.hurry_checks(now);
        }
        self.stats.comparisons += 1;
        out.push(Output::Event(Event::Compared {
            with,
            differing: comparison.leaves as u64,
            updates: comparison.updates,
            took,
        }));
        if comparison.hands_over() {
            self.leave
                .compared(with, comparison.sent, comparison.is_partial);
            return;
        }
        if let Purpose::Mend(parts) = comparison.purpose {
            let progress = comparison
                .progress
                .filter(|_| !comparison.is_partial || self.planted.mends_without_comparing());
            if let Some(filling) = &mut self.filling {
                filling.came(comparison.updates, 0);
                let brought = Brought {
                    from: with,
                    parts,
                    progress,
                    ready: comparison.ready,
                };
                self.brought(now, brought, out);
                return;
            }
            let mended = (comparison.updates, comparison.started, comparison.ready);
            self.mended(now, with, progress, mended, out);
        }
    }

    /// Gives the comparison up.
    pub(super) fn cut_comparison(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(comparison) = self.compare.current.take() else {
            return;
        };
        self.lists.remove(&(comparison.with, true));
        self.compare.put_off(now, self.clock.origin(), &self.config);
        self.hurry_checks(now);
        if let Purpose::Mend(parts) = comparison.purpose {
            self.share_cut(now, comparison.with, (parts, true), out);
            self.repair(now, out);
        }
    }

    /// Begins a check if one is due, goes on with the current comparison or cuts it.
    pub(super) fn tick_compare(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.compare.next_deadline(&self.config) > now {
            return;
        }
        if let Some(comparison) = &mut self.compare.current {
            if let Stage::Waiting { leaves, .. } = &mut comparison.stage {
                let leaves = std::mem::take(leaves);
                self.confirm(now, leaves, out);
            } else {
                self.cut_comparison(now, out);
            }
            return;
        }
        self.compare.put_off(now, self.clock.origin(), &self.config);
        if !self.join.is_ready()
            || self.is_filling()
            || self.leave.has_begun()
            || self.store.digest_bits().is_none()
        {
            return;
        }
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let mut peers = agreeing.map(|(id, _)| *id);
        let after = self.compare.last.unwrap_or_else(|| self.clock.origin());
        let with = peers
            .clone()
            .find(|id| *id > after)
            .or_else(|| peers.next());
        if let Some(with) = with {
            self.compare.last = Some(with);
            self.compare_with(now, with, Purpose::Check, out);
        }
    }

    /// Whether this node is getting what it is known to lack.
    pub(super) fn is_filling(&self) -> bool {
        self.filling.is_some() || self.compare.is_mending()
    }

    /// The comparison with this peer that we asked for, if the request is that one and lists are under way.
    pub(super) fn exchanging(
        &mut self,
        with: NodeId,
        request: RequestId,
    ) -> Option<&mut Comparison> {
        let current = self.compare.current.as_mut()?;
        (current.is(with, request) && current.stage == Stage::Exchanging).then_some(current)
    }

    pub(super) fn comparison_peer_up(&mut self, now: Time) {
        if self.config.compare_every.is_zero() {
            return;
        }
        // What was missed while it was away, and no stream brings, must not wait for the usual turn.
        self.hurry_checks(now);
    }

    /// What this node knows, or lacks, may be told by no stream: compares with all peers soon.
    pub(super) fn hurry_checks(&mut self, now: Time) {
        let peers = self.peers.len();
        self.compare.hurry(now, self.config.repair_every, peers);
    }

    pub(super) fn comparison_peer_down(
        &mut self,
        now: Time,
        peer: NodeId,
        out: &mut Vec<Output<V>>,
    ) {
        self.lists.retain(|(with, _), _| *with != peer);
        if self
            .compare
            .current
            .as_ref()
            .is_some_and(|c| c.with == peer)
        {
            self.cut_comparison(now, out);
        }
    }
}

/// An answer to sums, taken out of its message.
pub(super) struct Differs<V> {
    pub(super) batch: u32,
    pub(super) own_bits: u32,
    pub(super) ready: bool,
    pub(super) progress: ProgressVector,
    pub(super) floors_differ: bool,
    pub(super) floors: Vec<Update<V>>,
    pub(super) parts: Vec<u32>,
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

pub(super) fn anti_entropy<V>(
    to: NodeId,
    request: RequestId,
    message: AntiEntropy<V>,
) -> Output<V> {
    let message = CacheMessage::AntiEntropy { request, message };
    Output::Send { to, message }
}

#[cfg(test)]
#[path = "compare_test.rs"]
mod tests;
