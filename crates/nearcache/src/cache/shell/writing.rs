//! Writing where the cache has no sink, and what all writes need: stamp, merge, tell the peers, wait for them.

use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::clock::ClockError;
use nearcache_protocol::mode::{NotAcked, Outcome, Published, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_store::{Change, Handle, MergeError, Merged, Scope, Version};

use super::waiters::Waiting;
use super::{CellChange, Machine, Shell};
use crate::cache::errors::WriteError;
use crate::cache::options::Ack;
use crate::codec::key::KeyError;
use crate::limits::OPERATION_TIMEOUT_MAX;

impl<V: Payload> Shell<V> {
    /// A new version for a write of this node.
    pub(crate) fn stamp(&self) -> Result<Version, WriteError> {
        self.hlc
            .stamp(self.node.now())
            .map_err(|error: ClockError| {
                self.node.metrics().writes_refused_by_clock.inc();
                tracing::warn!(cache = %self.name, %error, "write refused");
                WriteError::ClockSkew
            })
    }

    /// Merges a write of this node into the store and tells the peers. Never waits.
    ///
    /// Returns the version and what was live under the key before.
    pub(crate) fn write(&self, key: &[u8], change: Change<V>) -> Result<Written<V>, WriteError> {
        self.check_open()?;
        let (version, replaced, published) = self.merge(key, change)?;
        if let Some(published) = published {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.publish(self.node.now(), published, Ack::Local.into(), None, out);
            self.carry_out(&mut machine);
        }
        Ok(Written { version, replaced })
    }

    /// As [`write`](Self::write), then waits until as many peers as `ack` says have applied it.
    pub(crate) async fn write_acked(
        &self,
        key: &[u8],
        change: Change<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<Written<V>, WriteError> {
        if ack == Ack::Local {
            return self.write(key, change);
        }
        self.check_open()?;
        let (version, replaced, published) = self.merge(key, change)?;
        if let Some(published) = published {
            self.publish_acked(published, ack, timeout).await?;
        }
        Ok(Written { version, replaced })
    }

    /// Merges many writes and tells the peers of all of them at once.
    pub(crate) fn write_many(
        &self,
        changes: impl IntoIterator<Item = (Bytes, Change<V>)>,
    ) -> Result<(), WriteError> {
        self.check_open()?;
        let mut all = Vec::new();
        let mut result = Ok(());
        for (key, change) in changes {
            match self.merge(&key, change) {
                Ok((_, _, published)) => all.extend(published),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut machine = self.machine.lock();
        let now = self.node.now();
        for published in all {
            let Machine { core, out } = &mut *machine;
            core.publish(now, published, Ack::Local.into(), None, out);
        }
        self.carry_out(&mut machine);
        result
    }

    /// Raises a floor under everything in `scope` and tells the peers.
    pub(crate) async fn invalidate(
        &self,
        scope: Scope,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        self.check_open()?;
        let version = self.stamp()?;
        self.store.invalidate(scope.clone(), version);
        self.changes.send(&CellChange::Invalidated {
            scope: scope.clone(),
        });
        self.publish_acked(Published::Floor { scope, version }, ack, timeout)
            .await
    }

    /// Tells the peers, and waits until as many as `ack` says have it.
    pub(super) async fn publish_acked(
        &self,
        published: Published<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Result<(), WriteError> {
        match self.publish(published, ack, timeout) {
            Some(waiting) => self.acked(waiting).await,
            None => Ok(()),
        }
    }

    /// Tells the peers; who wants to know when they have it gets a place to wait.
    pub(super) fn publish(
        &self,
        published: Published<V>,
        ack: Ack,
        timeout: Duration,
    ) -> Option<Waiting<V>> {
        let now = self.node.now();
        let waiting = (ack != Ack::Local).then(|| self.waiters.enter());
        let waiter = waiting.as_ref().map(|waiting| Waiter {
            id: waiting.id(),
            deadline: now + timeout.min(OPERATION_TIMEOUT_MAX),
        });
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        core.publish(now, published, ack.into(), waiter, out);
        self.carry_out(&mut machine);
        waiting
    }

    /// Waits until as many peers as were asked for have applied a write.
    pub(super) async fn acked(&self, waiting: Waiting<V>) -> Result<(), WriteError> {
        match self.outcome(waiting).await {
            Some(Outcome::Acked(Ok(()))) => Ok(()),
            Some(Outcome::Acked(Err(NotAcked::Timeout(timeout)))) => Err(WriteError::AckTimeout {
                acked: timeout.acked as usize,
                wanted: timeout.wanted as usize,
            }),
            Some(Outcome::Acked(Err(NotAcked::BeyondMesh(beyond)))) => {
                Err(WriteError::AckAllBeyondMesh {
                    members: beyond.members,
                    mesh_max: beyond.mesh_max,
                })
            }
            Some(_) | None => Err(WriteError::NodeStopped),
        }
    }

    /// Whether a write may be made on this node now.
    pub(super) fn check_open(&self) -> Result<(), WriteError> {
        if self.node.is_leaving() {
            return Err(WriteError::NodeStopped);
        }
        self.check_writable()
    }

    /// Whether `split` lets this node write.
    pub(super) fn check_writable(&self) -> Result<(), WriteError> {
        if !self.gate.may_write(self.node.quick()) {
            self.counters.refused_by_split.inc();
            return Err(WriteError::ReadOnly);
        }
        Ok(())
    }

    /// Stamps and merges; returns what the peers have to learn.
    #[expect(clippy::type_complexity, reason = "a private step of three callers")]
    fn merge(
        &self,
        key: &[u8],
        change: Change<V>,
    ) -> Result<(Version, Option<Handle<V>>, Option<Published<V>>), WriteError> {
        let version = self.stamp()?;
        match self.store.merge(key, version, change) {
            Ok(Merged::Applied {
                entry: Some(entry),
                replaced,
            }) => Ok((version, replaced, Some(Published::Entry(entry)))),
            Ok(Merged::Applied {
                entry: None,
                replaced,
            }) => {
                let key = Bytes::copy_from_slice(key);
                Ok((version, replaced, Some(Published::Removal { key, version })))
            }
            // Somebody else's newer write got in between: it is what readers see now.
            Ok(Merged::Stale { current }) => Ok((current, None, None)),
            Ok(Merged::Declined) => Ok((version, None, None)),
            Err(MergeError::TooLargeForCache { weight_bytes, .. }) => {
                self.drop_for_all(key, version);
                let entry_bytes = usize::try_from(weight_bytes).unwrap_or(usize::MAX);
                Err(WriteError::TooLargeForCache { entry_bytes })
            }
            Err(MergeError::KeyTooLong {
                len_bytes,
                limit_bytes,
            }) => Err(KeyError::KeyTooLong {
                len_bytes,
                limit_bytes,
            }
            .into()),
            Err(_) => Err(WriteError::TombstoneLimit),
        }
    }

    /// The entry did not fit and the older copy is gone here; peers must not keep serving it.
    fn drop_for_all(&self, key: &[u8], version: Version) {
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        let key = Bytes::copy_from_slice(key);
        let published = Published::Removal { key, version };
        core.publish(self.node.now(), published, Ack::Local.into(), None, out);
        self.carry_out(&mut machine);
    }
}

/// What a write did to the store.
#[derive(Debug)]
pub(crate) struct Written<V> {
    pub(crate) version: Version,
    pub(crate) replaced: Option<Handle<V>>,
}

impl<V: Payload> Written<V> {
    /// Whether a value was here before: not only that there is none anywhere.
    pub(crate) fn held_value(&self) -> bool {
        let replaced = self.replaced.as_ref();
        replaced.is_some_and(|replaced| !replaced.value().is_absent())
    }
}

impl<V> Written<V> {
    /// That of a write that was made elsewhere.
    pub(super) const fn nothing(version: Version) -> Self {
        Self {
            version,
            replaced: None,
        }
    }
}

impl From<Ack> for nearcache_protocol::mode::Ack {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Local => Self::Local,
            Ack::Peers(count) => Self::Peers(u32::try_from(count).unwrap_or(u32::MAX)),
            Ack::All => Self::All,
        }
    }
}
