//! The bytes of one HTTP connection, with every wait bounded.
//!
//! ```text
//! socket ── TimedStream ── hyper
//!              │
//!              ├─ first byte of a head → its end     header timeout
//!              ├─ end of a request → first byte      idle timeout
//!              ├─ a write that does not move         write timeout
//!              ├─ a length given twice               made unparsable: hyper answers 400 and closes
//!              └─ idle for a while                    an end to hyper, which lets go of its buffers
//! ```
//!
//! hyper has one timer for heads that also runs between requests, so it cannot tell a slow head from
//! an idle connection; this can. How long a body may take is judged where it is read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::Framing;
use crate::limits::Limits;

/// Silence after which a connection is parked. Waking it costs two allocations, so a short while will do, and
/// must: what a thousand connections held at once, the allocator does not give back while nothing happens.
const PARK_AFTER: Duration = Duration::from_millis(20);

/// A socket whose reads and writes fail with [`io::ErrorKind::TimedOut`] instead of waiting for good.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    socket: S,
    framing: Framing,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// Whether a request is being answered.
    answering: Arc<AtomicBool>,
    /// When the idle timeout is over, in [`Wait::Request`].
    idle_ends: Option<Instant>,
    parked: bool,
    /// The byte that ended the parking.
    ahead: Option<u8>,
    reading: Pin<Box<Sleep>>,
    read_wait: Wait,
    writing: Pin<Box<Sleep>>,
    write_waits: bool,
}

/// What the read timer is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing: a body or a response is under way.
    None,
    /// The rest of a head.
    Head,
    /// The next request.
    Request,
}

/// What the end of the read timer means.
enum Ended {
    /// Nothing yet.
    Not,
    /// The connection holds no more than it must until a byte comes.
    Parked,
    /// The client was too slow.
    TimedOut,
}

impl<S> TimedStream<S> {
    /// Wraps an accepted socket. The first head has to be complete within the header timeout from
    /// now, so that a connection that sends nothing does not stay.
    pub(super) fn new(socket: S, limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            socket,
            framing: Framing::new(),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.body_timeout,
            answering: Arc::default(),
            idle_ends: None,
            parked: false,
            ahead: None,
            reading: Box::pin(sleep_until(now + limits.header_timeout)),
            read_wait: Wait::Head,
            writing: Box::pin(sleep_until(now)),
            write_waits: false,
        }
    }

    /// What the service sets while it answers a request.
    pub(super) fn answering(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.answering)
    }

    /// Whether the end that was read is not the client's: the connection is idle and goes on after
    /// [`next_byte`](Self::next_byte).
    pub(super) fn is_parked(&self) -> bool {
        self.parked
    }

    /// Nothing of a request has come for a while, none is being answered and all is written.
    fn may_park(&self) -> bool {
        self.read_wait == Wait::Request
            && !self.write_waits
            && !self.answering.load(Ordering::Relaxed)
    }

    /// The read timer has ended: what that means.
    fn ended(&mut self) -> Ended {
        let now = Instant::now();
        if self.read_wait != Wait::Request || self.idle_ends.is_some_and(|ends| ends <= now) {
            return Ended::TimedOut;
        }
        let parks = self.may_park();
        self.parked = parks;
        let next = match self.idle_ends {
            Some(ends) if parks => ends,
            Some(ends) => ends.min(now + PARK_AFTER),
            None => now + PARK_AFTER,
        };
        self.reading.as_mut().reset(next);
        if parks { Ended::Parked } else { Ended::Not }
    }

    fn bytes_came(&mut self, buffer: &mut ReadBuf<'_>, from: usize) {
        let fresh = buffer.filled_mut().get_mut(from..).unwrap_or_default();
        if let Err(ambiguous) = self.framing.follow(fresh)
            && let Some(byte) = fresh.get_mut(ambiguous.at)
        {
            // No head ends in NUL: hyper refuses it as malformed and closes the connection.
            *byte = 0;
        }
        let wait = if self.framing.in_head() {
            Wait::Head
        } else if self.framing.is_idle() {
            Wait::Request
        } else {
            Wait::None
        };
        // More of the same head does not buy more time; anything else starts anew.
        if wait != self.read_wait || wait == Wait::Request {
            self.read_wait = wait;
            let timeout = match wait {
                Wait::None => return,
                Wait::Head => self.header_timeout,
                Wait::Request if self.idle_timeout.is_zero() => PARK_AFTER,
                Wait::Request => self.idle_timeout.min(PARK_AFTER),
            };
            let now = Instant::now();
            self.idle_ends = (!self.idle_timeout.is_zero()).then(|| now + self.idle_timeout);
            self.reading.as_mut().reset(now + timeout);
        }
    }

    fn check_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.write_waits = false;
            return poll;
        }
        if !self.write_waits {
            self.write_waits = true;
            self.writing
                .as_mut()
                .reset(Instant::now() + self.write_timeout);
        }
        ready!(self.writing.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let from = buffer.filled().len();
        if buffer.remaining() > 0
            && let Some(byte) = self.ahead.take()
        {
            buffer.put_slice(&[byte]);
            self.bytes_came(buffer, from);
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.socket).poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                outcome?;
                self.bytes_came(buffer, from);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.read_wait == Wait::None => Poll::Pending,
            Poll::Pending => loop {
                ready!(self.reading.as_mut().poll(cx));
                match self.ended() {
                    Ended::TimedOut => {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    // No bytes are an end.
                    Ended::Parked => return Poll::Ready(Ok(())),
                    Ended::Not => {}
                }
            },
        }
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Waits for the next byte of a parked connection, for the rest of the idle timeout, and keeps it for the
    /// next read. `false` if the client closed.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the idle timeout is over, or what the socket says.
    pub(super) async fn next_byte(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(outcome) => {
                    outcome?;
                    self.ahead = buffer.filled().first().copied();
                    self.parked = false;
                    Poll::Ready(Ok(self.ahead.is_some()))
                }
                Poll::Pending if self.idle_ends.is_none() => Poll::Pending,
                Poll::Pending => {
                    ready!(self.reading.as_mut().poll(cx));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
            }
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.check_write(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.check_write(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
