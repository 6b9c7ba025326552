//! What one node writes, the others read.

mod common;

use std::time::Duration;

use common::{TestResult, bounded, cache, eventually, node, pair};
use nearcache::{Ack, MemberState, PutOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_put_on_one_node_is_read_on_the_other() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        here.put("key", "value".into()).await?;
        eventually(|| there.peek("key").is_some_and(|value| *value == "value")).await;
        assert!(there.get("other").await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_life_travels_as_an_hour() -> TestResult {
    bounded(async {
        let (_one, two, here, there) = pair().await;
        let hour = Duration::from_secs(3600);
        here.put_with(
            "key",
            "value".into(),
            PutOptions::new().ttl(hour).ack(Ack::All),
        )
        .await?;
        let seen = there.get("key").await?.ok_or("a miss")?;
        assert_eq!(*seen, "value");
        let left = seen.remaining_ttl(two.clock()).ok_or("no expiry")?;
        // The two nodes' clocks are read at different moments, and may differ.
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(10));
        assert!(left < hour + early && left > hour - late, "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_expires_on_every_node() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let options = PutOptions::new().ttl(Duration::from_secs(2)).ack(Ack::All);
        here.put_with("key", "value".into(), options).await?;
        assert!(there.peek("key").is_some());
        eventually(|| there.peek("key").is_none() && here.peek("key").is_none()).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_travel_and_older_values_do_not_come_back() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.remove("key").await?);
        assert!(!there.remove("key").await?);
        eventually(|| here.peek("key").is_none()).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_prefixes_and_clear_travel() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let all = || PutOptions::new().ack(Ack::All);
        here.put_with("user:1", "a".into(), all().tags(["team"]))
            .await?;
        here.put_with("user:2", "b".into(), all()).await?;
        here.put_with("page:1", "c".into(), all()).await?;
        assert_eq!(there.get("user:1").await?.ok_or("a miss")?.tags().len(), 1);

        there.invalidate_tags(["team"]).await?;
        assert!(there.peek("user:1").is_none());
        eventually(|| here.peek("user:1").is_none()).await;
        assert!(here.peek("user:2").is_some());

        there.invalidate_prefix("user:").await?;
        eventually(|| here.peek("user:2").is_none()).await;
        assert!(here.peek("page:1").is_some());

        there.clear().await?;
        eventually(|| here.peek("page:1").is_none()).await;

        here.put_with("user:1", "again".into(), all().tags(["team"]))
            .await?;
        assert_eq!(*there.get("user:1").await?.ok_or("a miss")?, "again");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_time_to_live_travels() -> TestResult {
    bounded(async {
        let (_one, two, here, there) = pair().await;
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(here.touch("key", Duration::from_secs(60)).await?);
        assert!(!here.touch("other", Duration::from_secs(60)).await?);
        let left = || {
            there
                .peek("key")
                .and_then(|value| value.remaining_ttl(two.clock()))
        };
        eventually(|| left().is_some_and(|left| left <= Duration::from_secs(60))).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_arrive_all() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let keys: Vec<String> = (0..1000).map(|number| format!("key:{number}")).collect();
        let entries = keys.iter().map(|key| (key.as_str(), key.to_uppercase()));
        here.put_many(entries, PutOptions::new().ack(Ack::All))
            .await?;
        let seen = there.get_many(keys.iter().map(String::as_str)).await?;
        assert!(seen.iter().all(Option::is_some));
        assert_eq!(there.len(), 1000);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_find_each_other_through_one() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let three = node("three", &[one.local_addr()]).await;
        let caches = [cache(&one).await, cache(&two).await, cache(&three).await];
        for node in [&one, &two, &three] {
            eventually(|| {
                let connected = |state| state == MemberState::Connected;
                node.members()
                    .iter()
                    .filter(|member| connected(member.state))
                    .count()
                    == 2
            })
            .await;
            node.ready().await;
        }
        for (number, cache) in caches.iter().enumerate() {
            let options = PutOptions::new().ack(Ack::Peers(2));
            cache
                .put_with(&number.to_string(), "value".into(), options)
                .await?;
        }
        for cache in &caches {
            assert_eq!(cache.len(), 3);
        }
        Ok(())
    })
    .await
}
