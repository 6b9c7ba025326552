//! F13: a disk that is full, takes half a frame, fails to sync, or fails to do anything else, at every step of the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::tests::{config, record, segments, seqs};
use super::*;

/// Every step that may fail.
const STEPS: [&str; 7] = [
    "create",
    "write",
    "sync",
    "cut",
    "rename",
    "remove",
    "sync folder",
];

/// Fails as the test says, each time once, and remembers what was asked of it.
#[derive(Clone, Default)]
struct Faults {
    next: Arc<Mutex<Vec<(&'static str, usize)>>>,
    asked: Arc<Mutex<Vec<(&'static str, PathBuf)>>>,
}

impl Faults {
    fn disk(&self) -> Disk {
        let faults = self.clone();
        Disk::new(Some(Arc::new(move |step, path| {
            faults.asked.lock().push((step, path.to_path_buf()));
            let mut next = faults.next.lock();
            let at = next.iter().position(|(fails, _)| *fails == step)?;
            let (_, taken) = next.remove(at);
            Some((taken, io::ErrorKind::StorageFull.into()))
        })))
    }

    /// The next of these steps fail; of a write so many bytes are taken before.
    fn fail(&self, steps: &[&'static str], taken: usize) {
        let steps = steps.iter().map(|step| (*step, taken));
        self.next.lock().extend(steps);
    }

    fn is_pending(&self) -> bool {
        !self.next.lock().is_empty()
    }

    fn clear(&self) {
        self.next.lock().clear();
    }
}

fn open(path: &std::path::Path, faults: &Faults) -> (Journal, Vec<WriteRecord>) {
    let mut config = config(path);
    config.disk = faults.disk();
    let (journal, (unwritten, _)) = Journal::open(config).unwrap();
    (journal, unwritten)
}

#[test]
fn f13_what_a_full_disk_does_not_take_is_refused_and_leaves_nothing_behind() {
    for taken in [0, 1, 19, 20, 40, usize::MAX] {
        let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let (mut journal, _) = open(folder.path(), &faults);
        journal.commit(&[record(1, "a")]).unwrap();
        faults.fail(&["write"], taken);
        let refused = journal.commit(&[record(2, "a"), record(3, "b")]);
        let Err(JournalError::Io { what, source, .. }) = refused else {
            panic!("{taken}: {refused:?}");
        };
        assert_eq!((what, source.kind()), ("write", io::ErrorKind::StorageFull));
        // There is room again.
        journal.commit(&[record(4, "c")]).unwrap();
        drop(journal);
        assert_eq!(seqs(&open(folder.path(), &faults).1), [1, 4], "{taken}");
    }
}

#[test]
fn f13_half_a_frame_that_cannot_be_cut_off_is_the_last_and_is_cut_off_at_the_next_start() {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
    let (mut journal, _) = open(folder.path(), &faults);
    journal.commit(&[record(1, "a")]).unwrap();
    faults.fail(&["write", "cut"], 30);
    for seq in [2, 3] {
        let refused = journal.commit(&[record(seq, "a")]);
        assert!(matches!(refused, Err(JournalError::Failed)), "{refused:?}");
    }
    drop(journal);
    let (mut journal, unwritten) = open(folder.path(), &faults);
    assert_eq!(seqs(&unwritten), [1]);
    journal.commit(&[record(4, "b")]).unwrap();
}

#[test]
fn f13_after_a_failed_sync_nothing_is_taken_until_the_next_start_and_nothing_acknowledged_is_lost()
{
    let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
    let (mut journal, _) = open(folder.path(), &faults);
    journal.commit(&[record(1, "a")]).unwrap();
    faults.fail(&["sync"], 0);
    // The disk does better the second time, and is not believed.
    for seq in [2, 3] {
        let refused = journal.commit(&[record(seq, "b")]);
        assert!(matches!(refused, Err(JournalError::Failed)), "{refused:?}");
    }
    assert!(!faults.is_pending());
    drop(journal);
    let (mut journal, unwritten) = open(folder.path(), &faults);
    let unwritten = seqs(&unwritten);
    assert!(unwritten == [1] || unwritten == [1, 2], "{unwritten:?}");
    journal.commit(&[record(4, "b")]).unwrap();
}

#[test]
fn f13_a_segment_that_cannot_be_begun_is_begun_when_the_disk_does_better() {
    for step in ["create", "write", "sync", "rename", "sync folder"] {
        let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let (mut journal, _) = open(folder.path(), &faults);
        let mut seq = 0;
        while journal.last.bytes < journal.config.segment_bytes {
            seq += 1;
            journal.commit(&[record(seq, &seq.to_string())]).unwrap();
        }
        // What is in it is on the disk already: only the new one is synced.
        journal.last.durable = journal.last.bytes;
        faults.fail(&[step], 5);
        let refused = journal.commit(&[record(1_000, "refused")]);
        let fails_for_good = step == "sync";
        assert_eq!(
            matches!(refused, Err(JournalError::Failed)),
            fails_for_good,
            "{step}: {refused:?}"
        );
        refused.unwrap_err();
        if !fails_for_good {
            journal.commit(&[record(1_001, "again")]).unwrap();
            assert_eq!(segments(folder.path()).len(), 2, "{step}");
        }
        drop(journal);
        let mut wanted: Vec<_> = (1..=seq).collect();
        wanted.extend((!fails_for_good).then_some(1_001));
        assert_eq!(seqs(&open(folder.path(), &faults).1), wanted, "{step}");
    }
}

#[test]
fn the_names_of_all_folders_that_a_journal_makes_are_put_on_the_disk() {
    let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
    let made = folder.path().join("made");
    let path = made.join("too");
    drop(open(&path, &faults));
    let asked = faults.asked.lock();
    for parent in [folder.path(), &made, &path] {
        let synced = ("sync folder", parent.to_path_buf());
        assert!(asked.contains(&synced), "{parent:?} in {asked:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<u8>),
    Settle(u8),
    Tidy,
    Restart,
    Fail(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..6u8, 1..4).prop_map(Step::Commit),
        4 => (0..6u8).prop_map(Step::Settle),
        2 => Just(Step::Tidy),
        1 => Just(Step::Restart),
        3 => (0..STEPS.len(), 0..120usize).prop_map(|(step, taken)| Step::Fail(step, taken)),
    ];
    prop::collection::vec(step, 0..60)
}

/// What was promised, by key.
#[derive(Default)]
struct Promised {
    /// The newest that was acknowledged, and whether it is settled.
    newest: BTreeMap<String, (u64, bool)>,
    /// Nobody knows.
    perhaps: BTreeSet<u64>,
}

impl Promised {
    /// Looks at what a journal says after a start, and takes it for the truth.
    fn check(&mut self, unwritten: &[WriteRecord]) {
        let found: BTreeMap<_, _> = unwritten
            .iter()
            .map(|write| {
                (
                    String::from_utf8_lossy(&write.key).into_owned(),
                    write.seq.0,
                )
            })
            .collect();
        for (key, (seq, is_settled)) in &self.newest {
            match found.get(key) {
                Some(there) if there == seq => {}
                Some(there) => assert!(
                    there > seq && self.perhaps.contains(there),
                    "{seq} of {key} was acknowledged, {there} is there"
                ),
                None => assert!(is_settled, "{seq} of {key} was acknowledged and is lost"),
            }
        }
        for (key, seq) in &found {
            let known = self.newest.contains_key(key) || self.perhaps.contains(seq);
            assert!(known, "{seq} of {key} was refused");
        }
        self.perhaps.clear();
        let found = found.into_iter();
        self.newest = found.map(|(key, seq)| (key, (seq, false))).collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the disk refuses, and whenever: what was acknowledged is there after a start, unless it is settled; nothing older comes back,
    /// and nothing that was refused.
    #[test]
    fn k4_f13_nothing_acknowledged_is_lost_on_a_disk_that_fails_at_any_step(steps in steps()) {
        let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
        let start = |promised: &mut Promised| {
            faults.clear();
            let mut config = config(folder.path());
            config.disk = faults.disk();
            (config.bytes_max, config.segment_bytes) = (6_000, 400);
            let (journal, (unwritten, _)) = Journal::open(config).unwrap();
            promised.check(&unwritten);
            journal
        };
        let (mut promised, mut seq) = (Promised::default(), 0);
        let mut journal = start(&mut promised);
        for step in steps {
            match step {
                Step::Commit(keys) => {
                    let keys: BTreeSet<_> = keys.iter().map(u8::to_string).collect();
                    let mut records = Vec::new();
                    for key in &keys {
                        seq += 1;
                        records.push(record(seq, key));
                    }
                    if !journal.has_room(400) {
                        continue;
                    }
                    match journal.commit(&records) {
                        Ok(()) => for (key, record) in keys.into_iter().zip(&records) {
                            let before = promised.newest.insert(key, (record.seq.0, false));
                            if let Some((before, false)) = before {
                                journal.settle(WriteSeq(before), false);
                            }
                        },
                        Err(JournalError::Failed) => {
                            promised.perhaps.extend(records.iter().map(|record| record.seq.0));
                        }
                        Err(_) => {}
                    }
                }
                Step::Settle(key) => {
                    if let Some((seq, is_settled)) = promised.newest.get_mut(&key.to_string()) {
                        journal.settle(WriteSeq(*seq), true);
                        *is_settled = true;
                    }
                }
                Step::Tidy => { let _ = journal.tidy(); }
                Step::Restart => {
                    drop(journal);
                    journal = start(&mut promised);
                }
                Step::Fail(step, taken) => faults.fail(&[STEPS[step]], taken),
            }
        }
        drop(journal);
        drop(start(&mut promised));
    }
}
