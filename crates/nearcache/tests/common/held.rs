//! Two nodes, of which one can be made hard to hear: what it sends waits, in order, until it is let go.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::net::SocketAddr;

use nearcache::{Node, StaticPeers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{cluster_name, eventually};

/// Whether what the first of two nodes sends arrives.
#[derive(Debug)]
pub(crate) struct Voice(watch::Sender<bool>);

impl Voice {
    /// From now on nothing of it arrives.
    pub(crate) fn hold(&self) {
        self.0.send_replace(false);
    }

    /// All of it arrives, in order.
    pub(crate) fn let_go(&self) {
        self.0.send_replace(true);
    }
}

/// Whose bytes are held at a front: those of the node behind it, or those of whoever comes to it.
#[derive(Clone, Copy)]
enum Held {
    Host,
    Guest,
}

/// The first can be held.
pub(crate) async fn pair() -> (Node, Node, Voice) {
    let voice = Voice(watch::Sender::new(true));
    let (one, at) = behind_a_front("one", &[], Held::Host, &voice).await;
    let (two, _) = behind_a_front("two", &[at], Held::Guest, &voice).await;
    eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
    (one, two, voice)
}

/// A node that others reach through a front; the front's address.
async fn behind_a_front(
    name: &str,
    peers: &[SocketAddr],
    held: Held,
    voice: &Voice,
) -> (Node, SocketAddr) {
    let front = TcpListener::bind("127.0.0.1:0").await.expect("a front");
    let at = front.local_addr().expect("an address");
    let node = Node::builder(cluster_name())
        .name(name)
        .advertise(at)
        .discovery(StaticPeers::new(peers.iter().copied()))
        .start()
        .await
        .expect("a node starts");
    tokio::spawn(receive(front, node.local_addr(), held, voice.0.subscribe()));
    (node, at)
}

async fn receive(
    front: TcpListener,
    host: SocketAddr,
    held: Held,
    is_heard: watch::Receiver<bool>,
) {
    while let Ok((guest, _)) = front.accept().await {
        let is_heard = is_heard.clone();
        tokio::spawn(async move {
            let Ok(host) = TcpStream::connect(host).await else {
                return;
            };
            // As the nodes themselves do.
            let _ = (guest.set_nodelay(true), host.set_nodelay(true));
            let (from_guest, to_guest) = guest.into_split();
            let (from_host, to_host) = host.into_split();
            let (host_is_heard, guest_is_heard) = match held {
                Held::Host => (Some(is_heard), None),
                Held::Guest => (None, Some(is_heard)),
            };
            tokio::join!(
                carry(from_guest, to_host, guest_is_heard),
                carry(from_host, to_guest, host_is_heard)
            );
        });
    }
}

/// Until one of the two closes: then so does the other.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_heard: Option<watch::Receiver<bool>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some(is_heard) = &mut is_heard
            && is_heard.wait_for(|is_heard| *is_heard).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
