//! Netsplits of real nodes: what `split` promises on the side without most of the cluster.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{TestResult, bounded, eventually, node};
use nearcache::{
    Ack, Cache, Mode, Modify, ModifyError, Node, OpenError, PutOptions, Sink, SinkError, SinkWrite,
    SplitPolicy, Status, WriteError, WriteThrough,
};
use tokio::sync::Semaphore;

async fn open(node: &Node, split: SplitPolicy) -> Result<Cache<String, String>, OpenError> {
    node.cache("things").split(split).open().await
}

type Three = (Vec<Node>, Vec<Cache<String, String>>);

/// Three nodes that have heard each other.
async fn three(split: SplitPolicy) -> Result<Three, OpenError> {
    let one = node("one", &[]).await;
    let two = node("two", &[one.local_addr()]).await;
    let three = node("three", &[one.local_addr(), two.local_addr()]).await;
    let nodes = vec![one, two, three];
    let mut caches = Vec::new();
    for node in &nodes {
        caches.push(open(node, split).await?);
    }
    let heard = |cache: &Cache<String, String>| {
        cache.freshness().worst.is_some() && cache.freshness().per_peer.len() == 2
    };
    eventually(|| caches.iter().all(heard)).await;
    Ok((nodes, caches))
}

/// The other two die without a word, as in a netsplit.
fn kill_all_but_the_last(nodes: &mut Vec<Node>, caches: &mut Vec<Cache<String, String>>) {
    nodes.drain(..2);
    caches.drain(..2);
}

/// One of them comes back, and finds the one that is left.
async fn restart_one(
    left: &Node,
    split: SplitPolicy,
) -> Result<(Node, Cache<String, String>), OpenError> {
    let one = node("one", &[left.local_addr()]).await;
    let cache = open(&one, split).await?;
    Ok((one, cache))
}

fn refused(cache: &Cache<String, String>) -> bool {
    let put = cache.put_now("probe", "w".into(), &PutOptions::new());
    matches!(put, Err(WriteError::ReadOnly))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_refuses_every_write_on_the_smaller_side_and_takes_them_again() -> TestResult {
    bounded(async {
        let (mut nodes, mut caches) = three(SplitPolicy::ReadOnly).await?;
        let acked = PutOptions::new().ack(Ack::All);
        caches[2].put_with("key", "v".into(), acked).await?;
        kill_all_but_the_last(&mut nodes, &mut caches);
        let (left, cache) = (&nodes[0], &caches[0]);
        assert!(!refused(cache), "they may only be slow");
        eventually(|| refused(cache)).await;
        let read_only =
            |result: Result<(), WriteError>| matches!(result, Err(WriteError::ReadOnly));
        assert!(read_only(cache.remove("key").await.map(|_| ())));
        assert!(read_only(cache.clear().await));
        assert!(matches!(
            cache.modify("key", Modify::remove()).await,
            Err(ModifyError::Write(WriteError::ReadOnly))
        ));
        assert!(cache.get("key").await?.is_some(), "it goes on reading");
        assert!(cache.stats().refused_by_split >= 4);
        eventually(|| cache.stats().mode.splits == 1).await;
        let (_one, _cache) = restart_one(left, SplitPolicy::ReadOnly).await?;
        eventually(|| !refused(cache)).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_serves_nothing_on_the_smaller_side_and_is_filled_again() -> TestResult {
    bounded(async {
        let (mut nodes, mut caches) = three(SplitPolicy::Flush).await?;
        let acked = PutOptions::new().ack(Ack::All);
        caches[0].put_with("key", "v".into(), acked).await?;
        assert!(caches[2].peek("key").is_some());
        kill_all_but_the_last(&mut nodes, &mut caches);
        let (left, cache) = (&nodes[0], &caches[0]);
        eventually(|| cache.peek("key").is_none()).await;
        assert!(cache.get("key").await?.is_none());
        assert!(cache.stats().bypassed > 0);
        let fill = cache.begin_fill("key")?;
        assert!(!fill.put("loaded".into(), &PutOptions::new())?);
        cache.put("meanwhile", "w".into()).await?;
        assert!(cache.peek("meanwhile").is_none());
        let (_one, other) = restart_one(left, SplitPolicy::Flush).await?;
        // Written so shortly before that the others might not have had it: this one is kept, and now it is all there is of it.
        for key in ["key", "meanwhile"] {
            eventually(|| cache.peek(key).is_some() && other.peek(key).is_some()).await;
        }
        eventually(|| cache.is_ready() && cache.status() == Status::Synced).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn split_is_a_matter_of_mode_replicated_alone() {
    let node = node("one", &[]).await;
    let builder = node
        .cache::<String, String>("things")
        .mode(Mode::Invalidation);
    let opened = builder.split(SplitPolicy::ReadOnly).open().await;
    assert!(matches!(
        opened,
        Err(OpenError::InvalidSetting {
            setting: "split",
            ..
        })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_disagree_on_split_do_not_sync() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let here = open(&one, SplitPolicy::Serve).await?;
        let there = open(&two, SplitPolicy::Flush).await?;
        eventually(|| here.stats().disagreements > 0 && there.stats().disagreements > 0).await;
        here.put("key", "v".into()).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(there.peek("key").is_none());
        Ok(())
    })
    .await
}

/// A system of record that answers when it is let, and counts who asked.
#[derive(Clone)]
struct Slow {
    calls: Arc<AtomicUsize>,
    lets: Arc<Semaphore>,
}

impl Sink<String, String> for Slow {
    async fn write(&self, _: &SinkWrite<'_, String, String>) -> Result<(), SinkError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.lets.acquire().await?.forget();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_write_that_waits_for_the_sink_while_the_node_becomes_read_only_is_refused()
-> TestResult {
    bounded(async {
        let (mut nodes, mut caches) = three(SplitPolicy::ReadOnly).await?;
        let slow = Slow {
            calls: Arc::default(),
            lets: Arc::new(Semaphore::new(0)),
        };
        let policy = WriteThrough::new()
            .calls_max(1)
            .timeout(Duration::from_secs(20))
            .wait(Duration::from_secs(20));
        let rows = nodes[2]
            .cache("rows")
            .split(SplitPolicy::ReadOnly)
            .write_through(slow.clone(), policy);
        let rows: Cache<String, String> = rows.open().await?;
        for node in &nodes[..2] {
            caches.push(
                node.cache("rows")
                    .split(SplitPolicy::ReadOnly)
                    .open()
                    .await?,
            );
        }
        eventually(|| {
            let freshness = rows.freshness();
            freshness.worst.is_some() && freshness.per_peer.len() == 2
        })
        .await;
        let put = |key: &'static str| {
            let rows = rows.clone();
            tokio::spawn(async move { rows.put(key, "v".to_owned()).await })
        };
        let first = put("a");
        eventually(|| slow.calls.load(Ordering::SeqCst) == 1).await;
        let second = put("b");
        caches.truncate(3);
        kill_all_but_the_last(&mut nodes, &mut caches);
        eventually(|| rows.stats().mode.splits == 1).await;
        slow.lets.add_permits(2);
        // What the system of record had been told before is finished.
        first.await??;
        assert!(matches!(second.await?, Err(WriteError::ReadOnly)));
        assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
        assert!(rows.peek("b").is_none());
        Ok(())
    })
    .await
}
