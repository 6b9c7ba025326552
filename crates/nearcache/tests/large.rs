//! Long values over real sockets: what travels with the update, what is fetched, and what becomes of those who wait.

#![expect(clippy::expect_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{RawCache, TestResult, bounded, eventually, node};
use nearcache::{Ack, Change, Lookup, Modify, Node, PutOptions, Raw, RawValue, Received};

const MIB: usize = 1 << 20;

async fn open(node: &Node, bytes_per_second: u64) -> RawCache {
    node.cache("large")
        .codec::<Raw>()
        .max_bytes(512 << 20)
        .max_value_bytes(64 * MIB)
        .fetch_bytes_per_second(bytes_per_second)
        .open()
        .await
        .expect("a cache opens")
}

/// `count` nodes that all know each other, with the cache open and ready.
async fn cluster(count: usize, bytes_per_second: u64) -> (Vec<Node>, Vec<RawCache>) {
    let (mut nodes, mut caches, mut seeds) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let node = node(&format!("n{number}"), &seeds).await;
        seeds.push(node.local_addr());
        caches.push(open(&node, bytes_per_second).await);
        nodes.push(node);
    }
    for node in &nodes {
        node.ready().await;
    }
    eventually(|| caches.iter().all(|cache| met(cache) == count - 1)).await;
    (nodes, caches)
}

/// How many peers this node knows all the updates of.
fn met(cache: &RawCache) -> usize {
    let peers = cache.freshness().per_peer;
    peers.iter().filter(|peer| peer.age.is_some()).count()
}

fn value(len: usize, seed: u8) -> RawValue {
    let bytes = (0..=250).map(|byte: u8| byte ^ seed);
    RawValue::from(bytes.cycle().take(len).collect::<Vec<u8>>())
}

fn key() -> &'static [u8] {
    b"key"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_the_longest_kind_is_read_on_every_node() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(3, 0).await;
        let long = value(64 * MIB, 1);
        let all = PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), long.clone(), all).await?;
        for cache in &caches[1..] {
            let about = cache.about(key())?.ok_or("a miss")?;
            assert_eq!((about.value_bytes, about.is_here), (64 * MIB, false));
            assert!(matches!(cache.try_get(key())?, Lookup::Ask));
            assert!(cache.peek(key()).is_none());
            assert_eq!(cache.stats().mode.fetched, 0);
            // On a busy machine the first reader may have to give up before the value is here.
            let mut found = None;
            while found.is_none() {
                found = cache.get(key()).await?;
            }
            assert!(*found.ok_or("a miss")? == long);
            assert!(cache.about(key())?.ok_or("a miss")?.is_here);
            assert_eq!(cache.stats().mode.fetched, 1);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_nobody_serves_the_older_value_once_all_have_acknowledged_the_long_one() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(3, 0).await;
        let all = || PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), value(10, 1), all()).await?;
        assert!(caches[2].peek(key()).is_some());
        let long = value(MIB, 2);
        caches[1].put_with(key(), long.clone(), all()).await?;
        assert!(caches[2].peek(key()).is_none());
        assert!(*caches[2].get(key()).await?.ok_or("a miss")? == long);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_at_once_wait_for_one_fetch() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(2, 0).await;
        let long = value(8 * MIB, 1);
        let all = PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), long.clone(), all).await?;
        let readers: Vec<_> = (0..32)
            .map(|_| {
                let cache = caches[1].clone();
                tokio::spawn(async move { cache.get(key()).await })
            })
            .collect();
        for reader in readers {
            assert!(*reader.await??.ok_or("a miss")? == long);
        }
        assert_eq!(caches[1].stats().mode.fetched, 1);
        assert_eq!(caches[1].stats().mode.fetched_bytes, 8 * MIB as u64);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_writer_has_died_another_holder_is_asked_and_without_one_it_is_a_miss()
-> TestResult {
    bounded(async {
        let (mut nodes, mut caches) = cluster(3, 0).await;
        let long = value(MIB, 1);
        let all = || PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), long.clone(), all()).await?;
        let lonely = b"lonely".as_slice();
        caches[0].put_with(lonely, long.clone(), all()).await?;
        assert!(caches[1].get(key()).await?.is_some());
        // Its sockets close without a word.
        drop((nodes.remove(0), caches.remove(0)));
        eventually(|| nodes[1].members().len() == 2).await;
        assert!(*caches[1].get(key()).await?.ok_or("a miss")? == long);
        assert!(caches[1].get(lonely).await?.is_none());
        assert_eq!(caches[1].stats().mode.fetches_unheld, 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_when_the_writer_leaves_somebody_has_fetched_what_only_it_held() -> TestResult {
    bounded(async {
        let (mut nodes, caches) = cluster(3, 0).await;
        let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
        for (key, seed) in keys.iter().zip(0..) {
            let options = PutOptions::new().ack(Ack::All);
            let long = value(MIB / 4, seed);
            caches[0].put_with(key.as_bytes(), long, options).await?;
        }
        nodes.remove(0).shutdown().await;
        let fetched = |cache: &RawCache| cache.stats().mode.fetched;
        assert_eq!(fetched(&caches[1]) + fetched(&caches[2]), 20, "each by one");
        for (key, seed) in keys.iter().zip(0..) {
            for cache in &caches[1..] {
                let held = cache.get(key.as_bytes()).await?.ok_or("a miss")?;
                assert!(*held == value(MIB / 4, seed));
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_is_kept_and_a_reader_that_gave_up_frees_it() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(2, 4 * MIB as u64).await;
        let all = || PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), value(40 * MIB, 1), all()).await?;
        let started = std::time::Instant::now();
        let given_up = tokio::time::timeout(Duration::from_millis(500), caches[1].get(key()));
        assert!(given_up.await.is_err());
        let sent = caches[0].stats().mode.fetch_sent_bytes;
        assert!(sent > 0 && sent < 4 * MIB as u64, "{sent} in half a second");
        // Ten seconds' worth are no longer in the way.
        let other = b"other".as_slice();
        caches[0].put_with(other, value(2 * MIB, 2), all()).await?;
        assert!(caches[1].get(other).await?.is_some());
        let took = started.elapsed();
        assert!(took > Duration::from_millis(700), "{took:?}");
        assert!(took < Duration::from_secs(8), "{took:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c10_a_reader_gets_an_answer_in_time_and_the_value_comes_all_the_same() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(2, 2 * MIB as u64).await;
        let all = PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), value(6 * MIB, 1), all).await?;
        let started = std::time::Instant::now();
        assert!(caches[1].get(key()).await?.is_none());
        assert!(started.elapsed() < Duration::from_secs(3));
        eventually(|| caches[1].peek(key()).is_some()).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_value_in_mid_fetch_is_what_the_reader_gets() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(2, 8 * MIB as u64).await;
        let all = || PutOptions::new().ack(Ack::All);
        caches[0].put_with(key(), value(12 * MIB, 1), all()).await?;
        let reading = tokio::spawn({
            let cache = caches[1].clone();
            async move { cache.get(key()).await }
        });
        eventually(|| caches[1].stats().mode.fetched_bytes > MIB as u64).await;
        let newer = value(MIB, 2);
        caches[0].put_with(key(), newer.clone(), all()).await?;
        assert!(*reading.await??.ok_or("a miss")? == newer);
        assert_eq!(caches[1].stats().mode.fetched, 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_learns_of_long_values_and_fetches_what_it_reads() -> TestResult {
    bounded(async {
        let (nodes, caches) = cluster(2, 0).await;
        for number in 0..20_u8 {
            caches[0].put(&[number][..], value(MIB, number)).await?;
        }
        let joining = node("late", &[nodes[1].local_addr()]).await;
        let cache = open(&joining, 0).await;
        joining.ready().await;
        assert_eq!(cache.len(), 20);
        assert!(cache.stats().store.weight_bytes < MIB as u64);
        let page = cache.scan(Default::default(), 100);
        assert_eq!((page.entries.len(), page.elsewhere.len()), (0, 20));
        assert!(*cache.get(&[7][..]).await?.ok_or("a miss")? == value(MIB, 7));
        assert_eq!(cache.stats().mode.fetched, 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_at_the_home_node_reads_the_long_value_that_it_needs() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(3, 0).await;
        for number in 0..12_u8 {
            let (key, long) = (&[number][..], value(MIB, number));
            let all = PutOptions::new().ack(Ack::All);
            caches[0].put_with(key, long.clone(), all).await?;
            let expire = Modify::expire(Duration::from_secs(100));
            assert!(caches[1].modify(key, expire).await?.applied);
            let take = Modify::remove().return_previous();
            let taken = caches[2].modify(key, take).await?;
            assert!(*taken.previous.ok_or("nothing was there")? == long);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_is_told_of_a_long_value_at_once_and_again_when_it_is_here() -> TestResult {
    bounded(async {
        let (_nodes, caches) = cluster(2, 0).await;
        let mut watch = caches[1].watch();
        caches[0].put(key(), value(MIB, 1)).await?;
        let told = watch.next().await;
        let Some(Received::Event(Change::Put { value: None, .. })) = told else {
            return Err(format!("{told:?}").into());
        };
        assert!(caches[1].get(key()).await?.is_some());
        let told = watch.next().await;
        let Some(Received::Event(Change::Put { value: Some(_), .. })) = told else {
            return Err(format!("{told:?}").into());
        };
        Ok(())
    })
    .await
}
