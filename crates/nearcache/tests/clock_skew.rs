//! R5: a node whose clock is too far from its peers' learns so from them, also from those that it has no session with, writes nothing and goes on
//! serving reads.
//!
//! The clocks of the machine's nodes agree, so the peers are made of sockets here: seen from the node, three peers an hour ahead are
//! a clock of its own that is an hour behind.
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

use std::net::SocketAddr;

use authority::{Authority, CLUSTER, Leaf, NodeFiles};
use common::{TestResult, bounded, cache, cluster_name, eventually, node};
use nearcache::{Epoch, Node, NodeId, WriteError};
use nearcache_protocol::handshake::Local;
use nearcache_protocol::identity::{Identity, Zone};
use nearcache_protocol::lane::Lane;
use raw_peer::{counted, local, open_lane, socket};
use tls_client::{connect, proof};

const HOUR_MS: i64 = 3_600_000;

/// The peer of this number, at an address of its own.
fn peer(id: u64, epoch: Epoch) -> Local {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(id).unwrap()));
    let identity = Identity::new(NodeId::from_u64(id), epoch, address, Zone::default());
    Local::new(&cluster_name(), "raw", identity)
}

/// The peer comes with a clock that is so far ahead. Whether it is let in as far as it can tell.
async fn comes(to: &Node, id: u64, ahead_ms: i64) -> bool {
    let (address, peer) = (to.local_addr(), peer(id, to.epoch()));
    let dialled = tokio::task::spawn_blocking(move || {
        let stream = socket(address)?;
        open_lane(stream, &[], &peer, Lane::Control, ahead_ms).map(drop)
    });
    dialled.await.unwrap().is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_node_that_most_peers_refuse_for_its_clock_writes_nothing_and_says_so_until_they_agree()
-> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let cache = cache(&one).await;
        cache.put("key", "value".into()).await?;
        assert_eq!(one.clock_skew(), None);
        for id in 11..14 {
            assert!(
                !comes(&one, id, HOUR_MS).await,
                "a session with such a peer"
            );
        }
        eventually(|| counted(&one, "peer_handshakes_refused", "implausible_time") == 3).await;
        let skew = one.clock_skew().expect("all peers are an hour ahead");
        assert!(
            (3_590_000..3_610_000).contains(&skew.peers_ahead_ms),
            "{skew:?}"
        );
        let refused = cache.put("key", "other".into()).await.unwrap_err();
        assert!(matches!(refused, WriteError::ClockSkew), "{refused:?}");
        assert_eq!(
            cache.peek("key").as_deref().map(String::as_str),
            Some("value")
        );
        // Two of the three were wrong, and are right now.
        for id in 11..13 {
            assert!(comes(&one, id, 0).await);
        }
        eventually(|| one.clock_skew().is_none()).await;
        cache.put("key", "other".into()).await?;
        // The third is wrong for good, and alone with it.
        assert!(!comes(&one, 13, HOUR_MS).await);
        eventually(|| counted(&one, "peer_handshakes_refused", "implausible_time") == 4).await;
        cache.put("key", "third".into()).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_who_cannot_prove_to_be_a_peer_stops_nobody_with_its_clock() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let files = NodeFiles::of_peer(&authority, "one");
        let one = Node::builder(CLUSTER).tls(files.tls()).start().await?;
        let (address, epoch) = (one.local_addr(), one.epoch());
        let shown = authority.issue(&Leaf::peer(CLUSTER, "two"));
        for (what, secret, id) in [
            (
                "another secret",
                "another-secret-0123456789abcdef0123456789",
                2,
            ),
            ("another node's id", authority::SECRET, 3),
        ] {
            let (shown, local) = (shown.clone(), local(CLUSTER, id, "two", epoch));
            let attack = tokio::task::spawn_blocking(move || {
                let stream = connect(address, Some(&shown))?;
                let opening = proof(secret, 0, &stream)?;
                open_lane(stream, &opening, &local, Lane::Control, HOUR_MS).map(drop)
            });
            assert!(attack.await?.is_err(), "{what} is let in");
        }
        eventually(|| {
            let refused = |reason| counted(&one, "peer_handshakes_refused", reason);
            refused("wrong_secret") == 1 && refused("wrong_node") == 1
        })
        .await;
        assert_eq!(one.clock_skew(), None);
        Ok(())
    })
    .await
}
