//! A thread that serves connections.
//!
//! Each thread has a runtime of its own and keeps a connection from its first byte to its last, so
//! that a request wakes no other thread and the threads share nothing on the way of a request but the
//! caches. The listener hands new connections over through a channel.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::limits::{ConnectionPermit, MemoryCharge};

use super::{
    Server, buffers::BufferPool, connection::Connection, conversation::Conversation,
    metrics::ThreadCounters, session::Session, writer::Protocol,
};

/// Ready connections served between two looks at the sockets (tokio's default is 61): with all of
/// perf-A6's connections ready, one look finds them all.
const EVENT_INTERVAL: u32 = 256;

/// A connection on its way from the listener to its thread.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) permit: ConnectionPermit,
}

/// One serving thread, seen from the listener.
#[derive(Debug)]
pub(super) struct Worker {
    accepted: Option<mpsc::UnboundedSender<Accepted>>,
    connections: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. `abort` ends it at once, closing what is open; without it, the thread ends
    /// when [`Self::close`] was called and its last connection is gone.
    pub(super) fn start(
        index: usize,
        server: Arc<Server>,
        abort: CancellationToken,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let local = Local {
            counters: server.context.metrics.add_thread(),
            server,
            pool: Arc::default(),
            connections: Arc::clone(&connections),
            tasks: TaskTracker::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .build()?;
        let thread = thread::Builder::new()
            .name(format!("resp-{index}"))
            .spawn(move || {
                runtime.block_on(abort.run_until_cancelled(local.run(receiver)));
            })?;
        Ok(Self {
            accepted: Some(sender),
            connections,
            thread: Some(thread),
        })
    }

    /// Connections this thread serves.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands a connection over; drops it if the thread is gone.
    pub(super) fn serve(&self, accepted: Accepted) {
        if let Some(sender) = &self.accepted {
            self.connections.fetch_add(1, Ordering::Relaxed);
            // It fails only when the thread has ended, and then the connection ends as well.
            let _ = sender.send(accepted);
        }
    }

    /// Nothing will be handed over any more.
    pub(super) fn close(&mut self) {
        self.accepted = None;
    }

    /// Waits for the end of the thread. Blocks.
    pub(super) fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by its hook and ends nothing but the thread.
            let _ = thread.join();
        }
    }
}

/// What the connections of one thread share.
#[derive(Debug)]
struct Local {
    server: Arc<Server>,
    pool: Arc<BufferPool>,
    counters: Arc<ThreadCounters>,
    connections: Arc<AtomicUsize>,
    tasks: TaskTracker,
}

impl Local {
    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Accepted>) {
        while let Some(accepted) = accepted.recv().await {
            let held = Held(Arc::clone(&self.connections));
            match self.connection(accepted) {
                Ok(connection) => {
                    self.tasks.spawn(async move {
                        connection.run().await;
                        drop(held);
                    });
                }
                Err(error) => tracing::debug!(%error, "RESP connection lost before it was served"),
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn connection(&self, accepted: Accepted) -> io::Result<Connection> {
        let (reader, writer) = tokio::net::TcpStream::from_std(accepted.socket)?.into_split();
        let writer = Arc::new(writer);
        let server = Arc::clone(&self.server);
        let client = server
            .clients
            .open(Some(Arc::clone(&writer)), server.time.now_ms());
        server.context.metrics.connections.inc();
        let listed = Listed {
            server: Arc::clone(&server),
            id: client.id,
        };
        let session = Session::new(
            Arc::clone(&server),
            Arc::clone(&client),
            Arc::clone(&self.counters),
        )
        .ok_or_else(|| io::Error::other("there is no database 0"))?;
        Ok(Connection {
            reader,
            writer,
            client,
            pool: Arc::clone(&self.pool),
            conversation: Conversation::new(session),
            charge: MemoryCharge::new(&server.context.memory),
            server,
            remainder: Vec::new(),
            protocol: Protocol::default(),
            listed,
            permit: accepted.permit,
        })
    }
}

/// One of [`Worker::connections`].
#[derive(Debug)]
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in the list of clients, and in the gauge of connections.
#[derive(Debug)]
pub(super) struct Listed {
    server: Arc<Server>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.server.clients.forget(self.id);
        self.server.context.metrics.connections.dec();
    }
}
