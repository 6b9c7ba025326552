//! Read-modify-write and finds at the home node.

use std::collections::BTreeSet;

use nearcache_store::Tags;

use super::{SECOND, all, config};
use crate::config::ReplicationConfig;
use crate::mode::Outcome;
use crate::modify::{Condition, ModifyError, ModifyOp, NewExpiry};
use crate::testing::{Cluster, Text};

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

pub(super) fn set(condition: Condition, text: &str) -> ModifyOp<Text> {
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

#[test]
fn c7_a_modify_that_is_sent_twice_is_never_applied_twice_though_its_answer_made_room() {
    let mut cluster = Cluster::ready(
        3,
        ReplicationConfig {
            modify_replies_max: 4,
            ..config()
        },
    );
    cluster.drops.insert((1, "modified"));
    let waiters: Vec<u64> = (0..40)
        .map(|n| cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 }))
        .collect();
    cluster.deliver();
    cluster.drops.clear();
    for n in 0..40 {
        cluster.modify(3, &format!("other-{n}"), ModifyOp::Add { delta: 1 });
    }
    cluster.deliver();
    for home in [2, 3] {
        cluster.cut(1, home);
        // What is sent again may come before this node is known to agree.
        cluster.drops.insert((home, "announce"));
        cluster.connect(1, home);
        cluster.deliver();
        cluster.drops.clear();
    }
    cluster.run(SECOND * 3);
    let (mut told, mut unknown) = (0, 0);
    for (n, waiter) in waiters.into_iter().enumerate() {
        match &cluster.nodes[&1].results[&waiter] {
            Outcome::Modified(Ok(done)) if done.applied => told += 1,
            Outcome::Modified(Err(ModifyError::Indeterminate)) => unknown += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(cluster.read_all(&format!("key-{n}")), all("1", 3), "{n}");
    }
    assert!(told > 0 && unknown > 0, "{told} told, {unknown} unknown");
}

#[test]
fn a_refused_modify_is_driven_under_a_new_name_and_made_whatever_was_answered_since() {
    let mut cluster = Cluster::ready(
        2,
        ReplicationConfig {
            modify_replies_max: 1,
            ..config()
        },
    );
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

#[test]
fn the_answer_to_a_long_value_is_given_again_though_the_value_is_not_kept_with_it() {
    let config = ReplicationConfig {
        modify_replies_bytes_max: 64 << 10,
        ..config()
    };
    let mut cluster = Cluster::ready(2, config);
    cluster.drops.insert((1, "modified"));
    let long = "x".repeat(20_000);
    let waiters: Vec<u64> = (0..40)
        .map(|n| {
            let op = ModifyOp::Set {
                condition: Condition::IfAbsent,
                value: Text::new(&long),
                expiry: NewExpiry::Keep,
                tags: Tags::NONE,
                return_previous: false,
            };
            cluster.modify(1, &format!("key-{n}"), op)
        })
        .collect();
    cluster.deliver();
    cluster.drops.clear();
    cluster.cut(1, 2);
    cluster.connect(1, 2);
    cluster.run(SECOND);
    for waiter in waiters {
        let result = &cluster.nodes[&1].results[&waiter];
        assert!(
            matches!(result, Outcome::Modified(Ok(done)) if done.applied && done.version.is_some()),
            "{result:?}"
        );
    }
}

#[test]
fn a_peer_that_does_not_answer_costs_few_changes_of_absent_keys_their_time() {
    let mut cluster = Cluster::ready(3, config());
    // Node 3 hears and says everything but this.
    cluster.drops.insert((3, "find"));
    let began = cluster.now;
    for n in 0..20 {
        let waiter = cluster.modify(1, &format!("key-{n}"), set(Condition::IfAbsent, "mine"));
        while !cluster.nodes[&1].results.contains_key(&waiter) {
            cluster.run(SECOND / 100);
        }
    }
    let took = cluster.now - began;
    assert!(took < SECOND, "{took:?}");
    // It answers again, and is asked again: what only it holds is found.
    cluster.drops.clear();
    cluster.run(SECOND * 6);
    for id in [1, 2] {
        cluster.drops.insert((id, "updates"));
    }
    for n in 0..20 {
        cluster.put(3, &format!("there-{n}"), "there");
    }
    cluster.deliver();
    for n in 0..20 {
        let waiter = cluster.modify(1, &format!("there-{n}"), set(Condition::IfAbsent, "mine"));
        cluster.deliver();
        let Outcome::Modified(Ok(done)) = &cluster.nodes[&1].results[&waiter] else {
            panic!("no result")
        };
        assert!(!done.applied);
    }
}
