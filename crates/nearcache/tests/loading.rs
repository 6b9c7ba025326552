//! Loading: who calls the loader, who waits for whom, and what is kept.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{TestResult, bounded, eventually, pair};
use nearcache::{
    Ack, Cache, LoadError, LoadPolicy, Loaded, Loader, Mode, Node, OpenError, Previous,
};
use tokio::sync::{Notify, Semaphore};

type Texts = Cache<String, String>;

const MODES: [Mode; 3] = [Mode::Local, Mode::Invalidation, Mode::Replicated];
/// Longer than any clock on one machine is behind any other: what was invalidated so long ago voids no load.
const SETTLED: Duration = Duration::from_millis(5);

/// A node by itself, with a cache of that mode.
async fn alone(mode: Mode, policy: LoadPolicy) -> (Node, Texts) {
    let node = Node::builder(common::cluster_name())
        .start()
        .await
        .expect("a node starts");
    let cache = node.cache("things").mode(mode).load_policy(policy);
    let cache = cache.open().await.expect("a cache opens");
    node.ready().await;
    (node, cache)
}

/// A system of record that answers when it is let, and counts how often it was asked.
#[derive(Clone)]
struct Record {
    asked: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
}

impl Record {
    fn new() -> Self {
        Self {
            asked: Arc::default(),
            answers: Arc::new(Semaphore::new(0)),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn read(self, answer: &str) -> Result<String, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let permit = self
            .answers
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        permit.forget();
        Ok(answer.to_owned())
    }

    /// A load of `key` in a task of its own.
    fn load(&self, cache: &Texts, key: &str, answer: &'static str) -> Loading {
        let (record, cache, key) = (self.clone(), cache.clone(), key.to_owned());
        tokio::spawn(async move {
            let loaded = cache.get_or_load(key.as_str(), move |_| record.read(answer));
            loaded
                .await
                .map(|value| value.map(|value| (*value).clone()))
        })
    }
}

type Loading = tokio::task::JoinHandle<Result<Option<String>, LoadError>>;

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o6_a_thousand_callers_of_a_cold_key_make_one_load_in_every_mode() -> TestResult {
    bounded(async {
        for mode in MODES {
            let (_node, cache) = alone(mode, LoadPolicy::new()).await;
            let record = Record::new();
            let callers: Vec<_> = (0..1_000)
                .map(|_| record.load(&cache, "key", "value"))
                .collect();
            eventually(|| cache.stats().loads.shared == 999).await;
            record.answers.add_permits(1_000);
            for caller in callers {
                assert_eq!(caller.await??, text("value"));
            }
            assert_eq!(record.asked(), 1, "{mode:?}");
            assert_eq!(
                cache.get("key").await?.as_deref(),
                Some(&"value".to_owned())
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_an_error_a_panic_and_a_timeout_reach_every_waiter_and_free_the_key() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new()
            .load_timeout(Duration::from_millis(200))
            .circuit_breaker(false);
        for mode in MODES {
            let (_node, cache) = alone(mode, policy).await;
            for (round, kind) in ["error", "panic", "never"].into_iter().enumerate() {
                let gate = Arc::new(Notify::new());
                let callers: Vec<_> = (0..10)
                    .map(|_| {
                        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
                        tokio::spawn(async move {
                            let load = cache.get_or_load("key", async move |_| {
                                gate.notified().await;
                                match kind {
                                    "error" => Err("out of order"),
                                    "panic" => panic!("a loader panics"),
                                    _ => std::future::pending::<Result<String, &str>>().await,
                                }
                            });
                            load.await
                        })
                    })
                    .collect();
                eventually(|| cache.stats().loads.shared == 9 * (round as u64 + 1)).await;
                gate.notify_one();
                for caller in callers {
                    let error = caller.await?.expect_err("the loader fails");
                    match (kind, &error) {
                        ("error", LoadError::Failed(source)) => {
                            assert_eq!(source.to_string(), "out of order");
                        }
                        ("panic", LoadError::Panicked) | ("never", LoadError::TimedOut { .. }) => {}
                        _ => panic!("{kind}: {error:?}"),
                    }
                }
                let again = cache.get_or_load("key", async |_| Ok::<_, String>(kind.to_owned()));
                assert_eq!(
                    again.await?.as_deref(),
                    Some(&kind.to_owned()),
                    "the key is free"
                );
                cache.remove("key").await?;
                tokio::time::sleep(SETTLED).await;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_caller_that_gives_up_takes_nothing_from_the_others_and_the_value_is_kept()
-> TestResult {
    bounded(async {
        let (_node, cache) = alone(Mode::Replicated, LoadPolicy::new()).await;
        let record = Record::new();
        let first = record.load(&cache, "key", "value");
        eventually(|| record.asked() == 1).await;
        let second = record.load(&cache, "key", "value");
        eventually(|| cache.stats().loads.shared == 1).await;
        first.abort();
        record.answers.add_permits(1);
        assert_eq!(second.await??, text("value"));
        let alone = record.load(&cache, "other", "other");
        eventually(|| record.asked() == 2).await;
        alone.abort();
        record.answers.add_permits(1);
        eventually(|| cache.peek("other").is_some()).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c8_a_load_whose_runtime_stops_tells_who_waits_elsewhere() -> TestResult {
    let (_node, cache) = alone(Mode::Local, LoadPolicy::new()).await;
    let record = Record::new();
    let (there, asks) = (cache.clone(), record.clone());
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let _leading = asks.load(&there, "key", "never");
            eventually(|| asks.asked() == 1).await;
            eventually(|| there.stats().loads.shared == 1).await;
        });
    });
    eventually(|| record.asked() == 1).await;
    let waits = record.load(&cache, "key", "never");
    bounded(async {
        assert!(matches!(waits.await?, Err(LoadError::Dropped)));
        TestResult::Ok(())
    })
    .await?;
    assert!(other.join().is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_c4_what_is_invalidated_in_mid_load_by_any_node_in_any_way_is_returned_and_not_kept()
-> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        for way in ["remove", "put", "tag", "prefix", "clear"] {
            let record = Record::new();
            let asks = record.clone();
            let loads = here.clone();
            let load = tokio::spawn(async move {
                let loader = async move |_| {
                    let value = asks.read("old").await?;
                    Ok::<_, String>(Loaded::value(value).tags(["tag"]))
                };
                loads.get_or_load("key", loader).await
            });
            eventually(|| record.asked() == 1).await;
            let (all, patience) = (Ack::All, Duration::from_secs(5));
            match way {
                "remove" => there.invalidate("key", all, patience).await?,
                "put" => {
                    let options = nearcache::PutOptions::new().ack(all).timeout(patience);
                    there.put_with("key", "new".into(), options).await?;
                }
                "tag" => there.invalidate_tags_acked(["tag"], all, patience).await?,
                "prefix" => there.invalidate_prefix_acked("ke", all, patience).await?,
                _ => there.clear_acked(all, patience).await?,
            }
            // Who comes now must not get what was read before: it makes a load of its own, or finds what was put.
            let after = record.load(&here, "key", "new");
            if way != "put" {
                eventually(|| record.asked() == 2).await;
            }
            record.answers.add_permits(2);
            assert_eq!(load.await??.as_deref(), Some(&"old".to_owned()), "{way}");
            assert_eq!(after.await??, text("new"), "{way}");
            let held = here.peek("key");
            assert!(held.is_none_or(|held| *held == "new"), "{way}");
            here.clear_acked(all, patience).await?;
            tokio::time::sleep(SETTLED).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_a_key_invalidated_in_mid_load_ten_thousand_times_is_never_kept() -> TestResult {
    for mode in MODES {
        let (_node, cache) = alone(mode, LoadPolicy::new()).await;
        let mut kept = 0;
        for round in 0..3_334_u32 {
            let invalidates = cache.clone();
            let loader = async move |_| {
                match round % 3 {
                    0 => invalidates.remove("key").await.map(|_| ()),
                    1 => invalidates.invalidate_tags(["tag"]).await,
                    _ => invalidates.invalidate_prefix("k").await,
                }
                .map_err(|error| error.to_string())?;
                Ok::<_, String>(Loaded::value(round.to_string()).tags(["tag"]))
            };
            let loaded = cache.get_or_load("key", loader).await?;
            assert_eq!(loaded.as_deref(), Some(&round.to_string()));
            kept += usize::from(cache.peek("key").is_some());
        }
        assert_eq!(kept, 0, "{mode:?}");
        assert_eq!(cache.stats().loads.not_kept, 3_334);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_loader_says_of_its_value_is_kept_with_it() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new()
            .absent_ttl(Duration::from_millis(50))
            .ttl_jitter(0.5)
            .refresh_beta(0.0)
            .stale_if_error(Duration::from_secs(60));
        let (node, cache) = alone(Mode::Replicated, policy).await;
        let loaded = cache
            .get_or_load("key", async |previous: Previous<String>| {
                assert!(previous.value().is_none());
                let value = Loaded::value("one".to_owned()).ttl(Duration::from_millis(100));
                Ok::<_, String>(value.tags(["tag"]).validator("etag 1").source_version(5))
            })
            .await?
            .ok_or("missing")?;
        assert!(loaded.remaining_ttl(node.clock()).is_some(), "it expires");
        eventually(|| cache.peek("key").is_none()).await;
        // Conditional refresh: the old value and its validator, and "not modified".
        let again = cache.get_or_load("key", async |previous: Previous<String>| {
            assert_eq!(previous.value().map(|old| (**old).clone()), text("one"));
            assert_eq!(previous.validator(), Some(&b"etag 1"[..]));
            assert_eq!(previous.source_version(), Some(5));
            Ok::<Loaded<String>, String>(Loaded::not_modified().ttl(Duration::from_secs(60)))
        });
        assert_eq!(again.await?.as_deref(), Some(&"one".to_owned()));
        assert_eq!(cache.peek("key").as_deref(), Some(&"one".to_owned()));
        cache.invalidate_tags(["tag"]).await?;
        assert!(cache.peek("key").is_none(), "its tags live on");
        // Negative caching, with its own time to live.
        let calls = Arc::new(AtomicUsize::new(0));
        let absent = || {
            let calls = Arc::clone(&calls);
            cache.get_or_load("nobody", async move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok::<Option<String>, String>(None)
            })
        };
        assert!(absent().await?.is_none() && absent().await?.is_none());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(cache.get("nobody").await?.is_none() && cache.peek("nobody").is_none());
        assert_eq!(cache.stats().undecodable, 0);
        let claim = nearcache::Modify::set("somebody".to_owned());
        let claim = claim.only_if(nearcache::Condition::IfAbsent);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(absent().await?.is_none());
        assert_eq!(calls.load(Ordering::SeqCst), 2, "for a while only");
        assert!(
            cache.modify("nobody", claim).await?.applied,
            "none is absent"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn jitter_shortens_each_lifetime_by_another_share_up_to_its_bound() -> TestResult {
    let ttl = Duration::from_secs(1_000);
    for (share, spread) in [(0.0, 0.0..=0.01), (0.5, 0.25..=0.51)] {
        let (node, cache) = alone(Mode::Local, LoadPolicy::new().ttl_jitter(share)).await;
        let mut shortened = Vec::new();
        for key in 0..100 {
            let load = async move |_| Ok::<_, String>(Loaded::value("value".to_owned()).ttl(ttl));
            let key = key.to_string();
            let loaded = cache.get_or_load(key.as_str(), load).await?;
            let remaining = loaded.and_then(|loaded| loaded.remaining_ttl(node.clock()));
            let remaining = remaining.ok_or("it expires")?;
            assert!(remaining <= ttl, "it never lengthens");
            shortened.push(1.0 - remaining.as_secs_f64() / ttl.as_secs_f64());
        }
        let most = shortened.iter().copied().fold(0.0, f64::max);
        let least = shortened.iter().copied().fold(1.0, f64::min);
        // That 100 draws out of 0 to 0.5 lie within half of it happens once in 2^93 runs.
        assert!(
            spread.contains(&(most - least)),
            "{share}: {least} to {most}"
        );
        assert!(most <= share + 0.01, "{share}: {most}");
    }
    Ok(())
}

#[tokio::test]
async fn o11_a_third_load_of_a_key_waits_for_the_earlier_ones_and_is_not_refused() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new().queue_wait(Duration::from_millis(10));
        let (_node, cache) = alone(Mode::Local, policy).await;
        let record = Record::new();
        let mut loads = Vec::new();
        for (value, asked) in [("first", 1), ("second", 2), ("third", 2)] {
            let begun = cache.stats().loads.shared;
            loads.push((value, record.load(&cache, "key", value)));
            eventually(|| record.asked() == asked && cache.stats().loads.shared == begun).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            cache.remove("key").await?;
        }
        record.answers.add_permits(3);
        for (value, load) in loads {
            assert_eq!(load.await??, text(value));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn i7_an_older_version_of_the_source_is_returned_and_not_kept() -> TestResult {
    let (_node, cache) = alone(Mode::Replicated, LoadPolicy::new()).await;
    let load = |version: u64| {
        cache.get_or_load("key", async move |_| {
            Ok::<_, String>(Loaded::value(version.to_string()).source_version(version))
        })
    };
    for (version, kept) in [(7, true), (6, false), (7, true), (8, true)] {
        let loaded = load(version).await?;
        assert_eq!(loaded.as_deref(), Some(&version.to_string()));
        assert_eq!(cache.peek("key").is_some(), kept, "{version}");
        cache.remove("key").await?;
        tokio::time::sleep(SETTLED).await;
    }
    Ok(())
}

#[tokio::test]
async fn i7_what_another_node_has_read_is_a_floor_here_also_when_its_entry_is_gone() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let load = |cache: &Texts, version: u64| {
            let cache = cache.clone();
            async move {
                let load = async move |_| {
                    Ok::<_, String>(Loaded::value(version.to_string()).source_version(version))
                };
                cache.get_or_load("key", load).await
            }
        };
        load(&here, 7).await?;
        eventually(|| there.peek("key").is_some()).await;
        let told = here.invalidate("key", Ack::All, Duration::from_secs(2));
        told.await?;
        tokio::time::sleep(SETTLED).await;
        let loaded = load(&there, 6).await?;
        assert_eq!(
            loaded.as_deref(),
            Some(&"6".to_owned()),
            "its caller has it"
        );
        assert!(there.peek("key").is_none(), "and nobody else");
        eventually_kept(|| load(&there, 7), &there).await
    })
    .await
}

/// Loads until it is kept: for one clock bound after an invalidation nothing is.
async fn eventually_kept<Fut>(load: impl Fn() -> Fut, cache: &Texts) -> TestResult
where
    Fut: Future<Output = Result<Option<nearcache::Cached<String>>, LoadError>>,
{
    while cache.peek("key").is_none() {
        load().await?;
        tokio::time::sleep(SETTLED).await;
    }
    Ok(())
}

struct Squares {
    calls: AtomicUsize,
}

impl Loader<u64, u64> for Squares {
    type Error = String;

    async fn load(&self, key: &u64, _: Previous<u64>) -> Result<Loaded<u64>, String> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Loaded::value(key * key))
    }

    async fn load_many(&self, keys: &[u64]) -> Result<Vec<Loaded<u64>>, String> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if keys.contains(&666) {
            return Ok(Vec::new());
        }
        Ok(keys.iter().map(|key| Loaded::value(key * key)).collect())
    }
}

#[tokio::test]
async fn what_is_missing_of_many_keys_is_loaded_by_one_call() -> TestResult {
    bounded(async {
        for mode in MODES {
            let node = Node::builder(common::cluster_name()).start().await?;
            let cache = node.cache::<u64, u64>("squares").mode(mode).open().await?;
            node.ready().await;
            let squares = cache.loading(Squares {
                calls: AtomicUsize::new(0),
            });
            assert_eq!(squares.get(&3).await?.as_deref(), Some(&9));
            let keys: Vec<u64> = (0..500).chain([3, 4]).collect();
            let got = squares.get_many(&keys).await;
            for (key, value) in keys.iter().zip(got) {
                assert_eq!(value?.as_deref(), Some(&(key * key)), "{mode:?}");
            }
            assert_eq!(squares.get_many(&[1, 2]).await.len(), 2);
            assert_eq!(squares.cache().stats().loads.succeeded, 2);
            // Fewer answers than keys are an error of each.
            let got = squares.get_many(&[666, 667, 3]).await;
            assert!(matches!(got[0], Err(LoadError::Failed(_))));
            assert!(matches!(got[1], Err(LoadError::Failed(_))));
            assert!(got[2].is_ok());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_cannot_be_is_refused() -> TestResult {
    let node = Node::builder(common::cluster_name()).start().await?;
    for policy in [
        LoadPolicy::new().loads_max(0),
        LoadPolicy::new().loads_max(4_097),
        LoadPolicy::new().queued_max(65_537),
        LoadPolicy::new().ttl_jitter(1.0),
        LoadPolicy::new().refresh_beta(f64::NAN),
        LoadPolicy::new().load_timeout(Duration::ZERO),
        LoadPolicy::new().stale_if_error(Duration::MAX),
        LoadPolicy::new().stale_while_revalidate(Duration::MAX),
        LoadPolicy::new().soft_timeout(Duration::from_secs(601)),
        LoadPolicy::new().queue_wait(Duration::from_secs(601)),
        LoadPolicy::new().ramp(Duration::from_secs(3_601)),
        LoadPolicy::new().absent_ttl(Duration::MAX),
    ] {
        let opened = node.cache::<u64, u64>("x").load_policy(policy).open().await;
        assert!(matches!(opened, Err(OpenError::InvalidSetting { .. })));
    }
    Ok(())
}
