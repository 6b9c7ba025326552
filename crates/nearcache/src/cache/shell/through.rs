//! Write-through: the system of record first, then the cache.
//!
//! The version of what is stored is made when the sink has answered: whatever was read from the system of record before that is older, on
//! every node, and loses. If something else was written to the key meanwhile, or the sink's answer does not say what is in the system of
//! record, the key is dropped everywhere instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::payload::Payload;
use nearcache_store::{Change, Version};
use tokio::sync::Semaphore;

use super::sinking::{Sinking, call_sink, wanted};
use super::turns::Turns;
use super::{Op, Shell, Written};
use crate::cache::errors::{ModifyError, WriteError};
use crate::cache::options::Ack;
use crate::cache::sink::{CellSink, CellWrite, SinkFault, WriteThrough};

/// How long at least between two tries to drop a key that may be wrong (guess; a clock that is out of step stays so for seconds).
pub(super) const DROP_PAUSE: Duration = Duration::from_secs(1);

/// And at most: many keys may be waiting, and each try that fails is logged (guess).
const DROP_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The state of a cache that writes through.
pub(crate) struct Through<V> {
    policy: WriteThrough,
    sink: Arc<dyn CellSink<V>>,
    calls: Semaphore,
    waiting: AtomicUsize,
    turns: Turns,
}

impl<V: Payload> Through<V> {
    pub(crate) fn new(policy: WriteThrough, sink: Arc<dyn CellSink<V>>) -> Self {
        Self {
            sink,
            calls: Semaphore::new(policy.calls_max.min(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            turns: Turns::default(),
            policy,
        }
    }
}

impl<V: Payload> Shell<V> {
    fn through(&self) -> Option<&Through<V>> {
        match &self.sinking {
            Some(Sinking::Through(through)) => Some(through),
            Some(Sinking::Behind(_)) | None => None,
        }
    }

    /// Writes through, in a task of its own: a caller that gives up leaves nothing half done.
    pub(super) async fn write_through(
        self: &Arc<Self>,
        key: &[u8],
        change: Change<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<Written<V>, WriteError> {
        self.check_open()?;
        if let Some(through) = self.through() {
            through.sink.takes(key)?;
        }
        let (shell, key) = (Arc::clone(self), Bytes::copy_from_slice(key));
        let writing = tokio::spawn(async move {
            let Some(through) = shell.through() else {
                return Err(WriteError::NodeStopped);
            };
            shell
                .sink_then_store(through, key, change, ack, timeout)
                .await
        });
        // It does not panic: an error is that of a runtime that stops.
        writing.await.unwrap_or(Err(WriteError::NodeStopped))
    }

    async fn sink_then_store(
        &self,
        through: &Through<V>,
        key: Bytes,
        change: Change<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<Written<V>, WriteError> {
        let Some(wanted) = wanted(change) else {
            return Err(WriteError::SinkMustWait);
        };
        let _place = through.place(&key).await?;
        // Whoever waits for a place may wait beyond the end of a window of `split`.
        self.check_writable()?;
        // The entry is made anew with a later version: this one is what the sink is told.
        let (guard, known) = (self.stamp()?, self.store.known(&key).version());
        let cell = wanted.as_ref().map(|(cell, _, _)| cell);
        let write = CellWrite {
            key: &key,
            cell,
            version: guard,
        };
        if let Err(fault) = call_sink(&through.sink, vec![write], through.policy.timeout).await {
            return Err(self.sink_failed(through, &key, fault));
        }
        let version = match self.stamp() {
            Ok(version) => version,
            Err(error) => return Err(self.written_unstamped(through, &key, guard, error)),
        };
        let keeps = through.policy.keeps;
        let entry = wanted
            .filter(|_| keeps)
            .map(|(value, expiry, tags)| self.store.entry(&key, version, value, expiry, tags));
        let (written, published) = self.store_wanted(&key, version, entry.as_ref(), Some(known));
        if let Some(published) = published {
            self.publish_acked(published, ack, timeout).await?;
        }
        Ok(written)
    }

    /// It is written, but this node's clock has come out of step meanwhile: what was here before is dropped at once, what is read of the former
    /// value meanwhile as soon as the clock allows.
    fn written_unstamped(
        &self,
        through: &Through<V>,
        key: &Bytes,
        guard: Version,
        error: WriteError,
    ) -> WriteError {
        let (_, published) = self.store_wanted(key, guard, None, None);
        self.tell(published);
        self.drop_again(key.clone(), through.policy.timeout);
        WriteError::SinkFailed(error.into())
    }

    /// The sink did not say that it was written.
    fn sink_failed(&self, through: &Through<V>, key: &Bytes, fault: SinkFault) -> WriteError {
        if let SinkFault::Rejected(_) = fault {
            return WriteError::SinkRejected(fault.into_source());
        }
        self.drop_in_doubt(key);
        self.drop_again(key.clone(), through.policy.timeout);
        WriteError::SinkFailed(fault.into_source())
    }

    /// What was cut off may still be written: drops the key once more when the system of record has had its time, and this node's clock
    /// is in step.
    pub(super) fn drop_again(&self, key: Bytes, after: Duration) {
        let node = Arc::clone(&self.node);
        let id = self.id;
        tokio::spawn(async move {
            let stopped = node.stopped().clone();
            let dropped = async {
                let mut pause = after.max(DROP_PAUSE);
                loop {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(DROP_PAUSE_MAX);
                    let cache = node.caches().get(&id).cloned();
                    if cache.is_none_or(|cache| cache.drop_in_doubt(&key)) {
                        return;
                    }
                }
            };
            stopped.run_until_cancelled(dropped).await;
        });
    }

    /// A read-modify-write, whose result is then written through.
    pub(super) async fn modify_through(
        &self,
        through: &Through<V>,
        key: Bytes,
        modify: impl Future<Output = Result<Option<Op<V>>, ModifyError>>,
    ) -> Result<(), ModifyError> {
        let _place = through.place(&key).await?;
        let Some(Op { entry, version }) = self.decided(&key, modify).await? else {
            return Ok(());
        };
        let write = CellWrite {
            key: &key,
            cell: entry.as_ref().map(|entry| entry.value()),
            version,
        };
        match call_sink(&through.sink, vec![write], through.policy.timeout).await {
            Ok(()) => {
                self.confirm(&key, entry.as_ref(), version);
                Ok(())
            }
            Err(fault) => {
                // Also if it was rejected: the cache has it already.
                self.drop_in_doubt(&key);
                self.drop_again(key, through.policy.timeout);
                Err(match fault {
                    SinkFault::Rejected(_) => WriteError::SinkRejected(fault.into_source()),
                    _ => WriteError::SinkFailed(fault.into_source()),
                }
                .into())
            }
        }
    }
}

/// The right to call the sink with a key.
struct Place<'a> {
    _turn: super::turns::Turn<'a>,
    _call: tokio::sync::SemaphorePermit<'a>,
}

impl<V> Through<V> {
    async fn place(&self, key: &Bytes) -> Result<Place<'_>, WriteError> {
        let queued = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if queued >= self.policy.queued_max + self.calls.available_permits() {
            return Err(WriteError::SinkOverloaded { queued });
        }
        let place = async {
            // The key first: who waits for an earlier write of it takes no call from others.
            let turn = self.turns.take(key.clone()).await;
            let call = self.calls.acquire().await;
            call.map(|call| Place {
                _turn: turn,
                _call: call,
            })
        };
        match tokio::time::timeout(self.policy.wait, place).await {
            Ok(Ok(place)) => Ok(place),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(WriteError::SinkOverloaded { queued }),
        }
    }
}

/// One who waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
