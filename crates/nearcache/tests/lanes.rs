//! The three lanes between two nodes never wait for each other (design, section 4): each is a connection of its own, and one that is
//! stuck for good holds up nothing that travels on another.
//!
//! Two nodes meet through a relay that stops reading one of their connections, in both directions, and never begins again.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{TestResult, bounded, cache, eventually, node};
use nearcache::{Cache, Node, PutOptions};
use nearcache_protocol::lane::Lane;

/// Far beyond `inline_limit` and the sockets' buffers: it does not fit into a lane that is stuck.
const LONG: usize = 900 << 10;

/// Passes connections on and can stop those of a lane.
struct Relay {
    address: SocketAddr,
    stuck: Arc<[AtomicBool; 3]>,
}

impl Relay {
    /// In front of a node. A dialling node opens its lanes in their order.
    fn before(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stuck = Arc::new([const { AtomicBool::new(false) }; 3]);
        let flags = Arc::clone(&stuck);
        // Ends with the process: it waits for connections that do not come.
        std::thread::spawn(move || {
            for (number, near) in listener.incoming().flatten().enumerate() {
                let Ok(far) = TcpStream::connect(target) else {
                    return;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                        return;
                    };
                    let flags = Arc::clone(&flags);
                    std::thread::spawn(move || pass_on(from, to, &flags[number % 3]));
                }
            }
        });
        Ok(Self { address, stuck })
    }

    fn stop(&self, lane: Lane) {
        self.stuck[usize::from(lane.number())].store(true, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, stuck: &AtomicBool) {
    let mut buffer = [0; 4_096];
    while let Ok(count) = from.read(&mut buffer) {
        while stuck.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let piece = buffer.get(..count).unwrap_or_default();
        if count == 0 || to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

type Pair = (Relay, [Node; 2], [Cache<String, String>; 2]);

/// Two nodes that have met through a relay.
async fn met() -> Result<Pair, Box<dyn std::error::Error>> {
    let one = node("one", &[]).await;
    let relay = Relay::before(one.local_addr())?;
    let two = node("two", &[]).await;
    let caches = [cache(&one).await, cache(&two).await];
    two.connect(relay.address).await?;
    let knows = |cache: &Cache<String, String>| cache.freshness().per_peer.len() == 1;
    eventually(|| caches.iter().all(|cache| cache.is_ready() && knows(cache))).await;
    Ok((relay, [one, two], caches))
}

async fn arrives(
    from: &Cache<String, String>,
    to: &Cache<String, String>,
    key: &str,
) -> TestResult {
    from.put_with(key, "small".into(), PutOptions::new())
        .await?;
    eventually(|| to.peek(key).is_some()).await;
    Ok(())
}

/// How many updates of the peer this node knows to be missing: heartbeats say so, on the control lane.
fn missing(cache: &Cache<String, String>) -> u64 {
    let peers = cache.freshness().per_peer;
    peers.first().map_or(0, |peer| peer.missing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_heartbeats_do_not_wait_for_a_bulk_lane_that_is_stuck() -> TestResult {
    bounded(async {
        let (relay, nodes, [here, there]) = met().await?;
        relay.stop(Lane::Bulk);
        for number in 0..8 {
            let key = format!("long {number}");
            here.put(&key, "x".repeat(LONG)).await?;
            let reader = there.clone();
            // It waits on the bulk lane, for as long as a read may.
            tokio::spawn(async move { reader.get(&key).await.map(drop) });
        }
        for number in 0..200 {
            arrives(&here, &there, &format!("there {number}")).await?;
            arrives(&there, &here, &format!("back {number}")).await?;
        }
        // Once more than a heartbeat has passed, what is known is no older than one.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let fresh = |cache: &Cache<String, String>| {
            let age = cache.freshness().worst;
            age.is_some_and(|age| age < Duration::from_secs(1))
        };
        eventually(|| fresh(&here) && fresh(&there)).await;
        assert!(nodes.iter().all(|node| node.members().len() == 2));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_do_not_wait_for_a_data_lane_that_is_stuck() -> TestResult {
    bounded(async {
        let (relay, nodes, [here, there]) = met().await?;
        arrives(&here, &there, "before").await?;
        relay.stop(Lane::Data);
        for number in 0..1_000 {
            here.put(&format!("stuck {number}"), "x".repeat(1_000))
                .await?;
        }
        // The control lane says how many there are, again and again, and none of them comes.
        eventually(|| missing(&there) > 0).await;
        here.put("one more", "x".into()).await?;
        let known = missing(&there);
        eventually(|| missing(&there) > known).await;
        assert!(there.peek("one more").is_none());
        assert!(nodes.iter().all(|node| node.members().len() == 2));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_and_long_values_do_not_wait_for_a_control_lane_that_is_stuck() -> TestResult {
    bounded(async {
        let (relay, _nodes, [here, there]) = met().await?;
        relay.stop(Lane::Control);
        arrives(&here, &there, "there").await?;
        arrives(&there, &here, "back").await?;
        here.put("long", "x".repeat(LONG)).await?;
        eventually(|| matches!(there.about("long"), Ok(Some(_)))).await;
        let long = there.get("long").await?;
        assert_eq!(long.map(|value| value.len()), Some(LONG));
        Ok(())
    })
    .await
}
