//! Whether this node is with most of its cluster, and until when it may take itself to be.
//!
//! Who counts is the **view**: this node and every node that has ever answered it about this cache. A node leaves the view when it
//! leaves the cluster on purpose or no longer runs the cache alike, and when it has been dead for the window and [`DEAD_COUNT_BEYOND_WINDOW`] while this
//! node was with most all that time. So those who were declared dead a moment ago still count, and the smaller side of a netsplit does
//! not become most of what remains by declaring the others dead one by one. For whoever comes to be with most after it was not, all the dead
//! have just died: they may be alive on the side that it is about to meet, of which it has heard one so far.
//!
//! Who is here is whoever answered within the **window**, counted from when this node asked: a pause, a suspend and an answer that
//! waited in a buffer end it, a link that works in one direction only does not renew it. This node is with most if it hears more than
//! half of the view, itself included; or exactly half and the smallest id is among them. Each node decides for itself: where links
//! are not transitive, more than one side may be with most, through a node that both hear.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_store::NodeId;

use crate::planted::PlantedBug;
use crate::time::Time;

/// How much longer than the window a dead member counts: longer than it takes to declare all of a netsplit's other side dead (5 s at
/// 16 nodes). Only then has everybody noticed how many are missing. Ten seconds in all in a full mesh; beyond it the window is longer.
const DEAD_COUNT_BEYOND_WINDOW: Duration = Duration::from_secs(8);

/// Members of a view (as many streams are followed). Beyond it a new node counts for nothing.
const MEMBERS_MAX: usize = 1_024;

/// Who counts, and when they were heard.
#[derive(Debug)]
pub(super) struct View {
    me: NodeId,
    window: Duration,
    /// The others.
    members: BTreeMap<NodeId, Member>,
    /// Most were last heard to be with us then, and this node is with most for the window's length after it.
    most_heard: Time,
    /// When it last was, as far as that is known.
    with_most_at: Time,
    /// It was not with most at some time since the last look at which it was.
    was_apart: bool,
}

/// Another node of the view.
#[derive(Debug)]
struct Member {
    /// When we asked what it last answered.
    heard: Time,
    /// Since when membership takes it for dead, and this node was with most.
    dead_since: Option<Time>,
}

impl View {
    /// A node that has met nobody.
    pub(super) const fn new(me: NodeId, now: Time, window: Duration) -> Self {
        Self {
            me,
            window,
            members: BTreeMap::new(),
            most_heard: Time::MAX,
            with_most_at: now,
            was_apart: false,
        }
    }

    /// The peer has answered what we asked at `asked`.
    pub(super) fn heard(&mut self, now: Time, peer: NodeId, asked: Time) {
        self.was_apart |= !self.is_with_most(now);
        let has_room = self.members.len() < MEMBERS_MAX;
        let member = match self.members.get_mut(&peer) {
            Some(member) => member,
            None if !has_room => return,
            None => self.members.entry(peer).or_insert(Member {
                heard: asked,
                dead_since: None,
            }),
        };
        member.heard = member.heard.max(asked);
        member.dead_since = None;
        // While this node is with most, the next look renews it, which costs less than every answer doing so.
        if now > self.until() || self.most_heard == Time::MAX {
            self.most_heard = self.find_most_heard();
        }
    }

    /// Others have told what it had at `at`, on this node's clock; counts at the next look.
    pub(super) fn heard_by_others(&mut self, peer: NodeId, at: Time) {
        let has_room = self.members.len() < MEMBERS_MAX;
        match self.members.get_mut(&peer) {
            Some(member) => member.heard = member.heard.max(at),
            None if has_room => {
                let (heard, dead_since) = (at, None);
                self.members.insert(peer, Member { heard, dead_since });
            }
            None => {}
        }
    }

    /// How long after it asked this node takes itself to be with those that answered.
    pub(super) const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Membership knows it to be alive.
    pub(super) fn alive(&mut self, peer: NodeId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.dead_since = None;
        }
    }

    /// Membership has declared it dead.
    pub(super) fn died(&mut self, now: Time, peer: NodeId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.dead_since.get_or_insert(now);
        }
    }

    /// It has left the cluster on purpose, or does not run the cache alike.
    pub(super) fn left(&mut self, peer: NodeId) {
        if self.members.remove(&peer).is_some() {
            self.most_heard = self.find_most_heard();
        }
    }

    /// Looks who is here; with every heartbeat. Returns whether this node is with most. Cost: O(members).
    pub(super) fn look(&mut self, now: Time, planted: PlantedBug) -> bool {
        self.was_apart |= !self.is_with_most(now);
        self.most_heard = self.find_most_heard();
        if !self.is_with_most(now) {
            self.was_apart = true;
            return false;
        }
        if std::mem::take(&mut self.was_apart) {
            // Those who were declared dead meanwhile may be alive on the side that is about to be met.
            let members = self.members.values_mut();
            for dead in members.filter_map(|member| member.dead_since.as_mut()) {
                *dead = now;
            }
        }
        self.with_most_at = now.min(self.most_heard);
        let before = self.members.len();
        let counts_for = self.window + DEAD_COUNT_BEYOND_WINDOW;
        let is_over = |since: Time| now >= since + counts_for || planted.counts_no_dead();
        self.members
            .retain(|_, member| !member.dead_since.is_some_and(is_over));
        if self.members.len() < before {
            self.most_heard = self.find_most_heard();
        }
        true
    }

    /// This node is with most up to this time, unless it hears more meanwhile.
    pub(super) fn until(&self) -> Time {
        self.most_heard + self.window
    }

    pub(super) fn is_with_most(&self, now: Time) -> bool {
        now <= self.until()
    }

    /// When this node was last known to be with most: when it asked what most have answered.
    pub(super) const fn with_most_at(&self) -> Time {
        self.with_most_at
    }

    /// What this node can have of the cluster as a whole, where it counts members as dead: all that there was when it asked what most have
    /// answered. Where it needs nobody else, or nobody is dead, that bounds nothing.
    pub(super) fn known_at_best(&self) -> Time {
        if self
            .members
            .values()
            .all(|member| member.dead_since.is_none())
        {
            return Time::MAX;
        }
        self.find_most_heard()
    }

    /// As if this node had just started to be with most.
    pub(super) const fn begin_again(&mut self, now: Time) {
        self.with_most_at = now;
    }

    /// How many of the view are heard, this node included, and how many they are.
    pub(super) fn counts(&self, now: Time) -> (usize, usize) {
        let here = |member: &&Member| member.heard + self.window >= now;
        let heard = self.members.values().filter(here).count();
        (heard + 1, self.members.len() + 1)
    }

    /// Since when it has not heard most; zero if it never did.
    fn find_most_heard(&self) -> Time {
        let all = self.members.len() + 1;
        let by_count = latest_of(self.members.values().map(|member| member.heard), all / 2);
        let by_tie = all.is_multiple_of(2).then(|| self.tie_heard(all / 2));
        by_tie.flatten().max(by_count).unwrap_or(Time::ZERO)
    }

    /// Since when exactly half, the smallest id among them, were heard.
    fn tie_heard(&self, half: usize) -> Option<Time> {
        let smallest = self.members.first_key_value()?;
        let (smallest, member) = smallest;
        if self.me < *smallest {
            let heard = self.members.values().map(|member| member.heard);
            return latest_of(heard, half - 1);
        }
        let others = self.members.values().skip(1).map(|member| member.heard);
        let rest = latest_of(others, half.checked_sub(2)?)?;
        Some(rest.min(member.heard))
    }
}

/// Since when this many of them were heard; for ever if none has to be.
fn latest_of(heard: impl Iterator<Item = Time>, wanted: usize) -> Option<Time> {
    let Some(index) = wanted.checked_sub(1) else {
        return Some(Time::MAX);
    };
    let mut heard: Vec<Time> = heard.collect();
    if index >= heard.len() {
        return None;
    }
    let (_, at, _) = heard.select_nth_unstable_by(index, |a, b| b.cmp(a));
    Some(*at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(2);

    fn id(id: u64) -> NodeId {
        NodeId::from_u64(id)
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// The view of node `me`, which met nodes 1 to `n` at one second.
    fn view(me: u64, n: u64) -> View {
        let mut view = View::new(id(me), Time::ZERO, WINDOW);
        hear(&mut view, at(1_000), &(1..=n).collect::<Vec<_>>());
        view
    }

    fn hear(view: &mut View, now: Time, ids: &[u64]) {
        let me = view.me;
        for other in ids.iter().map(|other| id(*other)).filter(|id| *id != me) {
            view.heard(now, other, now);
        }
    }

    #[test]
    fn r4_the_smaller_side_does_not_become_most_by_declaring_the_others_dead() {
        let mut view = view(1, 5);
        for step in 0..60 {
            let now = at(1_100 + step * 500);
            hear(&mut view, now, &[2]);
            // Declared dead one by one, the first of them while the last still seem to be there.
            for other in (3..=5).filter(|other| step >= other - 2) {
                view.died(now, id(other));
            }
            assert_eq!(
                view.look(now, PlantedBug::None),
                now <= at(3_000),
                "{now:?}"
            );
        }
        assert_eq!(view.counts(at(31_000)), (2, 5));
    }

    #[test]
    fn the_larger_side_goes_on_and_forgets_the_dead_after_a_while() {
        let mut view = view(3, 5);
        for other in [1, 2] {
            view.died(at(2_000), id(other));
        }
        for step in 0..24 {
            let now = at(2_000 + step * 500);
            hear(&mut view, now, &[4, 5]);
            assert!(view.look(now, PlantedBug::None));
            assert_eq!(
                view.counts(now).1,
                if now < at(12_000) { 5 } else { 3 },
                "{now:?}"
            );
        }
    }

    #[test]
    fn r4_a_short_glimpse_of_one_of_the_other_side_does_not_make_this_side_most() {
        let mut view = view(1, 5);
        for other in 3..=5 {
            view.died(at(3_000), id(other));
        }
        for step in 0..120 {
            let now = at(1_500 + step * 500);
            hear(&mut view, now, &[2]);
            view.look(now, PlantedBug::None);
        }
        // Three of five, until node 3 is cut off again before 4 and 5 are heard.
        view.alive(id(3));
        hear(&mut view, at(61_600), &[2, 3]);
        assert!(view.look(at(61_700), PlantedBug::None));
        assert_eq!(view.counts(at(61_700)), (3, 5));
        for step in 0..40 {
            let now = at(62_000 + step * 500);
            if step == 8 {
                view.died(now, id(3));
            }
            hear(&mut view, now, &[2]);
            assert_eq!(
                view.look(now, PlantedBug::None),
                now <= at(63_600),
                "{now:?}"
            );
        }
        assert_eq!(view.counts(at(81_500)), (2, 5));
    }

    #[test]
    fn the_dead_count_as_long_as_ever_after_a_moment_apart_between_two_looks() {
        let mut view = view(1, 3);
        view.died(at(1_000), id(3));
        hear(&mut view, at(10_000), &[2]);
        assert!(view.look(at(10_000), PlantedBug::None));
        hear(&mut view, at(12_300), &[2]);
        assert!(view.look(at(12_500), PlantedBug::None));
        assert_eq!(view.counts(at(12_500)), (2, 3));
        for step in 0..20 {
            let now = at(12_500 + step * 500);
            hear(&mut view, now, &[2]);
            assert!(view.look(now, PlantedBug::None));
            assert_eq!(view.counts(now).1, 3, "{now:?}");
        }
        hear(&mut view, at(22_500), &[2]);
        assert!(view.look(at(22_500), PlantedBug::None));
        assert_eq!(view.counts(at(22_500)), (2, 2));
    }

    #[test]
    fn of_two_halves_the_one_with_the_smallest_id_goes_on() {
        for (me, with, expected) in [
            (1, 4, true),
            (4, 1, true),
            (2, 3, false),
            (3, 2, false),
            (3, 1, true),
        ] {
            let mut view = view(me, 4);
            hear(&mut view, at(5_000), &[with]);
            assert_eq!(
                view.look(at(5_000), PlantedBug::None),
                expected,
                "{me} with {with}"
            );
        }
        assert!(view(1, 2).look(at(9_000), PlantedBug::None));
        assert!(!view(2, 2).look(at(9_000), PlantedBug::None));
    }

    #[test]
    fn a_node_that_never_met_anybody_is_with_most() {
        let mut alone = View::new(id(7), Time::ZERO, WINDOW);
        assert!(alone.look(at(9_000), PlantedBug::None));
        assert_eq!(alone.until(), Time::MAX);
    }

    #[test]
    fn leaving_on_purpose_makes_the_view_smaller_at_once() {
        let mut view = view(3, 3);
        hear(&mut view, at(1_500), &[1, 2]);
        view.left(id(1));
        view.left(id(2));
        assert!(view.look(at(60_000), PlantedBug::None));
    }

    #[test]
    fn c11_a_node_that_was_paused_is_with_most_only_once_somebody_answers_again() {
        let mut view = view(2, 3);
        let woken = at(31_000);
        assert!(!view.is_with_most(woken));
        assert!(!view.look(woken, PlantedBug::None));
        // An answer to what was asked before the pause.
        view.heard(woken, id(1), at(1_200));
        assert!(!view.is_with_most(woken));
        view.heard(woken, id(1), woken);
        assert!(view.is_with_most(woken));
    }

    #[test]
    fn nodes_that_come_later_count() {
        let mut view = view(2, 3);
        hear(&mut view, at(9_000), &[4]);
        assert!(!view.look(at(9_000), PlantedBug::None));
        hear(&mut view, at(9_100), &[5]);
        assert!(view.look(at(9_100), PlantedBug::None));
    }
}
