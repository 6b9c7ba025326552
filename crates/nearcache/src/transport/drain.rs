//! Leaving without losing what is on its way.
//!
//! Nobody shall lose by it: peers get what only this node has (its last updates, those of nodes that are gone, and what no stream told
//! of) before it says that it leaves. A leave overtakes updates, because it travels on another lane, and a peer forgets a node that
//! has left. So first the peers have everything, then the leave is sent.

use std::time::Duration;

use nearcache_protocol::mode::HandedOver;

use crate::node::{Caches, NodeShared};

/// How long to wait for what is on its way, twice: for acknowledgements, and for the connections
/// to end. Together the 10 s of the reliability specification, section 3.2.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often to look whether all is acknowledged (a guess; peers tell at their heartbeat, every
/// 500 ms, at the latest).
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long all connected peers are waited for; from then on one that has everything is enough: a slow peer costs no more than that (a
/// guess: a few heartbeats, with which peers tell how far they are).
const ALL_PEERS_MAX: Duration = Duration::from_secs(2);

/// Writes what waits for the system of record: for at most 5 s.
pub(crate) async fn write_out(shared: &NodeShared) {
    let queued: usize = shared
        .caches()
        .values()
        .map(|cache| cache.hurry_writes())
        .sum();
    if queued == 0 {
        return;
    }
    let started = shared.now();
    loop {
        let left: usize = shared
            .caches()
            .values()
            .map(|cache| cache.queued_writes())
            .sum();
        if left == 0 {
            return;
        }
        if shared.now() - started >= DRAIN_MAX {
            tracing::error!(
                left,
                "not all writes have reached the system of record: those in no journal are lost"
            );
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the journals of a node that has stopped are closed, for at most 5 s: then they can be opened again.
pub(crate) async fn close_journals(caches: &Caches) {
    let closed = async {
        while caches.values().any(|cache| cache.holds_journal()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(DRAIN_MAX, closed).await.is_err() {
        tracing::error!("a journal could not be closed in time");
    }
}

/// Hands over what this node has: waits until all connected peers have it, for at most 2 s, or at least one, for at most 5 s.
pub(crate) async fn hand_over(shared: &NodeShared) {
    for cache in shared.caches().values() {
        cache.hand_over();
    }
    let least = |wanted: HandedOver| {
        let caches = shared.caches();
        let mut caches = caches.values();
        caches.all(|cache| {
            cache.handed_over() >= wanted && (wanted < HandedOver::ToAll || cache.is_drained())
        })
    };
    let started = shared.now();
    while !least(HandedOver::ToAll) {
        let waited = shared.now() - started;
        if waited >= ALL_PEERS_MAX && least(HandedOver::ToSome) {
            tracing::warn!("some peers do not have all that this node has; others do");
            return;
        }
        if waited >= DRAIN_MAX {
            tracing::warn!("no peer is known to have all that this node has");
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
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
