//! Callers who wait until this node is fresh enough (`get_fresh`).
//!
//! The mode asks its peers at once and tells them when the answers are in and the numbers answered are applied. Many callers share
//! one question: whoever needs no more than what was asked already waits for that answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::WaiterId;
use crate::mode::{Outcome, Output, Waiter};
use crate::time::Time;

/// The least time between two questions (guess: a few round trips of a fast network).
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Who waits, and when the peers were asked last.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    waiting: BTreeMap<WaiterId, Wanted>,
    asked_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    since: Time,
    deadline: Time,
}

impl Refreshes {
    /// `waiter` waits until the node is as fresh as `since`. It is told at once that it is not if `waiters_max` wait already.
    pub(super) fn wait<V>(
        &mut self,
        since: Time,
        waiter: Waiter,
        waiters_max: usize,
        out: &mut Vec<Output<V>>,
    ) {
        if self.waiting.len() >= waiters_max {
            done(waiter.id, false, out);
            return;
        }
        let deadline = waiter.deadline;
        self.waiting.insert(waiter.id, Wanted { since, deadline });
    }

    /// Whether the peers must be asked now for somebody's sake.
    pub(super) fn must_ask(&self, now: Time) -> bool {
        self.next_ask() <= now
    }

    /// The peers were asked.
    pub(super) fn asked(&mut self, now: Time) {
        self.asked_at = Some(now);
    }

    fn next_ask(&self) -> Time {
        let newest = self.waiting.values().map(|wanted| wanted.since).max();
        match (newest, self.asked_at) {
            (None, _) => Time::MAX,
            (Some(_), None) => Time::ZERO,
            (Some(since), Some(asked)) if since <= asked => Time::MAX,
            (Some(_), Some(asked)) => asked + ASK_EVERY,
        }
    }

    /// The node has all that its peers had at `fresh_since`.
    pub(super) fn advanced<V>(&mut self, fresh_since: Time, out: &mut Vec<Output<V>>) {
        self.waiting.retain(|id, wanted| {
            // Zero means that some peer was never heard to the end.
            let waits = wanted.since > fresh_since || fresh_since == Time::ZERO;
            if !waits {
                done(*id, true, out);
            }
            waits
        });
    }

    /// Tells those whose time is over.
    pub(super) fn tick<V>(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.waiting.retain(|id, wanted| {
            let waits = wanted.deadline > now;
            if !waits {
                done(*id, false, out);
            }
            waits
        });
    }

    /// When to tick next.
    pub(super) fn next_deadline(&self) -> Time {
        let deadlines = self.waiting.values().map(|wanted| wanted.deadline);
        deadlines.min().unwrap_or(Time::MAX).min(self.next_ask())
    }

    /// The caller no longer waits.
    pub(super) fn forget(&mut self, id: WaiterId) -> bool {
        self.waiting.remove(&id).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn done<V>(waiter: WaiterId, fresh: bool, out: &mut Vec<Output<V>>) {
    let result = Outcome::Fresh(fresh);
    out.push(Output::Done { waiter, result });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(id: u64) -> Waiter {
        Waiter {
            id: WaiterId(id),
            deadline: Time::from_millis(1_000),
        }
    }

    fn told(out: &mut Vec<Output<()>>) -> Vec<(u64, bool)> {
        out.drain(..)
            .map(|output| match output {
                Output::Done {
                    waiter,
                    result: Outcome::Fresh(fresh),
                } => (waiter.0, fresh),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn callers_share_a_question_that_was_asked_late_enough_for_them() {
        let (mut refreshes, mut out) = (Refreshes::default(), Vec::new());
        let ms = Time::from_millis;
        refreshes.wait(ms(90), waiter(1), 10, &mut out);
        assert!(refreshes.must_ask(ms(100)));
        refreshes.asked(ms(100));
        refreshes.wait(ms(95), waiter(2), 10, &mut out);
        assert!(!refreshes.must_ask(ms(105)));
        refreshes.wait(ms(106), waiter(3), 10, &mut out);
        assert!(refreshes.must_ask(ms(106)));
        refreshes.advanced(ms(100), &mut out);
        assert_eq!(told(&mut out), vec![(1, true), (2, true)]);
        refreshes.tick(ms(1_000), &mut out);
        assert_eq!(told(&mut out), vec![(3, false)]);
        assert_eq!(refreshes.next_deadline(), Time::MAX);
    }

    #[test]
    fn c9_waiters_are_bounded() {
        let (mut refreshes, mut out) = (Refreshes::default(), Vec::new());
        refreshes.wait(Time::ZERO, waiter(1), 1, &mut out);
        refreshes.wait(Time::ZERO, waiter(2), 1, &mut out);
        assert_eq!(told(&mut out), vec![(2, false)]);
    }
}
