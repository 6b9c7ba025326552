//! Mode `invalidation`: copies live where they were loaded, and go when anybody writes.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::time::{Duration, Instant};

use common::{TestResult, bounded, cache, eventually, node, pair};
use nearcache::{Ack, Cache, Mode, Node, OnDisconnect, PutOptions, Status};

/// A cache whose nodes stop serving after a second of silence.
async fn open(node: &Node, on_disconnect: OnDisconnect) -> Cache<String, String> {
    node.cache("things")
        .mode(Mode::Invalidation)
        .link_timeout(Duration::from_secs(1))
        .on_disconnect(on_disconnect)
        .open()
        .await
        .expect("a cache opens")
}

/// Two nodes that have a lease from each other.
async fn leased(
    on_disconnect: OnDisconnect,
) -> (Node, Node, Cache<String, String>, Cache<String, String>) {
    let one = node("one", &[]).await;
    let two = node("two", &[one.local_addr()]).await;
    let (here, there) = (
        open(&one, on_disconnect).await,
        open(&two, on_disconnect).await,
    );
    let heard = |cache: &Cache<String, String>| {
        cache.freshness().worst.is_some() && !cache.freshness().per_peer.is_empty()
    };
    eventually(|| heard(&here) && heard(&there)).await;
    (one, two, here, there)
}

fn fill(cache: &Cache<String, String>, key: &str, value: &str) -> bool {
    let fill = cache.begin_fill(key).expect("a key");
    fill.put(value.to_owned(), &PutOptions::new())
        .expect("a value")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_a_write_drops_the_copy_of_the_other_and_its_value_does_not_travel() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = leased(OnDisconnect::Bypass).await;
        assert!(fill(&there, "key", "old"));
        assert!(fill(&there, "other", "stays"));
        here.put_with("key", "new".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.get("key").await?.is_none());
        assert_eq!(here.get("key").await?.as_deref(), Some(&"new".to_owned()));
        assert!(there.get("other").await?.is_some());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_load_that_an_invalidation_overtakes_is_not_kept() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = leased(OnDisconnect::Bypass).await;
        let by_key = there.begin_fill("key")?;
        here.invalidate("key", Ack::All, Duration::from_secs(5))
            .await?;
        assert!(!by_key.put("stale".into(), &PutOptions::new())?);
        let by_prefix = there.begin_fill("key 2")?;
        here.invalidate_prefix_acked("ke", Ack::All, Duration::from_secs(5))
            .await?;
        assert!(!by_prefix.put("stale".into(), &PutOptions::new())?);
        assert!(there.get("key").await?.is_none());
        eventually(|| fill(&there, "key", "new")).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_a_node_that_hears_nobody_serves_nothing_until_it_does() -> TestResult {
    bounded(async {
        let (one, two, here, there) = leased(OnDisconnect::Bypass).await;
        assert!(fill(&there, "key", "copy"));
        two.disconnect(one.id());
        assert!(
            there.get("key").await?.is_some(),
            "within the bound it is served"
        );
        eventually(|| there.peek("key").is_none()).await;
        assert!(there.get("key").await?.is_none());
        assert_eq!(there.scan(Default::default(), 100).entries.len(), 0);
        assert!(there.stats().bypassed > 0);
        here.put("other", "written meanwhile".into()).await?;
        two.connect(one.local_addr()).await?;
        eventually(|| there.peek("key").is_some()).await;
        assert_eq!(there.status(), Status::Synced);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_wait_for_all_ends_when_the_other_serves_nothing_any_more() -> TestResult {
    bounded(async {
        let (one, two, here, there) = leased(OnDisconnect::Bypass).await;
        assert!(fill(&there, "key", "copy"));
        two.disconnect(one.id());
        let began = Instant::now();
        here.invalidate("key", Ack::All, Duration::from_secs(10))
            .await?;
        assert!(there.get("key").await?.is_none());
        assert!(began.elapsed() < Duration::from_secs(5));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_get_fresh_asks_when_it_must_and_misses_when_that_does_not_help() -> TestResult {
    bounded(async {
        for replicated in [true, false] {
            let (one, two, here, there) = if replicated {
                pair().await
            } else {
                leased(OnDisconnect::ServeStale {
                    max: Duration::from_secs(60),
                })
                .await
            };
            here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
                .await?;
            eventually(|| replicated || fill(&there, "key", "value")).await;
            assert!(there.freshness().worst.is_some());
            // Fresher than any heartbeat makes it: the peer is asked.
            let fresh = there.get_fresh("key", Duration::ZERO).await?;
            assert_eq!(fresh.as_deref(), Some(&"value".to_owned()));
            let minute = Duration::from_secs(60);
            assert!(there.get_fresh("key", minute).await?.is_some());
            two.disconnect(one.id());
            let connected = |there: &Cache<String, String>| {
                let peers = there.freshness().per_peer;
                peers.iter().any(|peer| peer.round_trip.is_some())
            };
            eventually(|| !connected(&there)).await;
            assert!(there.get("key").await?.is_some());
            assert!(there.get_fresh("key", minute).await?.is_some());
            let old = |worst: Option<Duration>| worst > Some(Duration::from_millis(5));
            eventually(|| old(there.freshness().worst)).await;
            // A replicated cache waits no more for a peer once it is declared dead, which may be now.
            let found = there.get_fresh("key", Duration::from_millis(1)).await?;
            assert!(found.is_none() || replicated);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_travels_where_values_do() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let here = cache(&one).await;
        one.ready().await;
        assert!(fill(&here, "key", "loaded"));
        let overtaken = here.begin_fill("key")?;
        here.put("key", "written".into()).await?;
        assert!(!overtaken.put("loaded".into(), &PutOptions::new())?);
        assert_eq!(
            here.get("key").await?.as_deref(),
            Some(&"written".to_owned())
        );
        Ok(())
    })
    .await
}
