//! Lets time pass for the caches of a node.

use std::sync::Arc;
use std::time::Duration;

use super::shared::NodeShared;

/// How often stores and machines are ticked: the resolution of their timers (a guess; expiry
/// itself is checked on every read and does not wait for it).
const TICK: Duration = Duration::from_millis(10);

/// As long as something is sent at a limited rate, or a store gone through for a list, it is done in steps of this length.
const PACED_TICK: Duration = Duration::from_millis(1);

/// Starts the task; it ends when the node stops.
pub(super) fn spawn(shared: &Arc<NodeShared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let stopped = shared.stopped().clone();
        let mut pause = Duration::ZERO;
        while (stopped.run_until_cancelled(tokio::time::sleep(pause)).await).is_some() {
            let mut is_paced = false;
            for cache in shared.caches().values() {
                is_paced |= cache.tick();
            }
            shared.cluster_state().tick(&shared);
            shared.watch_clocks();
            pause = if is_paced { PACED_TICK } else { TICK };
        }
    });
}
