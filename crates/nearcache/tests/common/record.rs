//! A system of record that a test can upset, and caches that write it.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    reason = "each test file uses its own part; a helper that fails fails its test, and a sink panics on purpose"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearcache::{
    Cache, Mode, Node, Sink, SinkError, SinkWrite, Version, WriteBehind, WriteThrough,
};
use tokio::sync::Semaphore;

use crate::common::node;

pub(crate) type Texts = Cache<String, String>;

/// What a system of record does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    Failing,
    Rejecting,
    Panicking,
    Hanging,
}

/// A table, and how it was written.
pub(crate) struct Table {
    pub(crate) rows: Mutex<BTreeMap<String, String>>,
    /// Every write, in order.
    log: Mutex<Vec<(String, Option<String>, Version)>>,
    calls: AtomicUsize,
    mood: Mutex<Mood>,
    /// A write waits for one of these.
    pub(crate) lets: Semaphore,
}

/// The sink is a handle to the table.
#[derive(Clone)]
pub(crate) struct Record(pub(crate) Arc<Table>);

impl Record {
    pub(crate) fn new() -> Self {
        Self::letting(Semaphore::MAX_PERMITS)
    }

    /// One that answers so many calls, and more when the test says so.
    pub(crate) fn letting(calls: usize) -> Self {
        Self(Arc::new(Table {
            rows: Mutex::default(),
            log: Mutex::default(),
            calls: AtomicUsize::new(0),
            mood: Mutex::new(Mood::Fine),
            lets: Semaphore::new(calls),
        }))
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.0.mood.lock().expect("a mood") = mood;
    }

    pub(crate) fn row(&self, key: &str) -> Option<String> {
        self.0.rows.lock().expect("rows").get(key).cloned()
    }

    pub(crate) fn log(&self) -> Vec<(String, Option<String>)> {
        let log = self.0.log.lock().expect("a log");
        log.iter()
            .map(|(key, value, _)| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) async fn load(self, key: &'static str) -> Result<Option<String>, String> {
        Ok(self.row(key))
    }

    fn apply(&self, write: &SinkWrite<'_, String, String>) {
        let mut rows = self.0.rows.lock().expect("rows");
        match write.value() {
            Some(value) => rows.insert(write.key().clone(), value.clone()),
            None => rows.remove(write.key()),
        };
        let mut log = self.0.log.lock().expect("a log");
        log.push((write.key().clone(), write.value().cloned(), write.version()));
    }
}

impl Sink<String, String> for Record {
    async fn write(&self, write: &SinkWrite<'_, String, String>) -> Result<(), SinkError> {
        self.write_many(std::slice::from_ref(write)).await
    }

    async fn write_many(&self, writes: &[SinkWrite<'_, String, String>]) -> Result<(), SinkError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let permit = self.0.lets.acquire().await?;
        permit.forget();
        let mood = *self.0.mood.lock().expect("a mood");
        match mood {
            Mood::Fine => {}
            Mood::Failing => return Err("the table is locked".into()),
            Mood::Rejecting => {
                if writes.iter().any(|write| write.key().starts_with("bad")) {
                    return Err(SinkError::rejected("no such column"));
                }
            }
            Mood::Panicking => panic!("on purpose"),
            Mood::Hanging => std::future::pending().await,
        }
        for write in writes {
            self.apply(write);
        }
        Ok(())
    }
}

pub(crate) async fn through(
    node: &Node,
    mode: Mode,
    record: &Record,
    policy: WriteThrough,
) -> Texts {
    let cache = node.cache("things").mode(mode);
    let cache = cache.write_through(record.clone(), policy);
    cache.open().await.expect("a cache opens")
}

pub(crate) async fn behind(node: &Node, mode: Mode, record: &Record, policy: WriteBehind) -> Texts {
    let cache = node.cache("things").mode(mode);
    let cache = cache.write_behind(record.clone(), policy);
    cache.open().await.expect("a cache opens")
}

pub(crate) fn quick() -> WriteBehind {
    WriteBehind::new()
        .delay(Duration::from_millis(5))
        .backoff(Duration::from_millis(2), Duration::from_millis(10))
}

/// One that writes nothing by itself for as long as a test takes.
pub(crate) fn idle() -> WriteBehind {
    WriteBehind::new().delay(Duration::from_secs(600))
}

pub(crate) const FLUSH: Duration = Duration::from_secs(10);

pub(crate) fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

pub(crate) async fn alone() -> Node {
    let node = node("alone", &[]).await;
    node.ready().await;
    node
}
