//! The crate `groupcache`: nodes that load a key at its owner, asked over gRPC.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use groupcache::{Groupcache, GroupcachePeer, ValueLoader};
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};

/// One of its nodes.
pub(crate) type Peer = Groupcache<u64>;

/// What its loaders answer.
type Answer<'a> =
    Pin<Box<dyn Future<Output = Result<u64, Box<dyn Error + Send + Sync>>> + Send + 'a>>;

/// Its loader is given when a node is made, and is handed the key as text.
struct Loader<F>(F);

impl<F, Fut> ValueLoader for Loader<F>
where
    F: Fn(u64) -> Fut + Send + Sync,
    Fut: Future<Output = anyhow::Result<u64>> + Send,
{
    type Value = u64;

    fn load<'me, 'key, 'answer>(&'me self, key: &'key str) -> Answer<'answer>
    where
        'me: 'answer,
        'key: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            let answered = (self.0)(key.parse()?).await;
            answered.map_err(Into::into)
        })
    }
}

/// So many nodes that know each other, all of which load with `load`.
pub(crate) async fn start<F, Fut>(nodes: usize, load: F) -> anyhow::Result<Vec<Peer>>
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let load = Arc::new(load);
    let mut peers = Vec::with_capacity(nodes);
    for _ in 0..nodes {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = GroupcachePeer::from_socket(listener.local_addr()?);
        let load = Arc::clone(&load);
        let peer = Groupcache::builder(address, Loader(move |key| load(key))).build();
        let served = Server::builder().add_service(peer.grpc_service());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(served.serve_with_incoming(incoming));
        peers.push(peer);
    }
    for (at, peer) in peers.iter().enumerate() {
        for (_, other) in peers.iter().enumerate().filter(|(other, _)| *other != at) {
            let other = GroupcachePeer::from_socket(other.addr());
            peer.add_peer(other).await?;
        }
    }
    Ok(peers)
}
