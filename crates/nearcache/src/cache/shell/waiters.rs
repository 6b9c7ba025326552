//! Callers who wait for the machine.
//!
//! A caller enters and gets a number; the machine answers that number once. A caller who gives up
//! (its future is dropped) is taken off here, and the machine is told to forget it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use nearcache_protocol::ids::WaiterId;
use nearcache_protocol::mode::Outcome;
use nearcache_protocol::payload::Payload;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shell;

pub(super) struct Waiters<V: Payload> {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<WaiterId, oneshot::Sender<Outcome<V>>>>,
}

impl<V: Payload> Default for Waiters<V> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
        }
    }
}

impl<V: Payload> Waiters<V> {
    /// Registers a caller. It is answered once, by [`answer`](Self::answer).
    pub(super) fn enter(&self) -> Waiting<V> {
        let id = WaiterId(self.next.fetch_add(1, Ordering::Relaxed));
        let (answer, outcome) = oneshot::channel();
        self.waiting.lock().insert(id, answer);
        Waiting { id, outcome }
    }

    /// Hands the outcome to whoever waits under `id`, if somebody still does.
    pub(super) fn answer(&self, id: WaiterId, outcome: Outcome<V>) {
        let waiter = self.waiting.lock().remove(&id);
        if let Some(waiter) = waiter {
            // The caller may have gone in this very moment; then nobody misses the outcome.
            let _ = waiter.send(outcome);
        }
    }

    /// Tells everybody that there will be no answer.
    pub(super) fn abandon(&self) {
        self.waiting.lock().clear();
    }
}

/// A caller's place in the list.
pub(crate) struct Waiting<V: Payload> {
    id: WaiterId,
    outcome: oneshot::Receiver<Outcome<V>>,
}

impl<V: Payload> Waiting<V> {
    pub(super) const fn id(&self) -> WaiterId {
        self.id
    }
}

impl<V: Payload> Shell<V> {
    /// Waits for the outcome; `None` if the node stops first.
    pub(super) async fn outcome(&self, waiting: Waiting<V>) -> Option<Outcome<V>> {
        let guard = Guard {
            shell: self,
            id: waiting.id,
        };
        let outcome = waiting.outcome.await.ok();
        std::mem::forget(guard);
        outcome
    }
}

/// Forgets a caller whose future is dropped before it was answered.
struct Guard<'a, V: Payload> {
    shell: &'a Shell<V>,
    id: WaiterId,
}

impl<V: Payload> Drop for Guard<'_, V> {
    fn drop(&mut self) {
        self.shell.waiters.waiting.lock().remove(&self.id);
        self.shell.machine.lock().core.forget(self.id);
    }
}
