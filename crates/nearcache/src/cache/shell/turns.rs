//! One at a time of each key: [`Turns`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The keys that somebody has or waits for. Whoever waits is bounded elsewhere.
#[derive(Debug, Default)]
pub(super) struct Turns {
    keys: Mutex<BTreeMap<Bytes, Arc<AsyncMutex<()>>>>,
}

impl Turns {
    /// Waits until nobody else has the key. In the order in which they came. Cancel-safe.
    pub(super) async fn take(&self, key: Bytes) -> Turn<'_> {
        let lock = Arc::clone(self.keys.lock().entry(key.clone()).or_default());
        let mut turn = Turn {
            turns: self,
            key,
            held: None,
        };
        turn.held = Some(lock.lock_owned().await);
        turn
    }

    /// The key, if nobody else has it or waits for it.
    pub(super) fn try_take(&self, key: &Bytes) -> Option<Turn<'_>> {
        let lock = Arc::clone(self.keys.lock().entry(key.clone()).or_default());
        let mut turn = Turn {
            turns: self,
            key: key.clone(),
            held: None,
        };
        turn.held = lock.try_lock_owned().ok();
        turn.held.is_some().then_some(turn)
    }
}

/// The right to a key, until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: Bytes,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut keys = self.turns.keys.lock();
        self.held = None;
        // The map's own reference is the last: nobody waits.
        if keys
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            keys.remove(&self.key);
        }
    }
}
