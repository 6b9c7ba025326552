//! The event queue: what happens next in virtual time.
//!
//! A binary heap of small keys over a slab of events, so that moving through the heap never moves an
//! event. Events of one instant happen in the order in which they were scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use nearcache_protocol::time::Time;

/// Events by the time at which they happen.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            scheduled: 0,
        }
    }

    /// Lets `event` happen at `at`.
    pub(crate) fn schedule(&mut self, at: Time, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.scheduled += 1;
        self.heap.push(Reverse((at, self.scheduled, slot)));
    }

    /// Takes the next event, and when it happens.
    pub(crate) fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.slots[slot].take().map(|event| (at, event))
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_happen_by_time_and_then_in_the_order_they_were_scheduled() {
        let mut queue = Queue::new();
        for (at, event) in [(2, 'b'), (1, 'a'), (2, 'c')] {
            queue.schedule(Time::from_millis(at), event);
        }
        assert_eq!(queue.next_at(), Some(Time::from_millis(1)));
        let order: String = std::iter::from_fn(|| queue.pop())
            .map(|(_, event)| event)
            .collect();
        assert_eq!(order, "abc");
    }
}
