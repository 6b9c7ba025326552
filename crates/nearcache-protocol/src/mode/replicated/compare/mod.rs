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
//!
//! Here: what a comparison is, when one is made, and what follows from its end; `descent` finds what differs.

mod descent;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_store::{NodeId, Version};

pub(super) use self::descent::Differs;
use super::Replicated;
use super::filling::Brought;
use crate::anti_entropy::AntiEntropy;
use crate::config::ReplicationConfig;
use crate::ids::RequestId;
use crate::message::{CacheMessage, ProgressVector};
use crate::mode::{Event, Output};
use crate::parts::Parts;
use crate::payload::Payload;
use crate::time::Time;

/// Each level looks at sixteen parts of what differs in the one above.
const PART_BITS: u32 = 4;
/// What is kept between comparisons.
#[derive(Debug, Default)]
pub(super) struct Compare {
    /// When the next check is due.
    next: Time,
    /// With whom the last one was.
    last: Option<NodeId>,
    count: u64,
    /// How often all peers were checked: each has its turn of what is too much for one check.
    turn: usize,
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
    /// The leaves of the one that has more.
    fine_bits: u32,
    /// Which part of what differs is looked at, if it is too much.
    turn: usize,
    /// How many bits the ranges have that are being looked at, and their parts more.
    depth: u32,
    part_bits: u32,
    ranges: Vec<u32>,
    /// The first range that was not yet asked about, and the message that was sent last.
    next: usize,
    batch: u32,
    /// Parts found to differ.
    differing: Vec<u32>,
    /// Whether the two did not know the same group invalidations, when they last told each other.
    floors_differ: bool,
    ready: bool,
    progress: Option<ProgressVector>,
    /// How many leaves were listed.
    leaves: usize,
    pub(super) updates: u64,
    /// Not all that differs was listed, or something did not arrive: the end must not be claimed.
    pub(super) is_partial: bool,
    /// Of what differs some was left out, because it might do so for ever.
    is_lossy: bool,
    /// Something that was exchanged is too old to have been on its way.
    pub(super) is_overdue: bool,
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
        if let Some(former) = self.compare.current.take() {
            self.lists.remove(&(former.with, true));
            // What it was to bring is not here.
            if let (Purpose::Mend(parts), Some(filling)) = (former.purpose, &mut self.filling) {
                filling.gave_up(parts, true);
            }
        }
        let request = self.next_request();
        let mut comparison = Comparison {
            with,
            request,
            purpose,
            started: now,
            moved: now,
            stage: Stage::Descending,
            bits,
            fine_bits: bits,
            turn: self.compare.turn,
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
            is_lossy: false,
            is_overdue: false,
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

    /// All is exchanged.
    pub(super) fn finish_comparison(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let Some(comparison) = self.compare.current.take() else {
            return;
        };
        let (with, took) = (comparison.with, now - comparison.started);
        // What mends puts off no check: mends that never end would leave none.
        if !comparison.mends() {
            self.compare.put_off(now, self.clock.origin(), &self.config);
        }
        let exchanged = comparison.updates + comparison.sent > 0;
        if comparison.is_overdue || (exchanged && comparison.purpose != Purpose::Check) {
            // Who had it not before may be not the only one. A key that is always being written is no reason.
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
            self.leave.compared(
                with,
                comparison.sent,
                comparison.is_partial,
                comparison.is_lossy,
            );
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
            self.compare.turn += usize::from(with <= after);
            self.compare.last = Some(with);
            self.compare_with(now, with, Purpose::Check, out);
        }
    }

    /// Whether what was made at `version` should long have arrived everywhere. A load's is as old as its start: then a check too many is made.
    pub(super) fn is_overdue(&self, now: Time, version: Version) -> bool {
        let late_ms = u64::try_from(self.config.repair_every.as_millis()).unwrap_or(u64::MAX);
        version.time.millis().saturating_add(late_ms) < self.clock.physical_ms(now)
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

pub(super) fn anti_entropy<V>(
    to: NodeId,
    request: RequestId,
    message: AntiEntropy<V>,
) -> Output<V> {
    let message = CacheMessage::AntiEntropy { request, message };
    Output::Send { to, message }
}
