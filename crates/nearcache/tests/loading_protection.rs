//! What protects the system of record, and those who wait for it.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{TestResult, bounded, cache, eventually, node};
use nearcache::{Ack, Cache, LoadError, LoadPolicy, Loaded, Mode, Node};
use tokio::sync::Semaphore;

type Texts = Cache<String, String>;

const MINUTE: Duration = Duration::from_secs(60);

async fn open(policy: LoadPolicy) -> (Node, Texts) {
    let node = Node::builder(common::cluster_name())
        .start()
        .await
        .expect("a node starts");
    let cache = node.cache("things").mode(Mode::Local).load_policy(policy);
    let cache = cache.open().await.expect("a cache opens");
    (node, cache)
}

/// Loads `value`, to live for `ttl`.
async fn load(
    cache: &Texts,
    value: &'static str,
    ttl: Duration,
) -> Result<Option<String>, LoadError> {
    let loader = async move |_| Ok::<_, String>(Loaded::value(value.to_owned()).ttl(ttl));
    let loaded = cache.get_or_load("key", loader).await?;
    Ok(loaded.map(|value| (*value).clone()))
}

async fn fail(cache: &Texts) -> Result<Option<String>, LoadError> {
    let loaded = cache
        .get_or_load("key", async |_| Err::<String, _>("down"))
        .await?;
    Ok(loaded.map(|value| (*value).clone()))
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

async fn expired(cache: &Texts) {
    eventually(|| cache.peek("key").is_none()).await;
}

#[tokio::test]
async fn an_expired_copy_is_served_on_error_up_to_its_limit_and_not_by_default() -> TestResult {
    bounded(async {
        let ttl = Duration::from_millis(30);
        let limit = Duration::from_millis(400);
        let policy = LoadPolicy::new().ttl_jitter(0.0).refresh_beta(0.0);
        let (_node, strict) = open(policy).await;
        load(&strict, "old", ttl).await?;
        expired(&strict).await;
        assert!(matches!(fail(&strict).await, Err(LoadError::Failed(_))));

        let (_node, lenient) = open(policy.stale_if_error(limit)).await;
        let loaded_at = Instant::now();
        load(&lenient, "old", ttl).await?;
        expired(&lenient).await;
        assert_eq!(fail(&lenient).await?, text("old"));
        assert!(lenient.get("key").await?.is_none(), "never as fresh");
        while fail(&lenient).await.is_ok() {
            assert!(loaded_at.elapsed() < ttl + limit + Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(loaded_at.elapsed() >= limit);
        // C4: what was invalidated is not served, however long it would be.
        let (_node, lenient) = open(policy.stale_if_error(MINUTE)).await;
        load(&lenient, "old", ttl).await?;
        expired(&lenient).await;
        lenient.remove("key").await?;
        assert!(fail(&lenient).await.is_err());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_expired_copy_is_served_after_the_hard_timeout_on_overload_and_on_an_open_circuit()
-> TestResult {
    bounded(async {
        let ttl = Duration::from_millis(10);
        let policy = LoadPolicy::new()
            .refresh_beta(0.0)
            .stale_if_error(MINUTE)
            .soft_timeout(MINUTE)
            .loads_max(1)
            .queued_max(0);
        // The hard timeout.
        let short = policy.load_timeout(Duration::from_millis(50));
        let (_node, cache) = open(short).await;
        load(&cache, "old", ttl).await?;
        expired(&cache).await;
        let never = cache.get_or_load("key", async |_| {
            std::future::pending::<Result<String, String>>().await
        });
        assert_eq!(never.await?.as_deref(), Some(&"old".to_owned()));
        assert_eq!(cache.stats().loads.timed_out, 1);
        // Overload: another key has the place.
        let (_node, cache) = open(policy).await;
        load(&cache, "old", ttl).await?;
        expired(&cache).await;
        let (begun, there) = (Arc::new(AtomicBool::new(false)), cache.clone());
        let begins = Arc::clone(&begun);
        let other = tokio::spawn(async move {
            let other = there.get_or_load("other", async move |_| {
                begins.store(true, Ordering::SeqCst);
                std::future::pending::<Result<String, String>>().await
            });
            other.await.map(|_| ())
        });
        eventually(|| begun.load(Ordering::SeqCst)).await;
        assert_eq!(load(&cache, "new", ttl).await?, text("old"));
        assert_eq!(cache.stats().loads.overloaded, 1);
        other.abort();
        // The open circuit.
        let (_node, cache) = open(policy).await;
        load(&cache, "old", ttl).await?;
        expired(&cache).await;
        while cache.stats().loads.circuit_open == 0 {
            assert_eq!(fail(&cache).await?, text("old"));
        }
        assert_eq!(load(&cache, "new", ttl).await?, text("old"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_slow_load_is_finished_in_the_background_while_the_expired_copy_is_served() -> TestResult
{
    bounded(async {
        let policy = LoadPolicy::new()
            .refresh_beta(0.0)
            .stale_if_error(MINUTE)
            .soft_timeout(Duration::from_millis(20));
        let (_node, cache) = open(policy).await;
        load(&cache, "old", Duration::from_millis(10)).await?;
        expired(&cache).await;
        let gate = Arc::new(Semaphore::new(0));
        let opens = Arc::clone(&gate);
        let slow = cache.get_or_load("key", async move |_| {
            let _permit = opens.acquire().await.map_err(|error| error.to_string())?;
            Ok::<_, String>("new".to_owned())
        });
        assert_eq!(slow.await?.as_deref(), Some(&"old".to_owned()));
        assert_eq!(cache.stats().loads.stale_served, 1);
        gate.add_permits(1);
        eventually(|| cache.peek("key").is_some_and(|value| *value == "new")).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_expired_copy_is_served_at_once_while_it_is_revalidated() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new()
            .refresh_beta(0.0)
            .stale_while_revalidate(MINUTE);
        let (_node, cache) = open(policy).await;
        load(&cache, "old", Duration::from_millis(10)).await?;
        expired(&cache).await;
        assert_eq!(load(&cache, "new", MINUTE).await?, text("old"));
        eventually(|| cache.peek("key").is_some_and(|value| *value == "new")).await;
        assert_eq!(cache.stats().loads.refreshed, 1);
        assert_eq!(
            load(&cache, "newer", MINUTE).await?,
            text("new"),
            "it is fresh"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn o6_a_busy_entry_is_loaded_anew_before_it_expires_and_nobody_waits() -> TestResult {
    bounded(async {
        let (_node, cache) = open(LoadPolicy::new().ttl_jitter(0.0).refresh_beta(4.0)).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let get = || {
            let calls = Arc::clone(&calls);
            cache.get_or_load("key", async move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, String>(Loaded::value("value".to_owned()).ttl(Duration::from_millis(500)))
            })
        };
        get().await?;
        let (start, mut misses) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(1_500) {
            let held = cache.peek("key").is_some();
            misses += usize::from(!held);
            let mut reads = Box::pin(get());
            match poll_fn(|context| Poll::Ready(reads.as_mut().poll(context))).await {
                Poll::Ready(read) => assert!(read?.is_some()),
                Poll::Pending => {
                    // It may have expired since it was looked at.
                    assert!(
                        !held || cache.peek("key").is_none(),
                        "a reader waits for a refresh"
                    );
                    reads.await?;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let loads = calls.load(Ordering::SeqCst);
        assert!(
            (3..60).contains(&loads),
            "{loads} loads of an entry that lives for 0.5 s in 1.5 s"
        );
        assert!(misses <= 60, "{misses} readers found nothing");
        assert!(cache.stats().loads.refreshed > 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn o11_loads_beyond_the_bound_wait_and_beyond_the_queue_are_refused() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new()
            .loads_max(2)
            .queued_max(3)
            .queue_wait(Duration::from_millis(300));
        let (_node, cache) = open(policy).await;
        let gate = Arc::new(Semaphore::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let begin = |key: usize| {
            let (cache, gate, running) = (cache.clone(), Arc::clone(&gate), Arc::clone(&running));
            tokio::spawn(async move {
                let loader = async move |_| {
                    running.fetch_add(1, Ordering::SeqCst);
                    let permit = gate.acquire().await.map_err(|error| error.to_string())?;
                    permit.forget();
                    Ok::<_, String>(key.to_string())
                };
                cache.get_or_load(key.to_string().as_str(), loader).await
            })
        };
        let mut first: Vec<_> = (0..2).map(begin).collect();
        eventually(|| running.load(Ordering::SeqCst) == 2).await;
        let queued: Vec<_> = (2..5).map(begin).collect();
        // The last is refused at once, whichever of the tasks that is.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(matches!(begin(5).await?, Err(LoadError::Overloaded { .. })));
        assert_eq!(running.load(Ordering::SeqCst), 2);
        gate.add_permits(1);
        eventually(|| running.load(Ordering::SeqCst) == 3).await;
        // Nobody else gets a place in time.
        let mut refused = 0;
        for task in queued {
            if task.is_finished() || running.load(Ordering::SeqCst) == 3 {
                gate.add_permits(usize::from(refused == 2));
            }
            match tokio::time::timeout(Duration::from_secs(1), task).await {
                Ok(ended) => {
                    refused += usize::from(matches!(ended?, Err(LoadError::Overloaded { .. })))
                }
                Err(_) => gate.add_permits(3),
            }
        }
        assert_eq!(refused, 2);
        gate.add_permits(10);
        for task in first.drain(..) {
            assert!(task.await?.is_ok());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn o11_a_system_of_record_that_fails_is_left_alone_and_then_asked_more_and_more() -> TestResult
{
    bounded(async {
        let (_node, cache) = open(LoadPolicy::new().ramp(Duration::from_millis(500))).await;
        let (up, calls) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let get = |key: usize| {
            let (up, calls, cache) = (Arc::clone(&up), Arc::clone(&calls), cache.clone());
            async move {
                let loader = async move |_| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    if up.load(Ordering::SeqCst) {
                        Ok(key.to_string())
                    } else {
                        Err("down")
                    }
                };
                cache.get_or_load(key.to_string().as_str(), loader).await
            }
        };
        for key in 0..20 {
            assert!(get(key).await.is_err());
        }
        for key in 0..100 {
            assert!(matches!(get(key).await, Err(LoadError::CircuitOpen)));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 20);
        up.store(true, Ordering::SeqCst);
        let mut key = 1_000;
        while get(key).await.is_err() {
            key += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            calls.load(Ordering::SeqCst) <= 22,
            "probes come one at a time"
        );
        tokio::time::sleep(Duration::from_millis(600)).await;
        for key in 2_000..2_100 {
            assert!(get(key).await.is_ok(), "all is well");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o6_a_thousand_callers_on_five_nodes_make_one_load() -> TestResult {
    bounded(async {
        let first = node("n0", &[]).await;
        let mut nodes = vec![first];
        for name in ["n1", "n2", "n3", "n4"] {
            let next = node(name, &[nodes[0].local_addr()]).await;
            nodes.push(next);
        }
        let mut caches = Vec::new();
        for node in &nodes {
            caches.push(cache(node).await);
        }
        for node in &nodes {
            node.ready().await;
        }
        let met = |cache: &Texts| {
            let peers = cache.freshness().per_peer;
            peers.len() == 4 && peers.iter().all(|peer| peer.clock_offset_ms.is_some())
        };
        eventually(|| caches.iter().all(met)).await;
        for key in ["a", "b", "c", "d", "e"] {
            let calls = Arc::new(AtomicUsize::new(0));
            let callers: Vec<_> = (0..1_000)
                .map(|caller: usize| {
                    let (cache, calls) = (caches[caller % 5].clone(), Arc::clone(&calls));
                    tokio::spawn(async move {
                        let loader = async move |_| {
                            calls.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            Ok::<_, String>("value".to_owned())
                        };
                        cache.get_or_load(key, loader).await
                    })
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.await??.as_deref(), Some(&"value".to_owned()));
            }
            assert_eq!(calls.load(Ordering::SeqCst), 1, "{key}");
            assert!(caches.iter().all(|cache| cache.peek(key).is_some()));
        }
        // P6: the home nodes of some keys are gone; whoever misses is answered all the same.
        caches[0]
            .clear_acked(Ack::All, Duration::from_secs(5))
            .await?;
        for node in nodes.drain(3..) {
            node.shutdown().await;
        }
        for key in 0..20 {
            let key = key.to_string();
            let started = Instant::now();
            let value =
                caches[0].get_or_load(key.as_str(), async |_| Ok::<_, String>("new".to_owned()));
            assert!(value.await?.is_some());
            assert!(started.elapsed() < Duration::from_secs(5));
        }
        Ok(())
    })
    .await
}
