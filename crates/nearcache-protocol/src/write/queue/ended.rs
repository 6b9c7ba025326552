//! What the end of a batch means for its writes: settled, tried again, or given up.

use bytes::Bytes;

use super::{BatchId, Released, Write, WriteQueue};
use crate::time::Time;
use crate::write::dead::DeadLetter;

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome<'a> {
    /// All of it is in the system of record.
    Written,
    /// It may be or not; trying again may help.
    Failed(&'a str),
    /// It is not, and will not be if it is tried again as it is.
    Rejected(&'a str),
}

/// What the end of a batch means for one of its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It is in the system of record, and no later write of its key waits.
    Written(Write<T>),
    /// It is a dead letter now: the system of record does not have it.
    GivenUp(Write<T>),
}

impl<T: Clone> WriteQueue<T> {
    /// A batch has ended. `draw` is a random number from 0 to 1. Returns what is settled by that, and which writes need not be
    /// remembered any more.
    pub fn ended(
        &mut self,
        now: Time,
        id: BatchId,
        outcome: BatchOutcome<'_>,
        draw: f64,
    ) -> (Vec<Settled<T>>, Released) {
        let (mut settled, mut released) = (Vec::new(), Released::new());
        let writes = self.flying.remove(&id).unwrap_or_default();
        let (len, by_itself) = (writes.len(), writes.len() == 1);
        match outcome {
            BatchOutcome::Written => {
                self.counts.batches += 1;
                self.last_success = Some(now);
                self.batch_limit = (self.batch_limit * 2).min(self.config.batch_max);
            }
            BatchOutcome::Failed(_) if !by_itself => {
                self.batch_limit = (len / 2).clamp(1, self.config.batch_max);
            }
            BatchOutcome::Failed(_) | BatchOutcome::Rejected(_) => {}
        }
        for write in writes {
            match outcome {
                BatchOutcome::Written => {
                    self.counts.written += 1;
                    if self.wrote(now, &write) {
                        released.push(write.seq);
                        settled.push(Settled::Written(write));
                    }
                }
                BatchOutcome::Failed(reason) => {
                    if self.failed(now, &write, len, reason, draw) {
                        settled.push(Settled::GivenUp(write));
                    }
                }
                BatchOutcome::Rejected(reason) => {
                    if self.rejected(now, &write, by_itself, reason) {
                        settled.push(Settled::GivenUp(write));
                    }
                }
            }
        }
        (settled, released)
    }

    /// The sink has taken this write: whether its key is settled.
    fn wrote(&mut self, now: Time, write: &Write<T>) -> bool {
        let Some(slot) = self.slots.get_mut(&write.key) else {
            return false;
        };
        if slot.write.seq == write.seq {
            self.bytes -= slot.write.bytes;
            self.slots.remove(&write.key);
            return true;
        }
        slot.oldest = slot.write.seq;
        slot.since = now;
        slot.failures = 0;
        slot.failing_since = None;
        slot.together = usize::MAX;
        self.wait(&write.key, now);
        false
    }

    /// The sink has failed: whether the write is given up.
    fn failed(&mut self, now: Time, write: &Write<T>, len: usize, reason: &str, draw: f64) -> bool {
        let Some(slot) = self.slots.get_mut(&write.key) else {
            return false;
        };
        self.counts.coalesced += u64::from(slot.write.seq != write.seq);
        slot.failures = slot.failures.saturating_add(1);
        let failing_since = *slot.failing_since.get_or_insert(now);
        let by_itself = len == 1;
        // Others are written meanwhile: one of these is to blame. Which one is found by halves, at once.
        let is_up = self.last_success > Some(failing_since);
        if is_up {
            slot.together = (len / 2).max(1);
        }
        let backoff = self.config.backoff.after(slot.failures, draw);
        let gives_up =
            slot.write.seq == write.seq && now - failing_since >= self.config.give_up_after;
        if gives_up && !by_itself {
            // Perhaps it is not to blame.
            slot.together = 1;
            self.retry(&write.key, now);
            return false;
        }
        if gives_up && self.give_up(now, &write.key, reason) {
            return true;
        }
        let due = if is_up && !by_itself {
            now
        } else {
            now + backoff
        };
        self.retry(&write.key, due);
        false
    }

    /// The sink refuses this: whether the write is given up.
    fn rejected(&mut self, now: Time, write: &Write<T>, by_itself: bool, reason: &str) -> bool {
        let Some(slot) = self.slots.get_mut(&write.key) else {
            return false;
        };
        if slot.write.seq != write.seq {
            // What was rejected is superseded anyway.
            self.counts.coalesced += 1;
            self.retry(&write.key, now);
            return false;
        }
        if !by_itself {
            slot.together = 1;
            self.retry(&write.key, now);
            return false;
        }
        slot.failures = slot.failures.saturating_add(1);
        if self.give_up(now, &write.key, reason) {
            return true;
        }
        self.retry(&write.key, now + self.config.backoff.max);
        false
    }

    fn give_up(&mut self, now: Time, key: &Bytes, reason: &str) -> bool {
        if !self.dead.has_room() {
            return false;
        }
        let Some(slot) = self.slots.remove(key) else {
            return false;
        };
        self.bytes -= slot.write.bytes;
        self.counts.given_up += 1;
        self.dead.keep(DeadLetter {
            write: slot.write,
            reason: reason.to_owned(),
            attempts: slot.failures,
            since: now,
        });
        true
    }

    fn retry(&mut self, key: &Bytes, due: Time) {
        self.counts.retried += 1;
        self.wait(key, due);
    }

    fn wait(&mut self, key: &Bytes, due: Time) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.flying = None;
            self.due.insert((due, slot.write.seq), key.clone());
        }
    }
}
