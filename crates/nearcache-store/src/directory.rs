//! Every entry of a shard by number: [`Directory`].
//!
//! An entry keeps its slot for as long as its key is held, through any number of newer versions. That is what makes a
//! walk resumable without a lock in between, sweeping possible in small steps, and the timer wheel a matter of
//! linking slots. The queues of the eviction policy are linked slots too. Written under the shard's mutex only; readers never
//! come here.

use crate::Handle;
use crate::sync::Ordering;

/// No slot, or no list.
pub(crate) const NIL: u32 = u32::MAX;

/// A slab of handles with two links per slot for the timer wheel's lists, and two for the policy's queues.
pub(crate) struct Directory<V> {
    slots: Vec<Slot<V>>,
    first_free: u32,
    len: usize,
}

struct Slot<V> {
    entry: Option<Handle<V>>,
    /// In a list: the next slot. Free: the next free slot.
    next: u32,
    /// In a list: the slot before, or [`Directory::HEAD`] and the list. Not in a list: [`NIL`].
    prev: u32,
    /// In the policy's queue: the next older slot, or [`NIL`].
    older: u32,
    /// In the policy's queue: the next newer slot, or [`Directory::END`]; [`Directory::MAIN`] is set in the main queue.
    newer: u32,
}

/// The ends of a queue of slots, in order of arrival; [`NIL`] both while it is empty.
pub(crate) struct Ends {
    pub(crate) oldest: u32,
    pub(crate) newest: u32,
}

impl Ends {
    pub(crate) const EMPTY: Self = Self {
        oldest: NIL,
        newest: NIL,
    };
}

impl<V> Slot<V> {
    const EMPTY: Self = Self {
        entry: None,
        next: NIL,
        prev: NIL,
        older: NIL,
        newer: NIL,
    };
}

impl<V> Directory<V> {
    /// Set in a `prev` link that names a list rather than a slot.
    const HEAD: u32 = 1 << 31;
    /// Set in a `newer` link of the policy's main queue.
    const MAIN: u32 = 1 << 31;
    /// A `newer` link at the end of a queue.
    const END: u32 = Self::MAIN - 1;

    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            first_free: NIL,
            len: 0,
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of slots, free ones included.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NIL)
    }

    /// The entry in `slot`.
    pub(crate) fn get(&self, slot: u32) -> Option<&Handle<V>> {
        self.slots.get(slot as usize)?.entry.as_ref()
    }

    /// Gives `entry` a slot. Cost: O(1), amortised over the growth by a quarter.
    pub(crate) fn add(&mut self, entry: Handle<V>) {
        let slot = if self.first_free == NIL {
            if self.slots.len() == self.slots.capacity() {
                // A quarter at a time, because doubling would waste as much as half of the slots.
                self.slots.reserve_exact((self.slots.len() / 4).max(16));
            }
            self.slots.push(Slot::EMPTY);
            self.slots() - 1
        } else {
            self.first_free
        };
        entry.record().slot.store(slot, Ordering::Relaxed);
        let place = &mut self.slots[slot as usize];
        if self.first_free == slot {
            self.first_free = place.next;
        }
        *place = Slot {
            entry: Some(entry),
            ..Slot::EMPTY
        };
        self.len += 1;
    }

    /// Puts `entry` into the slot of the older entry it takes the place of, which is returned. The slot stays in
    /// its list.
    pub(crate) fn replace(&mut self, old: &Handle<V>, entry: Handle<V>) -> Option<Handle<V>> {
        let slot = old.slot();
        entry.record().slot.store(slot, Ordering::Relaxed);
        self.slots[slot as usize].entry.replace(entry)
    }

    /// Frees the slot of `entry`, which must be in no list. The last one gives the memory of all slots back.
    pub(crate) fn remove(&mut self, entry: &Handle<V>) -> Option<Handle<V>> {
        let slot = entry.slot();
        let place = &mut self.slots[slot as usize];
        debug_assert!(place.prev == NIL && place.entry.as_ref().is_some_and(|e| e.same_as(entry)));
        let entry = place.entry.take()?;
        place.next = self.first_free;
        self.first_free = slot;
        self.len -= 1;
        if self.len == 0 && self.slots.len() > 64 {
            (self.slots, self.first_free) = (Vec::new(), NIL);
        }
        Some(entry)
    }

    /// Puts `slot` in front of the list number `list` that begins at `first`; it is the list's new beginning.
    pub(crate) fn link(&mut self, slot: u32, list: u32, first: u32) {
        if first != NIL {
            self.slots[first as usize].prev = slot;
        }
        let place = &mut self.slots[slot as usize];
        place.next = first;
        place.prev = Self::HEAD | list;
    }

    /// Takes `slot` out of its list. If it was the first, says which list now begins where.
    pub(crate) fn unlink(&mut self, slot: u32) -> Option<(u32, u32)> {
        let place = &mut self.slots[slot as usize];
        let (next, prev) = (place.next, place.prev);
        (place.next, place.prev) = (NIL, NIL);
        if prev == NIL {
            return None;
        }
        if next != NIL {
            self.slots[next as usize].prev = prev;
        }
        if prev & Self::HEAD != 0 {
            return Some((prev & !Self::HEAD, next));
        }
        self.slots[prev as usize].next = next;
        None
    }

    /// Puts `slot` at the end of a queue.
    #[inline]
    pub(crate) fn enqueue(&mut self, slot: u32, queue: &mut Ends, main: bool) {
        let mark = if main { Self::MAIN } else { 0 };
        let place = &mut self.slots[slot as usize];
        place.older = queue.newest;
        place.newer = mark | Self::END;
        if queue.newest == NIL {
            queue.oldest = slot;
        } else {
            self.slots[queue.newest as usize].newer = mark | slot;
        }
        queue.newest = slot;
    }

    /// Takes `slot` out of its queue.
    #[inline]
    pub(crate) fn dequeue(&mut self, slot: u32, queue: &mut Ends) {
        let place = &self.slots[slot as usize];
        let (older, newer) = (place.older, place.newer);
        if older == NIL {
            queue.oldest = if newer & Self::END == Self::END {
                NIL
            } else {
                newer & Self::END
            };
        } else {
            self.slots[older as usize].newer = newer;
        }
        if newer & Self::END == Self::END {
            queue.newest = older;
        } else {
            self.slots[(newer & Self::END) as usize].older = older;
        }
    }

    /// Is `slot` in the policy's main queue?
    #[inline]
    pub(crate) fn is_in_main(&self, slot: u32) -> bool {
        self.slots[slot as usize].newer & Self::MAIN != 0
    }
}
