//! Short-lived connections of members without a session: bounded, authenticated as any other, and never a session.

mod common;
#[path = "common/raw_peer.rs"]
mod raw_peer;

use std::io::Write;
use std::net::TcpStream;

use bytes::BytesMut;
use common::{TestResult, bounded, eventually};
use nearcache::{MemberState, Node, NodeId};
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use nearcache_protocol::lane::Lane;
use raw_peer::{RawError, counted, local, open_lane, open_probe, read_to_close, socket};

/// Its own: nodes of other tests shall not take this one for theirs.
const CLUSTER: &str = "probe-connections";
/// Connections of each direction that the node of these tests allows.
const ROOM: usize = 2;

async fn alone() -> Result<Node, nearcache::StartError> {
    let builder = Node::builder(CLUSTER).name("one");
    builder.probe_connections(ROOM).start().await
}

/// A probe connection of the peer `id`.
fn probe(node: &Node, id: u64) -> Result<TcpStream, RawError> {
    let address = node.local_addr();
    open_probe(
        socket(address)?,
        &local(CLUSTER, id, "raw", node.epoch()),
        0,
    )
}

/// A session of the peer `id`.
fn session(node: &Node, id: u64) -> Result<[TcpStream; 3], RawError> {
    let address = node.local_addr();
    let local = local(CLUSTER, id, "raw", node.epoch());
    let open = |lane| open_lane(socket(address)?, &[], &local, lane, 0);
    Ok([open(Lane::Control)?, open(Lane::Data)?, open(Lane::Bulk)?])
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(kind, 0, body, FrameLimit::DEFAULT, &mut out).unwrap_or_default();
    out.to_vec()
}

async fn blocking<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(Node) -> Result<T, RawError> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error>> {
    let node = node.clone();
    let done = tokio::task::spawn_blocking(move || work(node)).await?;
    done.map_err(|error| -> Box<dyn std::error::Error> { error })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_find_no_room_are_closed_and_idle_ones_end() -> TestResult {
    bounded(async {
        let one = alone().await?;
        let mut kept = blocking(&one, |node| {
            let kept = [probe(&node, 101)?, probe(&node, 102)?];
            for id in 103..110 {
                // The handshake is fine; there is no room for what would follow.
                let rest = read_to_close(&mut probe(&node, id)?)?;
                assert!(rest.is_empty() && node.links().probes_accepted <= ROOM);
            }
            Ok(kept)
        })
        .await?;
        assert_eq!(one.links().sessions, 0, "no session comes of it");
        assert_eq!(
            one.members().len(),
            1,
            "who says nothing of the membership is no member"
        );
        let ended = tokio::task::spawn_blocking(move || {
            kept.each_mut().map(|stream| read_to_close(stream).is_ok())
        });
        assert_eq!(ended.await?, [true; ROOM]);
        eventually(|| one.links().probes_accepted == 0).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_the_same_peer_stands_beside_it() -> TestResult {
    bounded(async {
        let one = alone().await?;
        let lanes = blocking(&one, |node| session(&node, 7)).await?;
        let is_connected = || {
            let members = one.members();
            let mut peers = members
                .iter()
                .filter(|member| member.id == NodeId::from_u64(7));
            peers.all(|peer| peer.state == MemberState::Connected) && one.links().sessions == 1
        };
        eventually(is_connected).await;
        for _ in 0..3 {
            let probe = blocking(&one, |node| probe(&node, 7)).await?;
            assert!(is_connected());
            drop(probe);
        }
        eventually(|| one.links().probes_accepted == 0).await;
        assert!(is_connected());
        drop(lanes);
        eventually(|| one.links().sessions == 0).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_only_the_membership_and_questions_about_keys_may_come_and_bad_frames_are_refused()
-> TestResult {
    bounded(async {
        let one = alone().await?;
        let attacks = [
            (201, framed(Kind::FIRST_OF_CACHE, &[0; 8]), "unknown_kind"),
            (202, framed(Kind::PART, &[]), "unknown_kind"),
            (203, framed(Kind::SWIM, b"no packet"), "membership"),
            (
                204,
                framed(Kind::SWIM, &[0; 100_000])[..1_000].to_vec(),
                "frame",
            ),
            (205, framed(Kind(0x80), &[0; 3]), "message"),
        ];
        for (id, bytes, reason) in attacks {
            let before = counted(&one, "peer_frames_refused", reason);
            let comes_again = blocking(&one, move |node| {
                let mut stream = probe(&node, id)?;
                stream.write_all(&bytes)?;
                read_to_close(&mut stream)?;
                Ok(probe(&node, id).is_ok())
            });
            assert!(!comes_again.await?, "{id} is let in again");
            assert_eq!(
                counted(&one, "peer_frames_refused", reason),
                before + 1,
                "{id}"
            );
        }
        assert_eq!(one.members().len(), 1);
        Ok(())
    })
    .await
}
