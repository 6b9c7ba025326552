//! What waits to be written on one lane to one peer.
//!
//! Two things wait here: messages that the machines pushed, encoded and bounded in number and
//! bytes; and the names of caches from which the writer is to pull. Pulled messages are made when
//! the socket has room for them, so they cost nothing while they wait.

use std::collections::VecDeque;

use bytes::BytesMut;
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::lane::Lane;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::CACHES_MAX;

/// How much may wait on a lane. Beyond it the session is closed, and the peer is caught up when it
/// is back.
#[derive(Debug, Clone, Copy)]
struct Bound {
    messages: usize,
    bytes: usize,
}

/// Messages that each cache may have waiting on the control lane: it announces itself at the beginning of a session, and asks and answers
/// twice a second; a session ends when its peer has said nothing for 3 s.
const CONTROL_OF_CACHE: usize = 16;

/// The bounds of the limits table (reliability specification, section 3.1), but for the control lane, whose 256 messages of 1 MiB would not
/// hold the beginning of a session with as many caches as a node may have.
const fn bound_of(lane: Lane) -> Bound {
    match lane {
        Lane::Control => Bound {
            messages: 256 + CONTROL_OF_CACHE * CACHES_MAX,
            bytes: 4 << 20,
        },
        Lane::Data => Bound {
            messages: 8192,
            bytes: 4 << 20,
        },
        Lane::Bulk => Bound {
            messages: 1024,
            bytes: 4 << 20,
        },
    }
}

/// How many bytes wait on a lane: for the writer, or in its hands because the socket has no room for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Now.
    pub(crate) bytes: usize,
    /// At most, since the session began.
    pub(crate) peak: usize,
}

/// The queue of one lane.
#[derive(Debug)]
pub(super) struct Outbox {
    bound: Bound,
    queue: Mutex<Queue>,
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    encoded: BytesMut,
    messages: usize,
    pulls: VecDeque<CacheId>,
    is_finishing: bool,
    /// What the writer has taken and not written yet.
    writing: usize,
    peak: usize,
}

impl Queue {
    fn waiting(&self) -> usize {
        self.encoded.len() + self.writing
    }
}

/// There is no more room. Nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutboxFull;

impl Outbox {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            bound: bound_of(lane),
            queue: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Queues one message, which `encode` appends to the buffer it is given.
    pub(super) fn push(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), OutboxFull> {
        let mut queue = self.queue.lock();
        if queue.messages >= self.bound.messages || queue.encoded.len() >= self.bound.bytes {
            return Err(OutboxFull);
        }
        encode(&mut queue.encoded);
        queue.messages += 1;
        queue.peak = queue.peak.max(queue.waiting());
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Has the writer pull from `cache`. Asking twice is asking once.
    pub(super) fn pull(&self, cache: CacheId) {
        self.pull_later(cache);
        self.wake.notify_one();
    }

    /// Takes what was pushed, by swapping it for the empty `buffer`.
    pub(super) fn take_pushed(&self, buffer: &mut BytesMut) {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.encoded, buffer);
        queue.messages = 0;
    }

    /// The writer has so many bytes to write now; none once they are written.
    pub(super) fn writes(&self, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.writing = bytes;
        queue.peak = queue.peak.max(queue.waiting());
    }

    /// How much waits here.
    pub(super) fn waiting(&self) -> Waiting {
        let queue = self.queue.lock();
        Waiting {
            bytes: queue.waiting(),
            peak: queue.peak,
        }
    }

    /// The next cache to pull from.
    pub(super) fn next_pull(&self) -> Option<CacheId> {
        self.queue.lock().pulls.pop_front()
    }

    /// Has the writer come back to a cache that had more than one batch holds. Does not wake it.
    pub(super) fn pull_later(&self, cache: CacheId) {
        let mut queue = self.queue.lock();
        if !queue.pulls.contains(&cache) {
            queue.pulls.push_back(cache);
        }
    }

    /// Has the writer close its side once nothing waits any more.
    pub(super) fn finish(&self) {
        self.queue.lock().is_finishing = true;
        self.wake.notify_one();
    }

    /// Whether the writer shall close its side now.
    pub(super) fn is_finished(&self) -> bool {
        let queue = self.queue.lock();
        queue.is_finishing && queue.encoded.is_empty() && queue.pulls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_refuses_and_keeps_what_it_has() {
        let outbox = Outbox::new(Lane::Bulk);
        let most = bound_of(Lane::Bulk).messages;
        for _ in 0..most {
            outbox
                .push(|buffer| buffer.extend_from_slice(b"x"))
                .unwrap();
        }
        assert_eq!(outbox.push(|_| {}), Err(OutboxFull));
        let mut buffer = BytesMut::new();
        outbox.take_pushed(&mut buffer);
        assert_eq!(buffer.len(), most);
        outbox.push(|_| {}).unwrap();
    }

    #[test]
    fn what_waits_is_counted_until_it_is_written_and_the_most_is_remembered() {
        let outbox = Outbox::new(Lane::Data);
        let push = |bytes: &'static [u8]| outbox.push(|buffer| buffer.extend_from_slice(bytes));
        push(b"four").unwrap();
        let mut buffer = BytesMut::new();
        outbox.take_pushed(&mut buffer);
        outbox.writes(buffer.len());
        push(b"more").unwrap();
        assert_eq!(outbox.waiting(), Waiting { bytes: 8, peak: 8 });
        outbox.writes(0);
        assert_eq!(outbox.waiting(), Waiting { bytes: 4, peak: 8 });
    }

    #[test]
    fn a_finishing_outbox_is_finished_once_it_is_empty() {
        let outbox = Outbox::new(Lane::Data);
        outbox
            .push(|buffer| buffer.extend_from_slice(b"x"))
            .unwrap();
        outbox.finish();
        assert!(!outbox.is_finished());
        outbox.take_pushed(&mut BytesMut::new());
        assert!(outbox.is_finished());
    }

    #[test]
    fn a_cache_waits_once_however_often_it_asks() {
        let outbox = Outbox::new(Lane::Data);
        let cache = CacheId::from_u64(7);
        outbox.pull(cache);
        outbox.pull(cache);
        assert_eq!(outbox.next_pull(), Some(cache));
        assert_eq!(outbox.next_pull(), None);
    }
}
