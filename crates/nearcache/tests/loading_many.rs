//! `get_many`: one call of the loader for what is missing, and nobody waits for whoever makes it.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{TestResult, bounded, eventually, node};
use nearcache::{Cache, LoadError, LoadPolicy, Loaded, Loader, Loading, Mode, Node, Previous};
use tokio::sync::Semaphore;

type Numbers = Loading<u64, u64, Squares>;

/// A system of record that counts who was asked for what, and answers when it is let.
#[derive(Clone)]
struct Squares {
    one: Arc<AtomicUsize>,
    many: Arc<AtomicUsize>,
    of_key: Arc<Mutex<BTreeMap<u64, usize>>>,
    running: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    panics: Arc<AtomicBool>,
    ttl: Duration,
}

impl Squares {
    fn new() -> Self {
        Self {
            one: Arc::default(),
            many: Arc::default(),
            of_key: Arc::default(),
            running: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            panics: Arc::default(),
            ttl: Duration::from_secs(60),
        }
    }

    /// Answers only when a permit is added for it.
    fn shut() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            ..Self::new()
        }
    }

    async fn read(&self, keys: &[u64]) -> Result<Vec<Loaded<u64>>, String> {
        {
            let mut of_key = self.of_key.lock().unwrap_or_else(PoisonError::into_inner);
            for key in keys {
                *of_key.entry(*key).or_default() += 1;
            }
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let permit = self.gate.acquire().await;
        permit.map_err(|error| error.to_string())?.forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        let panics = self.panics.load(Ordering::SeqCst);
        assert!(!panics, "a loader of many keys panics");
        let loaded = keys
            .iter()
            .map(|key| Loaded::value(key * key).ttl(self.ttl));
        Ok(loaded.collect())
    }

    fn calls(&self) -> (usize, usize) {
        let [one, many] = [&self.one, &self.many].map(|calls| calls.load(Ordering::SeqCst));
        (one, many)
    }

    /// The keys that were asked for more than once.
    fn repeated(&self) -> Vec<(u64, usize)> {
        let of_key = self.of_key.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = of_key.iter().map(|(key, times)| (*key, *times));
        of_key.filter(|(_, times)| *times > 1).collect()
    }
}

impl Loader<u64, u64> for Squares {
    type Error = String;

    async fn load(&self, key: &u64, _: Previous<u64>) -> Result<Loaded<u64>, String> {
        self.one.fetch_add(1, Ordering::SeqCst);
        let mut loaded = self.read(&[*key]).await?;
        loaded.pop().ok_or_else(|| "nothing".to_owned())
    }

    async fn load_many(&self, keys: &[u64]) -> Result<Vec<Loaded<u64>>, String> {
        self.many.fetch_add(1, Ordering::SeqCst);
        self.read(keys).await
    }
}

async fn alone(policy: LoadPolicy, squares: &Squares) -> (Node, Numbers) {
    let node = Node::builder(common::cluster_name()).start().await;
    let node = node.expect("a node starts");
    let cache = node.cache("squares").mode(Mode::Local).load_policy(policy);
    let cache = cache.open().await.expect("a cache opens");
    (node, cache.loading(squares.clone()))
}

/// Nodes that know each other and each other's clocks, with the cache open.
async fn cluster(names: &[&str], policy: LoadPolicy) -> (Vec<Node>, Vec<Cache<u64, u64>>) {
    let mut nodes: Vec<Node> = Vec::new();
    for name in names {
        let seeds: Vec<_> = nodes.first().map(Node::local_addr).into_iter().collect();
        nodes.push(node(name, &seeds).await);
    }
    let mut caches = Vec::new();
    for node in &nodes {
        let cache = node.cache("squares").load_policy(policy).open().await;
        caches.push(cache.expect("a cache opens"));
    }
    for node in &nodes {
        node.ready().await;
    }
    let met = |cache: &Cache<u64, u64>| {
        let peers = cache.freshness().per_peer;
        peers.len() + 1 == names.len() && peers.iter().all(|peer| peer.clock_offset_ms.is_some())
    };
    eventually(|| caches.iter().all(met)).await;
    (nodes, caches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o6_nodes_that_miss_the_same_keys_at_once_load_each_once_and_none_blocks_another()
-> TestResult {
    bounded(async {
        for names in [&["n0", "n1"][..], &["n0", "n1", "n2"][..]] {
            let (_nodes, caches) = cluster(names, LoadPolicy::new()).await;
            let squares = Squares::new();
            for round in 0..5_u64 {
                let keys: Vec<u64> = (round * 1_000..round * 1_000 + 200).collect();
                let started = Instant::now();
                let callers: Vec<_> = caches
                    .iter()
                    .enumerate()
                    .map(|(n, cache)| {
                        let numbers = cache.loading(squares.clone());
                        let mut keys = keys.clone();
                        // Each asks in another order.
                        keys.rotate_left(n * 70);
                        tokio::spawn(async move { (numbers.get_many(&keys).await, keys) })
                    })
                    .collect();
                for caller in callers {
                    let (got, keys) = caller.await?;
                    for (got, key) in got.into_iter().zip(keys) {
                        assert_eq!(got?.as_deref(), Some(&(key * key)));
                    }
                }
                // Half of `load_timeout` is what a node waits for another.
                assert!(started.elapsed() < Duration::from_secs(4), "round {round}");
            }
            assert_eq!(squares.repeated(), [], "{} nodes", names.len());
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_cluster_flights_off_each_node_loads_for_itself() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new().cluster_flights(false);
        let (_nodes, caches) = cluster(&["n0", "n1"], policy).await;
        let squares = Squares::shut();
        let callers: Vec<_> = caches
            .iter()
            .map(|cache| {
                let numbers = cache.loading(squares.clone());
                tokio::spawn(async move { numbers.get(&7).await })
            })
            .collect();
        eventually(|| squares.running.load(Ordering::SeqCst) == 2).await;
        squares.gate.add_permits(2);
        for caller in callers {
            assert_eq!(caller.await??.as_deref(), Some(&49));
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_caller_of_many_keys_that_waits_for_one_holds_up_nobody_who_wants_another()
-> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let open = |node: &Node| node.cache::<String, String>("things").inline_limit(1_024);
        let (here, there) = (open(&one).open().await?, open(&two).open().await?);
        one.ready().await;
        two.ready().await;
        there.put("long", "x".repeat(1 << 19)).await?;
        eventually(|| here.about("long").is_ok_and(|about| about.is_some())).await;
        let texts = here.loading(Texts);
        let keys = ["cold".to_owned(), "long".to_owned()];
        let mut many = Box::pin(texts.get_many(&keys));
        let polled = poll_fn(|context| Poll::Ready(many.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "the long value is fetched");
        // Whoever has `many` does not come to polling it.
        let other = texts.get(&keys[0]).await?;
        assert_eq!(other.as_deref(), Some(&"value".to_owned()));
        drop(many);
        assert!(texts.get(&keys[1]).await?.is_some());
        Ok(())
    })
    .await
}

struct Texts;

impl Loader<String, String> for Texts {
    type Error = String;

    async fn load(&self, _: &String, _: Previous<String>) -> Result<Loaded<String>, String> {
        Ok(Loaded::value("value".to_owned()))
    }
}

#[tokio::test]
async fn c8_the_loads_of_a_caller_that_gives_up_go_on() -> TestResult {
    bounded(async {
        let squares = Squares::shut();
        let (_node, numbers) = alone(LoadPolicy::new(), &squares).await;
        let first = numbers.clone();
        let first = tokio::spawn(async move { first.get_many(&[1, 2, 3]).await.len() });
        eventually(|| squares.running.load(Ordering::SeqCst) == 1).await;
        let second = numbers.clone();
        let second = tokio::spawn(async move { second.get(&2).await });
        eventually(|| numbers.cache().stats().loads.shared == 1).await;
        first.abort();
        assert!(first.await.is_err());
        squares.gate.add_permits(1);
        assert_eq!(second.await??.as_deref(), Some(&4));
        assert!(numbers.cache().peek(&3).is_some(), "its value is kept");
        assert_eq!(squares.calls(), (0, 1));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c8_a_panic_in_load_many_reaches_each_of_its_keys_and_frees_them() -> TestResult {
    bounded(async {
        let squares = Squares::new();
        let (_node, numbers) = alone(LoadPolicy::new(), &squares).await;
        squares.panics.store(true, Ordering::SeqCst);
        for got in numbers.get_many(&[1, 2, 3]).await {
            assert!(matches!(got, Err(LoadError::Panicked)));
        }
        squares.panics.store(false, Ordering::SeqCst);
        for got in numbers.get_many(&[1, 2, 3]).await {
            assert!(got?.is_some(), "the keys are free");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn o11_many_keys_wait_for_a_place_as_one_load_and_are_one_call() -> TestResult {
    bounded(async {
        let squares = Squares::shut();
        let policy = LoadPolicy::new().loads_max(1).queued_max(1);
        let (_node, numbers) = alone(policy, &squares).await;
        let busy = numbers.clone();
        let busy = tokio::spawn(async move { busy.get(&1_000).await });
        eventually(|| squares.running.load(Ordering::SeqCst) == 1).await;
        let keys: Vec<u64> = (0..100).collect();
        let mut many = Box::pin(numbers.get_many(&keys));
        let polled = poll_fn(|context| Poll::Ready(many.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "there is no place");
        match numbers.get(&2_000).await {
            Err(LoadError::Overloaded { running, queued }) => {
                assert_eq!((running, queued), (1, 1), "all wait as one");
            }
            other => panic!("the queue is full: {other:?}"),
        }
        squares.gate.add_permits(1_000);
        assert!(busy.await??.is_some());
        for (key, got) in keys.iter().zip(many.await) {
            assert_eq!(got?.as_deref(), Some(&(key * key)));
        }
        assert_eq!(squares.many.load(Ordering::SeqCst), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_old_of_many_keys_is_served_and_loaded_anew_by_one_call() -> TestResult {
    bounded(async {
        let mut squares = Squares::new();
        squares.ttl = Duration::from_millis(20);
        let policy = LoadPolicy::new()
            .refresh_beta(0.0)
            .stale_while_revalidate(Duration::from_secs(60));
        let (_node, numbers) = alone(policy, &squares).await;
        let keys: Vec<u64> = (0..100).collect();
        numbers.get_many(&keys).await;
        eventually(|| keys.iter().all(|key| numbers.cache().peek(key).is_none())).await;
        assert_eq!(squares.calls(), (0, 1));
        for (key, got) in keys.iter().zip(numbers.get_many(&keys).await) {
            assert_eq!(got?.as_deref(), Some(&(key * key)), "at once");
        }
        eventually(|| numbers.cache().stats().loads.succeeded == 2).await;
        assert_eq!(squares.calls(), (0, 2));
        assert_eq!(numbers.cache().stats().loads.refreshed, 100);
        Ok(())
    })
    .await
}

/// Knows one key at a time; of those that end in 7 it fails.
struct OneByOne;

impl Loader<u64, u64> for OneByOne {
    type Error = String;

    async fn load(&self, key: &u64, _: Previous<u64>) -> Result<Loaded<u64>, String> {
        if key % 10 == 7 {
            return Err(format!("{key} cannot be read"));
        }
        Ok(Loaded::value(key * key))
    }
}

#[tokio::test]
async fn c8_a_key_of_many_that_cannot_be_read_fails_for_itself_alone() -> TestResult {
    bounded(async {
        let node = Node::builder(common::cluster_name()).start().await?;
        let cache = node.cache("squares").mode(Mode::Local).open().await?;
        let squares = cache.loading(OneByOne);
        let keys: Vec<u64> = (1..=20).collect();
        for (key, got) in keys.iter().zip(squares.get_many(&keys).await) {
            match got {
                Err(LoadError::Failed(error)) => {
                    assert_eq!(error.to_string(), format!("{key} cannot be read"));
                    assert_eq!(key % 10, 7);
                }
                got => assert_eq!(got?.as_deref(), Some(&(key * key))),
            }
        }
        // What could be read is kept, and the call counts as one that was answered.
        assert!(cache.peek(&8).is_some() && cache.peek(&7).is_none());
        let stats = cache.stats().loads;
        assert_eq!((stats.succeeded, stats.failed), (1, 0));
        // Nothing but failures is a failure, and so is that of a single key.
        assert!(squares.get_many(&[27, 37]).await.iter().all(Result::is_err));
        assert!(squares.get(&47).await.is_err());
        assert_eq!(cache.stats().loads.failed, 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c10_the_soft_timeout_of_many_keys_is_one_for_all_of_them() -> TestResult {
    bounded(async {
        let soft = Duration::from_millis(200);
        let policy = LoadPolicy::new()
            .stale_if_error(Duration::from_secs(60))
            .soft_timeout(soft)
            .ttl_jitter(0.0);
        let squares = Squares {
            ttl: Duration::from_millis(50),
            ..Squares::shut()
        };
        let (_node, numbers) = alone(policy, &squares).await;
        let keys: Vec<u64> = (0..50).collect();
        squares.gate.add_permits(1);
        for got in numbers.get_many(&keys).await {
            got?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        // They have expired, and the system of record hangs.
        let started = Instant::now();
        for (key, got) in keys.iter().zip(numbers.get_many(&keys).await) {
            assert_eq!(got?.as_deref(), Some(&(key * key)));
        }
        let took = started.elapsed();
        assert!(took >= soft && took < soft * 10, "{took:?}");
        Ok(())
    })
    .await
}
