//! Accepts connections, serves each within the limits, and ends them when the server stops.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::stream::TimedStream;
use super::{Context, service};

/// How long to wait before accepting again when the system is out of descriptors or memory (a guess).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Smallest read buffer hyper takes.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// How long a client gets to read why it is not served.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The answer to a connection beyond the budget; written without parsing anything.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncontent-length: 146\r\n\
    retry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"urn:nearcache:problem:TooManyConnections\",\"title\":\"TooManyConnections\",\
    \"status\":503,\"detail\":\"max number of clients reached, try again\"}\n";

/// Serves HTTP connections from `listener` until `stop` is cancelled; then lets the requests under way
/// finish, for at most the drain timeout, and closes idle connections at once.
pub async fn serve(listener: TcpListener, context: Arc<Context>, stop: CancellationToken) {
    let admission = Arc::new(Admission::new(&context.config));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => match context.connections.try_acquire(peer.ip()) {
                Ok(permit) => {
                    let _ = socket.set_nodelay(true);
                    let (context, admission) = (Arc::clone(&context), Arc::clone(&admission));
                    let stop = stop.clone();
                    tasks.spawn(async move {
                        connection(socket, peer.ip(), context, admission, stop).await;
                        drop(permit);
                    });
                }
                Err(refused) => {
                    context.metrics.refused("limit");
                    tracing::debug!(%peer, reason = %refused, "HTTP connection refused");
                    tasks.spawn(refuse(socket));
                }
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept HTTP connections for the moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(context.limits.drain_timeout, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            open = tasks.len(),
            "HTTP requests were cut off by the drain timeout"
        );
    }
}

/// Serves one connection of a client at `address` to its end.
///
/// ```text
/// awake ── hyper, its buffers, requests ──► nothing for a while ──► parked: the socket and a timer
///   ▲                                                                   │
///   └────────────────────────────── a byte ─────────────────────────────┘
/// ```
pub(super) async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    address: IpAddr,
    context: Arc<Context>,
    admission: Arc<Admission>,
    stop: CancellationToken,
) {
    context.metrics.connections.inc();
    let mut stream = TimedStream::new(socket, &context.limits);
    let outcome = loop {
        // Boxed, so that a parked connection does not keep the room that it takes.
        let awake = Box::pin(awake(stream, address, &context, &admission, &stop)).await;
        match awake {
            Ok(served) if served.is_parked() => stream = served,
            Ok(mut served) => {
                let _ = served.shutdown().await;
                break Ok(());
            }
            Err(error) => break Err(reason_of(&error)),
        }
        tokio::select! {
            woken = stream.next_byte() => match woken {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break Err("timeout"),
                Err(_) => break Err("broken"),
            },
            () = stop.cancelled() => break Ok(()),
        }
    };
    if let Err(reason) = outcome {
        context.metrics.refused(reason);
        tracing::debug!(reason, "HTTP connection cut off");
    }
    context.metrics.connections.dec();
}

/// Serves requests until the connection ends or is parked, which is an end to hyper.
async fn awake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: TimedStream<S>,
    address: IpAddr,
    context: &Arc<Context>,
    admission: &Arc<Admission>,
    stop: &CancellationToken,
) -> hyper::Result<TimedStream<S>> {
    let limits = &context.limits;
    let answering = stream.answering();
    let service = service_fn(|request| {
        let (context, admission) = (Arc::clone(context), Arc::clone(admission));
        let answering = Arc::clone(&answering);
        Box::pin(async move {
            answering.store(true, Ordering::Relaxed);
            let response = service::answer(&context, &admission, address, request).await;
            answering.store(false, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's timer runs between requests as well; the stream enforces the finer bounds.
        .header_read_timeout(hyper_timeout(limits.header_timeout, limits.idle_timeout))
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size((2 * limits.header_bytes).max(BUFFER_BYTES_MIN))
        .half_close(false);
    let mut serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        outcome = poll_fn(|cx| serving.poll_without_shutdown(cx)) => outcome?,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut serving).graceful_shutdown();
            // The caller bounds this wait for all connections together.
            poll_fn(|cx| serving.poll_without_shutdown(cx)).await?;
        }
    }
    Ok(serving.into_parts().io.into_inner())
}

/// The bound hyper is told, beyond those the stream enforces; none if idle connections stay for good.
fn hyper_timeout(header: Duration, idle: Duration) -> Option<Duration> {
    (!idle.is_zero()).then(|| idle.saturating_add(header))
}

fn reason_of(error: &hyper::Error) -> &'static str {
    let source = std::error::Error::source(error);
    let io_kind = source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    if error.is_timeout() || io_kind == Some(io::ErrorKind::TimedOut) {
        "timeout"
    } else if error.is_parse() || error.is_parse_too_large() {
        "malformed"
    } else {
        "broken"
    }
}

async fn refuse(mut socket: TcpStream) {
    let _ = timeout(REFUSAL_TIMEOUT, async {
        socket.write_all(TOO_MANY).await?;
        socket.shutdown().await
    })
    .await;
}

/// Errors of `accept` that concern the connection that was to be accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_refusal_declares_its_own_length() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(body.ends_with("}\n") && body.starts_with('{'));
    }
}
