//! What somebody with some of what a peer needs must not be able to do: row 30 of the bad inputs of
//! the reliability specification, with connections made by hand.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test"
)]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/raw_peer.rs"]
mod raw_peer;
#[path = "common/tls_client.rs"]
mod tls_client;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use authority::{Authority, CLUSTER, Leaf, NodeFiles, SECRET};
use common::{TestResult, bounded, cache, eventually};
use nearcache::{Node, PeerTls};
use nearcache_protocol::lane::Lane;
use raw_peer::{counted, local, open_lane};
use tls_client::{connect, heard, proof};

async fn node(authority: &Authority) -> Node {
    let files = NodeFiles::of_peer(authority, "one");
    Node::builder(CLUSTER)
        .tls(files.tls())
        .start()
        .await
        .expect("a node starts")
}

/// The id of the node called `name`.
async fn id_of(authority: &Authority, name: &str) -> u64 {
    let files = NodeFiles::of_peer(authority, name);
    let node = Node::builder(CLUSTER).tls(files.tls()).start().await;
    node.expect("a node starts").id().as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_certificates_that_are_no_peers_are_refused_all_with_the_same_words() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let one = node(&authority).await;
        let address = one.local_addr();
        let mut expired = Leaf::peer(CLUSTER, "two").valid_for(std::time::Duration::ZERO);
        expired.began *= 2;
        let expired = authority.issue(&expired);
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let server_only = Leaf {
            usages: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth],
            ..Leaf::peer(CLUSTER, "two")
        };
        let inputs = [
            ("no certificate", None, "no_certificate"),
            (
                "a client's certificate",
                Some(authority.issue(&Leaf::uri("spiffe://test/client/app"))),
                "not_a_peer",
            ),
            (
                "a web server's certificate",
                Some(authority.issue(&Leaf::dns("shop.example"))),
                "not_a_peer",
            ),
            (
                "no name after the cluster",
                Some(authority.issue(&Leaf::uri("spiffe://test/peer/"))),
                "not_a_peer",
            ),
            (
                "another cluster's peer",
                Some(authority.issue(&Leaf::peer("shop", "two"))),
                "wrong_cluster",
            ),
            (
                "another authority's peer",
                Some(Authority::new().issue(&Leaf::peer(CLUSTER, "two"))),
                "unknown_authority",
            ),
            ("an expired one", Some(expired), "certificate_expired"),
            (
                "one for servers only",
                Some(authority.issue(&server_only)),
                "bad_certificate",
            ),
        ];
        let mut words = Vec::new();
        for (what, shown, reason) in inputs {
            let before = counted(&one, "peer_handshakes_refused", reason);
            let asked = shown.clone();
            words.push(tokio::task::spawn_blocking(move || heard(address, asked.as_ref())).await?);
            eventually(|| counted(&one, "peer_handshakes_refused", reason) == before + 1).await;
            assert!(
                !words.last().is_none_or(String::is_empty),
                "{what} is let in"
            );
        }
        assert!(words[0].contains("CertificateRequired"), "{words:?}");
        for heard in &words[1..] {
            assert!(heard.contains("CertificateUnknown"), "{words:?}");
        }
        assert_eq!(one.members().len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_a_certificate_alone_does_not_make_a_peer() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let one = node(&authority).await;
        let (address, epoch) = (one.local_addr(), one.epoch());
        let (two, three) = (
            id_of(&authority, "two").await,
            id_of(&authority, "three").await,
        );
        let shown = authority.issue(&Leaf::peer(CLUSTER, "two"));
        let other_secret = "another-secret-0123456789abcdef0123456789";
        // Who it says it is, the secret, the role, and whether the proof is of another connection.
        let inputs = [
            ("no proof", "two", two, None, 0, false, "malformed"),
            (
                "another secret",
                "two",
                two,
                Some(other_secret),
                0,
                false,
                "wrong_secret",
            ),
            (
                "the other role",
                "two",
                two,
                Some(SECRET),
                1,
                false,
                "wrong_secret",
            ),
            (
                "a proof seen elsewhere",
                "two",
                two,
                Some(SECRET),
                0,
                true,
                "wrong_secret",
            ),
            (
                "another node's name",
                "three",
                two,
                Some(SECRET),
                0,
                false,
                "wrong_node",
            ),
            (
                "another node's id",
                "two",
                three,
                Some(SECRET),
                0,
                false,
                "wrong_node",
            ),
            ("both", "three", three, Some(SECRET), 0, false, "wrong_node"),
        ];
        for (what, name, id, secret, role, is_replayed, reason) in inputs {
            let before = counted(&one, "peer_handshakes_refused", reason);
            let (shown, local) = (shown.clone(), local(CLUSTER, id, name, epoch));
            let attack = tokio::task::spawn_blocking(move || {
                let stream = connect(address, Some(&shown))?;
                let elsewhere = connect(address, Some(&shown))?;
                let proven = if is_replayed { &elsewhere } else { &stream };
                let opening = match secret {
                    Some(secret) => proof(secret, role, proven)?,
                    None => Vec::new(),
                };
                open_lane(stream, &opening, &local, Lane::Control, 0).map(drop)
            });
            let error = attack.await?.expect_err(what).to_string();
            assert!(error.contains("its log says why"), "{what}: {error}");
            eventually(|| counted(&one, "peer_handshakes_refused", reason) == before + 1).await;
        }
        // With all of it in order it is let in: the tests above fail for the reason they name.
        let local = local(CLUSTER, two, "two", epoch);
        let entered = tokio::task::spawn_blocking(move || {
            let stream = connect(address, Some(&shown))?;
            let opening = proof(SECRET, 0, &stream)?;
            open_lane(stream, &opening, &local, Lane::Control, 0).map(drop)
        });
        entered.await?.map_err(|error| error.to_string())?;
        assert_eq!(one.members().len(), 1, "one lane is no session");
        Ok(())
    })
    .await
}

/// Passes bytes on between two ends and flips a bit of what the first one says after a while.
fn meddle(from: &TcpStream, to: &TcpStream, flip_at: Option<usize>) -> std::io::Result<()> {
    let (mut from, mut to) = (from, to);
    let mut buffer = [0; 4_096];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        if let Some(at) = flip_at
            && (passed..passed + count).contains(&at)
        {
            buffer[at - passed] ^= 1;
        }
        passed += count;
        to.write_all(&buffer[..count])?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_a_flipped_bit_ends_the_session_and_nothing_of_it_is_merged() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let one = node(&authority).await;
        let there = cache(&one).await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let between = listener.local_addr()?;
        let target = one.local_addr();
        // Ends with the process: it waits for connections that do not come.
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else {
                    return;
                };
                let (near, far) = (Arc::new(near), Arc::new(far));
                let (back_near, back_far) = (Arc::clone(&near), Arc::clone(&far));
                std::thread::spawn(move || meddle(&near, &far, Some(20_000)));
                std::thread::spawn(move || meddle(&back_far, &back_near, None));
            }
        });
        let files = NodeFiles::of_peer(&authority, "two");
        let two = Node::builder(CLUSTER).tls(files.tls()).start().await?;
        let here = cache(&two).await;
        let mut events = one.events();
        two.connect(between).await?;
        for i in 0..200 {
            here.put(&format!("key-{i}"), "x".repeat(1_000)).await?;
        }
        // The session breaks; membership connects the two directly, and all arrives unharmed.
        loop {
            let event = events.next().await;
            if format!("{event:?}").contains("Disconnected") {
                break;
            }
        }
        eventually(|| there.len() == 200).await;
        for i in 0..200 {
            let value = there.peek(&format!("key-{i}"));
            assert_eq!(value.as_deref(), Some(&"x".repeat(1_000)), "key-{i}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_uri_name_of_a_peer_is_written_down() -> TestResult {
    assert_eq!(
        PeerTls::uri_name("shop", "node-1"),
        "spiffe://shop/peer/node-1"
    );
    Ok(())
}
