//! More members than a full mesh may have: real sockets, few sessions each, updates along the tree (issue: beyond a full mesh).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test"
)]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/raw_peer.rs"]
mod raw_peer;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use authority::{Authority, CLUSTER, NodeFiles};
use common::{TestResult, eventually};
use nearcache::{
    Ack, Cache, Condition, Mode, Modify, Node, NodeBuilder, NodeId, PutOptions, StaticPeers,
    WriteError,
};

type Strings = Cache<String, String>;

/// No test here takes longer.
const BOUND: Duration = Duration::from_secs(40);

fn builder(name: &str, mesh_max: usize, peers: &[SocketAddr]) -> NodeBuilder {
    of_cluster(common::cluster_name(), name, mesh_max, peers)
}

fn of_cluster(cluster: String, name: &str, mesh_max: usize, peers: &[SocketAddr]) -> NodeBuilder {
    Node::builder(cluster)
        .name(name)
        .new_identity(true)
        .mesh_max(mesh_max)
        .discovery(StaticPeers::new(peers.iter().copied()))
}

/// Nodes that found each other through the first two, each with the cache open and ready.
struct Many {
    nodes: Vec<Node>,
    caches: Vec<Strings>,
}

impl Many {
    async fn start(count: usize, make: impl Fn(usize, &[SocketAddr]) -> NodeBuilder) -> Self {
        let mut many = Self {
            nodes: Vec::new(),
            caches: Vec::new(),
        };
        for number in 0..count {
            let seeds: Vec<_> = many.nodes.iter().take(2).map(Node::local_addr).collect();
            many.add(make(number, &seeds)).await;
        }
        many.know_each_other().await;
        many
    }

    async fn add(&mut self, builder: NodeBuilder) {
        let node = builder.start().await.expect("a node starts");
        self.caches.push(common::cache(&node).await);
        self.nodes.push(node);
    }

    async fn know_each_other(&self) {
        for node in &self.nodes {
            eventually(|| node.members().len() == self.nodes.len()).await;
            node.ready().await;
        }
    }

    fn seeds(&self) -> Vec<SocketAddr> {
        self.nodes.iter().take(2).map(Node::local_addr).collect()
    }

    async fn all_read(&self, key: &str, value: &str) {
        for (node, cache) in self.nodes.iter().zip(&self.caches) {
            let what = || cache.peek(key).is_some_and(|seen| *seen == value);
            eventually(what).await;
            assert!(!node.is_stopped());
        }
    }

    /// Kills a node: its sockets close without a word.
    fn kill(&mut self, at: usize) {
        drop((self.nodes.remove(at), self.caches.remove(at)));
    }

    fn sessions(&self) -> usize {
        self.nodes.iter().map(|node| node.links().sessions).sum()
    }
}

async fn bounded<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, test)
        .await
        .expect("the test takes too long")
}

/// The write was made, and is not acknowledged by all because the tree is on.
fn is_beyond_mesh<T>(result: &Result<T, WriteError>, nodes: usize) -> bool {
    matches!(result, Err(WriteError::AckAllBeyondMesh { members, .. }) if *members == nodes)
}

/// The value of a metric without labels.
fn metric(node: &Node, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.metrics().lock())
        .expect("metrics are text");
    let start = format!("nearcache_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_dozen_nodes_have_few_sessions_and_what_one_writes_all_read() -> TestResult {
    bounded(async {
        let count = 24;
        let named = |number: usize, seeds: &[SocketAddr]| builder(&format!("n{number}"), 4, seeds);
        let mut many = Many::start(count, named).await;
        for (number, cache) in many.caches.iter().enumerate() {
            cache.put(&format!("from-{number}"), "one".into()).await?;
        }
        for number in 0..count {
            many.all_read(&format!("from-{number}"), "one").await;
        }
        // The sessions of joining, which the tree does not want, end.
        let most = count * (count - 1);
        eventually(|| many.sessions() * 2 < most).await;
        for node in &many.nodes {
            let links = node.links();
            assert!(links.by_tree && links.sessions >= 2, "{links:?}");
        }
        // C11: everybody knows how old its knowledge of all others is, neighbours or not.
        for cache in &many.caches {
            let is_fresh = || {
                let freshness = cache.freshness();
                let known = freshness.per_peer.len() == count - 1;
                known
                    && freshness
                        .worst
                        .is_some_and(|age| age < Duration::from_secs(5))
            };
            eventually(is_fresh).await;
        }
        // Those without a session are watched over short-lived connections, of which there are few.
        let opened = |node: &Node| metric(node, "peer_probe_connections_opened_total") > 0;
        eventually(|| many.nodes.iter().all(opened)).await;

        // Neighbours acknowledge; nobody waits for all.
        let options = PutOptions::new().ack(Ack::Peers(2));
        many.caches[3]
            .put_with("acked", "two".into(), options)
            .await?;
        let begun = Instant::now();
        let options = PutOptions::new().ack(Ack::All);
        let refused = many.caches[3]
            .put_with("acked", "all".into(), options)
            .await;
        assert!(is_beyond_mesh(&refused, count), "{refused:?}");
        // Far from its timeout.
        assert!(begun.elapsed() < Duration::from_secs(1));
        many.all_read("acked", "all").await;
        let dropped = many.caches[4].invalidate("acked", Ack::All, BOUND).await;
        assert!(is_beyond_mesh(&dropped, count), "{dropped:?}");
        for cache in &many.caches {
            eventually(|| cache.peek("acked").is_none()).await;
        }

        // One that dies takes its place in the tree with it: nobody loses an update by it.
        many.kill(7);
        many.kill(11);
        many.caches[0].put("after", "the fall".into()).await?;
        many.all_read("after", "the fall").await;
        for node in &many.nodes {
            eventually(|| node.members().len() == many.nodes.len()).await;
        }
        // One that comes gets all of it, and is heard by all.
        let seeds = many.seeds();
        many.add(builder("late", 4, &seeds)).await;
        many.know_each_other().await;
        many.all_read("after", "the fall").await;
        many.caches
            .last()
            .unwrap()
            .put("late", "here".into())
            .await?;
        many.all_read("late", "here").await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_the_tree_and_its_probes_prove_who_they_are() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let count = 9;
        let names: Vec<_> = (0..count).map(|number| format!("n{number}")).collect();
        let files: Vec<_> = names
            .iter()
            .map(|name| NodeFiles::of_peer(&authority, name))
            .collect();
        let named = |number: usize, seeds: &[SocketAddr]| {
            let cluster = CLUSTER.to_owned();
            of_cluster(cluster, &names[number], 2, seeds).tls(files[number].tls())
        };
        let many = Many::start(count, named).await;
        for (number, cache) in many.caches.iter().enumerate() {
            cache.put(&format!("from-{number}"), "one".into()).await?;
        }
        for number in 0..count {
            many.all_read(&format!("from-{number}"), "one").await;
        }
        let opened = |node: &Node| metric(node, "peer_probe_connections_opened_total");
        eventually(|| many.nodes.iter().map(opened).sum::<u64>() > 0).await;
        for node in &many.nodes {
            assert_eq!(
                raw_peer::counted(node, "peer_handshakes_refused", "unwanted"),
                0
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_probe_connections_than_configured() -> TestResult {
    bounded(async {
        let named = |number: usize, seeds: &[SocketAddr]| {
            builder(&format!("n{number}"), 2, seeds).probe_connections(1)
        };
        let many = Many::start(14, named).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            for node in &many.nodes {
                let links = node.links();
                assert!(
                    links.probes_dialled <= 1 && links.probes_accepted <= 1,
                    "{links:?}"
                );
                assert_eq!(node.members().len(), 14, "nobody is held for dead");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_disagree_about_the_mesh_refuse_each_other_where_it_matters() -> TestResult {
    bounded(async {
        let one = builder("one", 2, &[]).start().await?;
        let seeds = [one.local_addr()];
        let two = builder("two", 4, &seeds).start().await?;
        // Two are a full mesh for both.
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        let three = builder("three", 4, &seeds).start().await?;
        let refused = || raw_peer::counted(&one, "peer_handshakes_refused", "mesh_max") > 0;
        eventually(refused).await;
        assert_eq!((one.members().len(), three.members().len()), (2, 1));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_beyond_the_mesh_copies_of_mode_invalidation_are_served_and_one_write_drops_all()
-> TestResult {
    bounded(async {
        const COUNT: usize = 8;
        let many = Many::start(COUNT, |number, seeds| {
            builder(&format!("n{number}"), 2, seeds)
        })
        .await;
        let mut caches: Vec<Strings> = Vec::new();
        for node in &many.nodes {
            let cache = node.cache("leased").mode(Mode::Invalidation);
            caches.push(cache.open().await?);
        }
        // Somebody who has no session with everybody writes.
        let is_far = |node: &Node| node.links().sessions < COUNT - 1;
        eventually(|| many.nodes.iter().any(is_far)).await;
        let writer = many.nodes.iter().position(is_far).expect("there is one");
        for round in ["first", "second"] {
            let serve = |cache: &Strings| cache.peek("key").is_some_and(|value| *value == round);
            // A load is kept a clock bound after the last invalidation, and served when there is a lease.
            while !caches.iter().all(serve) {
                for cache in &caches {
                    let load =
                        cache.get_or_load("key", async |_| Ok::<_, String>(round.to_owned()));
                    load.await?;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            caches[writer].invalidate("key", Ack::Local, BOUND).await?;
            eventually(|| caches.iter().all(|cache| cache.peek("key").is_none())).await;
        }
        let dropped = caches[writer].invalidate("key", Ack::All, BOUND).await;
        assert!(is_beyond_mesh(&dropped, COUNT), "{dropped:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_limit_holds_and_what_cannot_be_is_refused_at_the_start() -> TestResult {
    bounded(async {
        let limited = |name: &str, seeds: &[SocketAddr]| builder(name, 2, seeds).member_limit(3);
        let one = limited("one", &[]).start().await?;
        let seeds = [one.local_addr()];
        let two = limited("two", &seeds).start().await?;
        let three = limited("three", &seeds).start().await?;
        for node in [&one, &two, &three] {
            eventually(|| node.members().len() == 3).await;
        }
        let four = limited("four", &seeds).start().await?;
        let refused = || raw_peer::counted(&one, "peer_handshakes_refused", "member_limit") > 0;
        eventually(refused).await;
        assert_eq!((one.members().len(), four.members().len()), (3, 1));
        assert!(builder("five", 0, &[]).start().await.is_err());
        assert!(builder("five", 1_025, &[]).start().await.is_err());
        assert!(
            builder("five", 4, &[])
                .probe_connections(0)
                .start()
                .await
                .is_err()
        );
        assert!(
            builder("five", 4, &[])
                .member_limit(2_000)
                .start()
                .await
                .is_err()
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_home_of_a_key_decides_and_a_long_value_is_fetched_wherever_they_are() -> TestResult {
    bounded(async {
        let named = |number: usize, seeds: &[SocketAddr]| builder(&format!("n{number}"), 4, seeds);
        let many = Many::start(12, named).await;
        // The sessions of joining end; from then on most homes are no neighbours of most nodes.
        let is_few = |node: &Node| node.links().sessions < 11;
        eventually(|| many.nodes.iter().all(is_few)).await;
        for number in 0..12 {
            let key = format!("key-{number}");
            let mut decided = 0;
            for cache in &many.caches {
                let absent = Modify::set("mine".to_owned()).only_if(Condition::IfAbsent);
                decided += usize::from(cache.modify(&key, absent).await?.applied);
            }
            assert_eq!(decided, 1, "{key} is set by one");
        }
        let long = "long".repeat(50_000);
        many.caches[5].put("long", long.clone()).await?;
        for cache in &many.caches {
            // Its update may still be on its way.
            eventually(|| cache.about("long").is_ok_and(|about| about.is_some())).await;
            let seen = cache.get("long").await?.ok_or("a miss")?;
            assert!(*seen == long);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_mesh_a_key_is_inspected_and_audited_on_every_node() -> TestResult {
    bounded(async {
        let count = 24;
        let named = |number: usize, seeds: &[SocketAddr]| {
            builder(&format!("n{number}"), 4, seeds).probe_connections(4)
        };
        let mut many = Many::start(count, named).await;
        // The sessions of joining end; from then on most members are no neighbours of most.
        eventually(|| many.sessions() * 2 < count * (count - 1)).await;
        many.caches[7].put("key", "value".into()).await?;
        many.all_read("key", "value").await;
        let about = many.caches[7].about("key")?.ok_or("a miss")?;
        for cache in many.caches.iter().step_by(5) {
            let inspection = cache.inspect("key").await?;
            assert_eq!(inspection.nodes.len(), count);
            for (node, held) in &inspection.nodes {
                let held = held.map_err(|reason| format!("{node}: {reason}"))?;
                assert_eq!(held.entry.map(|entry| entry.version), Some(about.version));
            }
            assert!(inspection.agrees());
        }
        let named = |node: &NodeId| many.nodes[0].name_of(*node).is_some();
        let inspection = many.caches[0].inspect("key").await?;
        assert!(
            inspection.nodes.keys().all(named),
            "whom it has asked it can name"
        );

        // The audit goes round: everybody has been asked after a few probes, and had them.
        let cache = &many.caches[0];
        cache.audit(Duration::from_secs(1), None);
        let report = || cache.audit_report();
        eventually(|| report().covered == count - 1 && report().probes > 2).await;
        cache.stop_audit();
        let report = report();
        assert_eq!(report.members, count - 1);
        assert_eq!(report.within()[0].stale, 0, "{report:?}");
        assert!(report.took.p50.is_some(), "{report:?}");

        // Who cannot be reached is told, and nobody else is missing.
        let gone = many.nodes[9].id();
        many.kill(9);
        let inspection = many.caches[0].inspect("key").await?;
        let told = inspection.nodes.get(&gone);
        assert!(told.is_none_or(Result::is_err), "{told:?}");
        let answered = inspection.nodes.values().filter(|held| held.is_ok());
        assert_eq!(answered.count(), count - 1, "{inspection:?}");
        for node in &many.nodes {
            let links = node.links();
            assert!(
                links.probes_dialled <= 4 && links.probes_accepted <= 4,
                "{links:?}"
            );
        }
        Ok(())
    })
    .await
}
