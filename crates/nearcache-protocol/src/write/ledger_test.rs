use super::*;

fn place(segment: u64, bytes: u64) -> Place {
    Place {
        segment,
        offset: 0,
        bytes,
    }
}

fn write(seq: u64, key: &'static str) -> Located {
    Located {
        offset: seq,
        bytes: 10,
        record: Record::Write(WriteRecord {
            seq: WriteSeq(seq),
            version: nearcache_store::Version::ZERO,
            key: Bytes::from_static(key.as_bytes()),
            value: None,
        }),
    }
}

fn settled(seqs: &[u64]) -> Located {
    Located {
        offset: 0,
        bytes: 10,
        record: Record::Settled(seqs.iter().map(|seq| WriteSeq(*seq)).collect()),
    }
}

#[test]
fn segments_go_from_the_oldest_on_and_never_the_one_that_grows() {
    let mut ledger = Ledger::default();
    for segment in 1..4 {
        ledger.grew(segment, 100);
        ledger.recorded(WriteSeq(segment), place(segment, 10));
    }
    ledger.settled(WriteSeq(2));
    assert_eq!(ledger.take_useless(), None, "the first is needed");
    ledger.settled(WriteSeq(1));
    assert_eq!((ledger.useless(), ledger.bytes()), (Some(1), 300));
    assert_eq!(ledger.take_useless(), Some(1));
    assert_eq!(ledger.take_useless(), Some(2));
    ledger.settled(WriteSeq(3));
    assert_eq!(ledger.take_useless(), None, "it grows");
    assert_eq!((ledger.bytes(), ledger.needed_bytes()), (100, 0));
}

#[test]
fn what_keeps_a_mostly_useless_journal_is_moved_to_its_end() {
    let mut ledger = Ledger::default();
    ledger.grew(1, 100);
    ledger.recorded(WriteSeq(1), place(1, 10));
    ledger.recorded(WriteSeq(2), place(1, 90));
    assert!(ledger.to_move(50).is_empty(), "all of it is needed");
    ledger.settled(WriteSeq(2));
    assert!(ledger.to_move(50).is_empty(), "it grows itself");
    ledger.grew(2, 100);
    assert!(ledger.to_move(200).is_empty(), "there is room");
    assert_eq!(ledger.to_move(199), [(WriteSeq(1), place(1, 10))]);
    ledger.grew(2, 110);
    ledger.recorded(WriteSeq(1), place(2, 10));
    assert_eq!(ledger.take_useless(), Some(1));
    assert_eq!(
        (ledger.bytes(), ledger.needed_bytes(), ledger.len()),
        (110, 10, 1)
    );
}

#[test]
fn after_a_restart_the_newest_of_each_key_is_written_unless_it_is_settled() {
    let mut replay = Replay::default();
    replay.read(
        1,
        50,
        vec![write(1, "a"), write(2, "b"), write(3, "c"), write(4, "a")],
    );
    // Written once more when it was moved; the mark of an older one says nothing of a newer one.
    replay.read(
        2,
        50,
        vec![
            write(3, "c"),
            settled(&[1, 2]),
            write(5, "b"),
            write(6, "d"),
        ],
    );
    replay.read(3, 50, vec![settled(&[6])]);
    let Replayed {
        open, last, ledger, ..
    } = replay.finish();
    let open: Vec<_> = open.iter().map(|write| write.seq.0).collect();
    assert_eq!((open.as_slice(), last), (&[3, 4, 5][..], WriteSeq(6)));
    assert_eq!(ledger.len(), 3);
    assert_eq!(
        ledger.to_move(0),
        [(
            WriteSeq(4),
            Place {
                segment: 1,
                offset: 4,
                bytes: 10
            }
        )]
    );
}

#[test]
fn r6_the_newest_version_is_known_when_its_segment_is_gone() {
    let time = |ms| Timestamp::from_parts(ms, 0);
    let newest = |ms| Located {
        offset: 0,
        bytes: 10,
        record: Record::Newest(time(ms)),
    };
    let mut with_version = write(1, "a");
    if let Record::Write(write) = &mut with_version.record {
        write.version.time = time(9);
    }
    let mut replay = Replay::default();
    replay.read(2, 50, vec![newest(7), with_version, settled(&[1])]);
    assert_eq!(replay.finish().newest, time(9));
    let mut replay = Replay::default();
    replay.read(3, 50, vec![newest(9), write(2, "a")]);
    assert_eq!(replay.finish().newest, time(9));
}
