//! Write-behind, the sink's side: what falls due is written, and what has come of it is seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nearcache_protocol::mode::Published;
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_protocol::write::queue::{Batch, BatchOutcome, Settled};
use nearcache_store::{Handle, Version};
use tokio::task::JoinSet;

use super::Shell;
use super::behind::{Behind, Op, Watch};
use super::sinking::call_sink;
use super::through::DROP_PAUSE;
use crate::cache::sink::{CellWrite, SinkFault};
use crate::node::NodeShared;
use crate::random::random;

impl<V: Payload> Shell<V> {
    /// Begins to write what is queued. Called once the cache is open; does nothing the second time.
    pub(crate) fn drive_writes(self: &Arc<Self>) {
        if let Some(behind) = self.behind()
            && !behind.is_driven.swap(true, Ordering::AcqRel)
        {
            tokio::spawn(drive(Arc::clone(self)));
            if let Some(journal) = behind.journal() {
                journal.keep(self);
            }
        }
    }

    /// A write is in the system of record: what others have read before it was loses from now on.
    pub(super) fn confirm(&self, key: &Bytes, entry: Option<&Handle<V>>, written: Version) {
        let published = self.confirm_here(key, entry, written);
        self.tell(published);
    }

    /// The same in this node's store only; returns what the peers have to learn.
    fn confirm_here(
        &self,
        key: &Bytes,
        entry: Option<&Handle<V>>,
        written: Version,
    ) -> Option<Published<V>> {
        let Ok(version) = self.stamp() else {
            tracing::error!(cache = %self.name, "a written key cannot be told of yet: the clock is out of step");
            self.drop_again(key.clone(), DROP_PAUSE);
            return None;
        };
        // Looked at once: what comes after this look is not replaced.
        let known = self.store.known(key).version();
        let again = entry.and_then(|entry| {
            let is_here =
                known == entry.version() || self.store.evicted(key) == Some(entry.version());
            is_here.then(|| {
                let value = entry.value().clone();
                let (expiry, tags) = (entry.expiry(), entry.tags().clone());
                self.store.entry(key, version, value, expiry, tags)
            })
        });
        let known = again.as_ref().map(|_| known);
        let (_, published) = self.store_wanted(key, version, again.as_ref(), known);
        tracing::trace!(cache = %self.name, ?written, ?version, "written");
        published
    }

    /// What the end of a write means for the cache. If a read-modify-write of the key is under way this waits for it.
    fn see_to(self: &Arc<Self>, behind: &Behind<V>, settled: Settled<Op<V>>) {
        let (Settled::Written(write) | Settled::GivenUp(write)) = &settled;
        if let Some(_turn) = behind.turns.try_take(&write.key) {
            self.show(behind, &settled);
            return;
        }
        // Later ones of its key may have come to their end before this is shown.
        behind.queue().lock().watch(write.key.clone());
        let shell = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(behind) = shell.behind() {
                let (Settled::Written(write) | Settled::GivenUp(write)) = &settled;
                let _watch = Watch {
                    behind,
                    key: &write.key,
                };
                let _turn = behind.turns.take(write.key.clone()).await;
                shell.show(behind, &settled);
            }
        });
    }

    /// Makes what has come of a write seen, unless a later one of its key waits, or has ended by now: then that one's end says what is to
    /// be seen.
    fn show(&self, behind: &Behind<V>, settled: &Settled<Op<V>>) {
        let (Settled::Written(write) | Settled::GivenUp(write)) = settled;
        let is_written = matches!(settled, Settled::Written(_));
        if !is_written {
            tracing::error!(cache = %self.name, "a write was given up: see the dead letters");
        }
        // Nothing of the key is queued between the look and what is stored.
        let queue = behind.queue().lock();
        let published = if !queue.is_newest(&write.key, write.version) {
            None
        } else if is_written {
            let Op { entry, version } = &write.content;
            self.confirm_here(&write.key, entry.as_ref(), *version)
        } else {
            self.drop_here(&write.key).flatten()
        };
        drop(queue);
        self.tell(published);
    }

    /// Writes a batch, and sees to what comes of it.
    async fn write_batch(self: &Arc<Self>, behind: &Behind<V>, batch: Batch<Op<V>>) {
        let writes = batch.writes.iter().map(|write| CellWrite {
            key: &write.key,
            cell: write.content.entry.as_ref().map(|entry| entry.value()),
            version: write.content.version,
        });
        behind.step("before sink");
        let written = call_sink(&behind.sink, writes.collect(), behind.policy().timeout).await;
        let reason = written.as_ref().err().map(ToString::to_string);
        let outcome = match (&written, &reason) {
            (Err(SinkFault::Rejected(_)), Some(reason)) => BatchOutcome::Rejected(reason),
            (Err(_), Some(reason)) => BatchOutcome::Failed(reason),
            _ => BatchOutcome::Written,
        };
        if let Some(reason) = &reason {
            let writes = batch.writes.len();
            tracing::warn!(cache = %self.name, writes, %reason, "the system of record was not written");
        }
        let ended = behind
            .queue()
            .lock()
            .ended(self.node.now(), batch.id, outcome, random());
        behind.step("sink called");
        let (settled, released) = ended;
        for settled in settled {
            self.see_to(behind, settled);
        }
        if let Some(journal) = behind.journal() {
            journal.settle(released);
        }
        behind.nudge();
    }
}

/// Writes what falls due, until the node stops.
async fn drive<V: Payload>(shell: Arc<Shell<V>>) {
    let node: Arc<NodeShared> = Arc::clone(shell.node());
    let mut writing = JoinSet::new();
    let Some(behind) = shell.behind() else { return };
    loop {
        let due = loop {
            let mut queue = behind.queue().lock();
            let Some(batch) = queue.next_batch(node.now()) else {
                break queue.next_due();
            };
            drop(queue);
            let shell = Arc::clone(&shell);
            writing.spawn(async move {
                if let Some(behind) = shell.behind() {
                    shell.write_batch(behind, batch).await;
                }
            });
        };
        tokio::select! {
            () = node.stopped().cancelled() => return,
            () = behind.wake.notified() => {}
            () = until(&node, due) => {}
            Some(_) = writing.join_next() => {}
        }
    }
}

async fn until(node: &NodeShared, due: Time) {
    if due == Time::MAX {
        return std::future::pending().await;
    }
    tokio::time::sleep(due - node.now()).await;
}
