//! The task of one connection: read, have the requests answered, write.
//!
//! A batch of pipelined requests costs one read and one write. While it waits for its client the task
//! holds no buffer and no timer; what it does is noted in its [`Client`], where the watchdog looks.

use std::{future::poll_fn, io, net::Shutdown, pin::Pin, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use crate::limits::{ConnectionPermit, MemoryCharge, Pressure};

use super::{
    Server,
    buffers::{BUFFER_BYTES, BufferPool, Buffers, Input},
    clients::Client,
    commands::Waiting,
    conversation::{Conversation, Step},
    metrics::CloseReason,
    worker::Listed,
    writer::{Protocol, Writer},
};

/// An incomplete request no longer than this is kept apart, so that its buffer goes back.
const KEPT_REMAINDER_BYTES: usize = 1 << 10;
/// How often a connection looks whether the process has room for its growing request.
const ROOM_POLL: Duration = Duration::from_millis(10);
/// How long, and for how many bytes, a client that broke the protocol is listened to, so that it can
/// read why before its connection is reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 1 << 20;

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: OwnedReadHalf,
    pub(crate) writer: Arc<OwnedWriteHalf>,
    pub(crate) client: Arc<Client>,
    pub(crate) server: Arc<Server>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) conversation: Conversation,
    pub(crate) charge: MemoryCharge,
    /// The beginning of a request, while no buffer is held.
    pub(crate) remainder: Vec<u8>,
    pub(crate) protocol: Protocol,
    #[expect(dead_code, reason = "held until the connection ends")]
    pub(super) listed: Listed,
    #[expect(dead_code, reason = "held until the connection ends")]
    pub(crate) permit: ConnectionPermit,
}

impl Connection {
    /// Serves the client until one side ends it; notes and counts why.
    pub(crate) async fn run(mut self) {
        let reason = self.serve().await;
        // When somebody else closed the socket, what we saw was only the effect.
        let reason = self.client.close_reason().unwrap_or(reason);
        if matches!(
            reason,
            CloseReason::Protocol | CloseReason::Http | CloseReason::Unauthenticated
        ) {
            Box::pin(linger(&mut self.reader)).await;
        }
        match reason {
            CloseReason::Client | CloseReason::Io | CloseReason::Shutdown => {}
            CloseReason::Tls => tracing::warn!(
                peer = self.client.peer(),
                "a client speaks TLS to the plaintext RESP port; connection closed"
            ),
            _ => tracing::debug!(peer = self.client.peer(), ?reason, "RESP connection closed"),
        }
        self.server.context.metrics.count_closed(reason);
    }

    async fn serve(&mut self) -> CloseReason {
        // Held only while there is something to do, or the rest of a long request to wait for.
        let mut held: Option<Buffers> = None;
        loop {
            let buffers = match held.take() {
                Some(buffers) => buffers,
                None => {
                    // Take buffers only once there is something to put into them.
                    let readable = poll_fn(|cx| self.reader.as_ref().poll_read_ready(cx)).await;
                    if readable.is_err() {
                        return CloseReason::Io;
                    }
                    self.take_buffers()
                }
            };
            match self.turn(buffers).await {
                Ok(buffers) => held = self.keep(buffers),
                Err(reason) => return reason,
            }
        }
    }

    /// Reads once, answers what is complete, writes the replies.
    async fn turn(&mut self, mut buffers: Buffers) -> Result<Buffers, CloseReason> {
        let received = match self.receive(&mut buffers.input).await {
            Ok(0) => return Err(CloseReason::Client),
            Ok(received) => received,
            Err(_) => return Err(CloseReason::Io),
        };
        let mut writer = Writer::new(std::mem::take(&mut buffers.output), self.protocol);
        let now_ms = self.server.time.now_ms();
        self.client.was_active(now_ms);
        self.answer(&mut buffers.input, &mut writer).await?;
        self.protocol = writer.protocol();
        buffers.output = writer.into_inner();
        if self.conversation.take_completed() {
            self.client.request_ended();
        }
        if self.conversation.is_within_request(&buffers.input) {
            self.client.request_goes_on(received, now_ms);
        }
        Ok(buffers)
    }

    /// Answers what is complete in `input`.
    async fn answer(&mut self, input: &mut Input, writer: &mut Writer) -> Result<(), CloseReason> {
        loop {
            match self.conversation.advance(input, writer) {
                Step::NeedInput => return self.flush(writer, input.capacity()).await,
                Step::Flush => self.flush(writer, input.capacity()).await?,
                Step::Wait(waiting) => self.wait(waiting, writer, input.capacity()).await?,
                Step::Close(CloseReason::OutputBuffer) => return Err(CloseReason::OutputBuffer),
                Step::Close(reason) => {
                    self.flush(writer, input.capacity()).await?;
                    return Err(reason);
                }
            }
        }
    }

    /// Waits for a command's answer. What was written before goes out first, unless the answer is
    /// there at once, as it is when this node is the key's home.
    async fn wait(
        &mut self,
        mut waiting: Waiting,
        writer: &mut Writer,
        input_bytes: usize,
    ) -> Result<(), CloseReason> {
        let at_once = poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut waiting).poll(cx) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            })
        })
        .await;
        let answer = match at_once {
            Some(answer) => answer,
            None => {
                self.client.set_waiting(true);
                let flushed = self.flush(writer, input_bytes).await;
                let answer = waiting.await;
                self.client.set_waiting(false);
                flushed?;
                answer
            }
        };
        match self.conversation.answer(answer, writer) {
            None => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    /// Waits until there is something to read, and reads once. A long request grows its buffer only
    /// while the process has room for it.
    async fn receive(&mut self, input: &mut Input) -> io::Result<usize> {
        let room = input.room();
        if room.len() > BUFFER_BYTES {
            while self.charge.budget().pressure() == Pressure::Full {
                tokio::time::sleep(ROOM_POLL).await;
                if self.client.close_reason().is_some() {
                    return Ok(0);
                }
            }
        }
        let received = read(&mut self.reader, room).await?;
        input.received(received);
        self.conversation
            .session()
            .counters
            .count_received(received);
        self.charge
            .set(input.capacity().saturating_sub(BUFFER_BYTES));
        Ok(received)
    }

    /// Writes all replies. A client that does not take them keeps only its own connection waiting.
    async fn flush(&mut self, writer: &mut Writer, input_bytes: usize) -> Result<(), CloseReason> {
        self.conversation.flushed();
        let mut written = 0;
        let result = loop {
            let Some(left) = writer
                .bytes()
                .get(written..)
                .filter(|left| !left.is_empty())
            else {
                break Ok(());
            };
            match self.writer.try_write(left) {
                Ok(bytes) => {
                    written += bytes;
                    self.conversation.session().counters.count_sent(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.client.set_output_bytes(left.len());
                    let held_bytes = input_bytes + writer.capacity();
                    self.charge.set(held_bytes.saturating_sub(2 * BUFFER_BYTES));
                    if self.writer.writable().await.is_err() {
                        break Err(CloseReason::Io);
                    }
                    if written > 0 {
                        self.client.was_active(self.server.time.now_ms());
                    }
                }
                Err(_) => break Err(CloseReason::Io),
            }
        };
        self.client.set_output_bytes(0);
        writer.clear();
        result
    }

    fn take_buffers(&mut self) -> Buffers {
        let mut buffers = self.pool.take();
        if !self.remainder.is_empty() {
            buffers.input.extend(&self.remainder);
            self.remainder = Vec::new();
        }
        buffers
    }

    /// Gives the buffers back, unless they hold the beginning of a long request.
    fn keep(&mut self, buffers: Buffers) -> Option<Buffers> {
        let unread = buffers.input.unread();
        if unread.len() > KEPT_REMAINDER_BYTES {
            return Some(buffers);
        }
        if !unread.is_empty() {
            self.remainder = unread.to_vec();
        }
        self.pool.give_back(buffers);
        self.charge.set(0);
        None
    }
}

/// Reads once, when there is something to read. A short read tells tokio that the socket is empty, so
/// that no second one is spent on finding that out.
async fn read(reader: &mut OwnedReadHalf, room: &mut [u8]) -> io::Result<usize> {
    let mut room = ReadBuf::new(room);
    poll_fn(|cx| Pin::new(&mut *reader).poll_read(cx, &mut room)).await?;
    Ok(room.filled().len())
}

/// Tells the client that nothing follows, and reads what it still sends: closing a socket that holds
/// unread bytes resets the connection, and the reset could overtake the last reply.
async fn linger(reader: &mut OwnedReadHalf) {
    if socket2::SockRef::from(reader.as_ref())
        .shutdown(Shutdown::Write)
        .is_err()
    {
        return;
    }
    let listen = async {
        let mut scrap = vec![0; BUFFER_BYTES];
        let mut heard_bytes = 0;
        while heard_bytes < LINGER_BYTES {
            match read(reader, &mut scrap).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => heard_bytes += bytes,
            }
        }
    };
    // Whether the client closed or the time ran out is all the same.
    let _ = tokio::time::timeout(LINGER, listen).await;
}
