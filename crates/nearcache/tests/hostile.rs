//! What peers must not be able to do.

mod common;
#[path = "common/raw_peer.rs"]
mod raw_peer;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use common::{TestResult, bounded, cluster_name, eventually, node, pair};
use nearcache::{Ack, ConnectError, Epoch, Node, PutOptions};
use nearcache_protocol::control::{self, Refused};
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use nearcache_protocol::handshake::{Local, ProtocolRange};
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::rendezvous::PlacementKey;
use raw_peer::{counted, local, open_lane, read_frame, read_to_close, socket};

/// Sends `bytes` as a stranger and returns what came back until the node closed.
fn stranger(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = socket(address)?;
    stream.write_all(bytes)?;
    read_to_close(&mut stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_its_connection_and_nothing_else() -> TestResult {
    bounded(async {
        let (one, _two, here, there) = pair().await;
        let address = one.local_addr();
        let huge_frame = [0xFF, 0xFF, 0xFF, 0xFF, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let short_frame = [0, 0, 0, 1, 1];
        let unknown_version = [0, 0, 0, 10, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let empty_hello = [0, 0, 0, 10, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let not_a_hello = [0, 0, 0, 10, 1, 0x41, 0, 0, 0, 0, 0, 0, 0, 0];
        let inputs: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &huge_frame,
            &short_frame,
            &unknown_version,
            &empty_hello,
            &not_a_hello,
        ];
        for bytes in inputs {
            let bytes = bytes.to_vec();
            let answer = tokio::task::spawn_blocking(move || stranger(address, &bytes)).await??;
            assert!(answer.len() < 64, "a stranger learns nothing: {answer:?}");
        }
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.peek("key").is_some());
        assert_eq!(one.members().len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_says_nothing_is_cut_off() -> TestResult {
    bounded(async {
        let (one, _two, _here, _there) = pair().await;
        let address = one.local_addr();
        let answer = tokio::task::spawn_blocking(move || stranger(address, &[0])).await??;
        assert!(answer.is_empty());
        Ok(())
    })
    .await
}

/// A peer with all three lanes open, and what it needs to come again.
struct Intruder {
    address: SocketAddr,
    local: Local,
    lanes: [TcpStream; 3],
}

impl Intruder {
    fn enter(cluster: &str, node: &Node, id: u64) -> Result<Self, raw_peer::RawError> {
        let address = node.local_addr();
        let local = local(cluster, id, "bad", node.epoch());
        let open = |lane| open_lane(socket(address)?, &[], &local, lane, 0);
        let lanes = [open(Lane::Control)?, open(Lane::Data)?, open(Lane::Bulk)?];
        Ok(Self {
            address,
            local,
            lanes,
        })
    }

    /// Sends `bytes` on a lane, waits until the session is closed, and says whether it is let in
    /// again.
    fn attack(mut self, lane: Lane, bytes: &[u8]) -> Result<bool, raw_peer::RawError> {
        self.lanes[usize::from(lane.number())].write_all(bytes)?;
        for stream in &mut self.lanes {
            read_to_close(stream)?;
        }
        let again = socket(self.address)?;
        Ok(open_lane(again, &[], &self.local, Lane::Control, 0).is_ok())
    }
}

/// A frame of the cache that all have open.
fn of_cache(kind: u8, body: &[u8]) -> Vec<u8> {
    let id = CacheId::of_name(PlacementKey::of_cluster(&cluster_name()).bytes(), "things");
    framed(kind, &[&id.as_u64().to_be_bytes(), body].concat())
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(Kind(kind), 1, body, FrameLimit::DEFAULT, &mut out).unwrap_or_default();
    out.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_what_cannot_be_right_closes_the_session_and_quarantines_its_sender() -> TestResult {
    bounded(async {
        let (one, _two, here, there) = pair().await;
        let four_gib = [0xFF, 0xFF, 0xFF, 0xFF, 1, 0x40, 0, 0, 0, 0, 0, 0, 0, 0];
        // A progress vector of a million nodes has 24 MB, which no frame may have; one that
        // announces as many as its count can hold and brings one is cut short.
        let million = [0x01, 0x6e, 0x36, 0x0a, 1, 0x4d, 0, 0, 0, 0, 0, 0, 0, 0];
        let cut_vector = [&[1, 0xFF, 0xFF][..], &[1; 24]].concat();
        let inputs: [(&str, Lane, Vec<u8>, &str); 8] = [
            ("length of 4 GiB", Lane::Data, four_gib.to_vec(), "frame"),
            ("vector of a million", Lane::Bulk, million.to_vec(), "frame"),
            (
                "vector cut short",
                Lane::Bulk,
                of_cache(0x4d, &cut_vector),
                "message",
            ),
            (
                "message cut short",
                Lane::Data,
                of_cache(0x46, &[]),
                "message",
            ),
            (
                "unknown kind",
                Lane::Control,
                framed(0x3F, &[]),
                "unknown_kind",
            ),
            (
                "unknown kind of a cache",
                Lane::Data,
                of_cache(0xFE, &[]),
                "message",
            ),
            (
                "member list that is none",
                Lane::Control,
                framed(0x11, &[0xFF]),
                "control",
            ),
            (
                "packet that is none",
                Lane::Control,
                framed(0x10, &[0xFF]),
                "membership",
            ),
        ];
        for (i, (what, lane, bytes, reason)) in inputs.into_iter().enumerate() {
            let before = counted(&one, "peer_frames_refused", reason);
            let (node, cluster) = (one.clone(), cluster_name());
            let attack = tokio::task::spawn_blocking(move || {
                Intruder::enter(&cluster, &node, 1_000 + i as u64)?.attack(lane, &bytes)
            });
            let is_let_in = attack.await?.map_err(|error| format!("{what}: {error}"))?;
            assert!(!is_let_in, "{what}: a quarantined peer is let in");
            let after = counted(&one, "peer_frames_refused", reason);
            assert_eq!(after, before + 1, "{what}: {reason}");
        }
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::Peers(1)))
            .await?;
        assert!(there.peek("key").is_some());
        assert_eq!((here.len(), there.len()), (1, 1), "nothing else was merged");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_times_that_cannot_be_are_refused_in_the_handshake() -> TestResult {
    bounded(async {
        let (one, _two, _here, _there) = pair().await;
        let address = one.local_addr();
        let year_ms = 365 * 24 * 3600 * 1000;
        let later = Epoch::from_u64(one.epoch().as_u64() + 1_000_000_000);
        let inputs = [
            (
                "a clock a year ahead",
                local(&cluster_name(), 666, "bad", one.epoch()),
                year_ms,
            ),
            (
                "an epoch in the future",
                local(&cluster_name(), 667, "bad", later),
                0,
            ),
        ];
        for (what, local, ahead_ms) in inputs {
            let attack = tokio::task::spawn_blocking(move || {
                open_lane(socket(address)?, &[], &local, Lane::Control, ahead_ms).map(drop)
            });
            assert!(attack.await?.is_err(), "{what} is let in");
        }
        eventually(|| counted(&one, "peer_handshakes_refused", "implausible_time") == 2).await;
        assert_eq!(one.members().len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_a_second_node_with_an_id_that_is_in_use_is_refused() -> TestResult {
    bounded(async {
        let (one, two, _here, _there) = pair().await;
        let address = one.local_addr();
        let same = local(&cluster_name(), two.id().as_u64(), "two", two.epoch());
        let attack = tokio::task::spawn_blocking(move || {
            open_lane(socket(address)?, &[], &same, Lane::Control, 0).map(drop)
        });
        let error = attack
            .await?
            .expect_err("a second node with the id is let in");
        assert!(error.to_string().contains("its log says why"), "{error}");
        eventually(|| counted(&one, "peer_handshakes_refused", "duplicate_node_id") == 1).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_a_peer_without_a_common_version_is_told_the_versions() -> TestResult {
    bounded(async {
        let (one, _two, _here, _there) = pair().await;
        let address = one.local_addr();
        let newer = ProtocolRange { min: 7, max: 9 };
        let mut stranger = local(&cluster_name(), 666, "new", one.epoch());
        stranger.protocols = newer;
        let attack = tokio::task::spawn_blocking(move || {
            open_lane(socket(address)?, &[], &stranger, Lane::Control, 0).map(drop)
        });
        let error = attack
            .await?
            .expect_err("a peer of another version is let in");
        assert!(error.to_string().contains("7 to 9"), "{error}");
        assert!(error.to_string().contains("1 to 1"), "{error}");
        eventually(|| counted(&one, "peer_handshakes_refused", "version") == 1).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_an_address_that_talks_other_versions_is_left_alone_for_a_while() -> TestResult {
    bounded(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // Ends with the process: it waits for connections that do not come.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(mut stream) = stream else { return };
                let told = Refused {
                    time: 0,
                    protocol_min: 7,
                    protocol_max: 9,
                };
                let answer = framed(Kind::REFUSED.0, &control::encode(&told));
                let _ = read_frame(&mut stream).map(|_| stream.write_all(&answer));
            }
        });
        let one = node("one", &[address]).await;
        eventually(|| accepted.load(Ordering::SeqCst) == 1).await;
        // Without the 30 s the first two seconds have six attempts and more.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(accepted.load(Ordering::SeqCst), 1);
        let error = one.connect(address).await.expect_err("another version");
        assert!(
            matches!(error, ConnectError::VersionMismatch { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("upgrade the older one"),
            "{error}"
        );
        Ok(())
    })
    .await
}
