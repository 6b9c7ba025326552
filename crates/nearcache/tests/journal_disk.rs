//! F13: what callers see of a journal whose disk is full, fails or takes its time, and what becomes of what they were promised (K4).

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

mod common;
#[path = "common/record.rs"]
mod record;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{TestResult, bounded, eventually};
use nearcache::{JournalError, Mode, Modify, ModifyError, Node, WriteBehind, WriteError};
use record::{FLUSH, Mood, Record, Texts, alone, behind, text};

/// A disk that fails at a step for as long as the test says.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Option<(&'static str, io::ErrorKind)>>>);

impl Disk {
    fn fails(&self, step: &'static str, with: io::ErrorKind) {
        *self.0.lock().expect("a fault") = Some((step, with));
    }

    fn is_whole(&self) {
        *self.0.lock().expect("a fault") = None;
    }

    fn policy(&self, folder: &Path) -> WriteBehind {
        let disk = self.clone();
        policy(folder).disk_hook(move |step, _| {
            let (fails, with) = (*disk.0.lock().expect("a fault"))?;
            // Half of a write is taken.
            (fails == step).then(|| (30, with.into()))
        })
    }
}

fn policy(folder: &Path) -> WriteBehind {
    WriteBehind::new()
        .journal(folder)
        .delay(Duration::from_millis(1))
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
}

async fn open(record: &Record, policy: WriteBehind) -> (Node, Texts) {
    let node = alone().await;
    let things = behind(&node, Mode::Replicated, record, policy).await;
    (node, things)
}

/// The next start, with a disk and a system of record that are whole.
async fn written_in_the_end(record: &Record, folder: &Path) -> TestResult {
    record.is(Mood::Fine);
    let (node, things) = open(record, policy(folder)).await;
    things.flush_writes(FLUSH).await?;
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn k4_f13_a_full_disk_refuses_writes_and_changes_nothing_until_there_is_room_again()
-> TestResult {
    bounded(async {
        let (folder, disk, record) = (tempfile::tempdir()?, Disk::default(), Record::new());
        record.is(Mood::Failing);
        let (node, things) = open(&record, disk.policy(folder.path())).await;
        things.put("a", "one".to_owned()).await?;
        disk.fails("write", io::ErrorKind::StorageFull);
        for key in ["a", "b"] {
            let refused = things.put(key, "two".to_owned()).await;
            let Err(WriteError::Journal(JournalError::Io { what, source, .. })) = &refused else {
                return Err(format!("{refused:?}").into());
            };
            assert_eq!(
                (*what, source.kind()),
                ("write", io::ErrorKind::StorageFull)
            );
        }
        assert_eq!(things.peek("a").as_deref(), text("one").as_ref());
        assert!(things.peek("b").is_none());
        // It was decided before the disk was asked: nobody keeps what is written nowhere.
        let refused = things.modify("c", Modify::set("two".to_owned())).await;
        let is_told = matches!(
            refused,
            Err(ModifyError::Write(WriteError::Journal(
                JournalError::Io { .. }
            )))
        );
        assert!(is_told && things.peek("c").is_none(), "{refused:?}");
        disk.is_whole();
        things.put("b", "three".to_owned()).await?;
        // The system of record has nothing of all that, and still refuses it when the node leaves.
        assert!(record.log().is_empty());
        node.shutdown().await;
        drop(things);
        written_in_the_end(&record, folder.path()).await?;
        assert_eq!(
            (record.row("a"), record.row("b")),
            (text("one"), text("three"))
        );
        assert_eq!(record.row("c"), None);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn k4_f13_after_a_failed_sync_all_writes_are_refused_and_those_before_it_are_made()
-> TestResult {
    bounded(async {
        let (folder, disk, record) = (tempfile::tempdir()?, Disk::default(), Record::new());
        record.is(Mood::Failing);
        let (node, things) = open(&record, disk.policy(folder.path())).await;
        things.put("a", "one".to_owned()).await?;
        disk.fails("sync", io::ErrorKind::Other);
        let refused = things.put("a", "two".to_owned()).await;
        assert!(
            matches!(refused, Err(WriteError::JournalFailed)),
            "{refused:?}"
        );
        disk.is_whole();
        let refused = things.put("b", "two".to_owned()).await;
        assert!(
            matches!(refused, Err(WriteError::JournalFailed)),
            "{refused:?}"
        );
        assert_eq!(things.peek("a").as_deref(), text("one").as_ref());
        assert!(things.peek("b").is_none());
        record.is(Mood::Fine);
        things.flush_writes(FLUSH).await?;
        assert_eq!(record.row("a"), text("one"));
        node.shutdown().await;
        drop(things);
        written_in_the_end(&record, folder.path()).await?;
        // Of the one that was being synced nobody knows.
        assert!(record.row("a") == text("one") || record.row("a") == text("two"));
        assert_eq!(record.row("b"), None);
        let (_node, things) = open(&record, policy(folder.path())).await;
        things.put("b", "three".to_owned()).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f13_a_slow_sync_keeps_back_the_write_that_it_is_for_and_nothing_else() -> TestResult {
    bounded(async {
        let (folder, record) = (tempfile::tempdir()?, Record::new());
        let is_slow = Arc::new(AtomicBool::new(false));
        let (reached, is_reached) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let (slow, goes_on) = (Arc::clone(&is_slow), Mutex::new(goes_on));
        let policy = policy(folder.path()).disk_hook(move |step, _| {
            if step == "sync" && slow.load(Ordering::SeqCst) {
                // The test is over if nobody is there.
                let _ = reached.send(());
                let _ = goes_on.lock().expect("nobody panics").recv();
            }
            None
        });
        let (_node, things) = open(&record, policy).await;
        things.put("a", "one".to_owned()).await?;
        things.flush_writes(FLUSH).await?;
        is_slow.store(true, Ordering::SeqCst);
        let put = {
            let things = things.clone();
            tokio::spawn(async move { things.put("a", "two".to_owned()).await })
        };
        let mut is_syncing = || is_reached.try_recv().is_ok();
        eventually(&mut is_syncing).await;
        // Neither acknowledged nor seen; readers, loads and reads of other keys go on.
        assert!(!put.is_finished());
        assert_eq!(things.get("a").await?.as_deref(), text("one").as_ref());
        let loaded = things.get_or_load("b", |_| async { Ok::<_, String>(text("read")) });
        assert_eq!(loaded.await?.as_deref(), text("read").as_ref());
        assert_eq!(record.row("a"), text("one"));
        is_slow.store(false, Ordering::SeqCst);
        go_on.send(())?;
        put.await??;
        assert_eq!(things.get("a").await?.as_deref(), text("two").as_ref());
        Ok(())
    })
    .await
}
