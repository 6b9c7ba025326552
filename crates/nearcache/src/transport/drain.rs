//! Leaving without losing what is on its way.
//!
//! A leave overtakes updates, because it travels on another lane, and a peer forgets a node that
//! has left. So first the peers acknowledge all updates, then the leave is sent.

use std::time::Duration;

use crate::node::NodeShared;

/// How long to wait for what is on its way, twice: for acknowledgements, and for the connections
/// to end. Together the 10 s of the reliability specification, section 3.2.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often to look whether all is acknowledged (a guess; peers tell at their heartbeat, every
/// 500 ms, at the latest).
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until all connected peers have applied all that was written here, for at most 5 s.
pub(crate) async fn acknowledged(shared: &NodeShared) {
    let acknowledged = async {
        while !shared.caches().values().all(|cache| cache.is_drained()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(DRAIN_MAX, acknowledged).await.is_err() {
        tracing::warn!("not all peers have acknowledged what was written here");
    }
}

/// Lets every writer send what waits and close its side, then waits until the peers have read to
/// the end and closed theirs, for at most 5 s.
pub(crate) async fn close(shared: &NodeShared) {
    let all = shared.links().all();
    for link in &all {
        link.finish();
    }
    let closed = async {
        for link in &all {
            link.closed.cancelled().await;
        }
    };
    if tokio::time::timeout(DRAIN_MAX, closed).await.is_err() {
        tracing::warn!("not all peers have closed their connections");
    }
}
