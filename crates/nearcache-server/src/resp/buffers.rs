//! Where a connection's bytes are while it works on them.
//!
//! Buffers belong to the serving thread, not to the connection: a connection takes a pair when its
//! socket has something to read and gives it back once the replies are written. So a connection that
//! waits for its client holds none, and those that are busy share a few that stay in the processor's
//! cache.

use std::sync::{Mutex, PoisonError};

/// What a buffer can hold at first; as much is read at once.
pub(crate) const BUFFER_BYTES: usize = 16 << 10;
/// A buffer that grew beyond this is freed instead of kept.
const KEPT_BUFFER_BYTES: usize = 64 << 10;
/// Pairs kept by one thread. More are in use only while clients are slow to take their replies.
const KEPT_PAIRS: usize = 4;

/// One buffer for requests and one for replies.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) input: Input,
    pub(crate) output: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            input: Input {
                bytes: vec![0; BUFFER_BYTES],
                start: 0,
                end: 0,
            },
            output: Vec::with_capacity(BUFFER_BYTES),
        }
    }
}

/// Bytes received and not yet dealt with.
#[derive(Debug)]
pub(crate) struct Input {
    /// All of it is initialised; received are `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// What is there, from the beginning of the current request.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Drops the first `len` bytes.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where the next bytes go; never empty. A full buffer first drops what was dealt with, then
    /// grows to twice its size: it grows only behind bytes that did arrive. Follow with
    /// [`Self::received`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end > self.bytes.len() / 2 {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Takes note that the first `len` bytes of [`Self::room`] were filled.
    pub(crate) fn received(&mut self, len: usize) {
        self.end = self.bytes.len().min(self.end + len);
    }

    /// Appends bytes that were received elsewhere.
    pub(crate) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.received(now.len());
            bytes = later;
        }
    }

    /// What the buffer occupies.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// The buffers one serving thread shares among its connections.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    // Only its own thread uses it, so the lock is never contended.
    free: Mutex<Vec<Buffers>>,
}

impl BufferPool {
    /// Takes a pair; both are empty.
    pub(crate) fn take(&self) -> Buffers {
        let taken = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        taken.unwrap_or_else(Buffers::new)
    }

    /// Gives a pair back; it is freed if it grew, or if enough are kept.
    pub(crate) fn give_back(&self, mut buffers: Buffers) {
        (buffers.input.start, buffers.input.end) = (0, 0);
        buffers.output.clear();
        let has_grown = buffers.input.capacity() > KEPT_BUFFER_BYTES
            || buffers.output.capacity() > KEPT_BUFFER_BYTES;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_grown && free.len() < KEPT_PAIRS {
            free.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(input: &mut Input) {
        let room = input.room();
        assert!(!room.is_empty());
        room.fill(b'x');
        let len = room.len();
        input.received(len);
    }

    #[test]
    fn input_grows_only_behind_bytes_that_arrived() {
        let mut input = Buffers::new().input;
        for _ in 0..10 {
            fill(&mut input);
        }
        assert!(input.capacity() <= 2 * input.unread().len());
    }

    #[test]
    fn input_reuses_the_room_of_what_was_dealt_with() {
        let mut input = Buffers::new().input;
        for _ in 0..100 {
            fill(&mut input);
            input.consume(input.unread().len() - 1);
        }
        assert_eq!(input.capacity(), BUFFER_BYTES);
        assert_eq!(input.unread(), b"x");
    }

    #[test]
    fn bytes_received_elsewhere_are_appended_whatever_their_length() {
        let mut input = Buffers::new().input;
        input.extend(b"abc");
        input.consume(1);
        let long = vec![b'y'; 5 * BUFFER_BYTES];
        input.extend(&long);
        assert_eq!(input.unread(), [&b"bc"[..], &long].concat());
    }

    #[test]
    fn a_buffer_that_grew_is_not_kept() {
        let pool = BufferPool::default();
        let mut buffers = pool.take();
        buffers.output.reserve(KEPT_BUFFER_BYTES + 1);
        pool.give_back(buffers);
        assert!(pool.take().output.capacity() <= KEPT_BUFFER_BYTES);
    }
}
