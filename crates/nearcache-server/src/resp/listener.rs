//! Accepts connections, turns away those beyond the bounds, shares out the rest.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::runtime;

use super::{
    Context, KEEPALIVE, Server,
    metrics::CloseReason,
    watchdog,
    worker::{Accepted, Worker},
};

/// Workers when nobody says how many: half of the processors, at most this. The other half is the
/// application's, and the kernel's work on the sockets; and the fewer threads, the more connections
/// share one look at the sockets, and the more writes one message to a peer.
const WORKERS_MAX: usize = 4;
/// Pause after the system refused to accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves RESP connections from `listener` until `stop` is cancelled; then lets connections finish
/// what they have received, for at most the drain timeout, and returns.
///
/// Connections are served on the current tokio runtime if that has one thread, and on threads of their
/// own beyond that, or if it has several.
///
/// # Errors
///
/// When the threads cannot be started. What goes wrong with one connection ends that connection.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    stop: CancellationToken,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let server = Server::new(context, port);
    server.time.advance();
    let abort = CancellationToken::new();
    // Dropping this future, instead of stopping it, ends the threads as well.
    let _aborts_when_dropped = abort.clone().drop_guard();
    let mut workers = (0..count_of_workers(server.context.threads))
        .map(|index| match index {
            0 if runtime::is_of_one_thread() => Ok(Worker::spawn(&server, abort.clone())),
            _ => Worker::start_thread(index, &server, abort.clone()),
        })
        .collect::<io::Result<Vec<_>>>()?;
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog::watch(Arc::clone(&server))));

    stop.run_until_cancelled(accept(&listener, &server, &workers))
        .await;
    drop(listener);
    drain(&server, &mut workers, &abort).await;
    Ok(())
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, server: &Server, workers: &[Worker]) {
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a RESP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        server.context.metrics.accepted.inc();
        if let Some(accepted) = admit(server, socket, peer)
            && let Some(worker) = workers.iter().min_by_key(|worker| worker.connections())
        {
            worker.serve(accepted);
        }
    }
}

/// Prepares the socket if there is room for it; otherwise says so and closes it.
fn admit(server: &Server, socket: TcpStream, peer: SocketAddr) -> Option<Accepted> {
    let address: IpAddr = peer.ip().to_canonical();
    let permit = server.context.connections.try_acquire(address);
    let mut socket = socket.into_std().ok()?;
    match permit {
        Ok(permit) => {
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            // Neither is needed for correctness.
            let _ = socket.set_nodelay(true);
            let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
            Some(Accepted { socket, permit })
        }
        Err(refused) => {
            server.context.metrics.count_closed(CloseReason::Refused);
            // A fresh socket takes a line at once; if not, the client learns it by the close.
            let _ = socket.write(format!("-ERR {refused}\r\n").as_bytes());
            None
        }
    }
}

/// Lets every connection finish; whoever takes longer than the drain timeout is cut off.
async fn drain(server: &Server, workers: &mut [Worker], abort: &CancellationToken) {
    for worker in workers.iter_mut() {
        worker.close();
    }
    for client in server.clients.all() {
        client.finish();
    }
    let drain_timeout = server.context.limits.drain_timeout;
    let ended = async {
        for worker in workers.iter_mut() {
            worker.ended().await;
        }
    };
    if tokio::time::timeout(drain_timeout, ended).await.is_err() {
        abort.cancel();
        for worker in workers {
            worker.ended().await;
        }
    }
}

fn count_of_workers(configured: Option<NonZeroUsize>) -> usize {
    let chosen = || {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        (processors / 2).clamp(1, WORKERS_MAX)
    };
    configured.map_or_else(chosen, NonZeroUsize::get)
}
