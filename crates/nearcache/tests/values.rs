//! Values, watchers, limits, read-modify-write and scans, as a user sees them.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{RawCache, TestResult, bounded, cache, eventually, node, pair};
use nearcache::{
    Ack, Change, Condition, KeyError, Lookup, Mode, Modify, ModifyError, Node, OpenError,
    PutOptions, Raw, RawValue, ReadError, Received, ScanCursor, WriteError,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct User {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Stranger {
    shoe_size: u8,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_decoded_is_a_miss_and_a_counter() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let here = one.cache::<String, User>("users").open().await?;
        let there = two.cache::<String, Stranger>("users").open().await?;
        there.ready().await;
        let ada = User { name: "Ada".into() };
        here.put_with("ada", ada, PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.get("ada").await?.is_none());
        assert_eq!(there.stats().undecodable, 1);
        assert_eq!(there.len(), 1, "it is kept for those who can read it");
        assert_eq!(here.get("ada").await?.ok_or("a miss")?.name, "Ada");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_changes_of_other_nodes_and_learns_what_it_missed() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let mut watch = there.watch();
        here.put("key", "value".into()).await?;
        match watch.next().await {
            Some(Received::Event(Change::Put {
                key,
                value: Some(value),
            })) => {
                assert_eq!((&*key, value.as_str()), (&b"key"[..], "value"));
            }
            other => return Err(format!("{other:?}").into()),
        }
        here.remove("key").await?;
        let removed = watch.next().await;
        assert!(
            matches!(removed, Some(Received::Event(Change::Removed { .. }))),
            "{removed:?}"
        );
        here.clear().await?;
        let cleared = watch.next().await;
        assert!(
            matches!(cleared, Some(Received::Event(Change::Invalidated { .. }))),
            "{cleared:?}"
        );

        let mut slow = there.watch_with_capacity(2);
        for number in 0..10 {
            there.put(&number.to_string(), "value".into()).await?;
        }
        assert!(matches!(slow.next().await, Some(Received::Missed(8))));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn limits_are_told_with_their_numbers() -> TestResult {
    let alone = node("alone", &[]).await;
    let things = cache(&alone).await;
    let key = "k".repeat(4097);
    match things.put(&key, "value".into()).await {
        Err(WriteError::Key(KeyError::KeyTooLong {
            len_bytes: 4097,
            limit_bytes: 4096,
        })) => {}
        other => return Err(format!("{other:?}").into()),
    }
    assert!(matches!(
        things.get("").await,
        Err(ReadError::Key(KeyError::EmptyKey))
    ));
    let large = "v".repeat((1 << 20) + 1);
    assert!(matches!(
        things.put("key", large).await,
        Err(WriteError::ValueTooLarge { .. })
    ));
    let ten_years = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    for ttl in [
        Duration::ZERO,
        ten_years + Duration::from_secs(1),
        Duration::MAX,
    ] {
        let put = things
            .put_with("key", "value".into(), PutOptions::new().ttl(ttl))
            .await;
        assert!(
            matches!(put, Err(WriteError::InvalidTtl { .. })),
            "{ttl:?}: {put:?}"
        );
    }
    let no_tag = PutOptions::new().tags([""]);
    let put = things.put_with("key", "value".into(), no_tag).await;
    assert!(matches!(put, Err(WriteError::InvalidTag { index: 0, .. })));
    assert!(things.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_entry_that_cannot_fit_is_refused_and_the_older_one_is_gone() -> TestResult {
    let alone = node("alone", &[]).await;
    let small = alone
        .cache::<String, String>("small")
        .max_bytes(64 << 10)
        .open()
        .await?;
    small.put("key", "value".into()).await?;
    let put = small.put("key", "v".repeat(60 << 10)).await;
    assert!(
        matches!(put, Err(WriteError::TooLargeForCache { .. })),
        "{put:?}"
    );
    assert!(small.get("key").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_empty_key_is_a_key_where_that_is_asked_for() -> TestResult {
    let alone = node("alone", &[]).await;
    let raw = alone
        .cache::<Vec<u8>, RawValue>("raw")
        .codec::<Raw>()
        .allow_empty_key(true);
    let raw = raw.open().await?;
    raw.put_now(&b""[..], RawValue::from("value"), &PutOptions::new())?;
    assert!(matches!(raw.try_get(&b""[..])?, Lookup::Hit(value) if &value[..] == b"value"));
    Ok(())
}

#[tokio::test]
async fn a_cache_opened_twice_is_one_and_must_be_opened_alike() -> TestResult {
    let alone = node("alone", &[]).await;
    let first = cache(&alone).await;
    let second = cache(&alone).await;
    first.put("key", "value".into()).await?;
    assert!(second.peek("key").is_some());
    let other_type = alone.cache::<String, u64>("things").open().await;
    assert!(matches!(other_type, Err(OpenError::OpenDifferently { .. })));
    let other_mode = alone
        .cache::<String, String>("things")
        .mode(Mode::Local)
        .open()
        .await;
    assert!(matches!(
        other_mode,
        Err(OpenError::OpenDifferently { what: "mode", .. })
    ));
    assert_eq!(alone.cache_names(), ["things"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_in_one_process_share_nothing_but_the_network() -> TestResult {
    let (one, two) = (
        Node::builder("a").start().await?,
        Node::builder("b").start().await?,
    );
    let (here, there) = (cache(&one).await, cache(&two).await);
    here.put("key", "value".into()).await?;
    assert!(there.peek("key").is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_count_every_increment_of_every_node() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let open = |node: &Node| node.cache::<Vec<u8>, RawValue>("counters").codec::<Raw>();
        let (here, there) = (open(&one).open().await?, open(&two).open().await?);
        one.ready().await;
        two.ready().await;
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        let key = &b"visits"[..];
        let count = |cache: nearcache::Cache<Vec<u8>, RawValue, Raw>| async move {
            for _ in 0..100 {
                cache.modify(key, Modify::add(1)).await?;
            }
            Ok::<_, ModifyError>(())
        };
        tokio::try_join!(count(here.clone()), count(there.clone()))?;
        for cache in [&here, &there] {
            eventually(|| cache.peek(key).is_some_and(|value| &value[..] == b"200")).await;
        }
        here.put(key, RawValue::from("many")).await?;
        assert!(matches!(
            here.modify(key, Modify::add(1)).await,
            Err(ModifyError::NotAnInteger)
        ));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_node_puts_if_absent() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let claim = |name: &str| Modify::set(name.to_owned()).only_if(Condition::IfAbsent);
        let (first, second) = tokio::join!(
            here.modify("job", claim("one")),
            there.modify("job", claim("two"))
        );
        let (first, second) = (first?, second?);
        assert_ne!(first.applied, second.applied);
        let winner = if first.applied { "one" } else { "two" };
        for cache in [&here, &there] {
            eventually(|| cache.peek("job").is_some_and(|value| *value == winner)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_scan_finds_every_entry() -> TestResult {
    let alone = node("alone", &[]).await;
    let things = cache(&alone).await;
    let keys: BTreeSet<String> = (0..500).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        things.put(key.as_str(), "value".into()).await?;
    }
    let (mut seen, mut cursor) = (BTreeSet::new(), Some(ScanCursor::default()));
    while let Some(from) = cursor {
        let page = things.scan(ScanCursor::from_u64(from.as_u64()), 64);
        for entry in &page.entries {
            seen.insert(String::from_utf8(entry.key().to_vec())?);
        }
        cursor = page.next;
    }
    assert_eq!(seen, keys);
    Ok(())
}

#[tokio::test]
async fn metrics_belong_to_their_node_and_name_their_cache() -> TestResult {
    let (one, two) = (node("one", &[]).await, node("two", &[]).await);
    let things = cache(&one).await;
    things.put("key", "value".into()).await?;
    things.get("key").await?;
    let text = |node: &Node| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &node.metrics().lock())?;
        Ok::<_, std::fmt::Error>(text)
    };
    let (ours, others) = (text(&one)?, text(&two)?);
    assert!(
        ours.contains("nearcache_cache_hits_total{cache=\"things\"} 1"),
        "{ours}"
    );
    assert!(
        ours.contains("nearcache_cache_entries{cache=\"things\"} 1"),
        "{ours}"
    );
    assert!(!others.contains("things"), "{others}");
    Ok(())
}

#[tokio::test]
async fn a_value_above_the_limit_of_another_node_is_a_miss_there_and_the_session_stays()
-> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let here: RawCache = one
            .cache("things")
            .codec::<Raw>()
            .max_value_bytes(8 << 20)
            .open()
            .await?;
        let there: RawCache = two.cache("things").codec::<Raw>().open().await?;
        one.ready().await;
        two.ready().await;
        let (key, other) = (b"key".to_vec(), b"other".to_vec());
        here.put(&key, RawValue::from("small")).await?;
        eventually(|| there.peek(&key).is_some()).await;
        here.put(&key, RawValue::from(vec![7; 4 << 20])).await?;
        eventually(|| there.peek(&key).is_none()).await;
        // What follows comes over the same session.
        here.put(&other, RawValue::from("small")).await?;
        eventually(|| there.peek(&other).is_some()).await;
        assert_eq!(two.members().len(), 2);
        assert_eq!(there.stats().mode.withheld, 1);
        Ok(())
    })
    .await
}
