//! Two and three nodes in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Scope, Tags};

use crate::config::ReplicationConfig;
use crate::mode::{Ack, AckTimeout, Event, Outcome, Status};
use crate::modify::{Condition, ModifyError, ModifyOp, NewExpiry};
use crate::testing::{Cluster, Text};

fn config() -> ReplicationConfig {
    ReplicationConfig::default()
}

fn all(text: &str, n: usize) -> Vec<Option<String>> {
    vec![Some(text.to_owned()); n]
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn r1_a_write_reaches_every_node_and_the_newest_wins() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "one");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("one", 3));
    cluster.put(2, "k", "two");
    cluster.put(3, "k", "three");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("three", 3));
}

#[test]
fn a_node_alone_is_ready_after_its_patience() {
    let mut cluster = Cluster::new(config());
    cluster.start(1);
    cluster.run(SECOND);
    assert!(!cluster.nodes[&1].core.is_ready());
    cluster.run(SECOND * 2);
    assert_eq!(cluster.nodes[&1].became_ready, 1);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
}

#[test]
fn r3_a_removal_stays_and_travels_as_a_tombstone() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "one");
    cluster.deliver();
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    cluster.remove(2, "k");
    cluster.run(SECOND);
    assert_eq!(
        cluster.read_all("k"),
        vec![None, None, Some("one".to_owned())]
    );
    cluster.connect_all(3);
    cluster.run(SECOND);
    assert_eq!(cluster.read_all("k"), vec![None; 3]);
}

#[test]
fn c4_a_group_invalidation_is_an_update_like_any_other() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "user:1", "a");
    cluster.put(1, "item:1", "b");
    cluster.deliver();
    cluster.invalidate(2, Scope::Prefix(b"user:".as_slice().into()));
    cluster.deliver();
    assert_eq!(cluster.read_all("user:1"), vec![None; 2]);
    assert_eq!(cluster.read_all("item:1"), all("b", 2));
    let heard = |event: &Event| matches!(event, Event::Invalidated { .. });
    assert!(cluster.nodes[&1].events.iter().any(heard));
}

#[test]
fn r9_a_joining_node_gets_all_entries_removals_and_floors_before_it_is_ready() {
    let mut cluster = Cluster::ready(
        2,
        ReplicationConfig {
            replay_updates_max: 8,
            ..config()
        },
    );
    for n in 0..5_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.deliver();
    cluster.remove(2, "k7");
    cluster.invalidate(1, Scope::Prefix(b"k9".as_slice().into()));
    cluster.run(SECOND);
    cluster.start(3);
    cluster.connect_all(3);
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&3].became_ready, 1);
    assert_eq!(
        cluster.nodes[&3].core.store().tombstones(),
        cluster.nodes[&1].core.store().tombstones()
    );
    assert_eq!(cluster.read_all("k7"), vec![None; 3]);
    assert_eq!(cluster.read_all("k9"), vec![None; 3]);
    assert_eq!(cluster.read_all("k1234"), all("value", 3));
    assert_eq!(
        cluster.nodes[&3].core.stats().transfers,
        1,
        "one transfer is enough"
    );
    cluster.run(SECOND * 5);
    assert_eq!(cluster.nodes[&3].core.stats().transfers, 1);
    assert_eq!(cluster.nodes[&3].core.status(cluster.now), Status::Synced);
}

#[test]
fn a_transfer_survives_the_death_of_the_peer_that_serves_it() {
    let mut cluster = Cluster::ready(
        3,
        ReplicationConfig {
            replay_updates_max: 8,
            transfer_credit_bytes: 8 << 10,
            transfer_chunk_bytes: 4 << 10,
            ..config()
        },
    );
    for n in 0..2_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND);
    cluster.start(4);
    // Credit never arrives: the transfer stands still half way.
    cluster
        .drops
        .extend([1, 2, 3].map(|id| (id, "transfer-credit")));
    cluster.connect_all(4);
    cluster.deliver();
    let held = cluster.nodes[&4].core.store().len();
    assert!((1..2_000).contains(&held), "{held} of 2,000");
    cluster.crash(1);
    cluster.drops.clear();
    cluster.run(SECOND * 8);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(cluster.nodes[&4].core.store().len(), 2_000);
}

#[test]
fn i2_a_lost_batch_is_seen_at_the_next_one_and_replayed() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((2, "updates"));
    cluster.put(1, "a", "lost");
    cluster.deliver();
    cluster.drops.clear();
    assert_eq!(cluster.read(2, "a"), None);
    cluster.put(1, "b", "seen");
    cluster.deliver();
    assert_eq!(cluster.read_all("a"), all("lost", 2));
    assert_eq!(cluster.read_all("b"), all("seen", 2));
    assert_eq!(cluster.nodes[&2].core.stats().gaps, 1);
}

#[test]
fn i2_the_loss_of_an_idle_origins_last_update_is_seen_by_its_heartbeat() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((2, "updates"));
    cluster.put(1, "a", "lost");
    cluster.deliver();
    cluster.drops.clear();
    cluster.run(SECOND * 2);
    assert_eq!(cluster.read_all("a"), all("lost", 2));
    assert_eq!(
        cluster.nodes[&2].core.stats().transfers,
        1,
        "only the one it joined with"
    );
}

#[test]
fn a_peer_that_the_ring_has_left_behind_is_resynced_by_a_transfer() {
    let mut cluster = Cluster::ready(
        2,
        ReplicationConfig {
            replay_updates_max: 16,
            ..config()
        },
    );
    cluster.cut(1, 2);
    for n in 0..100 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.connect(1, 2);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.nodes[&2].core.store().len(), 100);
    assert_eq!(cluster.nodes[&2].core.status(cluster.now), Status::Synced);
}

#[test]
fn the_last_updates_of_a_dead_origin_spread() {
    let mut cluster = Cluster::ready(3, config());
    cluster.cut(1, 3);
    cluster.put(1, "k", "last words");
    cluster.deliver();
    assert_eq!(
        cluster.read_all("k"),
        vec![Some("last words".into()), Some("last words".into()), None]
    );
    cluster.crash(1);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("k"), all("last words", 2));
}

#[test]
fn what_an_origin_wrote_before_its_restart_spreads_too() {
    let mut cluster = Cluster::ready(3, config());
    cluster.cut(1, 3);
    cluster.put(1, "k", "former life");
    cluster.deliver();
    cluster.crash(1);
    cluster.start(1);
    cluster.connect_all(1);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("k"), all("former life", 3));
    assert!(cluster.nodes[&1].core.is_ready());
    cluster.put(1, "k", "new life");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("new life", 3));
}

#[test]
fn a_cluster_that_starts_together_becomes_ready() {
    let mut cluster = Cluster::new(config());
    for id in 1..=4 {
        cluster.start(id);
        cluster.connect_all(id);
    }
    cluster.put(2, "early", "bird");
    cluster.run(SECOND * 4);
    assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
    assert_eq!(cluster.read_all("early"), all("bird", 4));
}

#[test]
fn an_acknowledgement_of_all_waits_for_every_member_and_not_for_the_dead() {
    let mut cluster = Cluster::ready(3, config());
    let acked = cluster.put_acked(1, "k", "v", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));

    cluster.cut(1, 3);
    let waits = cluster.put_acked(1, "k", "w", Ack::All);
    cluster.deliver();
    assert!(
        !cluster.nodes[&1].results.contains_key(&waits),
        "node 3 may still serve the older value"
    );
    cluster.act(1, |node, now, out| {
        node.core.peer_dead(now, NodeId::from_u64(3), out)
    });
    assert!(matches!(
        cluster.nodes[&1].results[&waits],
        Outcome::Acked(Ok(()))
    ));

    let too_many = cluster.put_acked(1, "k", "x", Ack::Peers(2));
    cluster.run(SECOND * 3);
    let expected = AckTimeout {
        acked: 1,
        wanted: 2,
    };
    assert!(
        matches!(cluster.nodes[&1].results[&too_many], Outcome::Acked(Err(error)) if error == expected)
    );
}

#[test]
fn nodes_that_disagree_on_a_cache_do_not_sync_it_and_say_so() {
    let mut cluster = Cluster::ready(1, config());
    let mut other = config();
    other.agreement.codec = 9;
    cluster.start_with(2, other);
    cluster.connect(1, 2);
    cluster.put(1, "k", "v");
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read(2, "k"), None);
    for id in [1, 2] {
        let told = cluster.nodes[&id]
            .events
            .iter()
            .filter(|event| matches!(event, Event::Disagreement(_)));
        assert_eq!(told.count(), 1);
        assert!(cluster.nodes[&id].core.is_ready());
    }
}

#[test]
fn freshness_counts_from_the_askers_clock_and_grows_when_a_peer_is_silent() {
    let mut cluster = Cluster::ready(2, config());
    let age = cluster.nodes[&1].core.freshness(cluster.now).worst;
    assert!(
        age.is_some_and(|age| age <= Duration::from_millis(500)),
        "{age:?}"
    );
    cluster.drops.insert((1, "echo"));
    cluster.run(SECOND * 3);
    let age = cluster.nodes[&1].core.freshness(cluster.now).worst;
    assert!(age.is_some_and(|age| age >= SECOND * 3), "{age:?}");
    assert_eq!(
        cluster.nodes[&1].core.status(cluster.now),
        Status::CatchingUp
    );
    cluster.cut(1, 2);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Isolated);
}

#[test]
fn a_read_that_misses_while_joining_asks_a_peer() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    cluster.start(3);
    cluster.drops.insert((3, "transfer-start"));
    cluster.connect_all(3);
    cluster.deliver();
    assert_eq!(cluster.read(3, "k"), None);
    let (known, unknown) = (cluster.waiter(SECOND), cluster.waiter(SECOND));
    cluster.act(3, |node, now, out| {
        node.core.find(now, Bytes::from_static(b"k"), known, out);
        node.core
            .find(now, Bytes::from_static(b"unknown"), unknown, out);
    });
    cluster.deliver();
    assert!(!cluster.nodes[&3].core.is_ready());
    assert!(matches!(
        cluster.nodes[&3].results[&known.id.0],
        Outcome::Found(true)
    ));
    assert!(matches!(
        cluster.nodes[&3].results[&unknown.id.0],
        Outcome::Found(false)
    ));
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
}

#[test]
fn counters_are_serialised_at_their_home_whoever_asks() {
    let mut cluster = Cluster::ready(3, config());
    for key in ["a", "b", "c", "d"] {
        let mut waiters = Vec::new();
        for round in 0..10 {
            for id in 1..=3 {
                waiters.push((id, cluster.modify(id, key, ModifyOp::Add { delta: 1 })));
            }
            if round % 3 == 0 {
                cluster.deliver();
            }
        }
        cluster.deliver();
        for (id, waiter) in waiters {
            let applied = matches!(&cluster.nodes[&id].results[&waiter], Outcome::Modified(Ok(done)) if done.applied);
            assert!(applied);
        }
        assert_eq!(cluster.read_all(key), all("30", 3));
    }
}

#[test]
fn a_sum_is_answered_to_one_asker_only_also_when_later_changes_overtake_the_answer() {
    let mut cluster = Cluster::ready(3, config());
    cluster.delays.extend([1, 2, 3].map(|id| (id, "modified")));
    for key in ["a", "b", "c", "d"] {
        let mut waiters = Vec::new();
        for _ in 0..5 {
            for id in 1..=3 {
                waiters.push((id, cluster.modify(id, key, ModifyOp::Add { delta: 1 })));
            }
        }
        cluster.deliver();
        let sums: BTreeSet<String> = waiters
            .iter()
            .map(|(id, waiter)| {
                let Outcome::Modified(Ok(done)) = &cluster.nodes[id].results[waiter] else {
                    panic!("no result")
                };
                let current = done.current.as_ref().unwrap();
                String::from_utf8(current.value().1.clone()).unwrap()
            })
            .collect();
        assert_eq!(sums, (1..=15).map(|sum: u32| sum.to_string()).collect());
        assert_eq!(cluster.read_all(key), all("15", 3));
    }
}

#[test]
fn c3_the_asker_reads_its_own_modify_at_once() {
    let mut cluster = Cluster::ready(3, config());
    for n in 0..20 {
        let key = format!("key-{n}");
        let waiter = cluster.modify(1, &key, set(Condition::IfAbsent, "mine"));
        cluster.drops.insert((1, "updates"));
        cluster.deliver();
        assert!(
            matches!(&cluster.nodes[&1].results[&waiter], Outcome::Modified(Ok(done)) if done.applied)
        );
        assert_eq!(cluster.read(1, &key), Some("mine".to_owned()));
        cluster.drops.clear();
    }
}

fn set(condition: Condition, text: &str) -> ModifyOp<Text> {
    ModifyOp::Set {
        condition,
        value: Text::new(text),
        expiry: NewExpiry::Keep,
        tags: Tags::NONE,
        return_previous: true,
    }
}

#[test]
fn a_home_that_does_not_hold_the_key_asks_before_it_takes_it_for_absent() {
    let mut cluster = Cluster::ready(3, config());
    // Written on node 1 and not seen by the others yet.
    for id in [2, 3] {
        cluster.drops.insert((id, "updates"));
    }
    for n in 0..20 {
        cluster.put(1, &format!("key-{n}"), "there");
    }
    cluster.deliver();
    for n in 0..20 {
        let waiter = cluster.modify(2, &format!("key-{n}"), set(Condition::IfAbsent, "mine"));
        cluster.deliver();
        let Outcome::Modified(Ok(done)) = &cluster.nodes[&2].results[&waiter] else {
            panic!("no result")
        };
        assert!(!done.applied);
        let previous = done.previous.as_ref().map(|entry| entry.value().1.clone());
        assert_eq!(
            previous,
            Some(b"there".to_vec()),
            "the reply carries what the key held"
        );
    }
}

#[test]
fn c7_a_modify_whose_home_dies_after_being_asked_is_indeterminate() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((1, "modified"));
    let waiters: Vec<u64> = (0..20)
        .map(|n| cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 }))
        .collect();
    cluster.deliver();
    let open: Vec<u64> = waiters
        .into_iter()
        .filter(|waiter| !cluster.nodes[&1].results.contains_key(waiter))
        .collect();
    assert!(
        !open.is_empty(),
        "some of twenty keys have their home on node 2"
    );
    cluster.crash(2);
    cluster.run(SECOND * 3);
    for waiter in open {
        let result = &cluster.nodes[&1].results[&waiter];
        assert!(
            matches!(result, Outcome::Modified(Err(ModifyError::Indeterminate))),
            "{result:?}"
        );
    }
}

#[test]
fn a_modify_that_is_sent_twice_is_applied_once() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((1, "modified"));
    let waiters: Vec<u64> = (0..20)
        .map(|n| cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 }))
        .collect();
    cluster.deliver();
    cluster.drops.clear();
    // The connection breaks and comes back: what has no answer is asked again.
    cluster.cut(1, 2);
    cluster.connect(1, 2);
    cluster.run(SECOND);
    for (n, waiter) in waiters.into_iter().enumerate() {
        assert!(
            matches!(&cluster.nodes[&1].results[&waiter], Outcome::Modified(Ok(done)) if done.applied)
        );
        assert_eq!(cluster.read_all(&format!("key-{n}")), all("1", 2));
    }
}

#[test]
fn r5_an_update_from_the_future_is_refused_and_comes_again_when_it_is_none() {
    let mut cluster = Cluster::ready(2, config());
    cluster.act(1, |node, now, _| {
        let ahead =
            nearcache_store::Timestamp::from_parts(node.core.clock().physical_ms(now) + 500, 9);
        node.core.clock().observe(now, ahead).unwrap();
    });
    cluster.run(Duration::from_millis(10));
    // Node 2's clock stands still for a moment: seen from there, node 1 is ahead by more than the bound.
    cluster.put(1, "k", "v");
    cluster.now = crate::time::Time::from_nanos(cluster.now.as_nanos() - 100_000_000);
    cluster.deliver();
    assert_eq!(cluster.read(2, "k"), None);
    assert!(
        cluster.nodes[&2]
            .events
            .iter()
            .any(|event| matches!(event, Event::DriftRefused { .. }))
    );
    cluster.run(SECOND * 3);
    assert_eq!(cluster.read(2, "k"), Some("v".to_owned()));
}

#[test]
fn a_node_that_leaves_is_not_waited_for() {
    let mut cluster = Cluster::ready(3, config());
    cluster.act(3, |node, now, out| node.core.leave(now, out));
    cluster.deliver();
    cluster.crash(3);
    let acked = cluster.put_acked(1, "k", "v", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
}

#[test]
fn r9_requests_that_overtake_the_announcement_are_answered_and_the_join_takes_no_time() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    // What the joining node asks for on the data and bulk lanes comes before its announcement.
    cluster.delays.extend([(1, "announce"), (2, "announce")]);
    cluster.start(3);
    cluster.connect_all(3);
    let before = cluster.now;
    cluster.deliver();
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
    cluster.put(1, "k", "w");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("w", 3));
    assert_eq!(cluster.now, before);
    let of_node_3 = cluster.nodes[&3].core.stats();
    assert_eq!(of_node_3.transfers, 1, "asked once, answered once");
}

#[test]
fn a_modify_that_overtakes_the_announcement_is_asked_again() {
    let mut cluster = Cluster::ready(2, config());
    cluster.cut(1, 2);
    cluster.drops.insert((2, "announce"));
    cluster.connect(1, 2);
    cluster.deliver();
    let waiters: Vec<u64> = (0..20)
        .map(|n| cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 }))
        .collect();
    cluster.deliver();
    cluster.drops.clear();
    cluster.run(SECOND);
    for waiter in waiters {
        let result = &cluster.nodes[&1].results[&waiter];
        assert!(
            matches!(result, Outcome::Modified(Ok(done)) if done.applied),
            "{result:?}"
        );
    }
}

/// Two nodes; the first takes any value, the second values of at most four bytes.
fn unequal_pair() -> Cluster {
    let mut cluster = Cluster::ready(1, config());
    let small = ReplicationConfig {
        value_bytes_max: 4,
        ..config()
    };
    cluster.start_with(2, small);
    cluster.connect(1, 2);
    cluster
}

#[test]
fn c2_a_value_that_is_too_long_for_a_peer_is_a_miss_there_and_its_older_copy_is_gone() {
    let mut cluster = unequal_pair();
    cluster.put(1, "transferred", "too long");
    cluster.run(SECOND);
    cluster.put(1, "k", "old");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("old", 2));
    let acked = cluster.put_acked(1, "k", "too long", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));
    let only_here = vec![Some("too long".to_owned()), None];
    assert_eq!(cluster.read_all("k"), only_here);
    assert_eq!(cluster.read_all("transferred"), only_here);
    assert_eq!(cluster.nodes[&2].core.stats().withheld, 2);
    assert_eq!(
        cluster.nodes[&2].core.store().tombstones(),
        0,
        "too long is not removed"
    );
    cluster.put(1, "k", "new");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("new", 2));
    assert_eq!(cluster.nodes[&2].core.status(cluster.now), Status::Synced);
}

#[test]
fn a_peer_that_sends_more_than_this_node_takes_is_not_believed() {
    let mut cluster = unequal_pair();
    cluster.run(SECOND);
    // It says nothing of its limit, or node 1 does not listen.
    cluster.act(2, |node, now, out| {
        let entry = crate::testing::entry("k", 1, "too long");
        let request = crate::ids::RequestId(1);
        let key = Bytes::from_static(b"k");
        let waiter = crate::mode::Waiter {
            id: crate::ids::WaiterId(900),
            deadline: now + SECOND,
        };
        node.core.find(now, key, waiter, out);
        let sent = out.iter().find_map(|output| match output {
            crate::mode::Output::Send {
                message: crate::message::CacheMessage::Find { request, .. },
                ..
            } => Some(*request),
            _ => None,
        });
        let found = crate::message::CacheMessage::Found {
            request: sent.unwrap_or(request),
            update: Some(crate::update::Update::Entry(entry)),
        };
        crate::machine::Machine::handle(&mut node.core, now, NodeId::from_u64(1), found, out);
    });
    assert_eq!(cluster.read(2, "k"), None);
    assert_eq!(cluster.nodes[&2].core.stats().withheld, 1);
}

#[test]
fn a_modify_whose_value_is_too_long_for_the_home_is_refused_and_changes_nothing() {
    let mut cluster = unequal_pair();
    cluster.run(SECOND);
    let mut refused = 0;
    for n in 0..20 {
        let key = format!("key-{n}");
        let waiter = cluster.modify(1, &key, set(Condition::Always, "too long"));
        cluster.deliver();
        match &cluster.nodes[&1].results[&waiter] {
            Outcome::Modified(Ok(done)) => assert!(done.applied),
            Outcome::Modified(Err(ModifyError::TooLargeForHome { limit_bytes: 4 })) => {
                refused += 1;
                assert_eq!(cluster.read_all(&key), vec![None; 2]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..20).contains(&refused), "{refused} of 20");
}

#[test]
fn the_answer_to_a_modify_fits_into_one_frame() {
    let value = |key, ms, text| {
        Some(crate::update::Update::Entry(crate::testing::entry(
            key, ms, text,
        )))
    };
    let mut answer = crate::message::ModifiedAt {
        applied: true,
        previous: value("k", 1, "abcd"),
        current: value("k", 2, "efgh"),
    };
    answer.fit(4, 8);
    assert_eq!(
        answer.current.as_ref().map(|update| update.value_len()),
        Some(4)
    );
    answer.fit(4, 7);
    assert_eq!(
        answer.previous.as_ref().map(|update| update.value_len()),
        Some(4)
    );
    let withheld = answer.current.unwrap();
    assert!(matches!(
        withheld,
        crate::update::Update::Withheld { value_bytes: 4, .. }
    ));
    // What came another way is not dropped for it.
    let store = crate::testing::store();
    assert_eq!(
        value("k", 2, "efgh").unwrap().apply(&store),
        crate::update::Applied::Newer
    );
    assert_eq!(withheld.apply(&store), crate::update::Applied::Superseded);
    assert!(store.peek(b"k").is_some());
}

#[test]
fn r5_a_node_whose_clock_is_far_from_its_peers_stops_writing_and_goes_on_reading() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    cluster.crash(3);
    cluster.start_ahead(3, Duration::from_millis(450));
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    let stamp = |cluster: &Cluster, id: u64| cluster.nodes[&id].core.clock().stamp(cluster.now);
    assert!(matches!(
        stamp(&cluster, 3),
        Err(crate::clock::ClockError::Skewed { skew_ms, limit_ms: 400 }) if skew_ms < -400
    ));
    assert!(stamp(&cluster, 1).is_ok() && stamp(&cluster, 2).is_ok());
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
    for n in 0..20 {
        let waiter = cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 });
        cluster.deliver();
        let result = &cluster.nodes[&1].results[&waiter];
        assert!(
            matches!(
                result,
                Outcome::Modified(Ok(_) | Err(ModifyError::ClockSkew))
            ),
            "{result:?}"
        );
    }
    cluster.put(1, "k", "w");
    cluster.deliver();
    assert_eq!(cluster.read(3, "k"), Some("w".to_owned()));
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    assert!(stamp(&cluster, 3).is_ok(), "alone it cannot know");
}

#[test]
fn r4_a_node_away_for_longer_than_removals_are_remembered_starts_clean() {
    let mut short = config();
    short.agreement.tombstone_ttl_ms = 5_000;
    short.replay_updates_max = 8;
    let mut cluster = Cluster::ready(3, short);
    cluster.put(1, "removed", "v");
    cluster.put(1, "kept", "v");
    cluster.deliver();
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    for (a, b) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        cluster.act(a, |node, now, out| {
            node.core.peer_dead(now, NodeId::from_u64(b), out)
        });
    }
    cluster.remove(1, "removed");
    cluster.put(3, "forgotten", "v");
    cluster.run(SECOND * 6);
    // Nobody remembers the removal, neither as a tombstone nor in the stream.
    for n in 0..20 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.put(3, "recent", "v");
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&1].core.store().tombstones(), 0);
    assert_eq!(cluster.read(3, "removed"), Some("v".to_owned()));
    cluster.connect_all(3);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("removed"), vec![None; 3]);
    assert_eq!(cluster.read_all("forgotten"), vec![None; 3]);
    assert_eq!(cluster.read_all("kept"), all("v", 3));
    assert_eq!(cluster.read_all("recent"), all("v", 3));
    assert_eq!(cluster.read_all("k7"), all("v", 3));
    let cleaned = |id: u64| {
        let events = cluster.nodes[&id].events.iter();
        events
            .filter(|event| matches!(event, Event::StartedClean { .. }))
            .count()
    };
    assert_eq!([cleaned(1), cleaned(2), cleaned(3)], [0, 0, 1]);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.nodes[&3].core.status(cluster.now), Status::Synced);
}
