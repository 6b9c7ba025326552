//! A read that hits allocates nothing (ARCHITECTURE.md, invariants): counted by the allocator itself, by
//! thread.

#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use nearcache::{Mode, Node, Raw, RawValue};

const KEYS: u64 = 1_000;

/// What a future gives that does not wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

#[tokio::test]
async fn hits_of_typed_and_raw_caches_allocate_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("allocations")
        .listen("127.0.0.1:0")
        .start()
        .await?;
    for (mode, name) in [(Mode::Local, "local"), (Mode::Replicated, "replicated")] {
        let typed = node
            .cache::<u64, (String, u32)>(name)
            .mode(mode)
            .open()
            .await?;
        let texts = node.cache::<String, String>(&format!("{name}-texts"));
        let texts = texts.mode(mode).open().await?;
        let raw = node.cache::<Vec<u8>, RawValue>(&format!("{name}-raw"));
        let raw = raw.codec::<Raw>().mode(mode).open().await?;
        let keys: Vec<String> = (0..KEYS).map(|key| format!("user:{key}")).collect();
        for (number, key) in keys.iter().enumerate() {
            typed.put(&(number as u64), (key.clone(), 1)).await?;
            texts.put(key, key.clone()).await?;
            raw.put(key.as_bytes(), RawValue::from(key.as_bytes()))
                .await?;
        }
        let read_all = || {
            for (number, key) in keys.iter().enumerate() {
                let number = number as u64;
                assert_eq!(typed.peek(&number).map(|value| value.1), Some(1));
                assert_eq!(
                    at_once(typed.get(&number)).unwrap().map(|value| value.1),
                    Some(1)
                );
                // perf-C6: a loader that is not needed costs nothing.
                let loaded =
                    typed.get_or_load(&number, async |_| Err::<(String, u32), _>("unused"));
                assert_eq!(at_once(loaded).unwrap().map(|value| value.1), Some(1));
                assert_eq!(texts.peek(key).map(|value| value.len()), Some(key.len()));
                assert!(at_once(texts.get(key)).unwrap().is_some());
                let value = raw.peek(key.as_bytes());
                assert_eq!(value.map(|value| value.len()), Some(key.len()));
                assert!(
                    black_box(at_once(raw.get(key.as_bytes())))
                        .unwrap()
                        .is_some()
                );
                assert!(typed.peek(&(number + KEYS)).is_none(), "nor does a miss");
            }
        };
        let counted = measure(read_all);
        assert_eq!(counted.count_total, 0, "{name}: {counted:?}");
    }
    node.shutdown().await;
    Ok(())
}
