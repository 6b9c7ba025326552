//! A peer made of a socket and nothing else, which says whatever the test wants.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

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

/// Opens one lane as the peer `local`, after `opening`; an error if it is refused.
pub(crate) fn open_lane<S: Read + Write>(
    stream: S,
    opening: &[u8],
    local: &Local,
    lane: Lane,
    now_ms: u64,
) -> Result<S, RawError> {
    let now = Timestamp::from_parts(now_ms, 0);
    let dialled = Handshake::dial(local.clone(), lane, SessionToken(7), now);
    complete(stream, opening, dialled, now)
}

/// Opens a probe connection as the peer `local`.
pub(crate) fn open_probe<S: Read + Write>(
    stream: S,
    local: &Local,
    now_ms: u64,
) -> Result<S, RawError> {
    let now = Timestamp::from_parts(now_ms, 0);
    let dialled = Handshake::dial_probe(local.clone(), SessionToken(7), now);
    complete(stream, &[], dialled, now)
}

fn complete<S: Read + Write>(
    mut stream: S,
    opening: &[u8],
    (handshake, hello): (Handshake, Bytes),
    now: Timestamp,
) -> Result<S, RawError> {
    stream.write_all(&[opening, &hello].concat())?;
    let mut answer = read_frame(&mut stream)?;
    if answer.kind == Kind::PROOF {
        answer = read_frame(&mut stream)?;
    }
    handshake.complete(&Nobody, now, &answer)?;
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
