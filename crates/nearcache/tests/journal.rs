//! A crash loses no acknowledged write: a process that writes behind is killed at every step, and what comes after it writes the rest.
//!
//! This file is its own child: `the_child` does nothing unless it is told to by its environment. The child kills itself with SIGKILL when a
//! step is reached for the n-th time, so that each is met exactly; nothing of the process outlives that but what it wrote to files.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{TestResult, bounded, eventually};
use nearcache::{
    Cache, JournalError, Mode, Modify, ModifyError, Node, OpenError, PutOptions, Sink, SinkError,
    SinkWrite, WriteBehind, WriteError,
};
use nearcache_protocol::write::queue::WriteSeq;
use nearcache_protocol::write::record::{
    self, SegmentHeader, encode_beginning, encode_frame, encode_record,
};
use nearcache_store::{NodeId, Timestamp, Version};

/// Every step of the protocol, in the order in which one meets them.
const STEPS: [&str; 15] = [
    "before append",
    "appended",
    "synced",
    "accepted",
    "before sink",
    "sink called",
    "before mark",
    "marked",
    "before rotation",
    "rotated",
    "before rewriting",
    "rewritten",
    "before removal",
    "removed",
    "any",
];

/// Long enough that a journal has several segments after a few hundred writes.
const VALUE_BYTES: usize = 60_000;
/// A child that has not met its step by then gives up.
const WRITES_MAX: u64 = 600;
const SIGKILL: i32 = 9;

/// Appends lines to a file, each with one call of the system.
#[derive(Clone)]
struct Lines(PathBuf);

impl Lines {
    fn append(&self, lines: &str) -> std::io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        file?.write_all(lines.as_bytes())
    }

    /// Key and number of each line.
    fn read(&self) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let line = |line: &str| {
            let (key, number) = line.split_once(' ').expect("a key and a number");
            (key.to_owned(), number.parse().expect("a number"))
        };
        text.lines().map(line).collect()
    }
}

/// A system of record that is a file.
struct Record {
    log: Lines,
    /// One key is never taken.
    has_trouble: bool,
}

impl Sink<String, String> for Record {
    async fn write(&self, write: &SinkWrite<'_, String, String>) -> Result<(), SinkError> {
        self.write_many(std::slice::from_ref(write)).await
    }

    async fn write_many(&self, writes: &[SinkWrite<'_, String, String>]) -> Result<(), SinkError> {
        if self.has_trouble && writes.iter().any(|write| write.key() == "stuck") {
            return Err("not this one".into());
        }
        let line = |write: &SinkWrite<'_, String, String>| {
            let number = write.value().and_then(|value| value.get(..8));
            format!("{} {}\n", write.key(), number.unwrap_or("0"))
        };
        let lines: String = writes.iter().map(line).collect();
        Ok(self.log.append(&lines)?)
    }
}

fn lines(folder: &Path, name: &str) -> Lines {
    Lines(folder.join(name))
}

fn policy(folder: &Path) -> WriteBehind {
    WriteBehind::new()
        .journal(folder.join("journal"))
        .journal_bytes_max(8 << 20)
        .delay(Duration::from_millis(1))
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
        .batch_max(3)
}

async fn open(
    name: &str,
    record: Record,
    policy: WriteBehind,
) -> Result<(Node, Cache<String, String>), Box<dyn std::error::Error>> {
    let node = Node::builder("test").name(name).start().await?;
    let cache = node.cache("things").mode(Mode::Local);
    let cache = cache.write_behind(record, policy).open().await?;
    Ok((node, cache))
}

/// The process that is killed.
#[test]
fn the_child() -> TestResult {
    let Some(folder) = std::env::var_os("NEARCACHE_TEST_FOLDER").map(PathBuf::from) else {
        return Ok(());
    };
    let step = std::env::var("NEARCACHE_TEST_STEP")?;
    let times: usize = std::env::var("NEARCACHE_TEST_TIMES")?.parse()?;
    let run: u64 = std::env::var("NEARCACHE_TEST_RUN")?.parse()?;
    let met = AtomicUsize::new(0);
    let policy = policy(&folder).step_hook(move |name| {
        if (name == step || step == "any") && met.fetch_add(1, Ordering::SeqCst) + 1 == times {
            let this = rustix::process::getpid();
            let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        }
    });
    let record = Record {
        log: lines(&folder, "log"),
        has_trouble: true,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (_node, things) = open("child", record, policy).await.expect("it opens");
        let (issued, acked) = (lines(&folder, "issued"), lines(&folder, "acked"));
        let writer = |key: &'static str, writes: u64| {
            let (things, issued, acked) = (things.clone(), issued.clone(), acked.clone());
            async move {
                for number in 1..=writes {
                    let number = run * 1_000_000 + number;
                    let line = format!("{key} {number}\n");
                    issued.append(&line).expect("a line");
                    let value = format!("{number:08}{}", "x".repeat(VALUE_BYTES));
                    let written = things.put(key, value).await;
                    written.expect("a write is accepted");
                    acked.append(&line).expect("a line");
                }
            }
        };
        tokio::join!(
            writer("a", WRITES_MAX),
            writer("b", WRITES_MAX),
            writer("c", WRITES_MAX),
            writer("stuck", 1)
        );
    });
    Ok(())
}

/// Runs the child until it dies at that step.
fn killed_at(folder: &Path, step: &str, times: usize, run: u64) {
    let this = std::env::current_exe().expect("this program");
    let status = Command::new(this)
        .args(["--exact", "the_child"])
        .env("NEARCACHE_TEST_FOLDER", folder)
        .env("NEARCACHE_TEST_STEP", step)
        .env("NEARCACHE_TEST_TIMES", times.to_string())
        .env("NEARCACHE_TEST_RUN", run.to_string())
        .stdout(Stdio::null())
        .status()
        .expect("the child runs");
    assert_eq!(
        status.signal(),
        Some(SIGKILL),
        "{step} was not met {times} times: {status}"
    );
}

fn last_of(lines: &[(String, u64)]) -> BTreeMap<&str, u64> {
    lines
        .iter()
        .map(|(key, number)| (key.as_str(), *number))
        .collect()
}

/// Writes what is left, and looks whether all is there.
async fn check(folder: &Path, step: &str) {
    let record = Record {
        log: lines(folder, "log"),
        has_trouble: false,
    };
    let (node, things) = open("child", record, policy(folder))
        .await
        .expect("it opens again");
    things
        .flush_writes(Duration::from_secs(10))
        .await
        .expect("the rest is written");
    node.shutdown().await;
    let (issued, acked) = (
        lines(folder, "issued").read(),
        lines(folder, "acked").read(),
    );
    let log = lines(folder, "log").read();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, number) in &log {
        let before = newest.insert(key, *number).unwrap_or(0);
        assert!(
            before <= *number,
            "{step}: {key} goes back from {before} to {number}"
        );
    }
    let last_issued = last_of(&issued);
    for (key, number) in last_of(&acked) {
        let written = newest.get(key).copied().unwrap_or(0);
        assert!(
            written >= number,
            "{step}: {key} {number} was acknowledged, {written} is there"
        );
        assert!(written <= last_issued[key]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_f10_killed_at_every_step_no_acknowledged_write_is_lost_and_each_key_keeps_its_order()
-> TestResult {
    let folder = tempfile::tempdir()?;
    for step in STEPS {
        let folder = folder.path().join(step.replace(' ', "-"));
        std::fs::create_dir(&folder)?;
        // Some steps come once in a while only; what comes all the time is met later as well.
        let is_rare = ["rotat", "rewrit", "remov"]
            .iter()
            .any(|rare| step.contains(rare));
        let times = match step {
            "any" => [97, 231],
            _ if is_rare => [1, 1],
            _ => [1, 7],
        };
        for (run, times) in times.into_iter().enumerate() {
            let folder = folder.clone();
            let killed = move || killed_at(&folder, step, times, run as u64);
            tokio::task::spawn_blocking(killed).await?;
        }
        check(&folder, step).await;
    }
    Ok(())
}

#[tokio::test]
async fn row_33_a_journal_is_refused_on_another_node_and_on_one_without_a_name() -> TestResult {
    bounded(async {
        let folder = tempfile::tempdir()?;
        let record = || Record {
            log: lines(folder.path(), "log"),
            has_trouble: true,
        };
        let (one, things) = open("one", record(), policy(folder.path())).await?;
        // Opened once more on the same node it is the same cache.
        let again = one.cache::<String, String>("things").mode(Mode::Local);
        again
            .write_behind(record(), policy(folder.path()))
            .open()
            .await?;
        let now = things.put_now("a", "x".to_owned(), &PutOptions::new());
        assert!(matches!(now, Err(WriteError::SinkMustWait)));
        things.put("stuck", "00000001".to_owned()).await?;
        let two = Node::builder("test").name("two").start().await?;
        let other = || two.cache::<String, String>("things").mode(Mode::Local);
        let other = || other().write_behind(record(), policy(folder.path())).open();
        let refused = other().await.err();
        assert!(matches!(
            refused,
            Some(OpenError::Journal(JournalError::InUse { .. }))
        ));
        one.shutdown().await;
        let refused = other().await.err();
        assert!(matches!(
            refused,
            Some(OpenError::Journal(JournalError::OtherOwner { .. }))
        ));
        let nameless = Node::builder("test").start().await?;
        let nameless = nameless.cache::<String, String>("things").mode(Mode::Local);
        let nameless = nameless.write_behind(record(), policy(folder.path()));
        let refused = nameless.open().await.err();
        assert!(matches!(refused, Some(OpenError::InvalidSetting { .. })));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_share_a_sync() -> TestResult {
    bounded(async {
        let folder = tempfile::tempdir()?;
        let record = Record {
            log: lines(folder.path(), "log"),
            has_trouble: false,
        };
        let (node, things) = open("one", record, policy(folder.path())).await?;
        let writers = (0..16).map(|writer| {
            let things = things.clone();
            tokio::spawn(async move {
                for number in 0..20 {
                    let value = format!("{number:08}");
                    let written = things.put(&format!("{writer}"), value).await;
                    written.expect("a write is accepted");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await?;
        }
        let stats = things.stats().writes;
        assert_eq!(stats.accepted, 320);
        assert!(stats.journal_syncs <= 160, "{} syncs", stats.journal_syncs);
        node.shutdown().await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_entries_of_one_put_many_share_a_sync_and_wait_for_room_in_parts() -> TestResult {
    bounded(async {
        let folder = tempfile::tempdir()?;
        let record = || Record {
            log: lines(folder.path(), "log"),
            has_trouble: false,
        };
        let entries: Vec<_> = (0..200)
            .map(|n| (n.to_string(), format!("{n:08}")))
            .collect();
        let all = || entries.iter().map(|(key, value)| (key, value.clone()));
        let (node, things) = open("one", record(), policy(folder.path())).await?;
        things.put_many(all(), PutOptions::new()).await?;
        let stats = things.stats().writes;
        assert_eq!((stats.accepted, stats.journal_syncs), (200, 1));
        things.flush_writes(Duration::from_secs(10)).await?;
        node.shutdown().await;
        drop(things);
        // Twenty times as many as the queue takes.
        let small = policy(folder.path()).keys_max(10);
        let (node, things) = open("one", record(), small).await?;
        things.put_many(all(), PutOptions::new()).await?;
        let stats = things.stats().writes;
        assert_eq!(stats.accepted, 200);
        things.flush_writes(Duration::from_secs(10)).await?;
        node.shutdown().await;
        let written = lines(folder.path(), "log").read();
        assert_eq!(written.len(), 400);
        let last = last_of(&written);
        assert!((0..200).all(|n| last.get(n.to_string().as_str()) == Some(&n)));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_read_modify_write_that_a_later_write_has_overtaken_is_not_made_after_a_restart()
-> TestResult {
    /// A put and a read-modify-write of one key while the disk is busy, with `busy_with` or with the put itself.
    async fn overtaken(busy_with: Option<&'static str>) -> TestResult {
        let folder = tempfile::tempdir()?;
        let log = lines(folder.path(), "log");
        let record = || Record {
            log: log.clone(),
            has_trouble: false,
        };
        let is_busy = Arc::new(AtomicBool::new(false));
        let is_released = Arc::new(AtomicBool::new(false));
        let (busy, released) = (Arc::clone(&is_busy), Arc::clone(&is_released));
        let slow = policy(folder.path()).step_hook(move |step| {
            while step == "appended" && !released.load(Ordering::SeqCst) {
                busy.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (node, things) = open("one", record(), slow).await?;
        let put = |key: &'static str| {
            let things = things.clone();
            tokio::spawn(async move { things.put(key, "00000001".to_owned()).await })
        };
        let other = busy_with.map(put);
        if busy_with.is_some() {
            eventually(|| is_busy.load(Ordering::SeqCst)).await;
        }
        // Its caller gives up; it is made nevertheless.
        let given_up = put("a");
        eventually(|| is_busy.load(Ordering::SeqCst)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        given_up.abort();
        let modify = tokio::spawn(things.modify("a", Modify::set("00000002".to_owned())));
        eventually(|| things.peek("a").is_some_and(|value| *value == "00000002")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_released.store(true, Ordering::SeqCst);
        assert!(modify.await??.applied);
        if let Some(other) = other {
            other.await??;
        }
        things.flush_writes(Duration::from_secs(10)).await?;
        assert!(things.peek("a").is_some_and(|value| *value == "00000001"));
        node.shutdown().await;
        let (node, things) = open("one", record(), policy(folder.path())).await?;
        things.flush_writes(Duration::from_secs(10)).await?;
        node.shutdown().await;
        let written = log.read();
        assert_eq!(last_of(&written).get("a"), Some(&1), "{written:?}");
        Ok(())
    }

    bounded(async {
        overtaken(Some("x")).await?;
        overtaken(None).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_waits_for_a_write_that_is_on_its_way_to_the_journal() -> TestResult {
    bounded(async {
        let folder = tempfile::tempdir()?;
        let record = Record {
            log: lines(folder.path(), "log"),
            has_trouble: false,
        };
        let (reached, is_reached) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let goes_on = Mutex::new(goes_on);
        let policy = policy(folder.path()).delay(Duration::from_secs(600));
        let policy = policy.step_hook(move |step| {
            if step == "before append" {
                let _ = reached.send(());
                let goes_on = goes_on.lock().expect("nobody panics");
                let _ = goes_on.recv_timeout(Duration::from_secs(5));
            }
        });
        let (node, things) = open("one", record, policy).await?;
        let put = tokio::spawn(async move { things.put("a", "00000001".to_owned()).await });
        tokio::task::spawn_blocking(move || is_reached.recv()).await??;
        let leaves = tokio::spawn(async move { node.shutdown().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        go_on.send(())?;
        put.await??;
        leaves.await?;
        let written = lines(folder.path(), "log").read();
        assert_eq!(written, [("a".to_owned(), 1)]);
        Ok(())
    })
    .await
}

/// A system of record that compares versions, as docs/loading.md advises.
#[derive(Default, Clone)]
struct Versioned(Arc<Mutex<BTreeMap<String, (Version, String)>>>);

impl Sink<String, String> for Versioned {
    async fn write(&self, write: &SinkWrite<'_, String, String>) -> Result<(), SinkError> {
        let value = write.value().cloned().unwrap_or_default();
        let mut rows = self.0.lock().expect("nobody panics with it");
        let row = rows.entry(write.key().clone()).or_default();
        if write.version() > row.0 {
            *row = (write.version(), value);
        }
        Ok(())
    }
}

impl Versioned {
    fn row(&self) -> (Version, String) {
        let rows = self.0.lock().expect("nobody panics with it");
        rows.get("a").cloned().unwrap_or_default()
    }
}

/// Leaves a journal behind, and a row, as a former start of node "one" would whose clock was so far ahead of what it is now.
fn former_start(folder: &Path, record: &Versioned, ahead: Duration) -> TestResult {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)? + ahead;
    let version = Version::new(
        Timestamp::from_parts(u64::try_from(wall.as_millis())?, 0),
        NodeId::from_u64(7),
    );
    let header = SegmentHeader {
        number: 1,
        salt: 5,
        owner: "test/things/one".to_owned(),
    };
    let mut segment = encode_beginning(&header, version.time);
    // Written and settled: its record is gone, and what it says of the next start is not.
    let mut records = Vec::new();
    encode_record(&record::Record::Settled(vec![WriteSeq(1)]), &mut records);
    let at = segment.len() as u64;
    encode_frame(header.salt, at, at, &records, &mut segment);
    let folder = folder.join("journal");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("000000000001.journal"), segment)?;
    let mut rows = record.0.lock().map_err(|_| "poisoned")?;
    rows.insert("a".to_owned(), (version, "former".to_owned()));
    Ok(())
}

async fn open_versioned(
    folder: &Path,
    record: &Versioned,
) -> Result<(Node, Cache<String, String>), Box<dyn std::error::Error>> {
    let node = Node::builder("test").name("one").start().await?;
    let cache = node.cache("things").mode(Mode::Local);
    let cache = cache.write_behind(record.clone(), policy(folder));
    Ok((node, cache.open().await?))
}

#[tokio::test]
async fn k4_r6_what_is_acknowledged_is_never_older_for_the_sink_than_what_a_former_start_wrote()
-> TestResult {
    bounded(async {
        // Set back within the drift bound, then beyond it but not by much.
        for ahead in [Duration::from_millis(400), Duration::from_millis(1_500)] {
            let (folder, record) = (tempfile::tempdir()?, Versioned::default());
            former_start(folder.path(), &record, ahead)?;
            let former = record.row().0;
            let (node, things) = open_versioned(folder.path(), &record).await?;
            let mut refused = 0;
            while let Err(error) = things.put("a", "new".to_owned()).await {
                assert!(matches!(error, WriteError::ClockSkew), "{error}");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(refused > 0 || ahead < Duration::from_millis(500));
            node.shutdown().await;
            let (version, value) = record.row();
            assert_eq!(value, "new", "{ahead:?}");
            assert!(version > former);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn k4_r5_behind_what_a_clock_that_was_a_day_ahead_has_recorded_writes_are_refused()
-> TestResult {
    bounded(async {
        let (folder, record) = (tempfile::tempdir()?, Versioned::default());
        former_start(folder.path(), &record, Duration::from_secs(86_400))?;
        // The second start knows it too, though no record of the first is left.
        for _ in 0..2 {
            let (node, things) = open_versioned(folder.path(), &record).await?;
            let put = things.put("a", "new".to_owned()).await;
            assert!(matches!(put, Err(WriteError::ClockSkew)), "{put:?}");
            let modify = things.modify("a", Modify::set("new".to_owned())).await;
            assert!(
                matches!(modify, Err(ModifyError::Write(WriteError::ClockSkew))),
                "{modify:?}"
            );
            assert!(things.peek("a").is_none(), "nothing was changed");
            node.shutdown().await;
        }
        assert_eq!(record.row().1, "former");
        Ok(())
    })
    .await
}
