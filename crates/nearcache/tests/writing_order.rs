//! Read-modify-writes behind the cache, while their key is written otherwise: in which order the system of record gets them, and that it
//! does.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;
#[path = "common/held.rs"]
mod held;
#[path = "common/record.rs"]
mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{TestResult, bounded, eventually};
use held::Voice;
use nearcache::{Mode, Modified, Modify, ModifyError, Node, WriteBehind};
use record::{FLUSH, Record, Texts, alone, behind, quick, text};
use tokio::task::JoinHandle;

type Modifying = JoinHandle<Result<Modified<String>, ModifyError>>;

fn begin(things: &Texts, key: &str, modify: Modify<String>) -> Modifying {
    let (things, key) = (things.clone(), key.to_owned());
    tokio::spawn(async move { things.modify(&key, modify).await })
}

fn modify(things: &Texts, key: &str, value: &str) -> Modifying {
    begin(things, key, Modify::set(value.to_owned()))
}

/// A node that writes behind, and the home of some of its keys, whose answers can be held.
struct Two {
    _home: Node,
    _node: Node,
    voice: Voice,
    there: Texts,
    here: Texts,
    record: Record,
    /// Its home is the other node.
    key: String,
}

async fn two(policy: WriteBehind) -> Two {
    let (home, node, voice) = held::pair().await;
    let record = Record::new();
    let there: Texts = home.cache("things").open().await.expect("a cache opens");
    let here = behind(&node, Mode::Replicated, &record, policy).await;
    home.ready().await;
    node.ready().await;
    let both_know = || {
        [&there, &here]
            .iter()
            .all(|things| things.freshness().worst.is_some())
    };
    eventually(both_know).await;
    let mut number = 0;
    let key = loop {
        let key = number.to_string();
        let first = modify(&here, &key, "first").await.expect("no panic");
        let first = first.expect("it is made").current.expect("a value");
        if first.version().origin == home.id() {
            break key;
        }
        number += 1;
    };
    here.flush_writes(FLUSH).await.expect("all is written");
    Two {
        _home: home,
        _node: node,
        voice,
        there,
        here,
        record,
        key,
    }
}

#[tokio::test]
async fn a_modify_whose_caller_gives_up_before_its_home_answers_is_written_all_the_same()
-> TestResult {
    bounded(async {
        let two = two(quick()).await;
        let Two { key, there, .. } = &two;
        for round in 0.. {
            let value = format!("modified {round}");
            two.here.put(key, "before".to_owned()).await?;
            two.voice.hold();
            let modify = modify(&two.here, key, &value);
            eventually(|| there.peek(key).is_some_and(|held| *held == value)).await;
            modify.abort();
            let given_up = modify.await.err();
            assert!(given_up.is_some_and(|error| error.is_cancelled()));
            two.voice.let_go();
            let is_written = || two.record.row(key) == text(&value);
            // Held for so long that the home was taken for lost, nobody knows, and so nobody has it.
            eventually(|| is_written() || two.here.peek(key).is_none()).await;
            if is_written() {
                break;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn k4_a_modify_that_its_home_answers_after_a_later_put_is_written_is_not_written_after_it()
-> TestResult {
    /// A put overtakes a removal, or a value.
    async fn overtaken(policy: WriteBehind, removes: bool) -> TestResult {
        let two = two(policy).await;
        let Two {
            key, there, here, ..
        } = &two;
        for round in 0.. {
            let value = format!("modified {round}");
            here.put(key, "before".to_owned()).await?;
            eventually(|| there.peek(key).is_some_and(|held| *held == "before")).await;
            two.voice.hold();
            let modify = if removes {
                begin(here, key, Modify::remove())
            } else {
                modify(here, key, &value)
            };
            eventually(|| there.peek(key).is_none_or(|held| *held == value)).await;
            // The clocks of both go on: the put is later.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let put = here.put(key, "put".to_owned()).await?;
            eventually(|| two.record.row(key) == text("put")).await;
            two.voice.let_go();
            let modified = match modify.await? {
                Ok(modified) => modified,
                // Held for so long that the home was taken for lost.
                Err(ModifyError::Indeterminate | ModifyError::Busy) => continue,
                Err(error) => return Err(error.into()),
            };
            assert!(modified.applied);
            let modified = modified.current.map(|current| current.version());
            assert!(modified.is_none_or(|modified| modified < put));
            here.flush_writes(FLUSH).await?;
            assert_eq!(two.record.row(key), text("put"));
            for things in [here, there] {
                eventually(|| things.peek(key).is_some_and(|value| *value == "put")).await;
            }
            // The next one is later, and is written.
            here.modify(key, Modify::set("again".to_owned())).await?;
            here.flush_writes(FLUSH).await?;
            assert_eq!(two.record.row(key), text("again"));
            break;
        }
        Ok(())
    }

    bounded(async {
        for removes in [false, true] {
            overtaken(quick(), removes).await?;
            let folder = tempfile::tempdir()?;
            overtaken(quick().journal(folder.path()), removes).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_end_of_an_earlier_write_waits_for_a_modify_that_is_on_its_way_to_the_journal()
-> TestResult {
    bounded(async {
        let folder = tempfile::tempdir()?;
        let (node, record) = (alone().await, Record::letting(0));
        let (is_busy, has_ended) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (busy, ended) = (Arc::clone(&is_busy), Arc::<AtomicBool>::clone(&has_ended));
        let policy = quick().journal(folder.path()).step_hook(move |step| {
            // Not for ever: a test that fails ends all the same.
            for _ in 0..5_000 {
                if step != "before append" || !busy.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            if step == "sink called" {
                ended.store(true, Ordering::SeqCst);
            }
        });
        let things = behind(&node, Mode::Replicated, &record, policy).await;
        things.put("a", "one".to_owned()).await?;
        eventually(|| record.calls() == 1).await;
        is_busy.store(true, Ordering::SeqCst);
        let modify = modify(&things, "a", "two");
        eventually(|| things.peek("a").is_some_and(|value| *value == "two")).await;
        record.0.lets.add_permits(10);
        // All runs on this thread: what can be seen to has been.
        eventually(|| has_ended.load(Ordering::SeqCst)).await;
        assert_eq!(things.peek("a").as_deref(), text("two").as_ref());
        is_busy.store(false, Ordering::SeqCst);
        modify.await??;
        things.flush_writes(FLUSH).await?;
        assert_eq!(things.peek("a").as_deref(), text("two").as_ref());
        assert_eq!(record.row("a"), text("two"));
        Ok(())
    })
    .await
}
