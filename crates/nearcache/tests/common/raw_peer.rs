//! A peer made of a socket and nothing else, which says whatever the test wants.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nearcache::{Epoch, Node, NodeId, Timestamp};
use nearcache_protocol::frame::{Frame, FrameDecoder, FrameLimit, Kind};
use nearcache_protocol::handshake::{Handshake, Known, Local, Registry, SessionToken};
use nearcache_protocol::identity::{Identity, Zone};
use nearcache_protocol::lane::Lane;

pub(crate) type RawError = Box<dyn std::error::Error + Send + Sync>;

/// A peer that knows nobody.
struct Nobody;

impl Registry for Nobody {
    fn members_with(&self, _: NodeId) -> usize {
        2
    }

    fn known(&self, _: NodeId) -> Option<Known> {
        None
    }

    fn full_for(&self, _: NodeId) -> Option<usize> {
        None
    }
}

/// What the peer `id` says of itself to nodes of the cluster.
pub(crate) fn local(cluster: &str, id: u64, name: &str, epoch: Epoch) -> Local {
    let somewhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let identity = Identity::new(NodeId::from_u64(id), epoch, somewhere, Zone::default());
    Local::new(cluster, name, identity)
}

pub(crate) fn socket(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

pub(crate) fn read_frame(stream: &mut impl Read) -> Result<Frame, RawError> {
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        decoder.extend(&byte);
    }
}

/// What the physical clock of a peer says that is so far ahead of this machine's.
fn clock(ahead_ms: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(0);
    Timestamp::from_parts(now_ms.saturating_add_signed(ahead_ms), 0)
}

/// Opens one lane as the peer `local`, whose clock is so far ahead, after `opening`; an error if it is refused before it has sent its last word.
pub(crate) fn open_lane<S: Read + Write>(
    stream: S,
    opening: &[u8],
    local: &Local,
    lane: Lane,
    ahead_ms: i64,
) -> Result<S, RawError> {
    let dialled = Handshake::dial(local.clone(), lane, SessionToken(7), clock(ahead_ms));
    complete(stream, opening, dialled, ahead_ms)
}

/// Opens a probe connection as the peer `local`.
pub(crate) fn open_probe<S: Read + Write>(
    stream: S,
    local: &Local,
    ahead_ms: i64,
) -> Result<S, RawError> {
    let dialled = Handshake::dial_probe(local.clone(), SessionToken(7), clock(ahead_ms));
    complete(stream, &[], dialled, ahead_ms)
}

fn complete<S: Read + Write>(
    mut stream: S,
    opening: &[u8],
    (handshake, hello): (Handshake, Bytes),
    ahead_ms: i64,
) -> Result<S, RawError> {
    stream.write_all(&[opening, &hello].concat())?;
    let mut answer = read_frame(&mut stream)?;
    if answer.kind == Kind::PROOF {
        answer = read_frame(&mut stream)?;
    }
    match handshake.complete(&Nobody, clock(ahead_ms), &answer) {
        Ok(completed) => stream.write_all(&completed.ready)?,
        Err(refusal) => {
            stream.write_all(&refusal.frame(clock(ahead_ms)))?;
            return Err(refusal.into());
        }
    }
    Ok(stream)
}

/// Reads until the other side closes.
pub(crate) fn read_to_close(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
        Ok(_) | Err(_) => Ok(rest),
    }
}

/// The value of a counter of the node with its one label.
pub(crate) fn counted(node: &Node, name: &str, reason: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.metrics().lock())
        .expect("metrics are text");
    let start = format!("nearcache_{name}_total{{reason=\"{reason}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
        .unwrap_or(0)
}
