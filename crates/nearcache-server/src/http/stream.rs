//! The bytes of one HTTP connection, with every wait bounded.
//!
//! ```text
//! socket ── TimedStream ── hyper
//!              │
//!              ├─ first byte of a head → its end     header timeout
//!              ├─ end of a request → first byte      idle timeout
//!              ├─ a write that does not move         write timeout
//!              └─ a length given twice               made unparsable: hyper answers 400 and closes
//! ```
//!
//! hyper has one timer for heads that also runs between requests, so it cannot tell a slow head from
//! an idle connection; this can. How long a body may take is judged where it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::Framing;
use crate::limits::Limits;

/// A socket whose reads and writes fail with [`io::ErrorKind::TimedOut`] instead of waiting for good.
#[derive(Debug)]
pub(super) struct TimedStream {
    socket: TcpStream,
    framing: Framing,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
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

impl TimedStream {
    /// Wraps an accepted socket. The first head has to be complete within the header timeout from
    /// now, so that a connection that sends nothing does not stay.
    pub(super) fn new(socket: TcpStream, limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            socket,
            framing: Framing::new(),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.body_timeout,
            reading: Box::pin(sleep_until(now + limits.header_timeout)),
            read_wait: Wait::Head,
            writing: Box::pin(sleep_until(now)),
            write_waits: false,
        }
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
                Wait::Request if self.idle_timeout.is_zero() => {
                    self.read_wait = Wait::None;
                    return;
                }
                Wait::Request => self.idle_timeout,
            };
            self.reading.as_mut().reset(Instant::now() + timeout);
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

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let from = buffer.filled().len();
        match Pin::new(&mut self.socket).poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                outcome?;
                self.bytes_came(buffer, from);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.read_wait == Wait::None => Poll::Pending,
            Poll::Pending => {
                ready!(self.reading.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for TimedStream {
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
