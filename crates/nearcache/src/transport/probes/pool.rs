//! Which probe connections there are, and room for more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::time::Time;
use nearcache_store::NodeId;
use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::metrics::NodeMetrics;

/// Messages that may wait on one connection, as while it is being opened (a guess: a probe, its answer, and what others ask for).
const WAITING_MAX: usize = 8;

/// How long the two ends of a connection may be in the middle of something: until then it is not taken from them (a guess: a probe and
/// the indirect one after it).
const BUSY: Duration = Duration::from_millis(500);

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// This node.
    Dialled,
    /// The peer.
    Accepted,
}

/// The probe connections of a node, at most so many of each direction.
#[derive(Debug)]
pub(crate) struct ProbePool {
    dialled: Side,
    accepted: Side,
    metrics: Arc<NodeMetrics>,
}

/// The connections of one direction, by their peers.
#[derive(Debug)]
struct Side {
    most: usize,
    /// Counts sockets, those that are being closed included.
    places: Arc<Semaphore>,
    lines: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    messages: mpsc::Sender<Bytes>,
    used: Arc<AtomicU64>,
    closed: CancellationToken,
}

/// The end of a connection that its task holds; taken off the pool when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    /// What is to be sent.
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    /// Cancelled when the connection is to give way.
    pub(super) closed: CancellationToken,
    used: Arc<AtomicU64>,
    peer: NodeId,
    places: Arc<Semaphore>,
    lines: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
}

impl ProbePool {
    /// At most `most` connections of each direction.
    pub(crate) fn new(most: usize, metrics: Arc<NodeMetrics>) -> Self {
        Self {
            dialled: Side::new(most),
            accepted: Side::new(most),
            metrics,
        }
    }

    /// How many there are now.
    pub(crate) fn open(&self, direction: Direction) -> usize {
        let side = self.side(direction);
        side.most - side.places.available_permits()
    }

    /// Closes those to `peer`.
    pub(crate) fn close(&self, peer: NodeId) {
        for side in [&self.dialled, &self.accepted] {
            if let Some(entry) = side.lines.lock().remove(&peer) {
                entry.closed.cancel();
            }
        }
    }

    /// Sends over a connection that stands. If there is none and there is room, returns the line of one that is to be dialled and on which
    /// the message waits.
    pub(super) fn send(&self, peer: NodeId, message: Bytes, now: Time) -> Option<Line> {
        for side in [&self.accepted, &self.dialled] {
            let lines = side.lines.lock();
            let Some(entry) = lines.get(&peer).filter(|entry| entry.is_open()) else {
                continue;
            };
            entry.used.store(now.as_nanos(), Ordering::Relaxed);
            if entry.messages.try_send(message).is_err() {
                self.metrics.probes_dropped.inc();
            }
            return None;
        }
        let line = self.line(Direction::Dialled, peer, now)?;
        let lines = self.dialled.lines.lock();
        if let Some(entry) = lines.get(&peer) {
            // It is new: there is room.
            let _ = entry.messages.try_send(message);
        }
        drop(lines);
        Some(line)
    }

    /// A line for a connection with `peer`, in place of a former one with it or of the one that has been idle for longest; nothing, and
    /// counted, if all are busy.
    pub(super) fn line(&self, direction: Direction, peer: NodeId, now: Time) -> Option<Line> {
        let line = self.side(direction).line(peer, now);
        if line.is_none() {
            self.metrics.probes_dropped.inc();
        }
        line
    }

    const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Dialled => &self.dialled,
            Direction::Accepted => &self.accepted,
        }
    }
}

impl Side {
    fn new(most: usize) -> Self {
        Self {
            most,
            places: Arc::new(Semaphore::new(most)),
            lines: Arc::default(),
        }
    }

    fn line(&self, peer: NodeId, now: Time) -> Option<Line> {
        let mut lines = self.lines.lock();
        if let Some(former) = lines.remove(&peer) {
            former.closed.cancel();
        }
        if lines.len() >= self.most {
            let (oldest, entry) = lines.iter().min_by_key(|(_, entry)| entry.used_at())?;
            if now.as_nanos().saturating_sub(entry.used_at()) < nanos(BUSY) {
                return None;
            }
            let oldest = *oldest;
            if let Some(entry) = lines.remove(&oldest) {
                entry.closed.cancel();
            }
        }
        let (messages, outgoing) = mpsc::channel(WAITING_MAX);
        let used = Arc::new(AtomicU64::new(now.as_nanos()));
        let closed = CancellationToken::new();
        let entry = Entry {
            messages,
            used: Arc::clone(&used),
            closed: closed.clone(),
        };
        lines.insert(peer, entry);
        Some(Line {
            outgoing,
            closed,
            used,
            peer,
            places: Arc::clone(&self.places),
            lines: Arc::clone(&self.lines),
        })
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        !self.closed.is_cancelled() && !self.messages.is_closed()
    }

    fn used_at(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Line {
    /// The right to have a socket; waits until one that gave way is closed. Cancel-safe.
    pub(super) fn place(
        &self,
    ) -> impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + use<> {
        Arc::clone(&self.places).acquire_owned()
    }

    /// Something was said.
    pub(super) fn used(&self, now: Time) {
        self.used.store(now.as_nanos(), Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        let is_mine = lines
            .get(&self.peer)
            .is_some_and(|entry| Arc::ptr_eq(&entry.used, &self.used));
        if is_mine {
            lines.remove(&self.peer);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::from_u64(id)
    }

    fn pool(most: usize) -> ProbePool {
        ProbePool::new(most, Arc::new(NodeMetrics::new()))
    }

    fn message() -> Bytes {
        Bytes::from_static(b"x")
    }

    #[test]
    fn messages_to_one_peer_share_a_connection_and_wait_while_it_is_opened() {
        let pool = pool(2);
        let at = Time::from_millis(1);
        let mut line = pool.send(node(1), message(), at).unwrap();
        assert!(pool.send(node(1), message(), at).is_none());
        assert!(line.outgoing.try_recv().is_ok() && line.outgoing.try_recv().is_ok());
        assert!(line.outgoing.try_recv().is_err());
        for _ in 0..WAITING_MAX + 3 {
            assert!(pool.send(node(1), message(), at).is_none());
        }
        assert_eq!(pool.metrics.probes_dropped.get(), 3);
        drop(line);
        assert!(pool.send(node(1), message(), at).is_some());
    }

    #[test]
    fn a_full_pool_closes_what_was_idle_longest_and_drops_while_all_are_busy() {
        let pool = pool(2);
        let first = pool.send(node(1), message(), Time::from_millis(1)).unwrap();
        let second = pool.send(node(2), message(), Time::from_millis(2)).unwrap();
        assert!(
            pool.send(node(3), message(), Time::from_millis(100))
                .is_none()
        );
        assert_eq!(pool.metrics.probes_dropped.get(), 1);
        first.used(Time::from_millis(300));
        let third = pool.send(node(3), message(), Time::from_millis(600));
        assert!(third.is_some() && second.closed.is_cancelled() && !first.closed.is_cancelled());
        // One that gave way does not take the place of the next when it ends.
        drop(second);
        assert!(
            pool.send(node(3), message(), Time::from_millis(600))
                .is_none()
        );
        assert_eq!(pool.metrics.probes_dropped.get(), 1);
    }

    #[test]
    fn what_peers_open_leaves_room_for_what_this_node_opens() {
        let pool = pool(1);
        let at = Time::from_millis(1);
        let mut theirs = pool.line(Direction::Accepted, node(1), at).unwrap();
        assert!(pool.line(Direction::Accepted, node(2), at).is_none());
        // An answer goes back the way the question came.
        assert!(pool.send(node(1), message(), at).is_none());
        assert!(theirs.outgoing.try_recv().is_ok());
        assert!(pool.send(node(2), message(), at).is_some());
    }

    #[tokio::test]
    async fn sockets_are_counted_until_they_are_closed() {
        let pool = pool(1);
        let first = pool.send(node(1), message(), Time::from_millis(1)).unwrap();
        let place = first.place().await.unwrap();
        let second = pool
            .send(node(2), message(), Time::from_millis(900))
            .unwrap();
        let mut waiting = std::pin::pin!(second.place());
        assert!(futures_poll(waiting.as_mut()).is_none());
        assert_eq!(pool.open(Direction::Dialled), 1);
        drop(place);
        assert!(waiting.await.is_ok());
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
