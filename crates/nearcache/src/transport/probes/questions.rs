//! What caches have to say to members without a session, until there is a connection for it.
//!
//! Questions about one key and their answers (`nearcache_protocol::probe`) share the pool with the membership, which goes first: they
//! take at most half of the connections, give way to it, and wait here meanwhile. Who asks, asks again what was lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::identity::Identity;
use nearcache_protocol::time::Time;
use nearcache_store::NodeId;
use parking_lot::Mutex;

use super::call;
use super::pool::Offer;
use crate::node::NodeShared;

/// Messages that wait for a connection. One more is lost.
const WAITING_MAX: usize = 512;

/// How long one waits: by then it has been asked again.
const WAITS_FOR: Duration = Duration::from_secs(1);

/// Messages of caches that wait for a connection.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    to: NodeId,
    frame: Bytes,
    since: Time,
}

/// Sends to a member that there is no session with; as soon as there is a connection, or not at all.
///
/// Takes no lock but those of the pool: a machine may be locked.
pub(crate) fn ask(shared: &NodeShared, to: NodeId, frame: Bytes) {
    let now = shared.now();
    let Err(frame) = shared.probes().send_over_standing(to, frame, now) else {
        return;
    };
    let mut waiting = shared.questions().waiting.lock();
    if waiting.len() >= WAITING_MAX {
        shared.metrics().probes_dropped.inc();
        return;
    }
    let since = now;
    waiting.push_back(Waiting { to, frame, since });
}

/// Opens connections for what waits, as far as there is room. `find` tells where a live member is.
pub(crate) fn open_for_questions(
    shared: &Arc<NodeShared>,
    mut find: impl FnMut(NodeId) -> Option<Identity>,
) {
    let now = shared.now();
    let mut waiting = std::mem::take(&mut *shared.questions().waiting.lock());
    while let Some(Waiting { to, frame, since }) = waiting.pop_front() {
        if now - since > WAITS_FOR {
            shared.metrics().probes_dropped.inc();
            continue;
        }
        let Some(identity) = find(to) else { continue };
        match shared.probes().offer(to, frame, now) {
            Offer::Sent | Offer::Full => {}
            Offer::Dial(line) => {
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    let stopped = shared.stopped().clone();
                    let calling = call(&shared, &identity, line);
                    let _: Option<()> = stopped.run_until_cancelled(calling).await;
                });
            }
            Offer::NoRoom(frame) => {
                waiting.push_front(Waiting { to, frame, since });
                break;
            }
        }
    }
    // What came meanwhile came later.
    let mut queue = shared.questions().waiting.lock();
    for waiting in waiting.into_iter().rev() {
        queue.push_front(waiting);
    }
    queue.truncate(WAITING_MAX);
}
