//! Which probe connections there are, and room for more.
//!
//! The membership goes first: connections on which only caches ask have at most half of the room, and give way to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::time::Time;
use nearcache_store::NodeId;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
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

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Whether a member lives.
    Membership,
    /// How a key stands on it.
    Question,
}

/// What became of a message that a cache has for a member.
#[derive(Debug)]
pub(super) enum Offer {
    /// It goes over a connection that stands.
    Sent,
    /// It waits on this line, which is to be dialled.
    Dial(Line),
    /// There is none, and no room for one now.
    NoRoom(Bytes),
    /// There is one, on which too much waits already: the message is lost.
    Full,
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
    /// Whether the membership has a use for it; until something was said on one that a peer opened, it may.
    is_memberships: Arc<AtomicBool>,
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
    is_memberships: Arc<AtomicBool>,
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
            entry.is_memberships.store(true, Ordering::Relaxed);
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

    /// Sends what a cache has to say over a connection that stands, or gives it back.
    pub(super) fn send_over_standing(
        &self,
        peer: NodeId,
        message: Bytes,
        now: Time,
    ) -> Result<(), Bytes> {
        for side in [&self.accepted, &self.dialled] {
            let lines = side.lines.lock();
            let Some(entry) = lines.get(&peer).filter(|entry| entry.is_open()) else {
                continue;
            };
            entry.used.store(now.as_nanos(), Ordering::Relaxed);
            let sent = entry.messages.try_send(message);
            return sent.map_err(TrySendError::into_inner);
        }
        Err(message)
    }

    /// The same, over one that is to be dialled if none stands and there is room.
    pub(super) fn offer(&self, peer: NodeId, message: Bytes, now: Time) -> Offer {
        let Err(message) = self.send_over_standing(peer, message, now) else {
            return Offer::Sent;
        };
        let stands = |side: &Side| side.lines.lock().get(&peer).is_some_and(Entry::is_open);
        if stands(&self.accepted) || stands(&self.dialled) {
            // It has enough to say, and whoever asks will ask again: the others' questions must not wait for it.
            self.metrics.probes_dropped.inc();
            return Offer::Full;
        }
        let Some(line) = self.dialled.line(peer, now, Purpose::Question) else {
            return Offer::NoRoom(message);
        };
        if let Some(entry) = self.dialled.lines.lock().get(&peer) {
            // It is new: there is room.
            let _ = entry.messages.try_send(message);
        }
        Offer::Dial(line)
    }

    /// A line for a connection with `peer`, in place of a former one with it or of the one that has been idle for longest; nothing, and
    /// counted, if all are busy.
    pub(super) fn line(&self, direction: Direction, peer: NodeId, now: Time) -> Option<Line> {
        let line = self.side(direction).line(peer, now, Purpose::Membership);
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

    /// How many connections may be for questions alone.
    fn questions_max(&self) -> usize {
        (self.most / 2).max(1)
    }

    fn line(&self, peer: NodeId, now: Time, purpose: Purpose) -> Option<Line> {
        let mut lines = self.lines.lock();
        if let Some(former) = lines.remove(&peer) {
            former.closed.cancel();
        }
        let questions = lines.values().filter(|entry| entry.is_question()).count();
        let is_enough = purpose == Purpose::Question && questions >= self.questions_max();
        if is_enough || lines.len() >= self.most {
            let may_give_way = |(_, entry): &(&NodeId, &Entry)| entry.is_question() || !is_enough;
            let lines_that_may = lines.iter().filter(may_give_way);
            let oldest = lines_that_may.min_by_key(|(_, entry)| entry.used_for(purpose));
            let (oldest, entry) = oldest?;
            if now.as_nanos().saturating_sub(entry.used_for(purpose)) < nanos(BUSY) {
                return None;
            }
            let oldest = *oldest;
            if let Some(entry) = lines.remove(&oldest) {
                entry.closed.cancel();
            }
        }
        let (messages, outgoing) = mpsc::channel(WAITING_MAX);
        let used = Arc::new(AtomicU64::new(now.as_nanos()));
        let is_memberships = Arc::new(AtomicBool::new(purpose == Purpose::Membership));
        let closed = CancellationToken::new();
        let entry = Entry {
            messages,
            used: Arc::clone(&used),
            is_memberships: Arc::clone(&is_memberships),
            closed: closed.clone(),
        };
        lines.insert(peer, entry);
        Some(Line {
            outgoing,
            closed,
            used,
            is_memberships,
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

    /// When it was last used, for whoever wants its place.
    fn used_for(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Membership if self.is_question() => 0,
            _ => self.used_at(),
        }
    }

    fn is_question(&self) -> bool {
        !self.is_memberships.load(Ordering::Relaxed)
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

    /// The membership has a use for it, or has none.
    pub(super) fn is_for_membership(&self, is: bool) {
        self.is_memberships.store(is, Ordering::Relaxed);
    }

    /// An answer has come: unless the membership has a use for it, it may give way at once.
    pub(super) fn answered(&self) {
        if !self.is_memberships.load(Ordering::Relaxed) {
            self.used.store(0, Ordering::Relaxed);
        }
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

    fn dialled(offer: Offer) -> Line {
        match offer {
            Offer::Dial(line) => line,
            other => panic!("not to be dialled: {other:?}"),
        }
    }

    #[test]
    fn questions_of_caches_take_half_of_the_room_and_give_way_when_answered() {
        let pool = pool(4);
        let at = Time::from_millis(1_000);
        let first = dialled(pool.offer(node(1), message(), at));
        let _second = dialled(pool.offer(node(2), message(), at));
        assert!(matches!(
            pool.offer(node(3), message(), at),
            Offer::NoRoom(_)
        ));
        assert_eq!(pool.metrics.probes_dropped.get(), 0, "they wait elsewhere");
        // One that stands takes more, until it has enough.
        assert!(pool.send_over_standing(node(1), message(), at).is_ok());
        for _ in 0..WAITING_MAX {
            let _ = pool.send_over_standing(node(1), message(), at);
        }
        // Then its own is lost, and holds up nobody else's.
        assert!(matches!(pool.offer(node(1), message(), at), Offer::Full));
        assert_eq!(pool.metrics.probes_dropped.get(), 1);
        first.answered();
        let _third = dialled(pool.offer(node(3), message(), at));
        assert!(first.closed.is_cancelled());
    }

    #[test]
    fn the_membership_takes_the_place_of_a_question_but_not_the_other_way() {
        let pool = pool(2);
        let at = Time::from_millis(1_000);
        let asking = dialled(pool.offer(node(1), message(), at));
        let lives = [2, 3].map(|id| pool.send(node(id), message(), at).unwrap());
        assert!(asking.closed.is_cancelled());
        assert!(matches!(
            pool.offer(node(1), message(), at),
            Offer::NoRoom(_)
        ));
        // What the membership has said something on is its own.
        lives[0].answered();
        assert!(matches!(
            pool.offer(node(1), message(), at),
            Offer::NoRoom(_)
        ));
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
