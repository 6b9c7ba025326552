//! Writing the system of record: through the cache, and behind it.

mod common;
#[path = "common/record.rs"]
mod record;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::{TestResult, bounded, eventually, node};
use nearcache::{
    Ack, FlushError, Mode, Modify, ModifyError, PutOptions, Raw, RawValue, Sink, SinkError,
    SinkWrite, WriteError, WriteThrough,
};
use record::{FLUSH, Mood, Record, Texts, alone, behind, idle, quick, text, through};

#[tokio::test]
async fn through_puts_removes_and_modifies_are_in_the_system_of_record_when_they_are_answered()
-> TestResult {
    bounded(async {
        for mode in [Mode::Local, Mode::Invalidation, Mode::Replicated] {
            let (node, record) = (alone().await, Record::new());
            let things = through(&node, mode, &record, WriteThrough::new()).await;
            things.put("a", "one".to_owned()).await?;
            assert_eq!(record.row("a"), text("one"));
            assert_eq!(things.get("a").await?.as_deref(), text("one").as_ref());
            assert!(
                things
                    .modify("a", Modify::set("two".to_owned()))
                    .await?
                    .applied
            );
            assert_eq!(record.row("a"), text("two"));
            assert_eq!(things.get("a").await?.as_deref(), text("two").as_ref());
            assert!(things.remove("a").await?);
            assert_eq!(record.row("a"), None);
            assert!(things.get("a").await?.is_none());
            // Copies are no affair of the system of record.
            let many = [("b", "x".to_owned()), ("c", "y".to_owned())];
            things.put_many(many, PutOptions::new()).await?;
            things.invalidate("b", Ack::Local, FLUSH).await?;
            things.clear().await?;
            assert_eq!((record.row("b"), record.row("c")), (text("x"), text("y")));
            let now = things.put_now("d", "z".to_owned(), &PutOptions::new());
            assert!(matches!(now, Err(WriteError::SinkMustWait)));
            assert_eq!(record.row("d"), None);
            node.shutdown().await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c7_after_a_failure_nobody_serves_what_may_be_wrong_and_after_a_rejection_nothing_has_changed()
-> TestResult {
    bounded(async {
        let record = Record::new();
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let policy = WriteThrough::new().timeout(Duration::from_millis(50));
        let here = through(&one, Mode::Replicated, &record, policy).await;
        let there = through(&two, Mode::Replicated, &record, policy).await;
        one.ready().await;
        two.ready().await;
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        let all = || PutOptions::new().ack(Ack::All);
        for mood in [Mood::Failing, Mood::Panicking, Mood::Hanging] {
            record.is(Mood::Fine);
            here.put_with("a", "old".to_owned(), all()).await?;
            assert_eq!(there.get("a").await?.as_deref(), text("old").as_ref());
            record.is(mood);
            let failed = here.put("a", "new".to_owned()).await;
            assert!(
                matches!(failed, Err(WriteError::SinkFailed(_))),
                "{failed:?}"
            );
            assert!(here.peek("a").is_none());
            eventually(|| there.peek("a").is_none()).await;
            record.is(Mood::Fine);
            let loaded = record.clone();
            let value = there.get_or_load("a", move |_| loaded.load("a")).await?;
            assert_eq!(value.as_deref(), text("old").as_ref());
        }
        here.put_with("bad", "old".to_owned(), all()).await?;
        record.is(Mood::Rejecting);
        let rejected = here.put("bad", "new".to_owned()).await;
        assert!(matches!(rejected, Err(WriteError::SinkRejected(_))));
        assert_eq!(here.get("bad").await?.as_deref(), text("old").as_ref());
        // A read-modify-write was made already.
        let rejected = here.modify("bad", Modify::set("new".to_owned())).await;
        assert!(matches!(
            rejected,
            Err(ModifyError::Write(WriteError::SinkRejected(_)))
        ));
        assert!(here.peek("bad").is_none());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c9_writes_through_wait_for_a_place_in_order_and_are_refused_beyond_the_bound() -> TestResult
{
    bounded(async {
        let (node, record) = (alone().await, Record::letting(0));
        let policy = WriteThrough::new()
            .calls_max(1)
            .queued_max(1)
            .wait(Duration::from_secs(10));
        let things = through(&node, Mode::Local, &record, policy).await;
        let put = |key: &'static str, value: &'static str| {
            let things = things.clone();
            tokio::spawn(async move { things.put(key, value.to_owned()).await })
        };
        let first = put("a", "one");
        eventually(|| record.calls() == 1).await;
        let second = put("a", "two");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let third = things.put("b", "three".to_owned()).await;
        assert!(matches!(third, Err(WriteError::SinkOverloaded { .. })));
        // A caller that gives up leaves its write to be made.
        first.abort();
        record.0.lets.add_permits(10);
        second.await??;
        assert_eq!(
            record.log(),
            [("a".to_owned(), text("one")), ("a".to_owned(), text("two"))]
        );
        assert_eq!(things.get("a").await?.as_deref(), text("two").as_ref());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn through_a_modify_whose_caller_gives_up_is_in_the_system_of_record_all_the_same()
-> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::letting(1));
        let things = through(&node, Mode::Replicated, &record, WriteThrough::new()).await;
        things.put("a", "old".to_owned()).await?;
        let modify = tokio::spawn({
            let things = things.clone();
            async move { things.modify("a", Modify::set("new".to_owned())).await }
        });
        eventually(|| record.calls() == 2).await;
        modify.abort();
        let given_up = modify.await.err();
        assert!(
            given_up.is_some_and(|error| error.is_cancelled()),
            "the sink has not answered yet"
        );
        assert_eq!(things.get("a").await?.as_deref(), text("new").as_ref());
        record.0.lets.add_permits(10);
        eventually(|| record.row("a") == text("new")).await;
        assert_eq!(things.get("a").await?.as_deref(), text("new").as_ref());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_busy_keys_are_written_once_a_round_and_the_last_write_wins() -> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::new());
        let things = behind(&node, Mode::Local, &record, idle()).await;
        for number in 0..100 {
            things.put("busy", number.to_string()).await?;
        }
        things.put("other", "x".to_owned()).await?;
        things.remove("gone").await?;
        assert_eq!(record.calls(), 0);
        let stats = things.stats().writes;
        assert_eq!((stats.queued, stats.coalesced), (3, 99));
        things.flush_writes(FLUSH).await?;
        assert_eq!((record.calls(), record.log().len()), (1, 3));
        assert_eq!(
            (record.row("busy"), record.row("other")),
            (text("99"), text("x"))
        );
        assert_eq!(things.get("busy").await?.as_deref(), text("99").as_ref());
        assert!(
            things
                .modify("busy", Modify::set("m".to_owned()))
                .await?
                .applied
        );
        assert!(things.modify("other", Modify::remove()).await?.applied);
        things.flush_writes(FLUSH).await?;
        assert_eq!((record.row("busy"), record.row("other")), (text("m"), None));
        assert_eq!(things.stats().writes.queued, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_counters_keep_counting_in_the_system_of_record() -> TestResult {
    /// Keeps the last bytes.
    struct Last(Arc<Mutex<Vec<u8>>>);

    impl Sink<Vec<u8>, RawValue> for Last {
        async fn write(&self, write: &SinkWrite<'_, Vec<u8>, RawValue>) -> Result<(), SinkError> {
            let bytes = write.value().ok_or("a value")?.to_vec();
            *self.0.lock().map_err(|error| error.to_string())? = bytes;
            Ok(())
        }
    }

    bounded(async {
        let (node, last) = (alone().await, Arc::new(Mutex::new(Vec::new())));
        let numbers = node.cache::<Vec<u8>, RawValue>("numbers").codec::<Raw>();
        let numbers = numbers.write_behind(Last(Arc::clone(&last)), quick());
        let numbers = numbers.open().await?;
        let key = b"n".as_slice();
        for _ in 0..20 {
            numbers.modify(key, Modify::add(2)).await?;
        }
        numbers.flush_writes(FLUSH).await?;
        assert_eq!(&*last.lock().expect("bytes"), b"40");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_a_queued_write_stands_for_the_system_of_record() -> TestResult {
    bounded(async {
        for mode in [Mode::Local, Mode::Invalidation, Mode::Replicated] {
            let (node, record) = (alone().await, Record::new());
            let things = behind(&node, mode, &record, idle()).await;
            record
                .0
                .rows
                .lock()
                .expect("rows")
                .insert("a".into(), "old".into());
            // A fill that began before, and one that begins while it is queued: neither may bring the old row back.
            let fill = things.begin_fill("a")?;
            things.put("a", "new".to_owned()).await?;
            let queued = things.begin_fill("a")?;
            things.clear().await?;
            assert!(!fill.put("old".to_owned(), &PutOptions::new())?);
            assert!(!queued.put("old".to_owned(), &PutOptions::new())?);
            let loaded = record.clone();
            let value = things.get_or_load("a", move |_| loaded.load("a")).await?;
            assert_eq!(value.as_deref(), text("new").as_ref());
            let late = things.begin_fill("a")?;
            things.flush_writes(FLUSH).await?;
            // It read the old row, and nothing is queued any more.
            assert!(!late.put("old".to_owned(), &PutOptions::new())?, "{mode:?}");
            assert!(things.peek("a").is_none_or(|value| *value == "new"));
            things.remove("a").await?;
            let loaded = record.clone();
            let value = things.get_or_load("a", move |_| loaded.load("a")).await?;
            assert!(value.is_none());
            node.shutdown().await;
            assert_eq!(
                record.row("a"),
                None,
                "a node that leaves writes what is queued"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_what_is_written_at_the_moment_an_earlier_write_ends_stays_in_the_cache()
-> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::new());
        let things: Arc<OnceLock<Texts>> = Arc::default();
        let (again, met) = (Arc::clone(&things), AtomicUsize::new(0));
        // The first write is in the system of record, and the cache does not know it yet.
        let policy = quick().step_hook(move |step| {
            if step == "sink called" && met.fetch_add(1, Ordering::SeqCst) == 0 {
                let things = again.get().expect("the cache is open");
                let put = things.put_now("a", "two".to_owned(), &PutOptions::new());
                put.expect("it is queued");
            }
        });
        let opened = behind(&node, Mode::Replicated, &record, policy).await;
        let things = things.get_or_init(|| opened);
        things.put("a", "one".to_owned()).await?;
        eventually(|| record.row("a") == text("two")).await;
        things.flush_writes(FLUSH).await?;
        assert_eq!(things.peek("a").as_deref(), text("two").as_ref());
        assert_eq!(record.log().len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_what_another_node_has_read_meanwhile_goes_when_the_write_is_made() -> TestResult {
    bounded(async {
        let record = Record::new();
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        let here = behind(&one, Mode::Invalidation, &record, idle()).await;
        let there: Texts = two.cache("things").mode(Mode::Invalidation).open().await?;
        one.ready().await;
        two.ready().await;
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        record
            .0
            .rows
            .lock()
            .expect("rows")
            .insert("a".into(), "old".into());
        here.put_with("a", "new".to_owned(), PutOptions::new().ack(Ack::All))
            .await?;
        // Longer than clocks on one machine differ: the other node keeps the row that is still there.
        let kept = async {
            loop {
                let loaded = record.clone();
                let value = there.get_or_load("a", move |_| loaded.load("a")).await?;
                assert_eq!(value.as_deref(), text("old").as_ref());
                if there.peek("a").is_some() {
                    return Ok::<_, Box<dyn std::error::Error>>(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        kept.await?;
        here.flush_writes(FLUSH).await?;
        eventually(|| there.peek("a").is_none()).await;
        let loaded = record.clone();
        let value = there.get_or_load("a", move |_| loaded.load("a")).await?;
        assert_eq!(value.as_deref(), text("new").as_ref());
        assert_eq!(here.get("a").await?.as_deref(), text("new").as_ref());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_failures_are_retried_and_rejections_become_letters_that_can_be_replayed()
-> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::new());
        let things = behind(&node, Mode::Replicated, &record, quick()).await;
        record.is(Mood::Failing);
        for key in ["a", "b", "bad"] {
            things.put(key, "one".to_owned()).await?;
        }
        eventually(|| things.stats().writes.retried > 6).await;
        let flushed = things.flush_writes(Duration::from_millis(20)).await;
        assert!(matches!(flushed, Err(FlushError::TimedOut { left: 3, .. })));
        record.is(Mood::Panicking);
        tokio::time::sleep(Duration::from_millis(20)).await;
        record.is(Mood::Rejecting);
        things.flush_writes(FLUSH).await?;
        assert_eq!(
            (record.row("a"), record.row("b")),
            (text("one"), text("one"))
        );
        let letters = things.dead_letters();
        assert_eq!(letters.len(), 1);
        assert_eq!(&*letters[0].key, b"bad");
        assert!(letters[0].reason.contains("no such column"));
        assert_eq!(letters[0].value.as_deref(), text("one").as_ref());
        assert!(
            things.peek("bad").is_none(),
            "the system of record does not have it"
        );
        record.is(Mood::Fine);
        assert_eq!(things.replay_dead_letters(), 1);
        things.flush_writes(FLUSH).await?;
        assert_eq!(record.row("bad"), text("one"));
        record.is(Mood::Rejecting);
        things.put("bad", "two".to_owned()).await?;
        things.flush_writes(FLUSH).await?;
        assert!(things.discard_dead_letter("bad")?);
        assert!(things.dead_letters().is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_a_write_waits_neither_for_a_failed_one_nor_for_one_with_the_sink() -> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::letting(1));
        record.is(Mood::Failing);
        let long = Duration::from_secs(600);
        let policy = quick().backoff(long, long).timeout(long);
        let things = behind(&node, Mode::Local, &record, policy).await;
        things.put("failed", "x".to_owned()).await?;
        eventually(|| things.stats().writes.retried == 1).await;
        record.is(Mood::Fine);
        // One after the other, each while those before it are with the sink.
        for (calls, key) in [(2, "a"), (3, "b"), (4, "c")] {
            things.put(key, "x".to_owned()).await?;
            eventually(|| record.calls() == calls).await;
        }
        record.0.lets.add_permits(10);
        eventually(|| record.log().len() == 3).await;
        assert_eq!(things.stats().writes.queued, 1, "the one that failed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c9_behind_a_full_queue_makes_writers_wait_and_then_refuses() -> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::new());
        record.is(Mood::Failing);
        let policy = quick().keys_max(2).wait(Duration::from_millis(50));
        let things = behind(&node, Mode::Local, &record, policy).await;
        things.put("a", "1".to_owned()).await?;
        things.put("b", "1".to_owned()).await?;
        let refused = things.put("c", "1".to_owned()).await;
        assert!(matches!(
            refused,
            Err(WriteError::SinkOverloaded { queued: 2 })
        ));
        assert!(things.peek("c").is_none(), "nothing was changed");
        // A key that waits already takes no further place.
        things.put("a", "2".to_owned()).await?;
        let waits = {
            let things = things.clone();
            tokio::spawn(async move { things.put("c", "1".to_owned()).await })
        };
        record.is(Mood::Fine);
        waits.await??;
        things.flush_writes(FLUSH).await?;
        assert_eq!((record.row("a"), record.row("c")), (text("2"), text("1")));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn behind_who_waits_for_room_is_refused_when_the_node_leaves() -> TestResult {
    bounded(async {
        let (node, record) = (alone().await, Record::letting(0));
        let policy = quick().keys_max(1).wait(FLUSH);
        let things = behind(&node, Mode::Local, &record, policy).await;
        things.put("a", "x".to_owned()).await?;
        let waits = {
            let things = things.clone();
            tokio::spawn(async move { things.put("b", "x".to_owned()).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waits.is_finished());
        let leaves = tokio::spawn(async move { node.shutdown().await });
        assert!(matches!(waits.await?, Err(WriteError::NodeStopped)));
        record.0.lets.add_permits(10);
        leaves.await?;
        assert_eq!(record.log(), [("a".to_owned(), text("x"))]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_key_is_told_the_sink_in_its_own_type() -> TestResult {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    struct Order {
        shop: u16,
        number: i64,
        tag: Option<String>,
    }

    struct Seen(Arc<Mutex<Vec<Order>>>);

    impl Sink<Order, u32> for Seen {
        async fn write(&self, write: &SinkWrite<'_, Order, u32>) -> Result<(), SinkError> {
            let mut seen = self.0.lock().map_err(|error| error.to_string())?;
            seen.push(write.key().clone());
            Ok(())
        }
    }

    bounded(async {
        let (node, seen) = (alone().await, Arc::new(Mutex::new(Vec::new())));
        let orders = node.cache::<Order, u32>("orders");
        let orders = orders.write_through(Seen(Arc::clone(&seen)), WriteThrough::new());
        let orders = orders.open().await?;
        let order = Order {
            shop: 7,
            number: -3,
            tag: Some("a\0b".to_owned()),
        };
        orders.put(&order, 1).await?;
        assert_eq!(*seen.lock().expect("orders"), [order]);
        Ok(())
    })
    .await
}
