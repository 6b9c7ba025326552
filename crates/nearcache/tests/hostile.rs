//! What peers must not be able to do.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use common::{TestResult, bounded, pair};
use nearcache::{Ack, NodeId, PutOptions, Timestamp};
use nearcache_protocol::frame::{self, FrameDecoder, FrameLimit, Kind};
use nearcache_protocol::handshake::{Handshake, Known, Local, Registry, SessionToken};
use nearcache_protocol::identity::{Identity, Zone};
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::rendezvous::PlacementKey;

/// Sends `bytes` as a stranger and returns what came back until the node closed.
fn stranger(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error),
    }
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

/// A peer that knows nobody.
struct Nobody;

impl Registry for Nobody {
    fn known(&self, _: NodeId) -> Option<Known> {
        None
    }

    fn full_for(&self, _: NodeId) -> Option<usize> {
        None
    }
}

/// Opens one lane as the peer `local`; an error if it is refused.
fn open_lane(
    address: SocketAddr,
    local: &Local,
    lane: Lane,
    now_ms: u64,
) -> Result<TcpStream, Box<dyn std::error::Error + Send + Sync>> {
    let now = Timestamp::from_parts(now_ms, 0);
    let (handshake, hello) = Handshake::dial(local.clone(), lane, SessionToken(7), now);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&hello)?;
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    let welcome = loop {
        if let Some(frame) = decoder.next_frame()? {
            break frame;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        decoder.extend(&byte);
    };
    handshake.complete(&Nobody, now, &welcome)?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_a_bad_frame_is_cut_off_and_not_let_in_again() -> TestResult {
    bounded(async {
        let (one, _two, here, there) = pair().await;
        let address = one.local_addr();
        let (epoch, clock) = (one.epoch(), one.clock().clone());
        let attack = tokio::task::spawn_blocking(move || {
            let somewhere = SocketAddr::from(([127, 0, 0, 1], 9));
            let identity = Identity::new(NodeId::from_u64(666), epoch, somewhere, Zone::default());
            let local = Local::new("test", "bad", identity);
            let mut control = open_lane(address, &local, Lane::Control, clock.now_ms())?;
            let mut data = open_lane(address, &local, Lane::Data, clock.now_ms())?;
            let _bulk = open_lane(address, &local, Lane::Bulk, clock.now_ms())?;
            // An updates frame of the cache that all have open, cut short.
            let id = CacheId::of_name(PlacementKey::of_cluster("test").bytes(), "things");
            let mut bad = BytesMut::new();
            let body = id.as_u64().to_be_bytes();
            frame::encode(Kind(0x46), 1, &body, FrameLimit::DEFAULT, &mut bad)?;
            data.write_all(&bad)?;
            let mut rest = Vec::new();
            match control.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error.into()),
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                open_lane(address, &local, Lane::Control, clock.now_ms()).is_err(),
            )
        });
        let is_refused = attack.await?.map_err(|error| error.to_string())?;
        assert!(is_refused, "a quarantined peer is let in");
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::Peers(1)))
            .await?;
        assert!(there.peek("key").is_some());
        Ok(())
    })
    .await
}
