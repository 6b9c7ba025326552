use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, NodeId};

use crate::config::ReplicationConfig;
use crate::fetching::Fetching;
use crate::ids::RequestId;
use crate::message::CacheMessage;
use crate::mode::{Ack, HandedOver, Outcome};
use crate::modify::{ExpireCondition, ModifyError, ModifyOp, NewExpiry};
use crate::testing::{Cluster, Text};

/// Longer than what travels inside an update here, and than a piece.
pub(super) fn long(letter: char) -> String {
    std::iter::repeat_n(letter, 5_000).collect()
}

pub(super) fn config() -> ReplicationConfig {
    ReplicationConfig {
        inline_limit: 100,
        transfer_chunk_bytes: 512,
        ..ReplicationConfig::default()
    }
}

/// Where single messages are lost, which on real connections they are not.
fn losing() -> ReplicationConfig {
    ReplicationConfig {
        fetch_stall_after: Duration::from_secs(1),
        ..config()
    }
}

pub(super) fn begin_read(cluster: &mut Cluster, id: u64, key: &str) -> u64 {
    begin_read_for(cluster, id, key, Duration::from_secs(2))
}

pub(super) fn begin_read_for(cluster: &mut Cluster, id: u64, key: &str, wait: Duration) -> u64 {
    let (waiter, key) = (cluster.waiter(wait), key.to_owned());
    cluster.act(id, |node, now, out| {
        node.core.find(now, key.into_bytes().into(), waiter, out);
    });
    waiter.id.0
}

/// What a reader that was told that the value is here finds; nothing if it was told that it is not.
pub(super) fn ended(cluster: &Cluster, id: u64, waiter: u64, key: &str) -> Option<String> {
    match cluster.nodes[&id].results.get(&waiter) {
        Some(Outcome::Found(true)) => value(cluster, id, key),
        Some(Outcome::Found(false)) => None,
        other => panic!("{other:?}"),
    }
}

/// The value, if it is in this node's memory.
pub(super) fn value(cluster: &Cluster, id: u64, key: &str) -> Option<String> {
    let entry = cluster.nodes[&id].core.store().peek(key.as_bytes())?;
    (!entry.is_stub()).then(|| String::from_utf8(entry.value().1.clone()).unwrap())
}

pub(super) fn carried(cluster: &Cluster, name: &'static str) -> u64 {
    cluster.carried.get(name).map_or(0, |(count, _)| *count)
}

pub(super) fn settle(cluster: &mut Cluster) {
    cluster.run(Duration::from_millis(100));
}

#[test]
fn a_long_value_travels_when_it_is_read_and_only_there() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    assert!(cluster.carried["updates"].1 < 1_000);
    assert_eq!(value(&cluster, 2, "key"), None);
    let reader = begin_read(&mut cluster, 2, "key");
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
    assert_eq!(value(&cluster, 3, "key"), None);
    assert_eq!(carried(&cluster, "fetch-piece"), 10);
}

#[test]
fn c2_a_stub_drops_the_older_value_at_once() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", "short");
    settle(&mut cluster);
    assert_eq!(value(&cluster, 2, "key").as_deref(), Some("short"));
    let waiter = cluster.put_acked(1, "key", &long('a'), Ack::All);
    settle(&mut cluster);
    // Ack::All: no live member serves the older value.
    let acked = &cluster.nodes[&1].results[&waiter];
    assert!(matches!(acked, Outcome::Acked(Ok(()))));
    assert_eq!(value(&cluster, 2, "key"), None);
}

#[test]
fn concurrent_reads_fetch_once() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let readers: Vec<u64> = (0..5).map(|_| begin_read(&mut cluster, 2, "key")).collect();
    settle(&mut cluster);
    for reader in readers {
        assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
    }
    assert_eq!(carried(&cluster, "fetch"), 1);
    assert_eq!(cluster.nodes[&2].core.stats().fetched, 1);
}

#[test]
fn when_the_origin_is_dead_another_holder_is_asked() {
    let mut cluster = Cluster::ready(4, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let reader = begin_read(&mut cluster, 3, "key");
    settle(&mut cluster);
    assert!(ended(&cluster, 3, reader, "key").is_some());
    cluster.crash(1);
    let reader = begin_read(&mut cluster, 4, "key");
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 4, reader, "key"), Some(long('a')));
}

#[test]
fn a_fetch_that_is_cut_goes_on_at_another_holder_from_where_it_stood() {
    let mut config = config();
    // Ten pieces a second.
    config.fetch_bytes_per_second = 5_120;
    let mut cluster = Cluster::ready(3, config);
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let reader = begin_read(&mut cluster, 3, "key");
    cluster.run(Duration::from_secs(2));
    assert!(ended(&cluster, 3, reader, "key").is_some());
    let before = carried(&cluster, "fetch-piece");
    let reader = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(500));
    cluster.crash(1);
    cluster.run(Duration::from_secs(1));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
    assert_eq!(carried(&cluster, "fetch-piece") - before, 10);
    assert_eq!(cluster.nodes[&2].core.stats().fetches_moved, 1);
}

#[test]
fn a_newer_long_value_in_mid_fetch_wins() {
    let mut config = config();
    config.fetch_bytes_per_second = 5_120;
    let mut cluster = Cluster::ready(2, config);
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let reader = begin_read_for(&mut cluster, 2, "key", Duration::from_secs(5));
    cluster.run(Duration::from_millis(300));
    cluster.put(1, "key", &long('b'));
    cluster.run(Duration::from_secs(3));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('b')));
    assert_eq!(cluster.nodes[&2].core.stats().fetched, 1);
}

#[test]
fn a_newer_short_value_a_removal_or_an_own_write_in_mid_fetch_ends_it() {
    type Change = fn(&mut Cluster);
    let changes: [(Change, Option<&str>); 4] = [
        (
            |cluster| {
                cluster.put(1, "key", "short");
            },
            Some("short"),
        ),
        (|cluster| cluster.remove(1, "key"), None),
        (
            |cluster| {
                cluster.put(2, "key", "own");
            },
            Some("own"),
        ),
        (
            |cluster| cluster.invalidate(1, nearcache_store::Scope::All),
            None,
        ),
    ];
    for (change, expected) in changes {
        let mut config = config();
        config.fetch_bytes_per_second = 5_120;
        let mut cluster = Cluster::ready(2, config);
        cluster.put(1, "key", &long('a'));
        settle(&mut cluster);
        let reader = begin_read(&mut cluster, 2, "key");
        cluster.run(Duration::from_millis(300));
        change(&mut cluster);
        settle(&mut cluster);
        assert_eq!(ended(&cluster, 2, reader, "key").as_deref(), expected);
        assert_eq!(cluster.nodes[&2].core.stats().fetched, 0);
    }
}

#[test]
fn a_value_that_nobody_holds_is_a_miss_and_is_counted() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.act(1, |node, _, _| {
        let version = node.core.store().known(b"key").version();
        assert!(node.core.store().forget(b"key", version));
    });
    let reader = begin_read(&mut cluster, 2, "key");
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 2, reader, "key"), None);
    assert_eq!(cluster.nodes[&2].core.stats().fetches_unheld, 1);
}

#[test]
fn c10_a_value_out_of_reach_is_waited_for_until_the_deadline_and_no_longer() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.cut(1, 2);
    let late = begin_read_for(&mut cluster, 2, "key", Duration::from_millis(200));
    cluster.run(Duration::from_millis(210));
    assert_eq!(ended(&cluster, 2, late, "key"), None);
    let reader = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(200));
    cluster.connect(1, 2);
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
}

#[test]
fn what_takes_longer_than_a_deadline_arrives_for_the_next_reader() {
    let mut config = config();
    config.fetch_bytes_per_second = 5_120;
    let mut cluster = Cluster::ready(2, config);
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let late = begin_read_for(&mut cluster, 2, "key", Duration::from_millis(100));
    cluster.run(Duration::from_secs(2));
    assert_eq!(ended(&cluster, 2, late, "key"), None);
    assert_eq!(value(&cluster, 2, "key"), Some(long('a')));
}

#[test]
fn when_the_last_reader_gives_up_the_fetch_is_stopped() {
    let mut config = config();
    config.fetch_bytes_per_second = 5_120;
    let mut cluster = Cluster::ready(2, config);
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let reader = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(300));
    cluster.act(2, |node, _, _| {
        node.core.forget(crate::ids::WaiterId(reader));
    });
    settle(&mut cluster);
    let pieces = carried(&cluster, "fetch-piece");
    assert!((1..9).contains(&pieces), "{pieces}");
    cluster.run(Duration::from_secs(2));
    assert_eq!(carried(&cluster, "fetch-piece"), pieces);
    assert!(!cluster.nodes[&2].results.contains_key(&reader));
}

#[test]
fn a_piece_that_is_lost_or_comes_twice_does_no_harm() {
    let mut cluster = Cluster::ready(2, losing());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.drops.insert((2, "fetch-piece"));
    let reader = begin_read(&mut cluster, 2, "key");
    settle(&mut cluster);
    cluster.drops.clear();
    cluster.run(Duration::from_millis(1_200));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
}

#[test]
fn what_arrives_at_once_is_bounded_and_the_rest_waits_its_turn() {
    let mut config = config();
    config.fetch_bytes_max = 6_000;
    config.fetch_bytes_per_second = 51_200;
    let mut cluster = Cluster::ready(2, config);
    for key in ["a", "b", "c"] {
        cluster.put(1, key, &long('a'));
    }
    settle(&mut cluster);
    let readers = ["a", "b", "c"].map(|key| (key, begin_read(&mut cluster, 2, key)));
    cluster.run(Duration::from_millis(20));
    assert_eq!(carried(&cluster, "fetch"), 1);
    cluster.run(Duration::from_secs(1));
    for (key, reader) in readers {
        assert_eq!(ended(&cluster, 2, reader, key), Some(long('a')));
    }
}

/// Node 2 waits for 300 long values of node 1, which takes about a second to send them.
fn many_readers(cluster: &mut Cluster) -> Vec<(String, u64)> {
    let keys: Vec<String> = (0..300).map(|n| format!("key {n}")).collect();
    for key in &keys {
        cluster.put(1, key, &long('a'));
    }
    settle(cluster);
    let wait = Duration::from_secs(4);
    let begin = |key: String| (key.clone(), begin_read_for(cluster, 2, &key, wait));
    keys.into_iter().map(begin).collect()
}

fn slow_sender() -> ReplicationConfig {
    ReplicationConfig {
        fetch_bytes_per_second: 4_000_000,
        ..config()
    }
}

#[test]
fn r9_a_holder_with_much_to_do_is_not_taken_for_one_that_does_not_hold_it() {
    let mut cluster = Cluster::ready(3, slow_sender());
    let readers = many_readers(&mut cluster);
    assert!(
        carried(&cluster, "fetch") + cluster.queue.len() as u64 <= 128,
        "what is on its way is bounded"
    );
    cluster.run(Duration::from_secs(3));
    for (key, reader) in readers {
        assert_eq!(ended(&cluster, 2, reader, &key), Some(long('a')), "{key}");
    }
    assert_eq!(cluster.nodes[&2].core.stats().fetches_unheld, 0);
}

#[test]
fn r9_a_question_that_overtakes_the_announcement_waits_for_it() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.cut(1, 2);
    let reader = begin_read(&mut cluster, 2, "key");
    settle(&mut cluster);
    cluster.connect(1, 2);
    let is_announcement = |(from, to, message): &(u64, u64, CacheMessage<Text>)| {
        (*from, *to) == (2, 1) && message.name() == "announce"
    };
    let at = cluster.queue.iter().position(is_announcement).unwrap();
    let announcement = cluster.queue.remove(at).unwrap();
    cluster.drops.insert((1, "announce"));
    let asked = carried(&cluster, "fetch");
    settle(&mut cluster);
    assert!(carried(&cluster, "fetch") > asked, "it has asked by now");
    assert!(!cluster.nodes[&2].results.contains_key(&reader));
    cluster.drops.clear();
    cluster.queue.push_back(announcement);
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
}

#[test]
fn who_asks_for_more_than_it_may_is_not_told_that_it_is_not_here() {
    let mut cluster = Cluster::ready(2, slow_sender());
    let keys = (0..300).map(|n| Bytes::from(format!("key {n}")));
    for key in keys.clone() {
        cluster.put(1, std::str::from_utf8(&key).unwrap(), &long('a'));
    }
    settle(&mut cluster);
    cluster.drops.insert((2, "fetch-piece"));
    for (request, key) in keys.enumerate() {
        let version = cluster.nodes[&1].core.store().known(&key).version();
        let from_byte = 0;
        let message = Fetching::Ask {
            key,
            version,
            from_byte,
        };
        let request = RequestId(1 << 40 | request as u64);
        let message = CacheMessage::Fetching { request, message };
        cluster.queue.push_back((2, 1, message));
    }
    cluster.run(Duration::from_secs(3));
    assert_eq!(carried(&cluster, "fetch-refused"), 0);
    assert_eq!(carried(&cluster, "fetch"), 300);
}

#[test]
fn a_modify_waits_for_its_value_while_many_are_fetched() {
    let mut cluster = Cluster::ready(3, slow_sender());
    let readers = many_readers(&mut cluster);
    // Whichever node is the home of them: the last ones have not begun to arrive there.
    let modifies: Vec<u64> = (290..300)
        .map(|n| {
            let add = ModifyOp::Add { delta: 1 };
            cluster.modify(2, &format!("key {n}"), add)
        })
        .collect();
    cluster.run(Duration::from_secs(3));
    for waiter in modifies {
        let result = &cluster.nodes[&2].results[&waiter];
        let is_right = matches!(
            result,
            Outcome::Modified(Err(ModifyError::NotAnInteger | ModifyError::Overloaded))
        );
        assert!(is_right, "{result:?}");
    }
    for (key, reader) in readers {
        assert_eq!(ended(&cluster, 2, reader, &key), Some(long('a')), "{key}");
    }
}

#[test]
fn r11_a_comparison_finds_no_difference_between_stub_and_value() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    cluster.run(Duration::from_secs(40));
    assert!(cluster.nodes[&2].core.stats().comparisons > 0);
    assert_eq!(carried(&cluster, "listed"), 0);
    assert_eq!(carried(&cluster, "fetch"), 0);
}

#[test]
fn r9_who_joins_gets_the_stub_and_fetches_what_it_reads() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.start(3);
    cluster.connect_all(3);
    // Asked before it is filled: found as a stub, then fetched.
    let early = begin_read(&mut cluster, 3, "key");
    cluster.run(Duration::from_secs(3));
    assert!(cluster.carried["transfer-chunk"].1 < 2_000);
    if let Some(found) = ended(&cluster, 3, early, "key") {
        assert_eq!(found, long('a'));
    }
    let reader = begin_read(&mut cluster, 3, "key");
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 3, reader, "key"), Some(long('a')));
}

#[test]
fn a_home_node_fetches_the_value_that_a_modify_needs() {
    let mut cluster = Cluster::ready(3, config());
    for n in 0..12 {
        cluster.put(1, &format!("key {n}"), &long('a'));
    }
    settle(&mut cluster);
    for n in 0..12 {
        let key = format!("key {n}");
        let at = nearcache_store::Expiry::at_millis(crate::testing::WALL_MS + 1_000_000 + n);
        let expire = ModifyOp::Expire {
            expiry: NewExpiry::At(at.as_millis()),
            condition: ExpireCondition::Always,
            return_previous: false,
        };
        let waiter = cluster.modify(2, &key, expire);
        settle(&mut cluster);
        let result = &cluster.nodes[&2].results[&waiter];
        let Outcome::Modified(Ok(modified)) = result else {
            panic!("{result:?}");
        };
        assert!(modified.applied);
        let reader = begin_read(&mut cluster, 3, &key);
        settle(&mut cluster);
        assert_eq!(ended(&cluster, 3, reader, &key), Some(long('a')));
        let held = cluster.nodes[&3].core.store().peek(key.as_bytes()).unwrap();
        assert_eq!(held.expiry(), at);
        let take = ModifyOp::Remove {
            condition: crate::modify::Condition::Always,
            return_previous: true,
        };
        let waiter = cluster.modify(2, &key, take);
        settle(&mut cluster);
        let result = &cluster.nodes[&2].results[&waiter];
        let Outcome::Modified(Ok(modified)) = result else {
            panic!("{result:?}");
        };
        let previous = modified.previous.as_ref().unwrap();
        assert_eq!(previous.value().1, long('a').into_bytes());
    }
}

#[test]
fn c3_whoever_sets_a_long_value_at_its_home_holds_it() {
    let mut cluster = Cluster::ready(3, config());
    for n in 0..6 {
        let key = format!("key {n}");
        let set = ModifyOp::Set {
            condition: crate::modify::Condition::IfAbsent,
            value: Text::new(&long('a')),
            expiry: NewExpiry::Never,
            tags: nearcache_store::Tags::NONE,
            return_previous: false,
        };
        let waiter = cluster.modify(2, &key, set);
        settle(&mut cluster);
        let result = &cluster.nodes[&2].results[&waiter];
        assert!(matches!(result, Outcome::Modified(Ok(modified)) if modified.applied));
        assert_eq!(value(&cluster, 2, &key), Some(long('a')));
    }
    assert_eq!(carried(&cluster, "fetch"), 0);
}

#[test]
fn a_long_value_leaves_the_replay_buffer_to_others() {
    let mut config = config();
    config.replay_bytes_max = 20_000;
    let mut cluster = Cluster::ready(2, config);
    let before = carried(&cluster, "transfer-chunk");
    cluster.cut(1, 2);
    for n in 0..20 {
        cluster.put(1, &format!("key {n}"), &long('a'));
    }
    cluster.connect(1, 2);
    settle(&mut cluster);
    assert_eq!(cluster.nodes[&2].core.stats().gaps, 0);
    assert_eq!(carried(&cluster, "transfer-chunk"), before);
    let store = cluster.nodes[&2].core.store();
    assert!((0..20).all(|n| store.peek(format!("key {n}").as_bytes()).is_some()));
}

#[test]
fn the_expiry_of_a_stub_is_that_of_its_value() {
    let mut cluster = Cluster::ready(2, config());
    cluster.act(1, |node, now, out| {
        let version = node.core.clock().stamp(now).unwrap();
        let expiry = nearcache_store::Expiry::at_millis(node.core.clock().physical_ms(now) + 500);
        let change = Change::Put {
            value: Text::new(&long('a')),
            expiry,
            tags: nearcache_store::Tags::NONE,
        };
        let merged = node.core.store().merge(b"key", version, change).unwrap();
        let nearcache_store::Merged::Applied {
            entry: Some(entry), ..
        } = merged
        else {
            panic!("not applied");
        };
        let published = crate::mode::Published::Entry(entry);
        node.core.publish(now, published, Ack::Local, None, out);
    });
    settle(&mut cluster);
    assert!(cluster.nodes[&2].core.store().peek(b"key").is_some());
    cluster.run(Duration::from_millis(600));
    assert!(cluster.nodes[&2].core.store().peek(b"key").is_none());
    let reader = begin_read(&mut cluster, 2, "key");
    settle(&mut cluster);
    assert_eq!(ended(&cluster, 2, reader, "key"), None);
}

/// Node 1 leaves: it has so long.
fn leaves(cluster: &mut Cluster, time: Duration) -> HandedOver {
    cluster.act(1, |node, now, out| node.core.hand_over(now, out));
    cluster.run(time);
    cluster.nodes[&1].core.handed_over()
}

#[test]
fn k4_who_leaves_has_somebody_fetch_the_long_values_that_only_it_holds() {
    let mut cluster = Cluster::ready(3, config());
    for number in 0..40 {
        cluster.put(1, &format!("mine-{number}"), &long('a'));
    }
    cluster.put(1, "shared", &long('b'));
    cluster.put(2, "theirs", &long('c'));
    cluster.put(1, "short", "s");
    settle(&mut cluster);
    let reader = begin_read(&mut cluster, 3, "shared");
    let here = begin_read(&mut cluster, 1, "theirs");
    settle(&mut cluster);
    assert!(
        ended(&cluster, 3, reader, "shared").is_some()
            && ended(&cluster, 1, here, "theirs").is_some()
    );
    let pieces = carried(&cluster, "fetch-piece");
    assert_eq!(
        leaves(&mut cluster, Duration::from_secs(2)),
        HandedOver::ToAll
    );
    // Each by one of them, and what others hold by nobody.
    assert_eq!(carried(&cluster, "fetch-piece") - pieces, 40 * 10);
    cluster.act(1, |node, now, out| node.core.leave(now, out));
    cluster.deliver();
    cluster.crash(1);
    for id in [2, 3] {
        cluster.act(id, |node, now, out| {
            node.core.peer_left(now, NodeId::from_u64(1), out)
        });
    }
    for number in 0..40 {
        let key = format!("mine-{number}");
        let reader = begin_read(&mut cluster, 2, &key);
        settle(&mut cluster);
        assert_eq!(ended(&cluster, 2, reader, &key), Some(long('a')));
    }
    let by_both = |cluster: &Cluster| {
        cluster.nodes[&2]
            .core
            .stats()
            .fetched
            .min(cluster.nodes[&3].core.stats().fetched)
    };
    assert!(by_both(&cluster) > 10, "they share the work");
}

#[test]
fn k4_who_leaves_is_not_held_up_by_values_that_nobody_takes_or_needs() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.drops.insert((2, "fetch-keep"));
    cluster.drops.insert((3, "fetch-piece"));
    assert_eq!(
        leaves(&mut cluster, Duration::from_millis(500)),
        HandedOver::ToNobody
    );
    // It was superseded meanwhile.
    cluster.put(2, "key", "short");
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.nodes[&1].core.handed_over(), HandedOver::ToAll);
    // Who is alone has nobody to ask.
    let mut cluster = Cluster::ready(1, config());
    for number in 0..400 {
        cluster.put(1, &format!("mine-{number}"), &long('a'));
    }
    assert_eq!(
        leaves(&mut cluster, Duration::from_millis(20)),
        HandedOver::ToAll
    );
}

#[test]
fn k4_a_peer_that_does_not_answer_keeps_the_values_from_nobody_else() {
    let mut cluster = Cluster::ready(3, config());
    for number in 0..100 {
        cluster.put(1, &format!("mine-{number}"), &long('a'));
    }
    settle(&mut cluster);
    cluster.drops.insert((2, "fetch-keep"));
    assert_ne!(
        leaves(&mut cluster, Duration::from_secs(3)),
        HandedOver::ToNobody
    );
    assert_eq!(cluster.nodes[&3].core.stats().fetched, 100);
}

#[test]
fn k4_what_is_decided_while_a_node_leaves_is_handed_over_too() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "early", &long('a'));
    settle(&mut cluster);
    leaves(&mut cluster, Duration::from_secs(1));
    cluster.put(1, "late", &long('b'));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.nodes[&1].core.handed_over(), HandedOver::ToAll);
    assert!(value(&cluster, 2, "early").is_some() && value(&cluster, 2, "late").is_some());
}

#[test]
fn k4_when_the_one_that_fetches_is_lost_another_one_does() {
    let mut cluster = Cluster::ready(3, losing());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    for id in [2, 3] {
        cluster.drops.insert((id, "fetch-piece"));
    }
    assert_eq!(
        leaves(&mut cluster, Duration::from_millis(50)),
        HandedOver::ToNobody
    );
    cluster.drops.clear();
    let asked = [2, 3]
        .into_iter()
        .find(|id| cluster.nodes[id].core.stats().fetched == 0)
        .unwrap();
    cluster.cut(1, asked);
    cluster.run(Duration::from_secs(2));
    assert!(
        [2, 3]
            .into_iter()
            .any(|id| value(&cluster, id, "key").is_some())
    );
    assert_ne!(cluster.nodes[&1].core.handed_over(), HandedOver::ToNobody);
}
