//! Nodes on loopback, and waiting with a bound.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

use nearcache::{Cache, Node, Raw, RawValue, StaticPeers};

/// No test waits longer than this for anything.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;
pub(crate) type RawCache = Cache<Vec<u8>, RawValue, Raw>;

/// Runs a test within the bound.
pub(crate) async fn bounded<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, test)
        .await
        .expect("the test takes too long")
}

/// The cluster of the test that calls this from its own thread. Each test has its own: a port that one test gives back may be another's
/// next, whose nodes have the same names, and a node that is dialled by an older one of its own name takes it for itself.
pub(crate) fn cluster_name() -> String {
    let mut hasher = DefaultHasher::new();
    std::thread::current().name().hash(&mut hasher);
    format!("test-{}-{:x}", std::process::id(), hasher.finish())
}

/// A node that looks for `peers`.
pub(crate) async fn node(name: &str, peers: &[SocketAddr]) -> Node {
    Node::builder(cluster_name())
        .name(name)
        .discovery(StaticPeers::new(peers.iter().copied()))
        .start()
        .await
        .expect("a node starts")
}

/// The cache all tests use.
pub(crate) async fn cache(node: &Node) -> Cache<String, String> {
    node.cache("things").open().await.expect("a cache opens")
}

/// Two nodes that know each other, with the cache open and ready.
pub(crate) async fn pair() -> (Node, Node, Cache<String, String>, Cache<String, String>) {
    let one = node("one", &[]).await;
    let two = node("two", &[one.local_addr()]).await;
    let (here, there) = (cache(&one).await, cache(&two).await);
    one.ready().await;
    two.ready().await;
    eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
    (one, two, here, there)
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting)
        .await
        .expect("what was expected does not happen");
}
