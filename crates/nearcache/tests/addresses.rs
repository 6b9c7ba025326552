//! What stands between a node and the addresses that it is known by: others that lead to it too, and one where nobody answers for a while.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test"
)]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/logs.rs"]
mod logs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use authority::{Authority, CLUSTER, NodeFiles};
use common::{TestResult, bounded, eventually, node};
use logs::Logs;
use nearcache::{MemberState, Node, StaticPeers};
use tokio::net::{TcpListener, TcpStream};

/// Another address of a node: passes connections on, unless it is told to close them at once.
struct Relay {
    address: SocketAddr,
    is_shut: Arc<AtomicBool>,
    /// Connections that came.
    came: Arc<AtomicUsize>,
}

impl Relay {
    async fn before(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Self {
            address: listener.local_addr()?,
            is_shut: Arc::default(),
            came: Arc::default(),
        };
        let (is_shut, came) = (Arc::clone(&relay.is_shut), Arc::clone(&relay.came));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                if is_shut.load(Ordering::SeqCst) {
                    continue;
                }
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(relay)
    }
}

fn is_connected(node: &Node) -> bool {
    let members = node.members();
    members.len() == 2 && members.iter().any(|m| m.state == MemberState::Connected)
}

/// A free port of this machine, as far as that can be known.
async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

#[tokio::test]
async fn an_address_that_leads_to_a_connected_member_leaves_its_session_alone() -> TestResult {
    let logs = Logs::collect();
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        eventually(|| is_connected(&one) && is_connected(&two)).await;
        let other = Relay::before(one.local_addr()).await?;
        for _ in 0..3 {
            assert_eq!(two.connect(other.address).await?, one.id());
        }
        // The control lane says who it is, and no other is opened.
        assert_eq!(other.came.load(Ordering::SeqCst), 3);
        assert!(is_connected(&one) && is_connected(&two));
        assert!(!logs.tell(&["disconnected"]), "{}", logs.text());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_session_that_is_to_be_opened_anew_goes_on_while_nobody_answers_for_a_while() -> TestResult
{
    let logs = Logs::collect();
    bounded(async {
        let authority = Authority::new();
        let mut nodes = Vec::new();
        let mut relays: Vec<Relay> = Vec::new();
        let files = ["one", "two"].map(|name| NodeFiles::of_peer(&authority, name));
        for files in &files {
            let listen = free_address().await?;
            let relay = Relay::before(listen).await?;
            let tls = files.tls().reauthenticate_after(Duration::from_secs(1));
            let seeds = relays.iter().map(|relay| relay.address).collect::<Vec<_>>();
            let builder = Node::builder(CLUSTER)
                .tls(tls)
                .listen(listen.to_string())
                .advertise(relay.address)
                .discovery(StaticPeers::new(seeds));
            nodes.push(builder.start().await?);
            relays.push(relay);
        }
        eventually(|| nodes.iter().all(is_connected)).await;
        let came = || -> usize {
            let came = relays.iter().map(|r| r.came.load(Ordering::SeqCst));
            came.sum()
        };
        for relay in &relays {
            relay.is_shut.store(true, Ordering::SeqCst);
        }
        let before = came();
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(nodes.iter().all(is_connected), "{}", logs.text());
        }
        assert!(came() > before + 1, "it was not tried again");
        for relay in &relays {
            relay.is_shut.store(false, Ordering::SeqCst);
        }
        eventually(|| logs.text().contains("opened the session anew")).await;
        Ok(())
    })
    .await
}
