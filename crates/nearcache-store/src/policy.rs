//! Which entry leaves when room is needed: [`Policy`].
//!
//! Source: Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023 (S3-FIFO). New entries wait in a small
//! queue; those that were read there when their turn comes move on to the main queue, the others leave. In the main queue an
//! entry gets another round for each read, up to three. A key that comes back soon after it was evicted goes to the main queue at once.
//!
//! Differences: room is counted in bytes; the memory of evicted keys is the table of their floors, which has to be looked
//! at anyway; while the main queue has room of its own, entries move on unread, which keeps part of a loop that is longer
//! than the cache (in the original it keeps nothing); and the second chances per eviction are bounded, so that no write
//! waits while a shard full of marked entries is gone through.
//!
//! The queues are links in the [`Directory`], so that an entry leaves them in O(1) however it goes. Under the shard's mutex
//! only. Readers leave marks on entries ([`Handle::mark`]) and take no part.

use crate::Handle;
use crate::directory::{Directory, Ends, NIL};

/// Share of the room that new entries may fill, in percent. Measured by `cargo xtask bench hit-ratio`: 3 to 10 give the same
/// mean; more favours services, less favours loops.
const SMALL_PERCENT: u64 = 8;
/// Most entries that are given another round per eviction.
const CHANCES_MAX: usize = 64;

/// The two queues of a shard.
pub(crate) struct Policy {
    small: Queue,
    main: Queue,
    capacity_bytes: u64,
    small_max_bytes: u64,
}

/// A queue in order of arrival.
struct Queue {
    ends: Ends,
    weight_bytes: u64,
}

impl Queue {
    const EMPTY: Self = Self {
        ends: Ends::EMPTY,
        weight_bytes: 0,
    };
}

impl Policy {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            capacity_bytes,
            small_max_bytes: capacity_bytes / 100 * SMALL_PERCENT,
        }
    }

    /// The most that one entry may weigh where there is room for `capacity_bytes`: half, so that one entry never
    /// drives out all others.
    pub(crate) fn max_entry_bytes(capacity_bytes: u64) -> u64 {
        capacity_bytes / 2
    }

    /// Bytes of all entries.
    #[inline]
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.small.weight_bytes + self.main.weight_bytes
    }

    pub(crate) fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
        self.small_max_bytes = capacity_bytes / 100 * SMALL_PERCENT;
    }

    /// Takes in the entry in `slot`; one that `came_back` after its eviction skips the small queue.
    #[inline]
    pub(crate) fn admit<V>(
        &mut self,
        directory: &mut Directory<V>,
        slot: u32,
        weight_bytes: u64,
        came_back: bool,
    ) {
        self.enqueue(directory, slot, weight_bytes, came_back);
        if self.small.weight_bytes > self.small_max_bytes {
            self.move_on(directory);
        }
    }

    /// Lets the oldest of the small queue move on, read or not, while the main queue has room of its own.
    fn move_on<V>(&mut self, directory: &mut Directory<V>) {
        let main_max_bytes = self.capacity_bytes - self.small_max_bytes;
        for _ in 0..CHANCES_MAX {
            let slot = self.small.ends.oldest;
            let Some(weight_bytes) = directory.get(slot).map(Handle::weight_bytes) else {
                return;
            };
            if self.small.weight_bytes <= self.small_max_bytes
                || self.main.weight_bytes + weight_bytes > main_max_bytes
            {
                return;
            }
            self.leave(directory, slot, weight_bytes);
            self.enqueue(directory, slot, weight_bytes, true);
        }
    }

    #[inline]
    fn enqueue<V>(
        &mut self,
        directory: &mut Directory<V>,
        slot: u32,
        weight_bytes: u64,
        main: bool,
    ) {
        let queue = self.queue(main);
        queue.weight_bytes += weight_bytes;
        directory.enqueue(slot, &mut queue.ends, main);
    }

    /// The entry in `slot` has another weight from now on.
    #[inline]
    pub(crate) fn reweigh<V>(&mut self, directory: &Directory<V>, slot: u32, old: u64, new: u64) {
        let queue = self.queue(directory.is_in_main(slot));
        queue.weight_bytes = queue.weight_bytes - old + new;
    }

    /// Lets the entry in `slot` go, of its own accord or as the victim.
    #[inline]
    pub(crate) fn leave<V>(&mut self, directory: &mut Directory<V>, slot: u32, weight_bytes: u64) {
        let queue = self.queue(directory.is_in_main(slot));
        queue.weight_bytes -= weight_bytes;
        directory.dequeue(slot, &mut queue.ends);
    }

    /// The entry that has to leave now; none while all have room.
    #[inline]
    pub(crate) fn victim<V>(&mut self, directory: &mut Directory<V>) -> Option<Handle<V>> {
        if self.weight_bytes() <= self.capacity_bytes {
            return None;
        }
        self.pick(directory)
    }

    fn pick<V>(&mut self, directory: &mut Directory<V>) -> Option<Handle<V>> {
        for _ in 0..CHANCES_MAX {
            let from_small = self.is_turn_of_small();
            let slot = self.queue(!from_small).ends.oldest;
            let entry = directory.get(slot)?;
            let (marks, weight_bytes) = (entry.marks(), entry.weight_bytes());
            if marks == 0 {
                return Some(entry.clone());
            }
            entry.set_marks(if from_small { 0 } else { marks - 1 });
            self.leave(directory, slot, weight_bytes);
            self.enqueue(directory, slot, weight_bytes, true);
        }
        let main = !self.is_turn_of_small();
        directory.get(self.queue(main).ends.oldest).cloned()
    }

    /// Has the small queue to give one up, or the main queue? The newest entry stays as long as there is any other, however
    /// large it is.
    fn is_turn_of_small(&self) -> bool {
        let Ends { oldest, newest } = self.small.ends;
        self.main.ends.oldest == NIL
            || (oldest != newest && self.small.weight_bytes > self.small_max_bytes)
    }

    #[inline]
    fn queue(&mut self, main: bool) -> &mut Queue {
        if main {
            &mut self.main
        } else {
            &mut self.small
        }
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
