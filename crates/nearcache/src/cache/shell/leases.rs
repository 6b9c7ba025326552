//! Whether another node loads a key: asking its home node, and telling it when our own load is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::load::lease::{Lease, Turn};
use nearcache_protocol::mode::{Outcome, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_store::Handle;

use super::Shell;
use super::waiters::Waiting;

/// Who loads a key.
pub(crate) enum Load<V: Payload> {
    /// We do.
    Ours(LoadLease<V>),
    /// Somebody has: it is in the store.
    Done,
}

/// The right to load a key. Given back when it is dropped, however the load has ended, so that the next node need not wait.
pub(crate) struct LoadLease<V: Payload> {
    shell: Arc<Shell<V>>,
    lease: Option<Lease>,
}

impl<V: Payload> LoadLease<V> {
    /// The load is over, and this was stored.
    pub(crate) fn end(mut self, stored: Option<&Handle<V>>) {
        self.give_back(stored);
    }

    fn give_back(&mut self, stored: Option<&Handle<V>>) {
        if let Some(lease) = self.lease.take() {
            let now = self.shell.node.now();
            self.shell
                .step(|core, out| core.end_load(now, lease, stored, out));
        }
    }
}

impl<V: Payload> Drop for LoadLease<V> {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl<V: Payload> Shell<V> {
    /// The right that everybody has while nobody is in charge.
    pub(crate) fn without_lease(self: &Arc<Self>) -> LoadLease<V> {
        LoadLease {
            shell: Arc::clone(self),
            lease: None,
        }
    }

    /// Asks who loads `key`, to load it within `lease_for` if that is us; nothing if everybody loads for himself.
    pub(crate) fn ask_lease(&self, key: &Bytes, lease_for: Duration) -> Option<Waiting<V>> {
        let policy = self.loads.policy();
        if self.settings.mode != ModeKind::Replicated || !policy.cluster_flights {
            return None;
        }
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + policy.load_timeout / 2,
        };
        let key = key.clone();
        self.step(|core, out| core.begin_load(now, key, lease_for, waiter, out));
        Some(waiting)
    }

    /// Waits while somebody else loads the key that was asked about, for at most half of what a load may take.
    pub(crate) async fn turn(self: &Arc<Self>, asked: Option<Waiting<V>>) -> Load<V> {
        let mut ours = self.without_lease();
        let Some(waiting) = asked else {
            return Load::Ours(ours);
        };
        match self.outcome(waiting).await {
            Some(Outcome::Turn(Turn::Loaded)) => Load::Done,
            Some(Outcome::Turn(Turn::Yours(lease))) => {
                ours.lease = lease;
                Load::Ours(ours)
            }
            // The node stops: whoever still waits may have the value all the same.
            Some(_) | None => Load::Ours(ours),
        }
    }
}
