//! When entries have to be looked at again: [`Wheel`], a hierarchical timer wheel over directory slots.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7. An entry's level is the
//! highest six-bit digit in which its deadline differs from now, so lower levels are always due
//! earlier. Differences: a bitmap per level lets time jump over what is empty, and the lists are links in the
//! [`Directory`], so that a timer costs no memory of its own and is taken out exactly when its entry leaves.
//!
//! Reads do not depend on it: they compare the expiry themselves. It only frees memory and tells listeners.

use crate::directory::{Directory, NIL};

/// Length of a tick in milliseconds, as a power of two. Coarse, because reads are exact without it.
const TICK_BITS: u32 = 4;
const LEVELS: usize = 8;
const DIGIT_BITS: u32 = 6;
const LISTS_PER_LEVEL: usize = 1 << DIGIT_BITS;
/// Last tick that has a place: 48 bits, some 140,000 years. Later deadlines are looked at then.
const TICK_MAX: u64 = (1 << (DIGIT_BITS * 8)) - 1;

pub(crate) struct Wheel {
    now_tick: u64,
    occupied: [u64; LEVELS],
    /// First slot of each list; empty until the first timer.
    firsts: Vec<u32>,
}

impl Wheel {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            now_tick: now_ms >> TICK_BITS,
            occupied: [0; LEVELS],
            firsts: Vec::new(),
        }
    }

    /// Sets the timer of `slot` to `deadline_ms`, in place of an earlier one. Cost: O(1).
    pub(crate) fn schedule<V>(
        &mut self,
        directory: &mut Directory<V>,
        slot: u32,
        deadline_ms: u64,
    ) {
        self.cancel(directory, slot);
        if self.firsts.is_empty() {
            self.firsts = vec![NIL; LEVELS * LISTS_PER_LEVEL];
        }
        let tick = deadline_tick(deadline_ms).max(self.now_tick + 1);
        let level = level_of(tick, self.now_tick);
        let digit = digit_of(tick, level);
        let list = level * LISTS_PER_LEVEL + digit;
        directory.link(slot, u32::try_from(list).unwrap_or(NIL), self.firsts[list]);
        self.firsts[list] = slot;
        self.occupied[level] |= 1 << digit;
    }

    /// Takes the timer of `slot` off, if it has one. Cost: O(1).
    pub(crate) fn cancel<V>(&mut self, directory: &mut Directory<V>, slot: u32) {
        if let Some((list, first)) = directory.unlink(slot) {
            let list = list as usize;
            self.firsts[list] = first;
            if first == NIL {
                self.occupied[list / LISTS_PER_LEVEL] &= !(1 << (list % LISTS_PER_LEVEL));
            }
        }
    }

    /// Moves on to `now_ms` and takes one timer that is due off its list; `deadline_ms_of` tells a slot's deadline.
    /// `None` when nothing is due any more. Cost: O(1) amortised; each timer moves down at most
    /// once per level.
    pub(crate) fn next_due<V>(
        &mut self,
        directory: &mut Directory<V>,
        now_ms: u64,
        deadline_ms_of: impl Fn(&Directory<V>, u32) -> u64,
    ) -> Option<u32> {
        let target = now_ms >> TICK_BITS;
        loop {
            let Some((level, digit, start)) = self.next_occupied().filter(|n| n.2 <= target) else {
                self.now_tick = self.now_tick.max(target);
                return None;
            };
            self.now_tick = self.now_tick.max(start);
            let slot = self.firsts[level * LISTS_PER_LEVEL + digit];
            self.cancel(directory, slot);
            let deadline_ms = deadline_ms_of(directory, slot);
            if deadline_tick(deadline_ms) <= self.now_tick {
                return Some(slot);
            }
            self.schedule(directory, slot, deadline_ms);
        }
    }

    /// Level, digit and first tick of the list to look at next: one that time has reached and that is still being emptied
    /// into lower levels, else the earliest ahead.
    fn next_occupied(&self) -> Option<(usize, usize, u64)> {
        let reached =
            |level: &usize| self.occupied[*level] & (1 << digit_of(self.now_tick, *level)) != 0;
        if let Some(level) = (0..LEVELS).rev().find(reached) {
            return Some((level, digit_of(self.now_tick, level), self.now_tick));
        }
        (0..LEVELS).find_map(|level| {
            let ahead = self.occupied[level] & (u64::MAX << digit_of(self.now_tick, level));
            (ahead != 0).then(|| {
                let digit = ahead.trailing_zeros() as usize;
                let shift = DIGIT_BITS as usize * level;
                let above = self.now_tick >> shift >> DIGIT_BITS << DIGIT_BITS << shift;
                (level, digit, above | ((digit as u64) << shift))
            })
        })
    }
}

/// The first tick at which `deadline_ms` has passed.
fn deadline_tick(deadline_ms: u64) -> u64 {
    deadline_ms.div_ceil(1 << TICK_BITS).min(TICK_MAX)
}

fn level_of(tick: u64, now_tick: u64) -> usize {
    let differing = (tick ^ now_tick) | 1;
    ((u64::BITS - 1 - differing.leading_zeros()) / DIGIT_BITS) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "six bits")]
fn digit_of(tick: u64, level: usize) -> usize {
    (tick >> (DIGIT_BITS as usize * level)) as usize & (LISTS_PER_LEVEL - 1)
}

#[cfg(test)]
#[path = "wheel_test.rs"]
mod tests;
