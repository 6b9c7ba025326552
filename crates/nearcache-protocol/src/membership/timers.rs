//! The timers of the membership, in one table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::identity::Identity;
use crate::time::Time;

/// What is due at some instant. Timers are never cancelled: each is judged when it fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// A timer of the SWIM implementation, handed back to it.
    Swim(foca::Timer<Identity>),
    /// The member lost all its connections and had until now to refute: declares it dead unless its
    /// incarnation has grown or it is connected again.
    LostToDown {
        /// Which member.
        identity: Identity,
        /// Its incarnation when the connections were lost.
        incarnation: u16,
    },
    /// Exchanges the member list with a random peer, forgets who has been dead for long, and comes again.
    ListExchange,
    /// Ends sessions that the tree does not want, and comes again.
    Prune,
}

/// When which timer fires; timers of one instant fire in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    set: u64,
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    timer: Timer,
}

impl Timers {
    /// Sets a timer.
    pub(super) fn set(&mut self, at: Time, timer: Timer) {
        self.set += 1;
        self.heap.push(Reverse(Entry {
            at,
            order: self.set,
            timer,
        }));
    }

    /// When the next one fires; [`Time::MAX`] if there is none.
    pub(super) fn next_at(&self) -> Time {
        self.heap
            .peek()
            .map_or(Time::MAX, |Reverse(entry)| entry.at)
    }

    /// Takes the next one that is due.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Timer> {
        if self.next_at() > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.timer)
    }

    /// Puts off all of them, in their order. Cost: O(timers).
    pub(super) fn put_off(&mut self, by: Duration) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        for Reverse(entry) in &mut entries {
            entry.at += by;
        }
        self.heap = entries.into();
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_by_time_and_then_in_the_order_they_were_set() {
        let mut timers = Timers::default();
        let swim = |token| Timer::Swim(foca::Timer::PeriodicGossip(token));
        timers.set(Time::from_millis(2), swim(1));
        timers.set(Time::from_millis(2), swim(2));
        timers.set(Time::from_millis(1), swim(3));
        assert_eq!(timers.next_at(), Time::from_millis(1));
        assert_eq!(timers.take_due(Time::from_millis(0)), None);
        let now = Time::from_millis(2);
        assert_eq!(timers.take_due(now), Some(swim(3)));
        assert_eq!(timers.take_due(now), Some(swim(1)));
        timers.put_off(Duration::from_millis(5));
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.next_at(), Time::from_millis(7));
    }
}
