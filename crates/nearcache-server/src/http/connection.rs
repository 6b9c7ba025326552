//! Accepts connections, serves each within the limits, and ends them when the server stops.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::stream::TimedStream;
use super::{Context, service};
use crate::limits::ConnectionPermit;

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
                    let connection = connection(
                        socket,
                        permit,
                        Arc::clone(&context),
                        Arc::clone(&admission),
                        stop.clone(),
                    );
                    tasks.spawn(connection);
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

async fn connection(
    socket: TcpStream,
    permit: ConnectionPermit,
    context: Arc<Context>,
    admission: Arc<Admission>,
    stop: CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    context.metrics.connections.inc();
    let limits = &context.limits;
    let stream = TokioIo::new(TimedStream::new(socket, limits));
    let service = service_fn(|request| {
        let (context, admission) = (Arc::clone(&context), Arc::clone(&admission));
        async move {
            Ok::<_, std::convert::Infallible>(service::answer(&context, &admission, request).await)
        }
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
    let mut serving = std::pin::pin!(builder.serve_connection(stream, service));
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            // The caller bounds this wait for all connections together.
            serving.as_mut().await
        }
    };
    if let Err(error) = outcome {
        context.metrics.refused(reason_of(&error));
        tracing::debug!(%error, "HTTP connection cut off");
    }
    context.metrics.connections.dec();
    drop(permit);
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
