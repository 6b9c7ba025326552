use nearcache_store::{NodeId, Timestamp};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn config() -> QueueConfig {
    QueueConfig {
        keys_max: 4,
        bytes_max: 100,
        batch_max: 2,
        batches_max: 2,
        delay: 10 * MS,
        backoff: Backoff {
            first: 100 * MS,
            max: 400 * MS,
        },
        give_up_after: 1_000 * MS,
        dead_letters_max: 1,
    }
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn version(time: u64) -> Version {
    Version {
        time: Timestamp::from_u64(time),
        origin: NodeId::from_u64(1),
    }
}

/// A queue and what its sink has been given.
struct World {
    queue: WriteQueue<u32>,
    written: Vec<(Bytes, u32)>,
}

fn world(config: QueueConfig) -> World {
    World {
        queue: WriteQueue::new(config),
        written: Vec::new(),
    }
}

impl World {
    fn put(&mut self, ms: u64, key: &'static str, content: u32) -> Result<Released, QueueFull> {
        let key = Bytes::from_static(key.as_bytes());
        self.queue.reserve(&key, 10)?;
        let seq = self.queue.next_seq();
        let write = Write {
            key,
            seq,
            version: version(seq.0),
            bytes: 10,
            content,
        };
        Ok(self.queue.put(at(ms), write))
    }

    /// Takes a batch; its contents.
    fn batch(&mut self, ms: u64) -> Option<(BatchId, Vec<u32>)> {
        let batch = self.queue.next_batch(at(ms))?;
        let contents = batch.writes.iter().map(|write| write.content).collect();
        self.written.extend(
            batch
                .writes
                .into_iter()
                .map(|write| (write.key, write.content)),
        );
        Some((batch.id, contents))
    }

    fn end(&mut self, ms: u64, id: BatchId, outcome: BatchOutcome<'_>) -> Vec<Settled<u32>> {
        self.queue.ended(at(ms), id, outcome, 1.0).0
    }
}

#[test]
fn a_later_write_takes_the_place_of_one_that_waits_and_keeps_its_turn() {
    let mut world = world(config());
    assert_eq!(world.put(0, "a", 1).unwrap().as_slice(), []);
    world.put(1, "b", 2).unwrap();
    assert_eq!(world.put(9, "a", 3).unwrap().as_slice(), [WriteSeq(1)]);
    assert_eq!(world.queue.next_due(), at(10));
    assert!(world.batch(9).is_none());
    let (id, contents) = world.batch(11).unwrap();
    assert_eq!(contents, [3, 2]);
    assert_eq!(world.end(20, id, BatchOutcome::Written).len(), 2);
    assert!(world.queue.is_empty());
    assert_eq!(world.queue.bytes(), 0);
    assert_eq!(world.queue.counts().coalesced, 1);
}

#[test]
fn room_that_was_kept_for_a_later_write_of_a_queued_key_comes_free_when_it_is_put() {
    let mut world = world(config());
    for key in ["a", "b", "c"] {
        world.put(0, key, 1).unwrap();
    }
    // Until it is put it counts as another key: somebody else may have to wait for its room.
    world.queue.reserve(b"a", 10).unwrap();
    assert_eq!(world.queue.taken(), (4, 40));
    assert!(world.queue.reserve(b"d", 10).is_err());
    let seq = world.queue.next_seq();
    let write = Write {
        key: Bytes::from_static(b"a"),
        seq,
        version: version(seq.0),
        bytes: 10,
        content: 2,
    };
    world.queue.put(at(1), write);
    assert_eq!(world.queue.taken(), (3, 30));
    assert!(world.queue.reserve(b"d", 10).is_ok());
}

#[test]
fn two_writes_of_a_key_are_never_with_the_sink_at_once_and_keep_their_order() {
    let mut world = world(config());
    world.put(0, "a", 1).unwrap();
    let (first, _) = world.batch(10).unwrap();
    assert_eq!(world.put(11, "a", 2).unwrap().as_slice(), [WriteSeq(1)]);
    world.put(12, "a", 3).unwrap();
    assert!(world.batch(100).is_none());
    assert_eq!(world.queue.pending(b"a").unwrap().content, 3);
    assert!(!world.queue.is_settled_to(WriteSeq(1)));
    // The first is written, or failed: the newest goes in either case, and nothing of the first is settled.
    assert_eq!(world.end(100, first, BatchOutcome::Written), []);
    assert!(world.queue.is_settled_to(WriteSeq(1)));
    let (second, contents) = world.batch(100).unwrap();
    assert_eq!(contents, [3]);
    assert!(!world.queue.is_settled_to(WriteSeq(3)));
    assert_eq!(world.end(101, second, BatchOutcome::Written).len(), 1);
    assert!(world.queue.is_settled_to(WriteSeq(3)));
}

#[test]
fn what_fails_is_tried_again_after_a_growing_wait_and_given_up_in_the_end() {
    let mut world = world(config());
    world.put(0, "a", 1).unwrap();
    let (mut ms, mut waits) = (10, Vec::new());
    let gone = loop {
        let (id, _) = world.batch(ms).unwrap();
        let gone = world.end(ms, id, BatchOutcome::Failed("down"));
        if !gone.is_empty() {
            break gone;
        }
        let due = world.queue.next_due();
        waits.push(due.as_millis() - ms);
        ms = due.as_millis();
    };
    assert_eq!(waits, [100, 200, 400, 400]);
    assert!(matches!(&gone[..], [Settled::GivenUp(write)] if write.content == 1));
    let letter = world.queue.dead().iter().next().unwrap();
    assert_eq!((letter.reason.as_str(), letter.attempts), ("down", 5));
    assert!(world.queue.is_empty() && world.queue.is_settled_to(WriteSeq(2)));
    // Replayed, it is written like any other.
    assert_eq!(world.queue.replay_dead(at(ms)), 1);
    assert_eq!(world.batch(ms).unwrap().1, [1]);
    assert!(world.queue.dead().is_empty());
}

#[test]
fn one_that_always_fails_does_not_keep_the_others_from_being_written() {
    let mut world = world(QueueConfig {
        keys_max: 100,
        bytes_max: 10_000,
        batch_max: 64,
        ..config()
    });
    let keys: Vec<String> = (0..40).map(|key| format!("{key:02}")).collect();
    for (content, key) in keys.iter().enumerate() {
        let key: &'static str = Box::leak(key.clone().into_boxed_str());
        world.put(0, key, u32::try_from(content).unwrap()).unwrap();
    }
    let mut calls_with_others = 0;
    for ms in (0..900).step_by(5) {
        while let Some((id, contents)) = world.batch(ms) {
            let fails = contents.contains(&17);
            calls_with_others += u32::from(fails && contents.len() > 1);
            let outcome = if fails {
                BatchOutcome::Failed("always")
            } else {
                BatchOutcome::Written
            };
            world.end(ms, id, outcome);
        }
    }
    assert_eq!(world.queue.len(), 1);
    assert!(
        calls_with_others <= 6,
        "{calls_with_others}: halves, and once it is known none"
    );
    // An outage is no reason to write one at a time when it is over.
    for (content, key) in keys.iter().enumerate().take(17) {
        let key: &'static str = Box::leak(key.clone().into_boxed_str());
        world
            .put(1_000, key, u32::try_from(content).unwrap())
            .unwrap();
    }
    let mut sizes = Vec::new();
    for ms in (1_010..2_000).step_by(5) {
        while let Some((id, contents)) = world.batch(ms) {
            if ms < 1_500 {
                world.end(ms, id, BatchOutcome::Failed("down"));
            } else {
                sizes.push(contents.len());
                world.end(ms, id, BatchOutcome::Written);
            }
        }
    }
    assert!(world.queue.is_empty());
    assert!(sizes.len() < 12, "{sizes:?}");
}

#[test]
fn what_is_rejected_stops_nobody_else_and_is_not_tried_again() {
    let mut world = world(config());
    world.put(0, "a", 1).unwrap();
    world.put(0, "b", 2).unwrap();
    let (both, _) = world.batch(10).unwrap();
    assert_eq!(world.end(10, both, BatchOutcome::Rejected("no")), []);
    let (a, contents) = world.batch(10).unwrap();
    assert_eq!(contents, [1]);
    assert_eq!(world.batch(10).unwrap().1, [2]);
    let gone = world.end(11, a, BatchOutcome::Rejected("no"));
    assert!(matches!(&gone[..], [Settled::GivenUp(_)]));
    // A later write of the key takes the letter away, and its record with it.
    assert_eq!(world.put(12, "a", 3).unwrap().as_slice(), [WriteSeq(1)]);
    assert!(world.queue.dead().is_empty());
}

#[test]
fn c9_without_room_for_a_dead_letter_it_is_tried_for_ever_and_writers_wait_in_the_end() {
    let mut world = world(config());
    for (key, content) in [("a", 1), ("b", 2)] {
        world.put(0, key, content).unwrap();
    }
    let mut given_up = 0;
    for ms in (10..5_000).step_by(10) {
        while let Some((id, _)) = world.batch(ms) {
            given_up += world.end(ms, id, BatchOutcome::Rejected("no")).len();
        }
    }
    assert_eq!(
        (given_up, world.queue.dead().len(), world.queue.len()),
        (1, 1, 1)
    );
    for (key, content) in [("c", 3), ("d", 4), ("e", 5)] {
        world.put(5_000, key, content).unwrap();
    }
    let full = world.put(5_000, "f", 6).unwrap_err();
    assert_eq!((full.keys, full.bytes), (4, 40));
    // A key that waits needs no further place.
    world.put(5_000, "e", 7).unwrap();
    // Room that was kept counts.
    world.queue.hurry(at(5_000));
    while let Some((id, _)) = world.batch(5_000) {
        world.end(5_000, id, BatchOutcome::Written);
    }
    assert!(world.queue.is_empty());
    for _ in 0..4 {
        world.queue.reserve(b"x", 10).unwrap();
    }
    assert!(world.queue.reserve(b"y", 10).is_err());
    world.queue.give_back(10);
    world.queue.reserve(b"y", 10).unwrap();
}

#[test]
fn k4_a_modify_that_a_later_write_has_overtaken_is_not_written_also_if_that_one_is_written_by_now()
{
    let mut world = world(config());
    // Numbers are versions too.
    world.put(0, "a", 1).unwrap();
    world.queue.watch(Bytes::from_static(b"a"));
    world.queue.watch(Bytes::from_static(b"a"));
    let (decided_before, decided_after) = (version(1), version(5));
    assert!(!world.queue.is_newest(b"a", decided_before), "one waits");
    world.put(1, "a", 2).unwrap();
    world.put(1, "b", 3).unwrap();
    let (id, contents) = world.batch(20).unwrap();
    assert_eq!(contents, [2, 3]);
    world.end(20, id, BatchOutcome::Written);
    assert!(world.queue.is_empty());
    assert!(!world.queue.is_newest(b"a", decided_before));
    assert!(world.queue.is_newest(b"a", decided_after));
    assert!(world.queue.is_newest(b"b", decided_before), "another key");
    // One whose later write is a letter is not made either: the letter stays.
    world.put(30, "a", 4).unwrap();
    let (id, _) = world.batch(40).unwrap();
    world.end(40, id, BatchOutcome::Rejected("no"));
    assert!(!world.queue.is_newest(b"a", decided_before));
    world.queue.unwatch(b"a");
    assert!(!world.queue.is_newest(b"a", decided_before), "watched");
    world.queue.unwatch(b"a");
    // What begins after all that is later, whatever the clock of its home says.
    world.queue.watch(Bytes::from_static(b"a"));
    assert!(world.queue.is_newest(b"a", decided_before));
}

#[test]
fn what_comes_from_a_journal_and_what_is_replayed_is_counted() {
    let mut world = world(config());
    let restored = Write {
        key: Bytes::from_static(b"a"),
        seq: WriteSeq(7),
        version: version(7),
        bytes: 10,
        content: 7,
    };
    world.queue.restore(at(0), restored);
    let (id, contents) = world.batch(0).unwrap();
    assert_eq!(contents, [7]);
    world.end(0, id, BatchOutcome::Rejected("no"));
    assert_eq!(world.queue.replay_dead(at(1)), 1);
    let counts = world.queue.counts();
    assert_eq!((counts.accepted, counts.restored), (0, 1));
    assert_eq!((counts.replayed, counts.given_up), (1, 1));
}

#[test]
fn a_write_beyond_the_bound_in_bytes_has_room_by_itself() {
    let mut queue = WriteQueue::<u32>::new(config());
    queue.reserve(b"large", 1_000).unwrap();
    assert!(queue.reserve(b"small", 1).is_err());
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8),
        /// The key's home decides a read-modify-write.
        Decide(u8),
        /// Its answer arrives.
        Answer(u8),
        Pass(u8),
        Take,
        End(u8, u8),
        Hurry,
        Replay,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..5u8).prop_map(Step::Put),
            2 => (0..5u8).prop_map(Step::Decide),
            2 => (0..5u8).prop_map(Step::Answer),
            2 => any::<u8>().prop_map(Step::Pass),
            4 => Just(Step::Take),
            4 => (any::<u8>(), 0..4u8).prop_map(|(which, how)| Step::End(which, how)),
            1 => Just(Step::Hurry),
            1 => Just(Step::Replay),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn put(
        queue: &mut WriteQueue<u64>,
        now: Time,
        key: &'static [u8],
        version: Version,
        remembered: &mut std::collections::BTreeSet<u64>,
    ) {
        let seq = queue.next_seq();
        let write = Write {
            key: Bytes::from_static(key),
            seq,
            version,
            bytes: 10,
            content: seq.0,
        };
        remembered.insert(seq.0);
        for old in queue.put(now, write) {
            assert!(remembered.remove(&old.0), "released twice");
        }
    }

    proptest! {
        /// Whatever happens: per key the sink sees growing numbers and versions only, no two at once; nothing accepted is forgotten
        /// before something newer is written; and in the end the newest of each key is written or a dead letter.
        #[test]
        fn nothing_accepted_is_lost_and_each_key_keeps_its_order(steps in steps()) {
            let keys = [&b"a"[..], b"b", b"c", b"d", b"e"];
            let mut queue = WriteQueue::<u64>::new(config());
            let mut now = Time::ZERO;
            let mut accepted: BTreeMap<&[u8], u64> = BTreeMap::new();
            let mut written: BTreeMap<Bytes, u64> = BTreeMap::new();
            let mut remembered = std::collections::BTreeSet::new();
            let mut flying: Vec<Batch<u64>> = Vec::new();
            let (mut stamps, mut versions) = (0, BTreeMap::<Bytes, Version>::new());
            let mut decided: BTreeMap<&[u8], Version> = BTreeMap::new();
            let finish = |queue: &mut WriteQueue<u64>, now, batch: Batch<u64>, how: u8,
                          written: &mut BTreeMap<Bytes, u64>, versions: &mut BTreeMap<Bytes, Version>,
                          remembered: &mut std::collections::BTreeSet<u64>| {
                let outcome = match how {
                    0 => BatchOutcome::Failed("down"),
                    1 => BatchOutcome::Rejected("no"),
                    _ => BatchOutcome::Written,
                };
                // What failed may have been written all the same.
                for write in &batch.writes {
                    let before = written.insert(write.key.clone(), write.content).unwrap_or(0);
                    assert!(before <= write.content, "an older write follows a newer one");
                    let before = versions.insert(write.key.clone(), write.version).unwrap_or(Version::ZERO);
                    assert!(before <= write.version, "an older version follows a newer one");
                }
                let (_, released) = queue.ended(now, batch.id, outcome, 0.5);
                for seq in released {
                    assert!(remembered.remove(&seq.0), "released twice");
                }
            };
            for step in steps {
                match step {
                    Step::Put(key) => {
                        let key = keys[usize::from(key)];
                        if queue.reserve(key, 10).is_ok() {
                            stamps += 1;
                            put(&mut queue, now, key, version(stamps), &mut remembered);
                            accepted.insert(key, queue.last_seq().0);
                        }
                    }
                    Step::Decide(key) => {
                        let key = keys[usize::from(key)];
                        if let std::collections::btree_map::Entry::Vacant(place) = decided.entry(key)
                            && queue.reserve(key, 10).is_ok()
                        {
                            queue.watch(Bytes::from_static(key));
                            stamps += 1;
                            place.insert(version(stamps));
                        }
                    }
                    Step::Answer(key) => {
                        let key = keys[usize::from(key)];
                        if let Some(version) = decided.remove(key) {
                            if queue.is_newest(key, version) {
                                put(&mut queue, now, key, version, &mut remembered);
                                accepted.insert(key, queue.last_seq().0);
                            } else {
                                queue.give_back(10);
                            }
                            queue.unwatch(key);
                        }
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms.into()),
                    Step::Take => flying.extend(queue.next_batch(now)),
                    Step::End(which, how) => {
                        if !flying.is_empty() {
                            let batch = flying.remove(usize::from(which) % flying.len());
                            finish(&mut queue, now, batch, how, &mut written, &mut versions, &mut remembered);
                        }
                    }
                    Step::Hurry => queue.hurry(now),
                    Step::Replay => { queue.replay_dead(now); }
                }
                let mut with_sink = std::collections::BTreeSet::new();
                for write in flying.iter().flat_map(|batch| &batch.writes) {
                    assert!(with_sink.insert(write.key.clone()), "two writes of a key at once");
                }
                // What is remembered is exactly what waits, flies as the newest of its key, or is a dead letter.
                let pending = keys.iter().filter_map(|key| queue.pending(key)).map(|write| write.seq.0);
                let kept: std::collections::BTreeSet<_> =
                    pending.chain(queue.dead().seqs().map(|seq| seq.0)).collect();
                prop_assert_eq!(&kept, &remembered);
                // Whatever came in has left or is queued: the newest of each key, and what is with the sink.
                let counts = queue.counts();
                let superseded = flying.iter().flat_map(|batch| &batch.writes)
                    .filter(|write| queue.pending(&write.key).is_some_and(|newest| newest.seq != write.seq));
                let queued = (queue.len() + superseded.count()) as u64;
                prop_assert_eq!(
                    counts.accepted + counts.restored + counts.replayed,
                    counts.coalesced + counts.written + counts.given_up + queued
                );
            }
            // The sink is whole again.
            queue.replay_dead(now);
            for batch in std::mem::take(&mut flying) {
                finish(&mut queue, now, batch, 2, &mut written, &mut versions, &mut remembered);
            }
            queue.hurry(now);
            while let Some(batch) = queue.next_batch(now) {
                finish(&mut queue, now, batch, 2, &mut written, &mut versions, &mut remembered);
            }
            prop_assert!(queue.is_empty() && remembered.is_empty());
            prop_assert_eq!(queue.bytes(), 0);
            for (key, seq) in accepted {
                prop_assert_eq!(written.get(key), Some(&seq));
            }
        }
    }
}
