use std::fs;
use std::path::Path;

use bytes::Bytes;
use nearcache_protocol::payload::CodecTag;
use nearcache_protocol::write::record::SegmentError;
use nearcache_store::{Expiry, Version};

use super::*;

pub(super) fn config(path: &Path) -> JournalConfig {
    JournalConfig {
        segment_bytes: 2_000,
        ..JournalConfig::new(path.to_path_buf(), "shop/orders/one".to_owned(), 1 << 20)
    }
}

fn open(path: &Path) -> (Journal, Vec<WriteRecord>) {
    let (journal, (open, _)) = Journal::open(config(path)).unwrap();
    (journal, open)
}

pub(super) fn record(seq: u64, key: &str) -> WriteRecord {
    let value = Bytes::from(format!("value {seq}"));
    WriteRecord {
        seq: WriteSeq(seq),
        version: Version::ZERO,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some((CodecTag::default(), Expiry::NEVER, value)),
    }
}

pub(super) fn seqs(open: &[WriteRecord]) -> Vec<u64> {
    open.iter().map(|write| write.seq.0).collect()
}

pub(super) fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "journal")
        })
        .collect();
    segments.sort();
    segments
}

#[test]
fn what_was_committed_is_there_after_a_restart_and_what_was_settled_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut journal, nothing) = open(path);
    assert!(nothing.is_empty());
    journal.commit(&[record(1, "a"), record(2, "b")]).unwrap();
    journal.commit(&[record(3, "a"), record(4, "c")]).unwrap();
    journal.settle(WriteSeq(2), true);
    journal.tidy().unwrap();
    // Settled, and not marked: written again.
    journal.settle(WriteSeq(4), true);
    drop(journal);
    let (mut journal, unwritten) = open(path);
    assert_eq!(unwritten, [record(3, "a"), record(4, "c")]);
    journal.settle(WriteSeq(3), true);
    journal.settle(WriteSeq(4), true);
    journal.close();
    let (journal, (unwritten, last)) = Journal::open(config(path)).unwrap();
    assert_eq!((seqs(&unwritten), last), (vec![], WriteSeq(4)));
    assert_eq!(segments(path).len(), 1, "nothing in the others is needed");
    drop(journal);
}

#[test]
fn segments_are_removed_when_everything_in_them_is_written_and_one_old_write_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut config = config(path);
    config.bytes_max = 10_000;
    let (mut journal, _) = Journal::open(config).unwrap();
    journal.commit(&[record(1, "old")]).unwrap();
    for seq in 2..2_000 {
        assert!(journal.has_room(100), "{seq}: {} bytes", journal.bytes());
        journal.commit(&[record(seq, "busy")]).unwrap();
        if seq > 2 {
            journal.settle(WriteSeq(seq - 1), false);
        }
        journal.tidy().unwrap();
    }
    assert!(journal.bytes() < 10_000);
    assert!(segments(path).len() < 5);
    drop(journal);
    let (_, unwritten) = open(path);
    assert_eq!(seqs(&unwritten), [1, 1_999]);
}

#[test]
fn r6_the_newest_version_outlives_its_record_and_its_segment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut journal, _) = open(path);
    assert_eq!(journal.newest(), Timestamp::default());
    let time = Timestamp::from_parts(1_700_000_000_000, 3);
    let mut late = record(1, "late");
    late.version.time = time;
    journal.commit(&[late]).unwrap();
    journal.settle(WriteSeq(1), true);
    for seq in 2..100 {
        journal.commit(&[record(seq, "busy")]).unwrap();
        journal.settle(WriteSeq(seq), true);
        journal.tidy().unwrap();
    }
    let first = format!("{:012}.journal", 1);
    assert!(!path.join(first).exists(), "its segment is gone");
    assert_eq!(journal.newest(), time);
    journal.close();
    for _ in 0..3 {
        let (journal, unwritten) = open(path);
        assert!(unwritten.is_empty());
        assert_eq!(segments(path).len(), 1);
        assert_eq!(journal.newest(), time);
    }
}

#[test]
fn c9_a_journal_whose_every_byte_is_needed_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.bytes_max = 10_000;
    let (mut journal, _) = Journal::open(config).unwrap();
    let mut seq = 0;
    while journal.has_room(100) {
        seq += 1;
        journal.commit(&[record(seq, &seq.to_string())]).unwrap();
        journal.tidy().unwrap();
    }
    assert!((50..200).contains(&seq), "{seq}");
    for settled in 1..seq {
        journal.settle(WriteSeq(settled), true);
    }
    journal.tidy().unwrap();
    assert!(journal.has_room(100));
}

#[test]
fn row_33_a_journal_in_use_or_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let again = Journal::open(config(folder.path()));
    assert!(matches!(again, Err(JournalError::InUse { .. })));
    drop(journal);
    for owner in ["shop/orders/two", "shop/carts/one", "other/orders/one"] {
        let mut config = config(folder.path());
        config.owner = owner.to_owned();
        let refused = Journal::open(config);
        let Err(JournalError::OtherOwner { found, wanted, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (found.as_str(), wanted.as_str()),
            ("shop/orders/one", owner)
        );
    }
}

#[test]
fn row_33_f14_a_damaged_record_is_refused_with_file_and_offset_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (mut journal, _) = open(path);
    for seq in 1..4 {
        journal.commit(&[record(seq, &seq.to_string())]).unwrap();
    }
    drop(journal);
    let file = segments(path).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut bad = whole.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    fs::write(&file, &bad).unwrap();
    let refused = Journal::open(config(path));
    let Err(JournalError::Damaged {
        path: named,
        source,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(named, file);
    assert!(matches!(source, SegmentError::Damaged { offset } if offset < at as u64));
    assert_eq!(fs::read(&file).unwrap(), bad);
    // F12: torn at its end it is cut instead.
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let (journal, unwritten) = open(path);
    assert_eq!(seqs(&unwritten), [1, 2]);
    drop(journal);
    // The one before the last is not cut.
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let refused = Journal::open(config(path));
    assert!(matches!(refused, Err(JournalError::Damaged { .. })));
}

#[test]
fn a_segment_that_is_missing_is_refused_and_one_that_was_never_finished_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for seq in 1..4 {
        let (mut journal, _) = open(path);
        journal.commit(&[record(seq, &seq.to_string())]).unwrap();
    }
    fs::write(path.join("000000000009.new"), b"NCJ").unwrap();
    let (journal, unwritten) = open(path);
    assert_eq!(unwritten.len(), 3);
    drop(journal);
    assert!(!path.join("000000000009.new").exists());
    fs::remove_file(&segments(path)[1]).unwrap();
    let refused = Journal::open(config(path));
    assert!(matches!(
        refused,
        Err(JournalError::Missing { number: 2, .. })
    ));
}

#[test]
fn a_segment_that_cannot_be_removed_is_not_forgotten_and_no_later_one_goes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("made").join("too");
    let (mut journal, _) = open(path);
    let mut seq = 0;
    while segments(path).len() < 4 {
        seq += 1;
        journal.commit(&[record(seq, &seq.to_string())]).unwrap();
    }
    for settled in 1..seq {
        journal.settle(WriteSeq(settled), true);
    }
    // What is in the way of its removal: a folder has its name.
    let (first, aside) = (segments(path).remove(0), path.join("aside"));
    fs::rename(&first, &aside).unwrap();
    fs::create_dir(&first).unwrap();
    let bytes = journal.bytes();
    journal.tidy().unwrap_err();
    journal.tidy().unwrap_err();
    assert_eq!(segments(path).len(), 4);
    assert!(journal.bytes() >= bytes);
    // One that is gone is no failure.
    fs::remove_dir(&first).unwrap();
    journal.tidy().unwrap();
    assert_eq!(segments(path).len(), 1);
    assert!(journal.bytes() < bytes);
    drop(journal);
    assert_eq!(seqs(&open(path).1), [seq]);
}

#[test]
fn c9_on_a_full_disk_what_is_of_no_use_goes_before_anything_is_written() {
    /// Settles what keeps the oldest segment, and what was settled before.
    fn settle_oldest(journal: &mut Journal) {
        let mut seq = 0;
        while journal.ledger.useless().is_none() {
            seq += 1;
            journal.settle(WriteSeq(seq), true);
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // The disk is full, so that there is no next segment, until one was removed.
    let full = |number: u64| path.join(format!("{number:012}.new"));
    let (first, second) = (full(4), full(5));
    let mut config = config(path);
    config.hook = Some(Arc::new(move |step| {
        if step == "removed" {
            let _ = fs::remove_dir(&first).or_else(|_| fs::remove_dir(&second));
        }
    }));
    let (mut journal, _) = Journal::open(config.clone()).unwrap();
    let mut seq = 0;
    let mut fill = |journal: &mut Journal, number| {
        while journal.last.number < number || journal.last.bytes < journal.config.segment_bytes {
            seq += 1;
            journal.commit(&[record(seq, &seq.to_string())]).unwrap();
        }
        fs::create_dir(full(number + 1)).unwrap();
    };
    fill(&mut journal, 3);
    let refused = journal.commit(&[record(1_000, "more")]);
    assert!(
        matches!(refused, Err(JournalError::Io { .. })),
        "all of it is needed"
    );
    settle_oldest(&mut journal);
    journal.commit(&[record(1_000, "more")]).unwrap();
    assert_eq!(segments(path).len(), 3);
    fill(&mut journal, 4);
    settle_oldest(&mut journal);
    journal.tidy().unwrap();
    assert_eq!(segments(path).len(), 3);
    for settled in 1..=1_000 {
        journal.settle(WriteSeq(settled), true);
    }
    journal.append(&[]).unwrap();
    drop(journal);
    // At the next start nothing is made before the others went.
    let before = segments(path).len();
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    config.hook = Some(Arc::new({
        let (path, seen) = (path.to_path_buf(), Arc::clone(&seen));
        move |_| seen.lock().push(segments(&path).len())
    }));
    let (journal, (unwritten, last)) = Journal::open(config).unwrap();
    assert_eq!((unwritten.len(), last), (0, WriteSeq(1_000)));
    assert_eq!(seen.lock().first(), Some(&before));
    assert_eq!(segments(path).len(), 1);
    drop(journal);
}
