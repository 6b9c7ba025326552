//! What becomes of a loader's answer: a value, nothing, "not modified", or one that cannot be encoded.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::time::Duration;

use common::{TestResult, bounded, eventually};
use nearcache::{Cache, Change, LoadError, LoadPolicy, Loaded, Loader, Node, Previous, Received};

type Texts = Cache<String, String>;

const MINUTE: Duration = Duration::from_secs(60);

async fn open(policy: LoadPolicy) -> (Node, Texts) {
    let node = Node::builder(common::cluster_name()).start().await;
    let node = node.expect("a node starts");
    let cache = node.cache("things").load_policy(policy).open().await;
    node.ready().await;
    (node, cache.expect("a cache opens"))
}

/// Loads what is to be confirmed later, and waits until it has expired.
async fn load_and_expire(cache: &Texts, key: &str) -> TestResult {
    let tag = format!("tag of {key}");
    let loader = async move |_: Previous<String>| {
        let value = Loaded::value("one".to_owned()).ttl(Duration::from_millis(20));
        let value = value.tags([tag]).validator("e1").source_version(7);
        Ok::<Loaded<String>, String>(value)
    };
    assert!(cache.get_or_load(key, loader).await?.is_some());
    eventually(|| cache.peek(key).is_none()).await;
    Ok(())
}

#[tokio::test]
async fn c4_what_is_confirmed_keeps_each_kind_of_tag_that_is_not_given_anew() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new().refresh_beta(0.0).stale_if_error(MINUTE);
        let (_node, cache) = open(policy).await;
        let confirmed = || Loaded::<String>::not_modified();
        for (key, answer, tag, validator, version) in [
            ("all", confirmed(), "tag of all", "e1", 7),
            (
                "version",
                confirmed().source_version(8),
                "tag of version",
                "e1",
                8,
            ),
            (
                "validator",
                confirmed().validator("e2"),
                "tag of validator",
                "e2",
                7,
            ),
            ("tags", confirmed().tags(["other"]), "other", "e1", 7),
        ] {
            load_and_expire(&cache, key).await?;
            let again = cache.get_or_load(key, async move |_| {
                Ok::<_, String>(answer.ttl(Duration::from_millis(20)))
            });
            assert_eq!(again.await?.as_deref(), Some(&"one".to_owned()), "{key}");
            eventually(|| cache.peek(key).is_none()).await;
            let again = cache.get_or_load(key, async move |previous: Previous<String>| {
                assert_eq!(previous.validator(), Some(validator.as_bytes()), "{key}");
                assert_eq!(previous.source_version(), Some(version), "{key}");
                Ok::<Loaded<String>, String>(Loaded::not_modified().ttl(MINUTE))
            });
            assert!(again.await?.is_some());
            assert!(cache.peek(key).is_some(), "{key}: it is kept");
            cache.invalidate_tags([tag]).await?;
            assert!(cache.peek(key).is_none(), "{key}: its tag finds it");
        }
        Ok(())
    })
    .await
}

/// A value that cannot be encoded, and says so in the worst way.
#[derive(Debug, Clone, serde::Deserialize)]
struct Bomb(u64);

impl serde::Serialize for Bomb {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 13, "a value panics while it is encoded");
        serializer.serialize_u64(self.0)
    }
}

struct Bombs;

impl Loader<u64, Bomb> for Bombs {
    type Error = String;

    async fn load(&self, key: &u64, _: Previous<Bomb>) -> Result<Loaded<Bomb>, String> {
        Ok(Loaded::value(Bomb(*key)))
    }
}

#[tokio::test]
async fn c8_a_value_that_panics_while_it_is_encoded_is_an_error_of_its_own_key_only() -> TestResult
{
    bounded(async {
        let node = Node::builder(common::cluster_name()).start().await?;
        let cache = node.cache::<u64, Bomb>("bombs").open().await?;
        node.ready().await;
        let bombs = cache.loading(Bombs);
        assert!(matches!(bombs.get(&13).await, Err(LoadError::Panicked)));
        let got = bombs.get_many(&[12, 13, 14, 15]).await;
        assert!(matches!(got[1], Err(LoadError::Panicked)), "{:?}", got[1]);
        for (key, got) in [12, 13, 14, 15].into_iter().zip(got) {
            if key != 13 {
                assert_eq!(got?.as_deref().map(|bomb| bomb.0), Some(key));
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn that_there_is_nothing_counts_as_a_value_nowhere() -> TestResult {
    bounded(async {
        let policy = LoadPolicy::new().absent_ttl(Duration::from_secs(5));
        let (_node, cache) = open(policy).await;
        let mut watch = cache.watch();
        let nothing = async |_: Previous<String>| Ok::<Option<String>, String>(None);
        assert!(cache.get_or_load("nobody", nothing).await?.is_none());
        let told = watch.next().await.ok_or("the watch ends")?;
        assert!(
            matches!(told, Received::Event(Change::Removed { .. })),
            "{told:?}"
        );
        assert!(cache.about("nobody")?.is_none());
        assert!(!cache.touch("nobody", MINUTE * 60).await?);
        let again = async |_: Previous<String>| Ok::<_, String>(Some("made".to_owned()));
        let kept = cache.get_or_load("nobody", again).await?;
        assert!(kept.is_none(), "it is remembered");
        assert!(!cache.remove("nobody").await?, "there was no value");
        assert!(!cache.remove_now("nobody")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_absence_that_is_not_to_be_remembered_is_not_stored() -> TestResult {
    bounded(async {
        let (_node, cache) = open(LoadPolicy::new().absent_ttl(Duration::ZERO)).await;
        let mut watch = cache.watch();
        let nothing = async |_: Previous<String>| Ok::<Option<String>, String>(None);
        assert!(cache.get_or_load("nobody", nothing).await?.is_none());
        assert!(watch.try_next().is_none(), "nothing was stored");
        assert_eq!(cache.len(), 0);
        Ok(())
    })
    .await
}
