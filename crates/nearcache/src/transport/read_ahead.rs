//! Reads from a socket in large pieces, whatever size the reader asks for.
//!
//! rustls asks for 4 KiB at a time; a busy lane would pay sixteen system calls where one does. A
//! stranger is read as it asks: the buffer comes with [`ReadAhead::widen`], after the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::TcpStream;

/// Bytes read at once on a lane of a session: as many as a full batch has.
const WIDE_BYTES: usize = 64 * 1024;

/// A socket with a buffer before its reads. Writes go straight through.
#[derive(Debug)]
pub(super) struct ReadAhead {
    socket: TcpStream,
    buffer: Box<[u8]>,
    /// What of the buffer was read from the socket and not been taken yet.
    filled: std::ops::Range<usize>,
}

impl ReadAhead {
    /// Reads as it is asked, without a buffer.
    pub(super) fn narrow(socket: TcpStream) -> Self {
        Self {
            socket,
            buffer: Box::default(),
            filled: 0..0,
        }
    }

    /// Reads in pieces of 64 KiB from now on.
    pub(super) fn widen(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; WIDE_BYTES].into_boxed_slice();
        }
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) const fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.filled.is_empty() {
            if out.remaining() >= this.buffer.len() {
                return Pin::new(&mut this.socket).poll_read(cx, out);
            }
            let mut piece = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut piece))?;
            this.filled = 0..piece.filled().len();
        }
        let waiting = this.buffer.get(this.filled.clone()).unwrap_or_default();
        let taken = waiting.len().min(out.remaining());
        out.put_slice(waiting.get(..taken).unwrap_or_default());
        this.filled.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
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

#[cfg(test)]
mod tests {
    use super::super::socket::TcpListener;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_sent_is_read_in_order_however_it_is_asked_for() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut writer = TcpStream::connect(listener.local_addr()?).await?;
        let (socket, _) = listener.accept().await?;
        let sent: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move { writer.write_all(&sent).await });
        let mut reader = ReadAhead::narrow(socket);
        let mut read = vec![0; 1_000];
        reader.read_exact(&mut read).await?;
        reader.widen();
        for size in [1, 4_096, 70_000].into_iter().cycle() {
            let mut piece = vec![0; size];
            let count = reader.read(&mut piece).await?;
            if count == 0 {
                break;
            }
            read.extend_from_slice(&piece[..count]);
        }
        writing.await??;
        assert_eq!(read, expected);
        Ok(())
    }
}
