//! Lets time pass for the caches of a node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::shared::NodeShared;

/// How often stores and machines are ticked: the resolution of their timers (a guess; expiry
/// itself is checked on every read and does not wait for it).
const TICK: Duration = Duration::from_millis(10);

/// Starts the task; it ends when the node stops.
pub(super) fn spawn(shared: &Arc<NodeShared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopped = shared.stopped().clone();
        while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
            for cache in shared.caches().values() {
                cache.tick();
            }
            shared.cluster_state().tick(&shared);
        }
    });
}
