//! Write-behind, its owner's side: waiting for it, leaving, dead letters, and numbers.

use std::time::Duration;

use nearcache_protocol::payload::Payload;
use nearcache_protocol::write::dead::DeadLetter;
use nearcache_protocol::write::queue::WriteSeq;

use super::Shell;
use super::behind::{Behind, Op};
use super::journaling::Journaling;
use crate::cache::sink::FlushError;
use crate::cache::stats::WriteStats;

impl<V: Payload> Shell<V> {
    /// Waits until all that is queued now is settled.
    pub(crate) async fn flush_writes(&self, timeout: Duration) -> Result<(), FlushError> {
        let Some(behind) = self.behind() else {
            return Ok(());
        };
        let upto = self.hurry_writes();
        let flushed = async {
            loop {
                let settled = behind.settled.notified();
                if behind.queue().lock().is_settled_to(upto) {
                    return Ok(());
                }
                if self.node.is_stopped() {
                    return Err(FlushError::NodeStopped);
                }
                settled.await;
            }
        };
        match tokio::time::timeout(timeout, flushed).await {
            Ok(flushed) => flushed,
            Err(_) => Err(FlushError::TimedOut {
                left: behind.queue().lock().len(),
                after: timeout,
            }),
        }
    }

    /// All that is queued is due; returns the number of the last write.
    fn hurry_writes(&self) -> WriteSeq {
        let Some(behind) = self.behind() else {
            return WriteSeq::default();
        };
        let mut queue = behind.queue().lock();
        queue.hurry(self.node.now());
        let last = queue.last_seq();
        drop(queue);
        behind.wake.notify_one();
        last
    }

    /// This node leaves: all that is queued is due, and what has room and is queued from now on is too. Says how many keys that are.
    pub(super) fn hurry_and_count(&self) -> usize {
        let Some(behind) = self.behind() else {
            return 0;
        };
        let mut queue = behind.queue().lock();
        queue.hurry(self.node.now());
        queue.end_delay();
        drop(queue);
        // Also those that wait for room: they get none any more.
        behind.nudge();
        self.queued_keys()
    }

    /// Whether a journal is still in use.
    pub(super) fn holds_journal(&self) -> bool {
        let journal = self.behind().and_then(|behind| behind.journal());
        journal.is_some_and(|journal| !journal.is_closed())
    }

    /// Keys that are to be written, and writes that have room and are not queued yet.
    pub(super) fn queued_keys(&self) -> usize {
        self.behind().map_or(0, |behind| {
            let queue = behind.queue().lock();
            queue.len() + queue.reserved()
        })
    }

    /// Whoever waits for the queue looks again.
    pub(super) fn wake_writers(&self) {
        if let Some(behind) = self.behind() {
            behind.nudge();
        }
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter<Op<V>>> {
        let letters = |behind: &Behind<V>| behind.queue().lock().dead().iter().cloned().collect();
        self.behind().map_or_else(Vec::new, letters)
    }

    pub(crate) fn replay_dead_letters(&self) -> usize {
        let Some(behind) = self.behind() else {
            return 0;
        };
        let replayed = behind.queue().lock().replay_dead(self.node.now());
        behind.nudge();
        replayed
    }

    pub(crate) fn discard_dead_letter(&self, key: &[u8]) -> bool {
        let Some(behind) = self.behind() else {
            return false;
        };
        let letter = behind.queue().lock().discard_dead(key);
        if let (Some(letter), Some(journal)) = (&letter, behind.journal()) {
            journal.settle(smallvec::smallvec![letter.write.seq]);
        }
        letter.is_some()
    }

    /// What write-behind has counted, and what waits.
    pub(super) fn write_stats(&self) -> WriteStats {
        let Some(behind) = self.behind() else {
            return WriteStats::default();
        };
        let now = self.node.now();
        let queue = behind.queue().lock();
        WriteStats::new(
            queue.counts(),
            (queue.len(), queue.bytes(), queue.dead().len()),
            queue.oldest_since().map(|since| now - since),
            behind.journal().map_or((0, 0), Journaling::read),
        )
    }
}
