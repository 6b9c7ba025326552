//! Reads that ask peers: a key that is missing while this node is being filled, the value of a stub, and freshness.

use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Outcome, Waiter};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::time::Time;
use nearcache_store::Handle;

use super::{Machine, Shell, is_leased};
use crate::limits::OPERATION_TIMEOUT_DEFAULT;

/// How long a read of a joining node waits for a peer's answer.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a read waits for a long value to be fetched.
const FETCH_TIMEOUT: Duration = OPERATION_TIMEOUT_DEFAULT;

/// How long a read that demands freshness waits for the peers' answers (reliability specification, 3.2: a peer's answer).
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a read of a node that has not met a peer yet looks whether it has (a guess; only
/// while starting).
const FIND_PAUSE: Duration = Duration::from_millis(2);

impl<V: Payload> Shell<V> {
    /// Makes this node as fresh as `since`, if its peers answer in time.
    pub(crate) async fn refresh(&self, since: Time) -> bool {
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline: now + REFRESH_TIMEOUT,
        };
        self.step(|core, out| core.refresh(now, since, waiter, out));
        matches!(self.outcome(waiting).await, Some(Outcome::Fresh(true)))
    }

    /// Asks peers for a key that is missing while this node is being filled, or for the value of a stub.
    pub(crate) async fn find(&self, key: &[u8]) -> Option<Handle<V>> {
        let started = self.node.now();
        while self.has_nobody_to_ask() && self.node.now() < started + FIND_TIMEOUT {
            tokio::time::sleep(FIND_PAUSE).await;
        }
        loop {
            let was_stub = self.holds_stub(key);
            let timeout = if was_stub {
                FETCH_TIMEOUT
            } else {
                FIND_TIMEOUT
            };
            let found = self.find_until(key, started + timeout).await;
            let bound = self.gate.bound();
            // The answer was merged under its own key (C6), so the store is asked for ours.
            let held = self.store.peek(key).filter(|_| found)?;
            if !is_leased(bound, self.node.quick()) {
                return None;
            }
            if !held.is_stub() {
                return Some(held);
            }
            // A newer one has come since.
            if self.node.now() >= started + FETCH_TIMEOUT {
                return None;
            }
        }
    }

    fn holds_stub(&self, key: &[u8]) -> bool {
        self.store.peek(key).is_some_and(|entry| entry.is_stub())
    }

    async fn find_until(&self, key: &[u8], deadline: Time) -> bool {
        let now = self.node.now();
        let waiting = self.waiters.enter();
        let waiter = Waiter {
            id: waiting.id(),
            deadline,
        };
        {
            let mut machine = self.machine.lock();
            let Machine { core, out } = &mut *machine;
            core.find(now, Bytes::copy_from_slice(key), waiter, out);
            self.carry_out(&mut machine);
        }
        matches!(self.outcome(waiting).await, Some(Outcome::Found(true)))
    }

    /// Whether this node is still looking for the peers that will fill it.
    fn has_nobody_to_ask(&self) -> bool {
        !self.is_ready() && !self.node.is_stopped() && self.freshness().per_peer.is_empty()
    }
}
