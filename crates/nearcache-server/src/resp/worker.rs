//! What serves connections: the runtime that the listener runs on, and further threads.
//!
//! A worker is one thread's share of the connections. It keeps a connection from its first byte to its last,
//! so that a request wakes no other thread and the workers share nothing on the way of a request but the
//! caches. A worker lives on the listener's own runtime (see [`crate::runtime`]) or has a thread and a
//! runtime to itself. The listener hands new connections over through a channel.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{ConnectionPermit, MemoryCharge},
    runtime,
};

use super::{
    Server, buffers::BufferPool, connection::Connection, conversation::Conversation,
    metrics::ThreadCounters, session::Session, writer::Protocol,
};

/// A connection on its way from the listener to its thread.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) permit: ConnectionPermit,
}

/// One worker, seen from the listener.
#[derive(Debug)]
pub(super) struct Worker {
    accepted: Option<mpsc::UnboundedSender<Accepted>>,
    connections: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts a worker on the current runtime, which must have one thread. `abort` ends it at once, closing what is open;
    /// without it, it ends when [`Self::close`] was called and its last connection is gone.
    pub(super) fn spawn(server: &Arc<Server>, abort: CancellationToken) -> Self {
        let (worker, run) = Self::new(server, abort);
        tokio::spawn(run);
        worker
    }

    /// As [`Self::spawn`], on a thread and a runtime of its own.
    pub(super) fn start_thread(
        index: usize,
        server: &Arc<Server>,
        abort: CancellationToken,
    ) -> io::Result<Self> {
        let (worker, run) = Self::new(server, abort);
        let runtime = runtime::of_one_thread()?;
        thread::Builder::new()
            .name(format!("resp-{index}"))
            .spawn(move || runtime.block_on(run))?;
        Ok(worker)
    }

    fn new(
        server: &Arc<Server>,
        abort: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let local = Local {
            counters: server.context.metrics.add_thread(),
            server: Arc::clone(server),
            pool: Arc::default(),
            connections: Arc::clone(&connections),
        };
        let (ends, ended) = oneshot::channel();
        let worker = Self {
            accepted: Some(sender),
            connections,
            ended,
        };
        let run = async move {
            let mut tasks = JoinSet::new();
            let running = local.run(receiver, &mut tasks);
            if abort.run_until_cancelled(running).await.is_none() {
                tasks.shutdown().await;
            }
            // Nobody waits for the end of a listener that was dropped.
            let _ = ends.send(());
        };
        (worker, run)
    }

    /// Connections this worker serves.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands a connection over; drops it if the worker is gone.
    pub(super) fn serve(&self, accepted: Accepted) {
        if let Some(sender) = &self.accepted {
            self.connections.fetch_add(1, Ordering::Relaxed);
            // It fails only when the worker has ended, and then the connection ends as well.
            let _ = sender.send(accepted);
        }
    }

    /// Nothing will be handed over any more.
    pub(super) fn close(&mut self) {
        self.accepted = None;
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) {
        // An error says that it has ended in a panic, which its hook has reported.
        let _ = (&mut self.ended).await;
    }
}

/// What the connections of one worker share.
#[derive(Debug)]
struct Local {
    server: Arc<Server>,
    pool: Arc<BufferPool>,
    counters: Arc<ThreadCounters>,
    connections: Arc<AtomicUsize>,
}

impl Local {
    /// Serves what is handed over, until nothing is any more and all connections are gone.
    async fn run(self, mut accepted: mpsc::UnboundedReceiver<Accepted>, tasks: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                accepted = accepted.recv() => match accepted {
                    Some(accepted) => self.begin(accepted, tasks),
                    None => break,
                },
                // A panic in a connection was reported by its hook and ends nothing else.
                Some(_) = tasks.join_next() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn begin(&self, accepted: Accepted, tasks: &mut JoinSet<()>) {
        let held = Held(Arc::clone(&self.connections));
        match self.connection(accepted) {
            Ok(connection) => {
                tasks.spawn(async move {
                    connection.run().await;
                    drop(held);
                });
            }
            Err(error) => tracing::debug!(%error, "RESP connection lost before it was served"),
        }
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
