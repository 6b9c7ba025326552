//! Writes one lane of a session.
//!
//! Sleeps until there is something, then collects: first what was pushed, then what the caches
//! have when pulled, up to 64 KiB, and writes it with one call. Under load batches grow by
//! themselves, because all that comes up during one write leaves with the next.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use nearcache_protocol::lane::Lane;
use tokio::io::AsyncWriteExt;

use super::links::Link;
use super::peer_stream::WriteSide;
use crate::node::NodeShared;

/// Bytes collected for one write, about: a loopback or LAN write of this size costs little more
/// per byte than a larger one (guess, to be measured).
const BATCH_BYTES: usize = 64 * 1024;

/// A write buffer that has grown beyond this by a burst is given back.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// How often a sign of life is sent on a control lane that has nothing else to say.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A frame that says only that its sender lives.
pub(super) const ALIVE: Kind = Kind(0x0F);

/// Writes until the session ends.
pub(super) async fn run(
    shared: Arc<NodeShared>,
    link: Arc<Link>,
    lane: Lane,
    mut stream: WriteSide,
) {
    let closed = link.closed.clone();
    let writing = async {
        let mut buffer = BytesMut::with_capacity(BATCH_BYTES);
        loop {
            collect(&shared, &link, lane, &mut buffer);
            if buffer.is_empty() {
                if link.outbox(lane).is_finished() {
                    // All is sent: the peer reads to the end and closes.
                    let _ = stream.shutdown().await;
                    closed.cancelled().await;
                    return;
                }
                wait(&link, lane).await;
                continue;
            }
            shared.metrics().bytes_sent.inc_by(buffer.len() as u64);
            link.outbox(lane).writes(buffer.len());
            // Flushed, because with TLS a part may wait in the stream for room in the socket.
            let written = async {
                stream.write_all(&buffer).await?;
                stream.flush().await
            };
            if let Err(error) = written.await {
                tracing::debug!(peer = %link.peer, ?lane, %error, "connection broke");
                return;
            }
            link.outbox(lane).writes(0);
            if lane == Lane::Bulk {
                // A socket with room for megabytes would keep the small updates of this thread waiting.
                tokio::task::yield_now().await;
            }
            buffer.clear();
            if buffer.capacity() > BUFFER_KEPT_BYTES {
                buffer = BytesMut::with_capacity(BATCH_BYTES);
            }
        }
    };
    let _ = closed.run_until_cancelled(writing).await;
    link.closed.cancel();
}

/// Fills the empty `buffer` with what waits.
fn collect(shared: &NodeShared, link: &Link, lane: Lane, buffer: &mut BytesMut) {
    let outbox = link.outbox(lane);
    outbox.take_pushed(buffer);
    while buffer.len() < BATCH_BYTES {
        let Some(id) = outbox.next_pull() else { break };
        let Some(cache) = shared.caches().get(&id).cloned() else {
            continue;
        };
        if cache.fill(link.peer, lane, BATCH_BYTES, buffer) {
            outbox.pull_later(id);
        }
    }
}

/// Waits until something comes up; a control lane says meanwhile that this node lives.
async fn wait(link: &Link, lane: Lane) {
    let outbox = link.outbox(lane);
    let woken = outbox.wake.notified();
    match lane {
        Lane::Control => {
            if tokio::time::timeout(HEARTBEAT, woken).await.is_err() {
                // A full outbox has better signs of life to send.
                let _ = outbox.push(|buffer| {
                    // An empty frame is far below any limit.
                    let _ = frame::encode(ALIVE, 0, &[], FrameLimit::HANDSHAKE, buffer);
                });
            }
        }
        Lane::Data | Lane::Bulk => woken.await,
    }
}
