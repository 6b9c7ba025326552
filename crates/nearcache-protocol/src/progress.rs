//! How far this node is in the streams of others.
//!
//! ```text
//!   1 ......... applied            live.after ......... live.through
//!   ███████████████▏     hole      ▕█████████████████████▏
//! ```
//!
//! Per stream (an origin in one epoch) everything up to `applied` is in the store: a number is never claimed before all up
//! to it are (R8). A batch that does not begin where the stream stands is a gap, and no gap is tolerated (I2). When an origin
//! says that it cannot send what is missing, the stream goes on as a *live segment* beyond the hole, so that a joining node
//! can subscribe first and fill the hole by a transfer afterwards.
//!
//! Each start of a node adds a stream for good, so those of the dead are forgotten: a while after their death if the start was
//! longer ago than removals are remembered, and when there are too many. What is forgotten, or has no room, does not count as
//! missing either: otherwise two nodes that forgot different ones would mend each other for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nearcache_store::NodeId;

use crate::ids::{Epoch, StreamId};
use crate::message::ProgressVector;
use crate::time::Time;

/// How long streams of old starts are kept after the death of their origin, in which its last updates spread (guess).
const KEPT_AFTER_DEATH: Duration = Duration::from_secs(60 * 60);

/// How long after its start a node has met all that live: before that it cannot tell strangers from the dead (guess).
const MEETS_WITHIN: Duration = Duration::from_secs(60);

/// Epochs of one origin that are remembered. An older one can matter only to a node that missed its end and every
/// transfer since (guess).
const EPOCHS_PER_ORIGIN_MAX: usize = 4;

/// Progress in all streams, the node's own current one excepted.
#[derive(Debug)]
pub struct Progress {
    streams: BTreeMap<StreamId, Stream>,
    streams_max: usize,
    /// Which stream changed when, by a count of the changes; of each stream the last.
    changes: BTreeMap<u64, StreamId>,
    changed: u64,
    /// The members that are alive: their newest streams are forgotten last.
    living: BTreeSet<NodeId>,
    /// Members that died here, and until when their streams are kept in any case; unknown before the next look.
    dying: BTreeMap<NodeId, Option<Time>>,
    /// Starts before this one are old.
    old: Epoch,
    /// Until when strangers may be alive; unknown before the first look.
    meets_until: Option<Time>,
    has_met_all: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    applied: u64,
    live: Option<Segment>,
    changed_at: u64,
}

/// Numbers `(after, through]`, applied beyond a hole.
#[derive(Clone, Copy, Debug)]
struct Segment {
    after: u64,
    through: u64,
}

/// What a batch is to its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// All of it is known already.
    Duplicate,
    /// It goes on where the stream, or its live segment, stands: apply it.
    Next,
    /// So many numbers before it are missing: it must not be applied.
    Gap {
        /// How many.
        missing: u64,
    },
}

impl Stream {
    /// Joins the live segment to the rest once the hole is closed.
    fn settle(&mut self) {
        if let Some(live) = self.live
            && live.after <= self.applied
        {
            self.applied = self.applied.max(live.through);
            self.live = None;
        }
    }
}

impl Progress {
    /// Streams followed.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// No progress in anything; remembers at most so many streams.
    #[must_use]
    pub const fn new(streams_max: usize) -> Self {
        Self {
            streams: BTreeMap::new(),
            streams_max,
            changes: BTreeMap::new(),
            changed: 0,
            living: BTreeSet::new(),
            dying: BTreeMap::new(),
            old: Epoch::from_u64(0),
            meets_until: None,
            has_met_all: false,
        }
    }

    /// Takes note of a member that lives, or of one that is gone.
    pub(crate) fn member(&mut self, node: NodeId, alive: bool) {
        if alive {
            self.living.insert(node);
            self.dying.remove(&node);
        } else if self.living.remove(&node) && self.meets_until.is_some() {
            self.dying.insert(node, None);
        }
    }

    /// Forgets the streams of starts before `old` whose origin has been dead for a while. Cost: linear.
    pub(crate) fn forget_dead(&mut self, now: Time, old: Epoch) {
        self.old = old;
        self.has_met_all = now >= *self.meets_until.get_or_insert(now + MEETS_WITHIN);
        let streams = &self.streams;
        self.dying.retain(|node, until| {
            let from = StreamId {
                origin: *node,
                epoch: Epoch::from_u64(0),
            };
            let mut after = streams.range(from..);
            let is_known = after.next().is_some_and(|(next, _)| next.origin == *node);
            is_known && now < *until.get_or_insert(now + KEPT_AFTER_DEATH)
        });
        let gone = self.streams.keys().filter(|stream| self.is_over(**stream));
        for stream in gone.copied().collect::<Vec<_>>() {
            self.remove(stream);
        }
    }

    /// An old start of a node that is dead, or was not met here.
    fn is_over(&self, stream: StreamId) -> bool {
        let origin = &stream.origin;
        self.has_met_all
            && stream.epoch < self.old
            && !self.living.contains(origin)
            && !self.dying.contains_key(origin)
    }

    fn remove(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.remove(&stream) {
            self.changes.remove(&state.changed_at);
        }
    }

    /// The streams that were advanced after the change counted `since`, at most so many, in the order of their last change, and the
    /// count of the last one told. If that is less than [`changes`](Self::changes), there are more.
    #[must_use]
    pub fn changed_since(&self, since: u64, max: usize) -> (Vec<(StreamId, u64)>, u64) {
        let changes = self.changes.range(since.saturating_add(1)..);
        let mut told = self.changed.max(since);
        let mut streams = Vec::new();
        for (at, stream) in changes {
            if streams.len() == max {
                break;
            }
            told = *at;
            streams.push((*stream, self.applied(*stream)));
        }
        (streams, told)
    }

    /// How many changes there were.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changed
    }

    /// What is missing before the live segment: `(after, through]`. Nothing if there is no hole.
    #[must_use]
    pub fn hole(&self, stream: StreamId) -> Option<(u64, u64)> {
        let state = self.streams.get(&stream)?;
        let live = state.live?;
        Some((state.applied, live.after))
    }

    /// The stream was advanced: counts it as changed.
    fn touch(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(&stream) {
            self.changed += 1;
            self.changes.remove(&state.changed_at);
            state.changed_at = self.changed;
            self.changes.insert(self.changed, stream);
        }
    }

    /// The last number applied without a gap.
    #[must_use]
    pub fn applied(&self, stream: StreamId) -> u64 {
        self.streams.get(&stream).map_or(0, |stream| stream.applied)
    }

    /// Whether the stream was ever heard of.
    #[must_use]
    pub fn knows(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// The number after which the origin should go on sending.
    #[must_use]
    pub fn wanted_after(&self, stream: StreamId) -> u64 {
        self.streams.get(&stream).map_or(0, |stream| {
            stream.live.map_or(stream.applied, |live| live.through)
        })
    }

    /// The newest numbers that are applied, `(after, through]`: the live segment, or all from the first on.
    #[must_use]
    pub fn newest(&self, stream: StreamId) -> (u64, u64) {
        self.streams.get(&stream).map_or((0, 0), |stream| {
            stream
                .live
                .map_or((0, stream.applied), |live| (live.after, live.through))
        })
    }

    /// Whether the stream has a hole that its origin has said it cannot fill.
    #[must_use]
    pub fn has_hole(&self, stream: StreamId) -> bool {
        self.streams
            .get(&stream)
            .is_some_and(|stream| stream.live.is_some())
    }

    /// What a batch of `(after, through]` is to its stream. Changes nothing.
    #[must_use]
    pub fn step(&self, stream: StreamId, after: u64, through: u64) -> Step {
        let state = self.streams.get(&stream).copied().unwrap_or_default();
        if through <= state.applied {
            return Step::Duplicate;
        }
        if after <= state.applied {
            return Step::Next;
        }
        match state.live {
            Some(live) if after >= live.after && through <= live.through => Step::Duplicate,
            Some(live) if after >= live.after && after <= live.through => Step::Next,
            Some(live) if after > live.through => Step::Gap {
                missing: after - live.through,
            },
            Some(_) | None => Step::Gap {
                missing: after - state.applied,
            },
        }
    }

    /// The updates of `(after, through]` are all in the store now.
    pub fn advance(&mut self, stream: StreamId, after: u64, through: u64) {
        let Some(state) = self.entry(stream) else {
            return;
        };
        let before = state.applied;
        if after <= state.applied {
            state.applied = state.applied.max(through);
        } else if let Some(live) = &mut state.live
            && after >= live.after
            && after <= live.through
        {
            live.through = live.through.max(through);
        }
        state.settle();
        if state.applied > before {
            self.touch(stream);
        }
    }

    /// The origin says that the stream goes on after `after`. Returns whether that leaves a hole.
    pub fn resume(&mut self, stream: StreamId, after: u64) -> bool {
        let Some(state) = self.entry(stream) else {
            return false;
        };
        if after > state.applied {
            let continues = state
                .live
                .is_some_and(|live| after >= live.after && after <= live.through);
            if !continues {
                state.live = Some(Segment {
                    after,
                    through: after,
                });
            }
        }
        let before = state.applied;
        state.settle();
        let (advanced, hole) = (state.applied > before, state.live.is_some());
        if advanced {
            self.touch(stream);
        }
        hole
    }

    /// A transfer has brought all that these numbers claim.
    pub fn raise(&mut self, vector: &ProgressVector, own: StreamId) {
        for &(stream, number) in &vector.0 {
            if stream == own {
                continue;
            }
            if let Some(state) = self.entry(stream) {
                let before = state.applied;
                state.applied = state.applied.max(number);
                state.settle();
                if state.applied > before {
                    self.touch(stream);
                }
            }
        }
    }

    /// The streams that `vector` is ahead in, with the number it has.
    pub fn behind<'a>(
        &'a self,
        vector: &'a ProgressVector,
    ) -> impl Iterator<Item = (StreamId, u64)> + 'a {
        vector
            .0
            .iter()
            .copied()
            .filter(|&(stream, number)| self.lacks(stream, number))
    }

    /// Everything claimed, `own` stream included.
    #[must_use]
    pub fn vector(&self, own: StreamId, latest: u64) -> ProgressVector {
        let mut streams: Vec<_> = self
            .streams
            .iter()
            .filter(|(stream, state)| **stream != own && state.applied > 0)
            .map(|(stream, state)| (*stream, state.applied))
            .collect();
        streams.push((own, latest));
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        ProgressVector(streams)
    }

    /// Whether an update of this number is missing here, and is not of a stream that is forgotten by rule: of that one nothing is ever claimed,
    /// however much of it comes, and who waits for it waits for ever.
    pub(crate) fn lacks(&self, stream: StreamId, number: u64) -> bool {
        number > self.applied(stream) && self.counts(stream)
    }

    /// Only the newest epochs of an origin count, no old ones of the dead, and of those that are not known to live none that there is
    /// no room for: so two nodes never pass the same forgotten stream back and forth.
    pub(crate) fn counts(&self, stream: StreamId) -> bool {
        let full = self.streams.len() >= self.streams_max;
        if self.is_over(stream)
            || full && !self.living.contains(&stream.origin) && !self.knows(stream)
        {
            return false;
        }
        let after = StreamId {
            origin: stream.origin,
            epoch: Epoch::from_u64(u64::MAX),
        };
        let newer = self
            .streams
            .range(stream..=after)
            .filter(|(known, _)| **known != stream)
            .count();
        newer < EPOCHS_PER_ORIGIN_MAX
    }

    fn entry(&mut self, stream: StreamId) -> Option<&mut Stream> {
        if !self.streams.contains_key(&stream) {
            if !self.counts(stream) {
                return None;
            }
            self.streams.insert(stream, Stream::default());
            self.forget_old(stream.origin, stream);
        }
        self.streams.get_mut(&stream)
    }

    /// Whether the origin lives, and no newer start of it is known here.
    fn goes_on(&self, stream: StreamId) -> bool {
        let mut after = self.streams.range(stream..).skip(1);
        let is_newest = after
            .next()
            .is_none_or(|(next, _)| next.origin != stream.origin);
        is_newest && self.living.contains(&stream.origin)
    }

    fn forget_old(&mut self, origin: NodeId, keep: StreamId) {
        let first = StreamId {
            origin,
            epoch: Epoch::from_u64(0),
        };
        let last = StreamId {
            origin,
            epoch: Epoch::from_u64(u64::MAX),
        };
        let mut known: Vec<_> = self
            .streams
            .range(first..=last)
            .map(|(stream, _)| *stream)
            .collect();
        known.truncate(known.len().saturating_sub(EPOCHS_PER_ORIGIN_MAX));
        if self.streams.len() - known.len() > self.streams_max {
            // Those of the dead and of former starts go before those that may go on, and those that have not moved for longest first.
            let others = self.streams.iter().filter(|(stream, _)| **stream != keep);
            let first =
                others.min_by_key(|(stream, state)| (self.goes_on(**stream), state.changed_at));
            known.extend(first.map(|(stream, _)| *stream));
        }
        for stream in known {
            self.remove(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(epoch: u64) -> StreamId {
        StreamId {
            origin: NodeId::from_u64(7),
            epoch: Epoch::from_u64(epoch),
        }
    }

    const OWN: StreamId = StreamId {
        origin: NodeId::from_u64(1),
        epoch: Epoch::from_u64(1),
    };

    #[test]
    fn i2_a_batch_behind_a_hole_is_a_gap_of_exactly_what_is_missing() {
        let mut progress = Progress::new(16);
        assert_eq!(progress.step(stream(1), 0, 3), Step::Next);
        progress.advance(stream(1), 0, 3);
        assert_eq!(progress.step(stream(1), 4, 6), Step::Gap { missing: 1 });
        progress.advance(stream(1), 4, 6);
        assert_eq!(
            progress.applied(stream(1)),
            3,
            "what was not contiguous is not claimed"
        );
    }

    #[test]
    fn a_batch_that_overlaps_what_is_known_goes_on_from_there() {
        let mut progress = Progress::new(16);
        progress.advance(stream(1), 0, 5);
        assert_eq!(progress.step(stream(1), 2, 5), Step::Duplicate);
        assert_eq!(progress.step(stream(1), 2, 8), Step::Next);
        progress.advance(stream(1), 2, 8);
        assert_eq!(progress.applied(stream(1)), 8);
    }

    #[test]
    fn r8_a_live_segment_beyond_a_hole_is_not_claimed_before_the_hole_is_filled() {
        let mut progress = Progress::new(16);
        assert!(progress.resume(stream(1), 100));
        assert_eq!(progress.step(stream(1), 100, 110), Step::Next);
        progress.advance(stream(1), 100, 110);
        assert_eq!(progress.applied(stream(1)), 0);
        assert_eq!(progress.wanted_after(stream(1)), 110);
        assert_eq!(progress.step(stream(1), 112, 113), Step::Gap { missing: 2 });
        progress.raise(&ProgressVector(vec![(stream(1), 90)]), OWN);
        assert_eq!(
            progress.applied(stream(1)),
            90,
            "a transfer older than the segment leaves a hole"
        );
        assert!(progress.has_hole(stream(1)));
        progress.raise(&ProgressVector(vec![(stream(1), 104)]), OWN);
        assert_eq!(progress.applied(stream(1)), 110);
        assert!(!progress.has_hole(stream(1)));
    }

    #[test]
    fn a_late_word_of_where_the_stream_goes_on_does_no_harm() {
        let mut progress = Progress::new(16);
        progress.advance(stream(1), 0, 20);
        assert!(!progress.resume(stream(1), 10));
        assert_eq!(progress.applied(stream(1)), 20);
        assert!(progress.resume(stream(1), 30));
        progress.advance(stream(1), 20, 35);
        assert_eq!(progress.applied(stream(1)), 35);
    }

    #[test]
    fn streams_of_two_epochs_are_two_streams_and_only_the_newest_few_are_kept() {
        let mut progress = Progress::new(16);
        for epoch in 1..=5 {
            progress.advance(stream(epoch), 0, epoch);
        }
        assert!(!progress.knows(stream(1)));
        assert_eq!(progress.applied(stream(5)), 5);
        let peer = ProgressVector(vec![(stream(1), 9), (stream(2), 9)]);
        let behind: Vec<_> = progress.behind(&peer).collect();
        assert_eq!(
            behind,
            vec![(stream(2), 9)],
            "a forgotten epoch is not fetched again"
        );
    }

    #[test]
    fn nothing_is_missing_of_a_start_that_is_forgotten_once_newer_ones_are_known() {
        let mut progress = Progress::new(16);
        assert!(progress.lacks(stream(1), 1));
        for epoch in 2..=5 {
            progress.advance(stream(epoch), 0, 1);
        }
        assert!(!progress.lacks(stream(1), 1));
        assert!(progress.lacks(stream(2), 2) && !progress.lacks(stream(2), 1));
    }

    #[test]
    fn c9_the_dead_are_forgotten_first_and_whoever_lives_longest_is_kept() {
        let of = |origin, epoch| StreamId {
            origin: NodeId::from_u64(origin),
            epoch: Epoch::from_u64(epoch),
        };
        let mut progress = Progress::new(4);
        for origin in [10, 11, 12] {
            progress.member(NodeId::from_u64(origin), true);
            progress.advance(of(origin, origin), 0, origin);
        }
        // Others come and go.
        for origin in 20..40 {
            progress.member(NodeId::from_u64(origin), true);
            progress.advance(of(origin, origin), 0, 1);
            progress.member(NodeId::from_u64(origin), false);
        }
        // One that lives is started again.
        progress.advance(of(12, 50), 0, 7);
        assert_eq!(progress.streams(), 4);
        assert_eq!(progress.applied(of(10, 10)), 10);
        assert_eq!(progress.applied(of(11, 11)), 11);
        assert_eq!(progress.applied(of(12, 50)), 7);
        progress.member(NodeId::from_u64(60), true);
        progress.advance(of(60, 60), 0, 1);
        assert!(!progress.knows(of(12, 12)), "its former start");
        // All live: the one that has moved last of all is kept.
        progress.advance(of(10, 10), 10, 11);
        progress.member(NodeId::from_u64(61), true);
        progress.advance(of(61, 61), 0, 1);
        assert!(!progress.knows(of(11, 11)));
        assert_eq!(progress.applied(of(10, 10)), 11);
    }

    #[test]
    fn c9_old_starts_of_the_dead_are_forgotten_a_while_after_their_death_and_are_not_missed() {
        let of = |origin, epoch| StreamId {
            origin: NodeId::from_u64(origin),
            epoch: Epoch::from_u64(epoch),
        };
        let mut progress = Progress::new(16);
        for origin in [10, 11] {
            progress.member(NodeId::from_u64(origin), true);
        }
        for stream in [of(10, 50), of(10, 500), of(11, 50), of(12, 500)] {
            progress.advance(stream, 0, 1);
        }
        let told = ProgressVector(vec![(of(10, 50), 9), (of(11, 50), 9), (of(13, 50), 9)]);
        let missed = |progress: &Progress| progress.behind(&told).count();
        assert_eq!(missed(&progress), 3);
        let mut now = Time::ZERO;
        progress.forget_dead(now, Epoch::from_u64(100));
        assert_eq!(missed(&progress), 3, "strangers may be alive");
        progress.member(NodeId::from_u64(10), false);
        now += MEETS_WITHIN;
        progress.forget_dead(now, Epoch::from_u64(100));
        assert_eq!(
            missed(&progress),
            2,
            "of the dead what spreads; nothing old of strangers"
        );
        now += KEPT_AFTER_DEATH;
        progress.forget_dead(now, Epoch::from_u64(100));
        assert!(!progress.knows(of(10, 50)));
        assert_eq!(missed(&progress), 1, "what lives");
        for stream in [of(10, 500), of(11, 50), of(12, 500)] {
            assert!(progress.knows(stream), "young, or of one that lives");
        }
    }

    #[test]
    fn c9_a_dead_stream_that_there_is_no_room_for_is_not_missed() {
        let of = |origin| StreamId {
            origin: NodeId::from_u64(origin),
            epoch: Epoch::from_u64(1),
        };
        let mut progress = Progress::new(4);
        let told = ProgressVector((10..20).map(|origin| (of(origin), 3)).collect());
        progress.raise(&told, OWN);
        assert_eq!(progress.streams(), 4);
        assert_eq!(progress.behind(&told).count(), 0);
        // Whoever lives has room.
        progress.member(NodeId::from_u64(30), true);
        progress.advance(of(30), 0, 1);
        assert_eq!(progress.applied(of(30)), 1);
        assert_eq!(progress.streams(), 4);
        assert_eq!(progress.behind(&told).count(), 0);
    }

    #[test]
    fn the_vector_carries_the_own_stream_and_what_was_applied_in_order() {
        let mut progress = Progress::new(16);
        progress.advance(stream(1), 0, 3);
        progress.resume(stream(2), 10);
        let vector = progress.vector(OWN, 42);
        assert_eq!(vector.0, vec![(OWN, 42), (stream(1), 3)]);
    }
}
