//! Read-modify-writes: decided at the key's home node, then written to the system of record if there is a sink.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Outcome, Waiter};
use nearcache_protocol::modify::{Modified, ModifyOp};
use nearcache_protocol::payload::Payload;
use nearcache_store::Handle;

use super::{Machine, Op, Shell, Sinking};
use crate::cache::errors::{ModifyError, WriteError};
use crate::limits::OPERATION_TIMEOUT_MAX;

impl<V: Payload> Shell<V> {
    /// Changes a key at its home node and, if the cache has a sink, in the system of record; that in a task of its own: a caller that
    /// gives up leaves nothing half done.
    pub(crate) async fn modify_sunk(
        self: &Arc<Self>,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<Modified<V>, ModifyError> {
        let changes_value = !matches!(op, ModifyOp::Expire { .. });
        if self.sinking().is_none() || !changes_value {
            return self.modify(key, op, timeout).await;
        }
        let shell = Arc::clone(self);
        let modifying = tokio::spawn(async move { shell.modify_and_sink(key, op, timeout).await });
        // It does not panic: an error is that of a runtime that stops.
        let stops = |_| Err(WriteError::NodeStopped.into());
        modifying.await.unwrap_or_else(stops)
    }

    async fn modify_and_sink(
        &self,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<Modified<V>, ModifyError> {
        let removes = matches!(op, ModifyOp::Remove { .. });
        let bytes = (key.len() + op.value_len()) as u64;
        let mut got = None;
        let modify = async {
            let modified = self.modify(key.clone(), op, timeout).await?;
            let current = modified.current.clone().filter(|_| !removes);
            // A value that is not here cannot be written: it is as if nobody knew what the key holds.
            if modified.applied && !removes && current.as_ref().is_none_or(Handle::is_stub) {
                return Err(ModifyError::Indeterminate);
            }
            let (applied, version) = (modified.applied, modified.version);
            got = Some(modified);
            // Also if the clock is out of step: the change was made.
            let unsaid = || {
                let version = self.stamp();
                version.unwrap_or_else(|_| self.store.known(&key).version())
            };
            Ok(applied.then(|| Op {
                version: version.unwrap_or_else(unsaid),
                entry: current,
            }))
        };
        match self.sinking() {
            Some(Sinking::Through(through)) => {
                self.modify_through(through, key.clone(), modify).await?;
            }
            Some(Sinking::Behind(behind)) => {
                self.modify_behind(behind, &key, bytes, modify).await?;
            }
            None => return Err(ModifyError::Indeterminate),
        }
        got.ok_or(ModifyError::Indeterminate)
    }

    /// What was decided, if a change was made. If nobody knows, nobody keeps the key.
    pub(super) async fn decided(
        &self,
        key: &[u8],
        modify: impl Future<Output = Result<Option<Op<V>>, ModifyError>>,
    ) -> Result<Option<Op<V>>, ModifyError> {
        let decided = modify.await;
        if matches!(decided, Err(ModifyError::Indeterminate)) {
            self.drop_in_doubt(key);
        }
        decided
    }

    /// Asks the key's home node to change it.
    pub(crate) async fn modify(
        &self,
        key: Bytes,
        op: ModifyOp<V>,
        timeout: Duration,
    ) -> Result<Modified<V>, ModifyError> {
        use nearcache_protocol::modify::ModifyError as Reason;

        self.check_open()?;
        let now = self.node.now();
        let len_bytes = op.value_len();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + timeout.min(OPERATION_TIMEOUT_MAX),
        };
        {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.modify(now, key, op, waiter, out);
            self.carry_out(&mut machine);
        }
        match self.outcome(waiting).await {
            Some(Outcome::Modified(Ok(modified))) => Ok(modified),
            Some(Outcome::Modified(Err(reason))) => Err(match reason {
                Reason::NotAnInteger => ModifyError::NotAnInteger,
                Reason::Overflow => ModifyError::Overflow,
                Reason::TooLarge => WriteError::TooLargeForCache { entry_bytes: 0 }.into(),
                Reason::TooLargeForHome { limit_bytes } => WriteError::ValueTooLarge {
                    len_bytes,
                    limit_bytes: limit_bytes as usize,
                }
                .into(),
                Reason::ClockSkew => WriteError::ClockSkew.into(),
                Reason::Indeterminate => ModifyError::Indeterminate,
                // Overloaded, unreachable, not the home: nothing was changed.
                _ => ModifyError::Busy,
            }),
            Some(_) | None => Err(WriteError::NodeStopped.into()),
        }
    }
}
